"""Convolutions by the calls of kernels.onednn; what follows them is XLA's.

Groups are computed, too. CPU milliseconds of forward, input gradient and filter
gradient by xla.py, and here (medians of 9, two cores of an AMD EPYC with other programs
beside, float32, jax 0.10.2, 2026-11-30):

  depthwise 3 x 3, [16, 32, 32, 96]       1.06, 1.16, 29.0     0.82, 0.92, 0.35
  depthwise 3 x 3, [16, 8, 8, 576]        0.36, 0.37, 6.57     0.17, 0.16, 0.13
  depthwise 7 x 7, [32, 16, 16, 40]       0.76, 0.78, 9.55     0.44, 0.40, 2.17
  32 groups of 3 x 3, [8, 16, 16, 128]    4.24, 4.20, 2.38     0.52, 0.47, 0.33

Of bfloat16: milliseconds by oneDNN in float32, and here (the least of 6, two cores of
an AMD EPYC with AVX512_BF16 and other programs beside, 2026-12-01):

  3 x 3, [128, 14, 14, 32] to 64 channels  4.36, 3.84, 6.57    1.74, 1.79, 4.08
  3 x 3, [64, 32, 32, 64]                  32.2, 23.2, 23.5    13.9, 14.1, 14.7
  3 x 3, [64, 8, 8, 256]                   17.2, 23.2, 24.1    13.1, 11.7, 26.0
  1 x 1, [64, 16, 16, 64] to 128           1.28, 1.07, 3.81    0.55, 0.53, 3.05
  depthwise 3 x 3, [16, 32, 32, 96]        0.29, 0.28, 0.30    0.23, 0.23, 0.22
"""

import jax
import jax.numpy as jnp

from kernels import dispatch
from kernels.conv import epilogue
from kernels.conv.case import FORWARD, Case, Operands
from kernels.onednn import conv, library

Array = jax.Array


def refusal(case: Case) -> dispatch.Refusal | None:
  """Float32 and bfloat16, where oneDNN is built and in use."""
  if not library.usable():
    why = library.reason()
    if why is None:
      why = f'{jax.local_device_count()} CPU devices, or switched off by library.unused'
    return dispatch.Refusal(f'oneDNN is not used: {why}')
  if case.dtype not in ('float32', 'bfloat16'):
    return dispatch.Refusal(f'dtype={case.dtype}', 'float32 or bfloat16')
  if case.empty:
    return dispatch.Refusal(f'there is nothing in x, or in y {case.out_shape}')
  return None


def forward(case: Case, operands: Operands) -> Array:
  """y [N, H', W', O]."""
  x, w, *rest = operands
  geometry = (case.stride, case.padding, case.dilation)
  if case == case.bare(FORWARD):
    return conv.forward(x, w, *geometry)
  total = conv.forward(x, w, *geometry, dtype=jnp.float32)
  return epilogue.apply(case, total, *rest)


def input_gradient(case: Case, dy: Array, w: Array) -> Array:
  """dx [N, H, W, C]."""
  size = (case.height, case.width)
  return conv.input_gradient(
    dy, w, size, case.stride, case.padding, case.dilation, case.groups
  )


def filter_gradient(case: Case, x: Array, dy: Array) -> Array:
  """dw [*kernel, C / groups, O], float32."""
  return conv.filter_gradient(
    x, dy, case.kernel, case.stride, case.padding, case.dilation, case.groups
  )
