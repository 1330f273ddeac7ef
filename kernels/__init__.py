"""Pallas kernels: attention and convolution. Imports jax and numpy alone."""
