"""Products of matrices and of batches of them.

`product` is the one to call; `explain` says what computes it and why. `saveable` is for
policies of jax.checkpoint.
"""

from kernels.dispatch import UnsupportedKernel
from kernels.matmul.api import explain, product, saveable

__all__ = ['UnsupportedKernel', 'explain', 'product', 'saveable']
