"""What a view is asked for, and what it gives."""

from typing import Any, Callable, Mapping, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.inspect.maps.model import Model
from dlx.inspect.maps.naming import Layer
from dlx.inspect.maps.pictures import Pictures
from dlx.run.tables import Table


class View(NamedTuple):
  """What is shown.

  Attributes:
    title: of the page.
    lead: what was found, a sentence each.
    figures: by name: figures of matplotlib.
    tables: below them.
    arrays: by name, what maps.npz holds.
  """

  title: str
  lead: Sequence[str]
  figures: Mapping[str, Any]
  tables: Sequence[Table] = ()
  arrays: Mapping[str, np.ndarray] = {}


class Asked:
  """A model, pictures, and what of them is shown.

  Attributes:
    model: of images.
    state: its state.
    pictures: those that are looked at; None: the view needs none.
    layer: by its name; None: none was named.
    channels: numbers of channels; None: the first.
    target: name or number of the class that is explained; None: the likeliest.
    sanity: whether maps are compared with those of shuffled weights.
    key: of what is random.
  """

  def __init__(
    self,
    model: Model,
    state: Any,
    pictures: Pictures | None,
    *,
    layer: str | None = None,
    channels: Sequence[int] | None = None,
    target: str | None = None,
    sanity: bool = False,
    seed: int = 0,
  ):
    self.model, self.state, self._pictures = model, state, pictures
    self.layer_name, self.layer = layer, None if layer is None else model.layer(layer)
    self._channels, self._target = channels, target
    if self.layer is not None and pictures is not None:
      model.check_ran(self.layer, state, self.image_BHWC)
    self.sanity, self.key = sanity, jax.random.key(seed)

  @property
  def pictures(self) -> Pictures:
    assert self._pictures is not None
    return self._pictures

  @property
  def image_BHWC(self) -> Any:
    """In [0, 1], on the device."""
    return self.model.unit(self.pictures.rows)

  def channels(self, count: int, most: int) -> list[int]:
    """Numbers of channels that are shown. Raises ConfigError: one that is not there."""
    if self._channels is None:
      return list(range(min(count, most)))
    if wrong := [k for k in self._channels if not 0 <= k < count]:
      raise ConfigError(
        f'--channels={wrong[0]} is not allowed: must lie in [0, {count}), as the layer '
        f'has {count} channels.'
      )
    return list(self._channels)

  def probabilities(self) -> np.ndarray:
    """[B, K], of the pictures as they are. Raises as `Model.check_floats`."""
    self.model.check_floats(self.state, self.pictures.rows[:1])
    found = jax.jit(self.model.answers)(self.state, self.pictures.rows)
    return np.asarray(found, np.float32)

  def classes(self, probabilities_BK: np.ndarray) -> np.ndarray:
    """Class that is explained, int32 [B]. Raises ConfigError: there is none such."""
    names = self.model.classes
    if self._target is None:
      return probabilities_BK.argmax(-1).astype(np.int32)
    if self._target in names:
      number = names.index(self._target)
    elif self._target.isdecimal() and int(self._target) < len(names):
      number = int(self._target)
    else:
      raise ConfigError(
        f'--target={self._target} is not allowed: must be one of {", ".join(names)}, '
        f'or a number in [0, {len(names)}).'
      )
    return np.full(len(probabilities_BK), number, np.int32)

  def captions(self) -> list[str]:
    """What each picture is: its true class, or its name."""
    labels, names = self.pictures.labels, self.model.classes
    if labels is None or not names:
      return [short(name) for name in self.pictures.names]
    return [f'true: {names[k]}' for k in labels]


def short(name: str, most: int = 18) -> str:
  """The end of a long name of a file."""
  name = name.rpartition('/')[2]
  return name if len(name) <= most else f'...{name[-most + 3 :]}'


def said(class_B: Any, probabilities_BK: np.ndarray, names: Sequence[str]) -> list[str]:
  """'7  98 %' a picture."""
  shares = np.take_along_axis(probabilities_BK, np.asarray(class_B)[:, None], 1)[:, 0]
  return [f'{names[k]}  {100 * p:.0f} %' for k, p in zip(class_B, shares, strict=True)]


def numbers(values: Any) -> Any:
  """On the device, as `class_B` of dlx/inspect/maps."""
  return jnp.asarray(values, jnp.int32)


Viewer = Callable[[Asked], View]


def layer_or_last(asked: Asked, class_B: Any) -> Layer:
  """The layer that is named, else the last that gives a map."""
  if asked.layer is not None:
    return asked.layer
  row = asked.image_BHWC[:1]
  return asked.model.last_map(asked.state, row, numbers(class_B)[:1])
