"""Folders of small JPEGs, cut out of scikit-learn's photographs."""

import functools
import io
import pathlib
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images


@functools.cache
def photograph(number: int = 0, width: int = 160, height: int = 120) -> Image.Image:
  """A Pillow image RGB; others are other parts of the photographs."""
  both = load_sample_images().images
  rng = np.random.default_rng(number)
  wide, tall = rng.integers(240, 641), rng.integers(180, 428)
  left, top = rng.integers(0, 641 - wide), rng.integers(0, 428 - tall)
  cut = both[number % 2][top : top + tall, left : left + wide]
  return Image.fromarray(cut).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = 'JPEG', **options: Any) -> bytes:
  """The bytes of a file; a JPEG of quality 92 unless said otherwise."""
  out = io.BytesIO()
  image.save(out, form, **({'quality': 92} if form == 'JPEG' else {}), **options)
  return out.getvalue()


def write(path: pathlib.Path, number: int = 0, **size: int) -> pathlib.Path:
  """A JPEG file."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(encoded(photograph(number, **size)))
  return path


def folder(root: pathlib.Path, train: int = 6, val: int = 4) -> pathlib.Path:
  """train/n0000000K/I.JPEG and val, in two classes; returns the folder."""
  for split, count, first in (('train', train, 0), ('val', val, train)):
    for i in range(count):
      size = {'width': 100 + 10 * i, 'height': 80 + 5 * i}
      write(root / split / f'n0000000{i % 2}' / f'{i}.JPEG', first + i, **size)
  return root
