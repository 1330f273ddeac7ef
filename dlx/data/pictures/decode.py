"""Picture files become arrays of one size, by Pillow.

What a picture is taken for: upright as its EXIF tag says, its first frame, on white
where it is transparent; CMYK and palettes as RGB, 16 bits as their upper 8, grey as
three equal channels or, where one is asked for, all as one. Numbers with fractions are
refused, and so is a file that is truncated or no picture: whatever Pillow raises.
"""

import io
import math
from typing import Any, Callable

import numpy as np

from dlx.data.pictures.crops import Box

FORMATS = ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'PPM')
_SCALES = (8, 4, 2)  # A JPEG can be decoded at one of these parts of its size.
_ORIENTATION, _ON_ITS_SIDE = 0x0112, (5, 6, 7, 8)  # The EXIF tag, and what turns.

Choose = Callable[[int, int], Box]  # (width, height) of a picture -> its part.


def upright(image: Any, grey: bool) -> Any:
  """A Pillow image that is open as it is shown, in mode RGB or, where `grey`, L.

  Raises:
    Whatever Pillow raises of a damaged file; ValueError: its numbers are no levels.
  """
  from PIL import Image, ImageOps

  image.load()
  ImageOps.exif_transpose(image, in_place=True)
  if image.mode.startswith('I'):  # 16 bits.
    value = np.asarray(image)
    if value.min() < 0 or value.max() > 65535:
      raise ValueError(f'values {value.min()} to {value.max()} are not of 16 bits')
    image = Image.fromarray((value // 256).astype(np.uint8))
  if image.mode == 'F':
    raise ValueError('numbers with fractions are no grey levels')
  if image.has_transparency_data:
    image = image.convert('RGBA')
    white = Image.new('RGBA', image.size, 'white')
    image = Image.alpha_composite(white, image)
  mode = 'L' if grey else 'RGB'
  return image if image.mode == mode else image.convert(mode)  # It would be a copy.


def part(
  raw: bytes,
  choose: Choose,
  size: int,
  *,
  grey: bool = False,
  method: str = 'bilinear',
  scaled: bool = False,
) -> np.ndarray:
  """A part of a picture, resized: uint8 [size, size, 3], or [size, size, 1] of `grey`.

  Resizing is Pillow's: the filter is stretched by the reduction.

  Args:
    raw: a file.
    choose: of the size of the picture, upright, the part that is taken.
    size: height and width of the result.
    grey: one channel.
    method: one of crops.METHODS.
    scaled: a JPEG whose part is at least twice as large as the result is decoded at
      1/2, 1/4 or 1/8 of its size, which is faster. Pixels are then the means of squares
      before they are resized.

  Raises:
    As `upright`.
  """
  from PIL import Image

  with Image.open(io.BytesIO(raw), formats=FORMATS) as opened:
    width, height = opened.size
    if opened.getexif().get(_ORIENTATION) in _ON_ITS_SIDE:
      width, height = height, width
    box = choose(width, height)
    if scaled and opened.format == 'JPEG':
      fits = min(box.width, box.height) // size
      scale = next((n for n in _SCALES if n <= fits), 1)
      if scale > 1:
        opened.draft(None, (opened.width // scale, opened.height // scale))
    image = upright(opened, grey)
  x, y = image.width / width, image.height / height
  left, top = box.left * x, box.top * y
  right = min(left + box.width * x, image.width)
  bottom = min(top + box.height * y, image.height)
  how = Image.Resampling[method.upper()]
  if not box.around:
    x, y = int(left), int(top)
    image = image.crop((x, y, math.ceil(right), math.ceil(bottom)))
    left, top, right, bottom = left - x, top - y, right - x, bottom - y
  image = image.resize((size, size), how, box=(left, top, right, bottom))
  out = np.asarray(image).reshape(size, size, -1)
  return out[:, ::-1] if box.flipped else out


def check(raw: bytes, grey: bool) -> None:
  """Decodes a picture for its faults alone: a JPEG at 1/8 of its size.

  Raises:
    As `upright`.
  """
  from PIL import Image

  with Image.open(io.BytesIO(raw), formats=FORMATS) as opened:
    if opened.format == 'JPEG':
      opened.draft(None, (max(1, opened.width // 8), max(1, opened.height // 8)))
    upright(opened, grey)
