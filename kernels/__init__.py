"""Kernels: oneDNN on CPUs; Pallas to come. Imports jax and numpy alone."""
