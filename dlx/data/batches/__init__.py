"""Batches as pure functions of (seed, step): on the devices, or made on the host."""
