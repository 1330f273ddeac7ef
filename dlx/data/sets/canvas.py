"""Images on a larger canvas, in its middle or beside it: tests of what a shift does.

A shift of an image on its own cuts what leaves it; on a canvas with a margin nothing is
cut, so that accuracy lost is lost by the shift alone.
"""

import dataclasses
import math
from typing import Any, Sequence

import jax
import numpy as np

from dlx.data.dataset import Loaded, Source
from dlx.data.sets.images import ImageData
from dlx.errors import ConfigError

Moves = Sequence[tuple[int, int]]  # Pixels down and to the right.


def around(pixels: int) -> Moves:
  """Down, up, right and left by so many pixels; of 0 no move alone."""
  if not pixels:
    return [(0, 0)]
  return [(pixels, 0), (-pixels, 0), (0, pixels), (0, -pixels)]


def on_canvas(data: ImageData, margin: int) -> ImageData:
  """The set with every image in the middle of a larger one of pixels 0.

  Args:
    data: a set of labelled images.
    margin: pixels on every side, at least 0.

  Returns:
    With shape, mean and standard deviation of the larger images.
  """
  height, width, channels = data.shape
  larger = (height + 2 * margin, width + 2 * margin, channels)
  share = height * width / (larger[0] * larger[1])
  mean = tuple(share * m for m in data.mean)
  square = [share * (s**2 + m**2) for m, s in zip(data.mean, data.std, strict=True)]
  std = tuple(math.sqrt(q - m**2) for q, m in zip(square, mean, strict=True))
  return dataclasses.replace(
    data,
    train=moved(data.train, margin),
    test=moved(data.test, margin),
    shape=larger,
    mean=mean,
    std=std,
  )


def moved(source: Source, margin: int, moves: Moves = ((0, 0),)) -> Source:
  """A source of images on a canvas, once for each move; other fields are repeated.

  Args:
    source: with a field `image` [H, W, C].
    margin: pixels on every side of the canvas, at least 0.
    moves: of the image from the middle.

  Raises:
    ConfigError: a move that would cut the image, or a margin below 0.
  """
  for down, right in moves:
    if max(abs(down), abs(right)) > margin:
      raise ConfigError(
        f'A shift by {max(abs(down), abs(right))} pixels is not allowed: must be at '
        f'most margin={margin}.'
      )
  if margin < 0:
    raise ConfigError(f'margin={margin} is not allowed: must be at least 0.')
  image = source.shapes['image']
  height, width, channels = image.shape
  larger = (height + 2 * margin, width + 2 * margin, channels)

  def read(data_dir: Any) -> Loaded:
    found = source.read(data_dir)
    given = np.asarray(found.data['image'])
    count = len(given)
    out = np.zeros((len(moves) * count, *larger), given.dtype)
    for i, (down, right) in enumerate(moves):
      rows = slice(i * count, (i + 1) * count)
      top, left = margin + down, margin + right
      out[rows, top : top + height, left : left + width] = given
    data = {
      name: np.concatenate([np.asarray(x)] * len(moves))
      for name, x in found.data.items()
      if name != 'image'
    }
    origin = {**found.origin, 'size': len(out), 'moves': [list(m) for m in moves]}
    return Loaded({**data, 'image': out}, origin)

  shapes = {**source.shapes, 'image': jax.ShapeDtypeStruct(larger, image.dtype)}
  size = None if source.size is None else source.size * len(moves)
  held = None if source.held is None else moved(source.held, margin)
  return dataclasses.replace(source, shapes=shapes, size=size, read=read, held=held)
