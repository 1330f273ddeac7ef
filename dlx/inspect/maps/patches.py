"""What the units of a layer respond to most: patches of images (arXiv:1311.2524).

A patch is the receptive field of the unit, which is read from the traced function.
"""

from typing import Any, Iterator, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlx.inspect.maps.model import Model, places
from dlx.inspect.maps.naming import Layer
from dlx.inspect.receptive_field import receptive_field
from dlx.inspect.sizes import Reach

GREY = 0.5  # What lies outside of an image.


class Patches(NamedTuple):
  """The strongest places of some channels, one an image, the strongest first.

  Attributes:
    channels: numbers, N of them.
    image_NK: int, number of the image.
    place_NK2: int, row and column in the layer; 0, 0 where it has no places.
    value_NK: float32, what the unit gives.
    patch_NKHWC: float32 in [0, 1], the receptive field.
  """

  channels: Sequence[int]
  image_NK: np.ndarray
  place_NK2: np.ndarray
  value_NK: np.ndarray
  patch_NKHWC: np.ndarray


def reach(model: Model, layer: Layer, state: Any) -> tuple[Reach | None, Reach | None]:
  """What a unit sees along height and width; None: all of it."""
  leaves, structure = jax.tree.flatten(state)
  row = jax.ShapeDtypeStruct((1, *model.size, int(model.field.shape[-1])), jnp.float32)
  call = lambda image, *leaves: model.value(
    layer, jax.tree.unflatten(structure, leaves), image
  )
  ((down, across),) = receptive_field(call, row, *leaves, axes={0: (1, 2)})
  return down, across


def patches(
  model: Model,
  layer: Layer,
  state: Any,
  image_BHWC: np.ndarray,
  channels: Sequence[int],
  *,
  most: int = 8,
  rows: int = 128,
) -> Patches:
  """The patches by which some channels of a layer are largest, one an image.

  Args:
    model: of images.
    layer: [B, h, w, C] or [B, F].
    state: of the model.
    image_BHWC: in [0, 1], on the host.
    channels: numbers below C or F.
    most: patches a channel.
    rows: images that are computed at once.
  """
  strongest = jax.jit(lambda state, x: _strongest(model.value(layer, state, x)))
  parts = [strongest(state, jnp.asarray(x)) for x in _chunks(image_BHWC, rows)]
  value_BC, place_BC2 = (
    np.concatenate([np.asarray(part[i]) for part in parts])[: len(image_BHWC)]
    for i in range(2)
  )
  most = min(most, len(image_BHWC))
  chosen = list(channels)
  image_NK = np.argsort(-value_BC[:, chosen], axis=0, kind='stable')[:most].T
  column = np.array(chosen)[:, None]
  place = place_BC2[image_NK, column]
  see = reach(model, layer, state) if places(layer.shape, model.size) else (None, None)
  patch = np.stack(
    [
      np.stack([_cut(image_BHWC[i], at, see) for i, at in zip(images, ats)])
      for images, ats in zip(image_NK, place)
    ]
  )
  return Patches(chosen, image_NK, place, value_BC[image_NK, column], patch)


def _chunks(image_BHWC: np.ndarray, rows: int) -> Iterator[np.ndarray]:
  """Equally many rows each; the last row again, up to them."""
  rows = min(rows, len(image_BHWC))
  for start in range(0, len(image_BHWC), rows):
    part = image_BHWC[start : start + rows]
    yield np.concatenate([part, np.repeat(part[-1:], rows - len(part), 0)])


def _strongest(value: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The largest value of each channel [B, C] and its place [B, C, 2]."""
  value = value.astype(jnp.float32)
  width = value.shape[2] if value.ndim == 4 else 1
  flat_BPC = value.reshape(value.shape[0], -1, value.shape[-1])
  at_BC = flat_BPC.argmax(1)
  return flat_BPC.max(1), jnp.stack([at_BC // width, at_BC % width], -1)


def _cut(
  image_HWC: np.ndarray, place: np.ndarray, see: tuple[Reach | None, Reach | None]
) -> np.ndarray:
  for axis, (at, one) in enumerate(zip(place, see, strict=True)):
    if one is None:
      continue
    start = int(np.floor(one.low + at * one.stride))
    index = np.arange(start, start + one.size)
    inside = (index >= 0) & (index < image_HWC.shape[axis])
    taken = np.take(image_HWC, np.clip(index, 0, image_HWC.shape[axis] - 1), axis)
    shape = [1, 1, 1]
    shape[axis] = one.size
    image_HWC = np.where(inside.reshape(shape), taken, GREY)
  return image_HWC.astype(np.float32)
