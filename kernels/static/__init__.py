"""Kernels compiled for devices that are not here: what the compiler says of them."""
