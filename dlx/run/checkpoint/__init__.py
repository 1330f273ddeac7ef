"""Checkpoints: written whole, proved by checksums, restored in place."""
