"""`conv2d`: checks its arguments, chooses who computes, has derivatives."""

import functools
import pathlib
from typing import Any, Sequence

import jax
import jax.numpy as jnp

from kernels import dispatch
from kernels.conv import epilogue
from kernels.conv.case import (
  FILTER,
  FORWARD,
  INPUT,
  Case,
  Operands,
  Pair,
  describe,
  refuse,
)
from kernels.conv.epilogue import wide

Array = jax.Array
Implementation = str | Sequence[str]

FUNCTIONS = (FORWARD, INPUT, FILTER)


BACKENDS = {
  name: dispatch.lazy(name, platforms, f'kernels.conv.{module}', FUNCTIONS, simulated)
  for name, module, platforms, simulated in (
    ('reference', 'reference', dispatch.PLATFORMS, False),
    ('xla', 'xla', dispatch.PLATFORMS, False),
    ('onednn', 'cpu', ('cpu',), False),
    ('space_to_depth', 'space_to_depth', dispatch.PLATFORMS, False),
    ('mosaic_gpu', 'mosaic_gpu', ('cuda',), True),
    ('mosaic_tpu', 'mosaic_tpu', ('tpu',), True),
  )
}
LIBRARIES = {'cpu': ('onednn', 'xla'), 'cuda': ('xla',), 'tpu': ('xla',)}
OPERATION = dispatch.Operation(
  'convolution', BACKENDS, LIBRARIES, pathlib.Path(__file__).parent / 'tuned'
)


def conv2d(
  x: Array,
  w: Array,
  *,
  stride: int | Pair = 1,
  padding: str | Sequence[Pair] = 'SAME',
  dilation: int | Pair = 1,
  groups: int = 1,
  scale: Array | None = None,
  shift: Array | None = None,
  residual: Array | None = None,
  activation: str | None = None,
  implementation: Implementation = 'auto',
  interpret: Any = None,
) -> Array:
  """activation(conv(x, w) * scale + shift + residual): y [N, H', W', O] in x's dtype.

  The filter is not reversed. Computed in float32 or wider; the gradients of x and w are
  sums of slopes in the dtype of x. Reverse mode of any order.

  Args:
    x: the input [N, H, W, C].
    w: the filter [KH, KW, C / groups, O], of the dtype of x.
    stride: of the output over the input, of H and W; one number: both.
    padding: zeros around H and W: 'SAME' (H' = ceil(H / stride)), 'VALID' (none), or
      ((top, bottom), (left, right)), 0 or more.
    dilation: distance of the taps of the filter; one number: both.
    groups: output o reads the channels of group o // (O / groups); divides C and O.
    scale: [O], floating.
    shift: [O], floating.
    residual: of y's shape and dtype.
    activation: 'relu', 'relu6', 'gelu' (x Phi(x)), 'silu'.
    implementation: 'auto', one of BACKENDS, or several in the order of trial. It holds
      for the gradients too, which are chosen for themselves.
    interpret: True: simulated, False: compiled; None: simulated on a CPU only.

  Raises:
    ValueError: shapes, dtypes or values that do not fit, with the allowed.
    UnsupportedKernel: no implementation that was asked for computes this; of a gradient
      when it is taken.
  """
  case = describe(
    x, w, stride=stride, padding=padding, dilation=dilation, groups=groups,
    scale=scale, shift=shift, residual=residual, activation=activation,
  )  # fmt: skip
  if not isinstance(implementation, str):
    implementation = tuple(implementation)
  sums = jnp.promote_types(x.dtype, jnp.float32)
  scale, shift = (v if v is None else v.astype(sums) for v in (scale, shift))
  operands = Operands(x, w, scale, shift, residual)
  return _convolve(case, implementation, interpret, operands)


def conv1d(
  x_NWC: Array,
  w_WIO: Array,
  *,
  stride: int = 1,
  padding: str | Pair = 'SAME',
  dilation: int = 1,
  residual: Array | None = None,
  **options: Any,
) -> Array:
  """`conv2d` over one axis: y [N, W', O].

  Args:
    x_NWC: the input.
    w_WIO: the filter [KW, C / groups, O].
    stride, padding, dilation: as there, of W; padding also (before, after).
    residual: of y's shape and dtype.
    options: groups, scale, shift, activation, implementation, interpret as there.
  """
  for name, x in (('x', x_NWC), ('w', w_WIO), ('residual', residual)):
    if x is not None and len(x.shape) != 3:
      refuse(name, x.shape, '3 axes')
  pads: Any = padding if isinstance(padding, str) else ((0, 0), padding)
  y = conv2d(
    x_NWC[:, None], w_WIO[None], stride=(1, stride), padding=pads,
    dilation=(1, dilation), residual=None if residual is None else residual[:, None],
    **options,
  )  # fmt: skip
  return y[:, 0]


def conv2d_transpose(
  y: Array,
  w: Array,
  size: Pair,
  *,
  stride: int | Pair = 1,
  padding: str | Sequence[Pair] = 'SAME',
  dilation: int | Pair = 1,
  groups: int = 1,
  implementation: Implementation = 'auto',
  interpret: Any = None,
) -> Array:
  """The transpose of `conv2d` in its input: x [N, *size, C] of y's dtype.

  Args:
    y: [N, H', W', O], of the shape that conv2d gives for an input of this size.
    w: the filter of conv2d, [KH, KW, C / groups, O], of the dtype of y.
    size: height and width of x.
    stride, padding, dilation, groups, implementation, interpret: those of conv2d.

  Raises:
    ValueError, UnsupportedKernel: as there.
  """
  if len(y.shape) != 4 or len(w.shape) != 4:
    refuse('y, w', f'{y.shape}, {w.shape}', '4 axes each')
  x = jax.ShapeDtypeStruct((y.shape[0], *size, w.shape[2] * groups), y.dtype)
  case = describe(
    x, w, stride=stride, padding=padding, dilation=dilation, groups=groups
  )
  if y.shape != case.out_shape:
    refuse('y', y.shape, f'{case.out_shape} for size={tuple(size)}')
  if not isinstance(implementation, str):
    implementation = tuple(implementation)
  return _input_gradient(case.bare(INPUT), implementation, interpret, y, w)


def explain(
  x: Any, w: Any, *,
  implementation: Implementation = 'auto', platform: str | None = None,
  interpret: Any = None, **options: Any,
) -> str:  # fmt: skip
  """What `conv2d` of these arguments would use, and why nothing before it.

  Of the forward pass and of both gradients, in this order.

  Args:
    x, w: arrays or jax.ShapeDtypeStruct.
    implementation: as there.
    platform: 'cpu', 'cuda' or 'tpu'; None: that of the default device.
    interpret: as there; changes nothing here.
    options: as there.
  """
  del interpret
  case = describe(x, w, **options)
  platform = platform or dispatch.default_platform()
  lines = [f'{FORWARD} by {OPERATION.choose(case, implementation, platform).text}']
  for function in (INPUT, FILTER):
    try:
      found = OPERATION.choose(case.bare(function), implementation, platform).text
      lines.append(f'{function} by {found}')
    except dispatch.UnsupportedKernel as error:
      lines.append(f'{function} by none: {error}')
  return '\n'.join(lines)


def _run(case: Case, implementation, interpret, *operands: Any) -> Array:
  """`case.function` of whom each platform chooses; a filter's in float32 or wider."""
  dtype = jnp.dtype(case.dtype)
  if case.function == FILTER:
    dtype = jnp.promote_types(dtype, jnp.float32)
  found = OPERATION.run(case.function, case, implementation, interpret, *operands)
  return found.astype(dtype)


# Without what follows it, a convolution and its two gradients are each linear in both
# arguments and derivatives of each other, so that reverse mode of any order stays among
# them.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _convolve(case, implementation, interpret, operands: Operands) -> Any:
  return _run(case, implementation, interpret, operands)


def _forward(case, implementation, interpret, operands):
  y = _convolve(case, implementation, interpret, operands)
  # Only what the gradients read is kept.
  kept, value = operands, None
  if case.activation is None or case.activation in epilogue.FROM_VALUE:
    kept = operands._replace(shift_O=None, residual=None)
    value = y if case.activation else None
  return y, (kept, value)


def _backward(case, implementation, interpret, saved, dy):
  operands, value = saved
  x, w, scale, _, _ = operands
  total = wide(dy)
  if case.activation is not None:
    if value is None:  # It is computed again, up to before the activation.
      before = case._replace(activation=None)
      value = wide(_convolve(before, implementation, interpret, operands))
    total = total * epilogue.slope(case.activation, value)
  # One array of slopes for both gradients: the scale goes to the filter, and comes back
  # to its gradient. A scale's own is sum(dz conv(x, w)) = sum(w d/dw of it).
  dz, scaled = total.astype(x.dtype), w
  if scale is not None:
    scale = epilogue.by_feature(scale, wide(w))
    scaled = (wide(w) * scale).astype(w.dtype)
  dx: Any = _input_gradient(case.bare(INPUT), implementation, interpret, dz, scaled)
  dw: Any = _filter_gradient(case.bare(FILTER), implementation, interpret, x, dz)
  dscale = dshift = dresidual = None
  if scale is not None:
    dw, dscale = dw * scale, (wide(w) * dw).sum((0, 1, 2))
  if case.shift:
    dshift = total.sum((0, 1, 2))
  if case.residual:
    dresidual = total.astype(x.dtype)
  return (Operands(dx, dw.astype(w.dtype), dscale, dshift, dresidual),)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _input_gradient(case, implementation, interpret, dy, w) -> Any:
  """dx [N, H, W, C] of dy [N, H', W', O]."""
  return _run(case, implementation, interpret, dy, w)


def _input_backward(case, implementation, interpret, saved, slope):
  dy, w = saved
  of_dy = _convolve(case.bare(FORWARD), implementation, interpret, Operands(slope, w))
  of_w: Any = _filter_gradient(case.bare(FILTER), implementation, interpret, slope, dy)
  return of_dy, of_w.astype(w.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _filter_gradient(case, implementation, interpret, x, dy) -> Any:
  """dw [*kernel, C / groups, O], float32 or wider."""
  return _run(case, implementation, interpret, x, dy)


def _filter_backward(case, implementation, interpret, saved, slope):
  x, dy = saved
  slope = slope.astype(x.dtype)
  of_x = _input_gradient(case.bare(INPUT), implementation, interpret, dy, slope)
  of_dy = _convolve(case.bare(FORWARD), implementation, interpret, Operands(x, slope))
  return of_x, of_dy


_convolve.defvjp(_forward, _backward)
_input_gradient.defvjp(
  lambda *args: (_input_gradient(*args), args[3:]), _input_backward
)
_filter_gradient.defvjp(
  lambda *args: (_filter_gradient(*args), args[3:]), _filter_backward
)
