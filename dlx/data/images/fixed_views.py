"""Fixed views of an image, whose answers are averaged: test-time augmentation.

flip      the image and its mirror image
shifts    the image, and moved by n pixels in all 8 directions; n = 1
crops     the corners and the middle, a share of height and width, at the size of the
          image again; 0.875. `crops,flip` are the ten of AlexNet (Krizhevsky et al.
          2012, section 4.1), which had 224 of 256 pixels.
"""

import functools
import itertools
import math
from typing import Callable, Sequence

import jax.numpy as jnp

from dlx.data.images import geometry
from dlx.data.images.resize import crop_and_resize
from dlx.errors import ConfigError
from dlx.state import Array

View = Callable[[Array], Array]  # [..., H, W, C], of any dtype, to the same.


def flips() -> list[View]:
  """The image and its mirror image."""
  return [_as_it_is, geometry.flip_left_right]


def shifts(pixels: int = 1) -> list[View]:
  """The image and its 8 neighbours; the nearest pixel fills what is left free."""
  moves = itertools.product((0, -pixels, pixels), repeat=2)
  return [functools.partial(geometry.shift, down=d, right=r) for d, r in moves]


def crops(share: float = 0.875) -> list[View]:
  """The four corners and the middle, brought to the size of the image.

  Args:
    share: of height and width that a crop has, above 0, at most 1.
  """
  places = [(0, 0), (0, 1), (1, 0), (1, 1), (0.5, 0.5)]

  def crop(image: Array, down: float, right: float) -> Array:
    height, width = image.shape[-3:-1]
    rows, columns = (max(1, round(share * n)) for n in (height, width))
    top, left = round(down * (height - rows)), round(right * (width - columns))
    whole = jnp.issubdtype(image.dtype, jnp.integer)
    found = image.astype(jnp.float32) if whole else image
    found = crop_and_resize(found, top, left, rows, columns, height, width)
    return jnp.round(found).astype(image.dtype) if whole else found

  return [functools.partial(crop, down=d, right=r) for d, r in places]


def parse(text: str, flag: str = '') -> list[View]:
  """Views by their names: `flip`, `shifts:2`, `crops:0.9`, or several, by comma.

  Of several, each view of the first is seen in each way of the second, and so on.

  Args:
    text: names, each at most once, with a number where it has one.
    flag: that gave it; stands before it in messages.

  Raises:
    ConfigError: an unknown name, or a number that cannot be.
  """
  sets: list[Sequence[View]] = []
  seen = []
  for word in text.split(','):
    name, colon, number = word.strip().partition(':')
    made = None if name in seen else _made(name, number if colon else None)
    if made is None:
      raise ConfigError(
        f'{flag}{text} is not allowed: must be flip, shifts or shifts:PIXELS (1 or '
        'more), crops or crops:SHARE (above 0, at most 1), or several of them, by '
        'comma.'
      )
    seen.append(name)
    sets.append(made)
  return [_one_after_the_other(x) for x in itertools.product(*sets)]


def _made(name: str, number: str | None) -> list[View] | None:
  """None: there is no such set."""
  if name == 'flip' and number is None:
    return flips()
  if name == 'shifts' and (number is None or number.isdecimal()):
    pixels = 1 if number is None else int(number)
    return shifts(pixels) if pixels else None
  if name == 'crops':
    try:
      share = 0.875 if number is None else float(number)
    except ValueError:
      return None
    return crops(share) if math.isfinite(share) and 0 < share <= 1 else None
  return None


def _as_it_is(image: Array) -> Array:
  return image


def _one_after_the_other(views: Sequence[View]) -> View:
  return lambda image: functools.reduce(lambda x, view: view(x), views, image)
