"""Which part of a picture a row shows: one at random in training, else the middle.

Boxes are in pixels of the picture as it is shown, upright.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from dlx.config import check_choice
from dlx.errors import ConfigError

METHODS = ('bilinear', 'bicubic')
_TRIES = 10


class Box(NamedTuple):
  """A part of a picture, and what it becomes.

  Attributes:
    left, top, width, height: in pixels, fractions allowed.
    flipped: left to right.
    around: whether pixels around the part count where it is resized, as they do where
      the whole picture is.
  """

  left: float
  top: float
  width: float
  height: float
  flipped: bool = False
  around: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Crop:
  """A part of a picture at random, resized to one size (arXiv 1409.4842, section 6).

  Area and ratio are drawn, the latter in logarithms; what does not fit is drawn again,
  and after ten times it is the largest part in the middle whose ratio is allowed.
  """

  min_area: float = 0.08  # Least share of the area.
  max_area: float = 1.0  # Largest share of the area.
  min_ratio: float = 3 / 4  # Least width over height.
  max_ratio: float = 4 / 3  # Largest width over height.
  flip: bool = True  # Whether half of the parts are turned left to right.
  method: str = 'bilinear'  # By which pictures are resized: bilinear or bicubic.

  def __post_init__(self):
    check_choice('Crop: method', self.method, METHODS)
    for what, least, most, bound in (
      ('area', self.min_area, self.max_area, 1.0),
      ('ratio', self.min_ratio, self.max_ratio, math.inf),
    ):
      if not (0 < least <= most <= bound and math.isfinite(most)):
        allowed = 'both in (0, 1]' if bound == 1 else 'both above 0'
        raise ConfigError(
          f'Crop: min_{what}={least}, max_{what}={most} are not allowed: must be '
          f'{allowed}, the first not above the second.'
        )


def random_box(crop: Crop, seed: int, place: int, width: int, height: int) -> Box:
  """The part that a row of the training stream shows.

  A pure function of its arguments, whatever else is drawn: numbers are those of Philox
  with the key (seed, place), whose bits NumPy keeps between its versions.

  Args:
    crop: what is allowed.
    seed: of the stream, in [0, 2**64).
    place: of the row in the stream, in [0, 2**64).
    width, height: of the picture, in pixels.
  """
  key = np.array([seed, place], np.uint64)
  bits = np.random.Philox(key=key).random_raw(1 + 4 * _TRIES)
  flip, *draws = ((bits >> np.uint64(11)) * 2.0**-53).tolist()
  flipped = crop.flip and flip < 0.5
  low, high = math.log(crop.min_ratio), math.log(crop.max_ratio)
  for k in range(_TRIES):
    of_area, of_ratio, across, down = draws[4 * k : 4 * k + 4]
    area = width * height * (crop.min_area + of_area * (crop.max_area - crop.min_area))
    ratio = math.exp(low + of_ratio * (high - low))
    w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    if 0 < w <= width and 0 < h <= height:
      left, top = int(across * (width - w + 1)), int(down * (height - h + 1))
      return Box(left, top, w, h, flipped)
  w = min(width, max(1, round(height * crop.max_ratio)))
  h = min(height, max(1, round(width / crop.min_ratio)))
  return Box((width - w) // 2, (height - h) // 2, w, h, flipped)


def middle_box(width: int, height: int, short_side: int, size: int) -> Box:
  """The part that becomes the middle of a picture whose shorter side is resized.

  What is resized to `size` is then what resizing the whole to `short_side` (the longer
  side in proportion, rounded down) and cutting out the middle give.

  Args:
    width, height: of the picture, in pixels.
    short_side: that it would have, at least `size`.
    size: of the middle, a square.
  """
  short = min(width, height)
  wide, tall = short_side * width // short, short_side * height // short
  # Python's rounding, half to even, as torchvision's CenterCrop has it.
  left, top = round((wide - size) / 2), round((tall - size) / 2)
  x, y = width / wide, height / tall
  return Box(left * x, top * y, size * x, size * y, around=True)
