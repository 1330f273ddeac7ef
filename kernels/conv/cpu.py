"""Convolutions by the calls of kernels.onednn; what follows them is XLA's."""

import jax

from kernels import dispatch
from kernels.conv import epilogue
from kernels.conv.case import Case, Operands
from kernels.onednn import conv, library

Array = jax.Array


def refusal(case: Case) -> dispatch.Refusal | None:
  """Float32 of one group, where oneDNN is built and in use."""
  if not library.usable():
    why = library.reason()
    if why is None:
      why = f'{jax.local_device_count()} CPU devices, or switched off by library.unused'
    return dispatch.Refusal(f'oneDNN is not used: {why}')
  if case.dtype != 'float32':
    return dispatch.Refusal(f'dtype={case.dtype}', 'float32')
  if case.groups != 1:
    return dispatch.Refusal(f'groups={case.groups}', 'groups=1')
  if case.empty:
    return dispatch.Refusal(f'there is nothing in x, or in y {case.out_shape}')
  return None


def forward(case: Case, operands: Operands) -> Array:
  """y [N, H', W', O]."""
  x, w, *rest = operands
  total = conv.forward(x, w, case.stride, case.padding, case.dilation)
  return epilogue.apply(case, total, *rest)


def input_gradient(case: Case, dy: Array, w: Array) -> Array:
  """dx [N, H, W, C]."""
  size = (case.height, case.width)
  return conv.input_gradient(dy, w, size, case.stride, case.padding, case.dilation)


def filter_gradient(case: Case, x: Array, dy: Array) -> Array:
  """dw [*kernel, C, O]."""
  return conv.filter_gradient(
    x, dy, case.kernel, case.stride, case.padding, case.dilation
  )
