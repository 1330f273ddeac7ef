"""Attention (arXiv:1706.03762) that does not hold all scores at once.

`flash_attention` is the one to call; `explain` says what computes it and why.
"""

from kernels.attention.api import explain, flash_attention
from kernels.dispatch import UnsupportedKernel

__all__ = ['UnsupportedKernel', 'explain', 'flash_attention']
