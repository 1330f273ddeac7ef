"""Occlusion: what the class loses where a part of the image is hidden."""

from typing import Any

import jax
import jax.numpy as jnp

from dlx.inspect.maps.model import Model

Array = jax.Array


def windows(size: int, side: int, stride: int) -> list[int]:
  """Where windows begin along one axis; the last one ends with the axis."""
  last = size - side
  return [*range(0, last, stride), last]


def occlusion(
  model: Model,
  state: Any,
  image_BHWC: Array,
  class_B: Array,
  *,
  side: int | None = None,
  stride: int | None = None,
) -> Array:
  """By pixel the mean loss of probability under the windows over it (arXiv:1311.2901).

  Args:
    model: of images.
    state: its state.
    image_BHWC: in [0, 1].
    class_B: numbers of classes.
    side: of the square that is hidden by the mean colour of the image; None: a quarter
      of the shorter side of the image, 2 at least.
    stride: from one square to the next; None: half the side.

  Returns:
    [B, H, W], float32; below 0 where hiding a place makes the class likelier.
  """
  height, width = model.size
  side = min(side or max(min(height, width) // 4, 2), height, width)
  stride = stride or max(side // 2, 1)
  grid = [
    (top, left)
    for top in windows(height, side, stride)
    for left in windows(width, side, stride)
  ]
  grey = image_BHWC.mean((1, 2), keepdims=True)
  chosen = lambda x: jnp.take_along_axis(
    model.probabilities(state, x).astype(jnp.float32), class_B[:, None], 1
  )[:, 0]
  whole_B = chosen(image_BHWC)
  row, column = jnp.arange(height)[:, None], jnp.arange(width)[None]

  def one(total, place):
    top, left = place
    inside = (row >= top) & (row < top + side) & (column >= left)
    inside &= column < left + side
    hidden = jnp.where(inside[None, :, :, None], grey, image_BHWC)
    lost_B = whole_B - chosen(hidden)
    loss, count = total
    mask = inside.astype(jnp.float32)
    return (loss + lost_B[:, None, None] * mask[None], count + mask), None

  empty = jnp.zeros((len(image_BHWC), height, width)), jnp.zeros((height, width))
  tops, lefts = (jnp.array(x, jnp.int32) for x in zip(*grid, strict=True))
  (loss, count), _ = jax.lax.scan(one, empty, (tops, lefts))
  return loss / count[None]
