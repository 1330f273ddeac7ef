"""What layers cost before there is a model: sizes, parameters, FLOPs, receptive fields.

Plain arithmetic, of two-dimensional images [height, width, channels]; no JAX.

Receptive fields as in Araujo, Norris and Sim (2019), Computing Receptive Fields of
Convolutional Neural Networks, doi:10.23915/distill.00021: unit i of a layer sees the
inputs from `stride * i + low` to `stride * i + high`, of which those below 0 and behind
the last are padding. A multiply-add is two floating-point operations; products with
padding are not counted, as launch.plan does not count them.
"""

import math
from typing import Mapping, NamedTuple, Sequence

from dlx.errors import ConfigError
from dlx.run.taps import meetings

Pair = tuple[int, int]
SAME, VALID = 'same', 'valid'


class Reach(NamedTuple):
  """What one unit sees along one axis of the input.

  Attributes:
    low: first input of unit 0; negative: so much of it is padding.
    high: last input of unit 0.
    stride: inputs from one unit to the next; 0: all units see the same.
  """

  low: int = 0
  high: int = 0
  stride: int = 1

  @property
  def size(self) -> int:
    """Inputs that one unit sees, padding among them."""
    return self.high - self.low + 1

  def seen(self, unit: int, length: int) -> tuple[int, int]:
    """(first, last) input of a unit among the `length` that there are."""
    at = self.stride * unit
    return max(at + self.low, 0), min(at + self.high, length - 1)

  def window(self, kernel: int, stride: int, low: int, dilation: int = 1) -> 'Reach':
    """Of a unit that sees `kernel` units of this layer.

    Args:
      kernel: taps.
      stride: units of this layer from one window to the next.
      low: padding before the first unit of this layer.
      dilation: units of this layer from one tap to the next.
    """
    first, last = -low, -low + (kernel - 1) * dilation
    return Reach(
      self.low + self.stride * first,
      self.high + self.stride * last,
      self.stride * stride,
    )


INPUT = Reach(), Reach()  # Of pixels: each sees itself.


class Layer(NamedTuple):
  """One layer of a stack.

  Attributes:
    kind: one of KINDS.
    kernel: height and width of a window.
    stride: of windows.
    padding: 'same' (ceil(size / stride) outputs), 'valid' (none), or of both sides.
    dilation: inputs from one tap to the next.
    features: channels of a convolution, units of a dense layer.
    groups: of channels that do not see each other.
    bias: whether there is one a feature.
  """

  kind: str
  kernel: Pair = (1, 1)
  stride: Pair = (1, 1)
  padding: str | Pair = VALID
  dilation: Pair = (1, 1)
  features: int = 1
  groups: int = 1
  bias: bool = True


class Cost(NamedTuple):
  """Of one layer and one example.

  Attributes:
    output: shape, [height, width, channels], or [units].
    weights: parameters but for biases.
    biases: one a feature, where there are any.
    flops: floating-point operations, without products with padding.
    flops_with_padding: with them, as 2 x outputs x taps has it.
    reach: of height and width; None: every unit sees the whole input.
  """

  output: tuple[int, ...]
  weights: int
  biases: int
  flops: int
  flops_with_padding: int
  reach: tuple[Reach, Reach] | None

  @property
  def parameters(self) -> int:
    """Weights and biases."""
    return self.weights + self.biases


KINDS = ('conv', 'pool', 'global_pool', 'dense')


def output_size(
  size: int, kernel: int, stride: int = 1, padding: Pair = (0, 0), dilation: int = 1
) -> int:
  """Places of a window along one axis: floor((size + padding - window) / stride) + 1.

  Raises:
    ConfigError: the window is larger than the padded input.
  """
  window = (kernel - 1) * dilation + 1
  padded = size + sum(padding)
  if window > padded:
    raise ConfigError(
      f'A window of {window} is not allowed on {size} inputs with {sum(padding)} of '
      'padding: must be no larger; use fewer or smaller windows, or more padding.'
    )
  return (padded - window) // stride + 1


def pads(
  size: int, kernel: int, stride: int, padding: str | int, dilation: int = 1
) -> Pair:
  """(before, behind) along one axis; 'same' puts the odd one behind, as XLA does.

  Args:
    size, kernel, stride, dilation: of that axis.
    padding: 'same', 'valid', or entries on either side.
  """
  if padding == VALID:
    return 0, 0
  if not isinstance(padding, str):
    return padding, padding
  window = (kernel - 1) * dilation + 1
  total = max((-(-size // stride) - 1) * stride + window - size, 0)
  return total // 2, total - total // 2


def cost(
  layer: Layer, shape: Sequence[int], reach: tuple[Reach, Reach] | None = INPUT
) -> Cost:
  """What a layer costs on an input.

  Args:
    layer: see `Layer`.
    shape: of the input, [height, width, channels], or [features] of a dense layer.
    reach: of the units of the input, height and width; None: they see everything.

  Raises:
    ConfigError: a kind that is not known, sizes that do not fit.
  """
  _check(layer, shape)
  if layer.kind == 'dense':
    weights = math.prod(shape) * layer.features
    biases = layer.features if layer.bias else 0
    flops = 2 * weights
    return Cost((layer.features,), weights, biases, flops, flops, None)
  if layer.kind == 'global_pool':
    return Cost((shape[2],), 0, 0, 0, 0, None)
  outputs, pairs, seen = [], 1, []
  for axis in range(2):
    kernel, stride, dilation = (
      x[axis] for x in (layer.kernel, layer.stride, layer.dilation)
    )
    given = layer.padding if isinstance(layer.padding, str) else layer.padding[axis]
    around = pads(shape[axis], kernel, stride, given, dilation)
    places = output_size(shape[axis], kernel, stride, around, dilation)
    outputs.append(places)
    pairs *= meetings(
      shape[axis], kernel, places, stride=stride, low=around[0], rhs_dilation=dilation
    )
    if reach is not None:
      seen.append(reach[axis].window(kernel, stride, around[0], dilation))
  found = None if reach is None else (seen[0], seen[1])
  if layer.kind == 'pool':
    return Cost((*outputs, shape[2]), 0, 0, 0, 0, found)
  deep = shape[2] // layer.groups * layer.features
  weights = math.prod(layer.kernel) * deep
  return Cost(
    (*outputs, layer.features),
    weights,
    layer.features if layer.bias else 0,
    2 * pairs * deep,
    2 * math.prod(outputs) * weights,
    found,
  )


def stack(layers: Sequence[Layer], shape: Sequence[int]) -> list[Cost]:
  """What each layer of a stack costs; a dense layer reads its input flat.

  Raises:
    ConfigError: see `cost`.
  """
  found, reach = [], INPUT
  for layer in layers:
    found.append(cost(layer, shape, reach))
    shape, reach = found[-1].output, found[-1].reach
  return found


def _check(layer: Layer, shape: Sequence[int]):
  if layer.kind not in KINDS:
    raise ConfigError(
      f'{layer.kind!r} is no kind of layer: must be one of {", ".join(KINDS)}.'
    )
  if layer.kind != 'dense' and len(shape) != 3:
    text = 'x'.join(map(str, shape))
    raise ConfigError(
      f'{layer.kind} on an input of {text} is not allowed: must be height x width x '
      'channels; nothing but dense may follow dense or global_pool.'
    )
  if layer.kind == 'conv':
    for name, size in (('channels', shape[2]), ('features', layer.features)):
      if size % layer.groups:
        raise ConfigError(
          f'groups={layer.groups} is not allowed: must divide the {size} {name}.'
        )
  if isinstance(layer.padding, str) and layer.padding not in (SAME, VALID):
    raise ConfigError(
      f'padding={layer.padding} is not allowed: must be same, valid or a number.'
    )


def parse_shape(text: str) -> tuple[int, ...]:
  """'32x32x3' -> (32, 32, 3).

  Raises:
    ConfigError: no sizes of at least 1 with an x between them.
  """
  parts = text.lower().split('x')
  if not all(part.isdecimal() and int(part) for part in parts):
    raise ConfigError(
      f'{text!r} is no shape: must be sizes with an x between them, e.g. 32x32x3.'
    )
  return tuple(map(int, parts))


def parse_layer(text: str) -> Layer:
  """'conv:kernel=3,features=64,stride=2,padding=same' -> Layer.

  A number alone is the kernel of a convolution or pool and the features of a dense
  layer, `conv:3,features=64`. Sizes are N or HxW. The stride of a pool is its kernel
  where none is given.

  Raises:
    ConfigError: no such kind or field, or a value that is not allowed.
  """
  kind, _, rest = text.partition(':')
  values: dict[str, str] = {}
  for part in filter(None, rest.split(',')):
    name, equals, value = part.partition('=')
    if not equals:
      name, value = ('features' if kind == 'dense' else 'kernel'), part
    if name in values:
      raise ConfigError(f'{text!r}: {name} is given twice: give it once.')
    values[name] = value
  return layer_of(kind, values)


def layer_of(kind: str, values: Mapping[str, str]) -> Layer:
  """A layer of texts by name of the field. Raises as `parse_layer`."""
  if kind not in _FIELDS:
    raise ConfigError(f'{kind!r} is no kind of layer: must be {", ".join(KINDS)}.')
  if unknown := sorted(values.keys() - set(_FIELDS[kind])):
    known = ', '.join(_FIELDS[kind]) or 'nothing'
    raise ConfigError(f'{kind}: {unknown[0]} is not known: it reads {known}.')
  if missing := [name for name in _NEEDED[kind] if name not in values]:
    raise ConfigError(f'{kind}: {missing[0]} is missing: say {missing[0]}=NUMBER.')
  given: dict = {name: _value(name, text) for name, text in values.items()}
  if kind == 'pool':
    given.setdefault('stride', given['kernel'])
  return Layer(kind, **given)


_FIELDS = {
  'conv': ('kernel', 'features', 'stride', 'padding', 'dilation', 'groups', 'bias'),
  'pool': ('kernel', 'stride', 'padding', 'dilation'),
  'global_pool': (),
  'dense': ('features', 'bias'),
}
_NEEDED = {
  'conv': ('kernel', 'features'),
  'pool': ('kernel',),
  'global_pool': (),
  'dense': ('features',),
}


def _value(name: str, text: str):
  if name == 'bias':
    if text.lower() not in ('true', 'false'):
      raise ConfigError(f'bias={text} is not allowed: must be true or false.')
    return text.lower() == 'true'
  if name == 'padding' and text.lower() in (SAME, VALID):
    return text.lower()
  parts = text.lower().split('x')
  least = 0 if name == 'padding' else 1
  pair = name in ('kernel', 'stride', 'padding', 'dilation')
  fits = all(part.isdecimal() and int(part) >= least for part in parts)
  if not fits or len(parts) > (2 if pair else 1):
    allowed = f'a whole number of at least {least}' + (', or HxW' if pair else '')
    allowed += ', same or valid' if name == 'padding' else ''
    raise ConfigError(f'{name}={text} is not allowed: must be {allowed}.')
  sizes = tuple(map(int, parts))
  return (sizes * 2)[:2] if pair else sizes[0]
