"""Convolution with scale, shift, residual and activation in one step.

`conv2d`, `conv1d` and `conv2d_transpose` are the ones to call; `explain` says what
computes the first and why.
"""

from kernels.conv.api import conv1d, conv2d, conv2d_transpose, explain
from kernels.dispatch import UnsupportedKernel

__all__ = ['UnsupportedKernel', 'conv1d', 'conv2d', 'conv2d_transpose', 'explain']
