"""Images blended with photographs: a second domain of any set of labelled images.

MNIST-M (Ganin et al., arXiv:1505.07818) is MNIST whose every digit lies on a random
piece p of a photograph: |p - digit|, channel by channel, so that the digit inverts the
colours below it. Here the photographs are the two that come with scikit-learn, in place
of those of BSDS500, so that any set of labelled images has its blended form without a
download; figures are near the published ones, not comparable to a decimal.
"""

import dataclasses
import functools

import jax
import numpy as np

from dlx.data.dataset import Loaded, Source

# A piece covers at least so many pixels of a photograph, averaged to the image's size:
# eight neighbouring pixels of a photograph are of nearly one colour.
LEAST = 28
SUFFIX = '_blended'  # Of the names of such sets.
_SEEDS = {'train': 0, 'test': 1, 'validation': 2}


def over_photographs(source: Source, max_value: int, photographs: Source) -> Source:
  """Every image of a source on a piece of a photograph, and the same labels.

  Row n of a split lies on the same piece in every run.

  Args:
    source: `image` uint8 [H, W, 1] or [H, W, 3].
    max_value: of its images.
    photographs: `image` uint8 of at least H x W pixels.

  Returns:
    A source of `image` uint8 [H, W, 3] in 0..255.
  """
  shapes = dict(source.shapes)
  height, width, _ = shapes['image'].shape
  shapes['image'] = jax.ShapeDtypeStruct((height, width, 3), np.uint8)
  read = functools.partial(_read, source, max_value, photographs)
  return dataclasses.replace(
    source, name=f'{source.name}{SUFFIX}', shapes=shapes, read=read
  )


def blend(
  image_NHWC: np.ndarray, photographs_MHWC: np.ndarray, seed: int
) -> np.ndarray:
  """|p - image| with a random piece p for each image: uint8 [N, H, W, 3].

  Args:
    image_NHWC: uint8, 0..255, of one channel or three.
    photographs_MHWC: uint8 [M, ., ., 3], at least as large.
    seed: of the pieces.
  """
  size, height, width, _ = image_NHWC.shape
  shrunk_MHWC = _shrunk(photographs_MHWC, -(-LEAST // max(height, width)))
  count, tall, wide, _ = shrunk_MHWC.shape
  rng = np.random.Generator(np.random.Philox(seed))
  which_N = rng.integers(count, size=size)
  top_N = rng.integers(tall - height + 1, size=size)
  left_N = rng.integers(wide - width + 1, size=size)
  out = np.empty((size, height, width, 3), np.uint8)
  for n, (which, top, left) in enumerate(zip(which_N, top_N, left_N, strict=True)):
    piece = shrunk_MHWC[which, top : top + height, left : left + width]
    np.abs(piece - image_NHWC[n].astype(np.int16), out=out[n], casting='unsafe')
  return out


def _shrunk(image_MHWC: np.ndarray, factor: int) -> np.ndarray:
  """Means of squares of `factor` pixels, int16."""
  m, height, width, channels = image_MHWC.shape
  height, width = height // factor, width // factor
  cut = image_MHWC[:, : height * factor, : width * factor].astype(np.float32)
  cut = cut.reshape(m, height, factor, width, factor, channels)
  return np.rint(cut.mean((2, 4))).astype(np.int16)


def _read(source: Source, max_value: int, photographs: Source, data_dir) -> Loaded:
  loaded, over = source.read(data_dir), photographs.read(None)
  image = np.asarray(loaded.data['image'])
  image = np.rint(image.astype(np.float32) * (255 / max_value)).astype(np.uint8)
  image = blend(image, over.data['image'], _SEEDS[source.split])
  origin = {**loaded.origin, 'blended_with': dict(over.origin)}
  return Loaded({**loaded.data, 'image': image}, origin)
