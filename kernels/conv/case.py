"""What is asked of a convolution: a hashable description, and the arrays.

N batch, H and W height and width, C channels in, O channels out.
"""

from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

Array = jax.Array
Pair = tuple[int, int]

ACTIVATIONS = ('relu', 'relu6', 'gelu', 'silu')
FORWARD, INPUT, FILTER = 'forward', 'input_gradient', 'filter_gradient'


class Case(NamedTuple):
  """Shapes and what is computed; hashable, a static argument.

  Attributes:
    batch, height, width, channels: N, H, W, C of the input.
    features: O.
    kernel: of the filter, [kernel[0], kernel[1], C / groups, O].
    dtype: name of the dtype of x and w.
    stride: of the output over the input.
    padding: (before, after) of zeros around H and W.
    dilation: of the filter.
    groups: of channels, a divisor of C and O; output o reads group o // (O / groups).
    scale, shift: whether y is multiplied, and added to, by numbers of each of O.
    residual: whether an array like the output is added after them.
    activation: one of ACTIVATIONS, after all that; None: none. gelu is x Phi(x).
    function: which of the three is asked for: FORWARD, INPUT (gradient of the input) or
      FILTER (gradient of the filter). The gradients are those of the convolution alone:
      scale, shift, residual and activation are not set in a case of INPUT or FILTER.
  """

  batch: int
  height: int
  width: int
  channels: int
  features: int
  kernel: Pair
  dtype: str = 'float32'
  stride: Pair = (1, 1)
  padding: tuple[Pair, Pair] = ((0, 0), (0, 0))
  dilation: Pair = (1, 1)
  groups: int = 1
  scale: bool = False
  shift: bool = False
  residual: bool = False
  activation: str | None = None
  function: str = FORWARD

  @property
  def out_shape(self) -> tuple[int, int, int, int]:
    """[N, H', W', O]."""
    sizes = (
      (n + sum(pads) - (k - 1) * dilation - 1) // stride + 1
      for n, k, stride, pads, dilation in zip(
        (self.height, self.width),
        self.kernel,
        self.stride,
        self.padding,
        self.dilation,
        strict=True,
      )
    )
    height, width = sizes
    return self.batch, max(height, 0), max(width, 0), self.features

  @property
  def empty(self) -> bool:
    """Whether x or y has no element; the filter always has some."""
    return 0 in (self.batch, self.height, self.width, *self.out_shape)

  def bare(self, function: str) -> 'Case':
    """The case of `function` of the convolution alone."""
    return self._replace(
      scale=False, shift=False, residual=False, activation=None, function=function
    )

  @property
  def depthwise(self) -> bool:
    """One filter a channel."""
    return self.groups == self.channels == self.features


class Operands(NamedTuple):
  """The arrays of the forward pass; what is None is not asked for.

  Attributes:
    x_NHWC: the input.
    w_HWIO: the filter.
    scale_O, shift_O: float32, float64 where x is.
    residual: [N, H', W', O], of x's dtype.
  """

  x_NHWC: Array
  w_HWIO: Array
  scale_O: Array | None = None
  shift_O: Array | None = None
  residual: Array | None = None


def describe(
  x: Any, w: Any, *,
  stride: Any = 1, padding: Any = 'SAME', dilation: Any = 1, groups: int = 1,
  scale: Any = None, shift: Any = None, residual: Any = None,
  activation: str | None = None,
) -> Case:  # fmt: skip
  """The case of these arguments of `conv2d`; only shapes and dtypes are read.

  Raises:
    ValueError: as there.
  """
  if len(x.shape) != 4:
    refuse('x', x.shape, '4 axes: batch, height, width, channels')
  if len(w.shape) != 4 or not all(w.shape):
    refuse('w', w.shape, '4 axes, none empty: two of the window, channels, features')
  floating = lambda v: jnp.issubdtype(v.dtype, jnp.floating)
  if not floating(x) or x.dtype != w.dtype or jnp.dtype(x.dtype).itemsize < 2:
    allowed = 'one floating dtype of 16 bits or more'
    refuse('dtype of x, w', f'{x.dtype}, {w.dtype}', allowed)
  stride, dilation = _pair('stride', stride), _pair('dilation', dilation)
  batch, height, width, channels = x.shape
  *window, inputs, features = w.shape
  whole = isinstance(groups, int) and groups >= 1
  if not whole or channels % groups or features % groups:
    allowed = f'a divisor of {channels} channels and {features} features'
    refuse('groups', groups, allowed)
  if inputs * groups != channels:
    wanted = (*window, channels // groups, features)
    refuse('w', w.shape, f'{wanted} for x {x.shape} and groups={groups}')
  case = Case(
    batch=batch,
    height=height,
    width=width,
    channels=channels,
    features=features,
    kernel=(window[0], window[1]),
    dtype=jnp.dtype(x.dtype).name,
    stride=stride,
    padding=_pads(padding, (height, width), window, stride, dilation),
    dilation=dilation,
    groups=groups,
    scale=scale is not None,
    shift=shift is not None,
    residual=residual is not None,
    activation=activation,
  )
  for name, v in (('scale', scale), ('shift', shift)):
    if v is not None and (v.shape != (features,) or not floating(v)):
      refuse(name, f'{v.dtype}{v.shape}', f'floating of shape {(features,)}')
  if residual is not None:
    like = (case.out_shape, x.dtype)
    if (residual.shape, residual.dtype) != like:
      found = f'{residual.dtype}{residual.shape}'
      refuse('residual', found, f'{x.dtype}{case.out_shape} as y is')
  if activation is not None and activation not in ACTIVATIONS:
    refuse('activation', repr(activation), f'None or one of {", ".join(ACTIVATIONS)}')
  return case


def _pair(name: str, value: Any) -> Pair:
  """One or two numbers of 1 or more, as two."""
  pair = (value, value) if isinstance(value, int) else value
  if not _whole(pair, 1):
    refuse(name, value, 'one or two whole numbers of 1 or more')
  return pair[0], pair[1]


def _whole(pair: Any, least: int) -> bool:
  """Whether it is two whole numbers of at least that."""
  return (
    isinstance(pair, (tuple, list))
    and len(pair) == 2
    and all(isinstance(n, int) and n >= least for n in pair)
  )


def _pads(padding: Any, size, window, stride, dilation) -> tuple[Pair, Pair]:
  """(before, after) of H and W."""
  pads: Any = padding
  if isinstance(padding, str) and padding in ('SAME', 'VALID'):
    covered = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    pads = lax.padtype_to_pads(size, covered, stride, padding)
    pads = [(int(low), int(high)) for low, high in pads]
  fits = isinstance(pads, (tuple, list)) and len(pads) == 2
  if not fits or not all(_whole(pair, 0) for pair in pads):
    allowed = "'SAME', 'VALID' or two pairs of whole numbers of 0 or more"
    refuse('padding', repr(padding), allowed)
  (top, bottom), (left, right) = pads
  return (top, bottom), (left, right)


def refuse(name: str, value: Any, allowed: str):
  """Raises ValueError of one line."""
  raise ValueError(f'{name}={value} is not allowed: must be {allowed}.')
