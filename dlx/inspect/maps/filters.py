"""The weights of a layer that are pictures themselves: filters and templates."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.inspect.maps import traced
from dlx.inspect.maps.model import Model, check_any
from dlx.inspect.maps.naming import Layer, parts


class Filters(NamedTuple):
  """Attributes:
  layer: its name.
  weights_NhwC: float32; N outputs, of windows with C inputs.
  """

  layer: str
  weights_NhwC: np.ndarray


def filters(model: Model, state: Any, layer: str | None = None) -> Filters:
  """The filters of a convolution, or what a dense layer weighs the pixels by.

  Args:
    model: of images.
    state: its state.
    layer: its name; None: the first product of images and weights. 'NAME [i]' of a loop
      over layers.

  Raises:
    ConfigError: no such layer, or one whose weights are no windows.
  """
  turn: tuple[int, ...] = ()
  if layer is None:
    record = next((r for r in model.records if r.is_product), None)
    if record is None:
      raise ConfigError('The model multiplies images by no weights: it has no filters.')
    turn = (0,) * len(record.turns)
    before = (x for x in model.layers.values() if x.number >= record.number)
    layer = next((x.name for x in before), record.primitive)
  else:
    asked = model.layer(layer)
    turn, inside = asked.turn, [r for r in model.records if _is_inside(r, asked)]
    record = next((r for r in inside if r.is_product), None)
    if record is None:
      raise ConfigError(
        f'--layer={layer} has no weights that are filters: name a convolution: '
        f'{", ".join(_of_windows(model)) or "there is none"}.'
      )
  which = max(record.weighted, key=lambda i: record.eqn.invars[i].aval.ndim)
  weights = jnp.asarray(_value(model, record, which, state))[turn]
  check_any(layer, weights)
  found = _as_windows(model, record, weights, layer)
  return Filters(layer, np.asarray(found, np.float32))


def _is_inside(record: traced.Record, layer: Layer) -> bool:
  """Whether an operation is of a layer; of one without scopes, whether it is it."""
  if not layer.path:
    return record.number == layer.number
  path = '/'.join(parts(record.path))
  return record.number <= layer.number and f'{path}/'.startswith(f'{layer.path}/')


def _value(model: Model, record: traced.Record, which: int, state: Any) -> Any:
  row = jnp.zeros((1, *model.size, int(model.field.shape[-1])))
  call = lambda state, row: model.operand(record, which, state, row)
  return jax.jit(call)(state, row)


def _of_windows(model: Model) -> list[str]:
  """Names of layers with weights of four axes."""
  numbers = [
    r.number
    for r in model.records
    if r.is_product and any(r.eqn.invars[i].aval.ndim == 4 for i in r.weighted)
  ]
  names = []
  for number in numbers:
    after = (x for x in model.layers.values() if x.number >= number)
    names += [x.name for x in after][:1]
  return list(dict.fromkeys(names))


def _as_windows(model: Model, record: traced.Record, weights: Any, layer: str) -> Any:
  """[N, h, w, C]."""
  if weights.ndim == 4:
    axes = (3, 0, 1, 2)  # As Flax has them: height, width, inputs, outputs.
    if record.primitive == 'conv_general_dilated':
      out, inputs, *window = record.eqn.params['dimension_numbers'].rhs_spec
      axes = (out, *window, inputs)
    return weights.transpose(axes)
  channels = int(model.field.shape[-1])
  if weights.ndim == 2:
    for height, width in [model.size, *((p, p) for p in range(1, min(model.size)))]:
      if height * width * channels == len(weights):
        return weights.T.reshape(-1, height, width, channels)
  raise ConfigError(
    f'--layer={layer}: its weights have the shape {list(weights.shape)} and are no '
    f'windows: name a convolution: {", ".join(_of_windows(model)) or "there is none"}.'
  )
