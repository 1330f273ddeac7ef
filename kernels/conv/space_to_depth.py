"""Stems by space to depth: kernels/conv/blocks.py, then XLA's convolution of stride 1.

Meant for GPUs, where few channels are padded, and not measured there; 'auto' takes it
where a measured row says so. On TPUs XLA's estimate is against it: kernels/conv/xla.py.
"""

import jax

from kernels import dispatch
from kernels.conv import blocks, xla
from kernels.conv.case import Case, Operands

Array = jax.Array


def refusal(case: Case) -> dispatch.Refusal | None:
  """What is no stem."""
  if blocks.suits(case):
    return None
  found = (
    f'channels={case.channels}, groups={case.groups}, kernel={case.kernel}, '
    f'stride={case.stride}, dilation={case.dilation}'
  )
  wanted = 'at most 4 channels, 1 group, stride 2 or 4, kernel >= stride, no dilation'
  return dispatch.Refusal(found, wanted)


def forward(case: Case, operands: Operands) -> Array:
  """y [N, H', W', O] in the dtype of x."""
  x, w, *rest = operands
  x, w = blocks.gather(case, x), blocks.fold(case, w)
  return xla.forward(blocks.inner(case), Operands(x, w, *rest))


def input_gradient(case: Case, dy: Array, w: Array) -> Array:
  """dx [N, H, W, C] in the dtype of dy."""
  dx = xla.input_gradient(blocks.inner(case), dy, blocks.fold(case, w))
  return blocks.scatter(case, dx)


def filter_gradient(case: Case, x: Array, dy: Array) -> Array:
  """dw [*kernel, C, O] in float32 or wider."""
  dw = xla.filter_gradient(blocks.inner(case), blocks.gather(case, x), dy)
  return blocks.unfold(case, dw)
