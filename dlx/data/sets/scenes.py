"""Scenes: labelled images of any sizes at random places of a photograph.

What segmentation and detection learn on without a download: one to `most` digits (or
clothes, or letters: any set of small grey images), each in a colour of its own, on a
dimmed piece of one of scikit-learn's two photographs, with the class of every pixel and
a box around every digit. Scene n of a split is a function of (seed, split, n) alone.
Splits have different digits where their sources have, and pieces of different parts of
the photographs.
"""

import dataclasses
import functools
from typing import Any, Mapping

import jax
import numpy as np

from dlx.config import Group
from dlx.data.dataset import Loaded, Source
from dlx.errors import ConfigError, DataError

VOID = 255  # Pixels at the border of a digit, which are neither it nor background.
INK, EDGE = 0.4, 0.2  # Opacity from which on a pixel is of the digit, and is void.
DIMMED = 0.6  # Of the levels of a photograph, so that there are brighter ones.
CONTRAST = 80  # Levels by which a colour is brighter than what lies below, at least.
# Of the columns of the photographs, from and to.
BANDS = {'train': (0.0, 0.6), 'validation': (0.6, 0.75), 'test': (0.75, 1.0)}
_TRIES = 20  # Places that are tried for a digit before it is left out.
_SHARED = 0.1  # Of a digit's square, at most, is in that of another.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene(Group):
  """Flags of the scenes, `--config.scene.NAME`."""

  side: int = 32  # Pixels a side of a scene.
  most: int = 3  # Digits of a scene, at most; at least one.
  smallest: int = 12  # Pixels a side of the smallest digits, margins included.
  largest: int = 18  # Pixels a side of the largest digits, margins included.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('side', least=8, most=96)
    self.bounds('most', least=1, most=100)
    self.bounds('smallest', least=4, most=self.largest)
    self.bounds('largest', most=self.side)


def on_photographs(
  labelled: Source,
  max_value: int,
  photographs: Source,
  *,
  size: int,
  scene: Scene,
  seed: int = 0,
  fields: tuple[str, ...] = ('image', 'mask', 'box', 'label', 'real'),
) -> Source:
  """Scenes of a source of labelled images.

  Args:
    labelled: `image` uint8 [H, W, 1] and `label`, at most 253; its split is that of
      the scenes.
    max_value: of its images.
    photographs: `image` uint8, of 3 channels.
    size: scenes.
    scene: what they are like.
    seed: of all of them.
    fields: those that are wanted, of
      image  uint8 [S, S, 3]
      mask   uint8 [S, S]: 0 background, 1 + label of a digit, VOID at its border
      box    float32 [M, 4]: top, left, bottom, right of the pixels of each digit, in
             pixels from the upper left corner, before others cover them; M is
             `scene.most`, and those that are not there are 0
      label  int32 [M]: of each digit; 0 where there is none
      real   bool [M]: whether there is one
      index  int32: n, the number of the scene

  Raises:
    ConfigError: images of more than one channel; a split without a band of columns.
    DataError: on load: a label that would be VOID, or none, in a mask.
  """
  if labelled.shapes['image'].shape[-1] != 1:
    raise ConfigError(
      f'dataset={labelled.name} is not allowed for scenes: must have images of one '
      f'channel; these have {labelled.shapes["image"].shape[-1]}.'
    )
  if labelled.split not in BANDS:
    raise ConfigError(
      f'split={labelled.split} is not allowed for scenes: must be one of '
      f'{", ".join(BANDS)}.'
    )
  shape, most = (scene.side, scene.side), scene.most
  known = {
    'image': jax.ShapeDtypeStruct((*shape, 3), np.uint8),
    'mask': jax.ShapeDtypeStruct(shape, np.uint8),
    'box': jax.ShapeDtypeStruct((most, 4), np.float32),
    'label': jax.ShapeDtypeStruct((most,), np.int32),
    'real': jax.ShapeDtypeStruct((most,), np.bool_),
    'index': jax.ShapeDtypeStruct((), np.int32),
  }
  shapes = {name: known[name] for name in fields}
  name = f'{labelled.name}_scenes'

  def read(data_dir: Any) -> Loaded:
    given = labelled.read(data_dir)
    over = photographs.read(data_dir)
    image_NHW = np.asarray(given.data['image'])[..., 0].astype(np.float32) / max_value
    label_N = np.asarray(given.data['label'])
    if label_N.min() < 0 or label_N.max() > VOID - 2:
      raise DataError(
        f'{labelled.name}/{labelled.split}: labels from {label_N.min()} to '
        f'{label_N.max()} are not allowed for scenes: must be in [0, {VOID - 2}].'
      )
    pieces = _band(np.asarray(over.data['image']), labelled.split)
    data = {k: np.zeros((size, *x.shape), x.dtype) for k, x in shapes.items()}
    for n in range(size):
      rng = np.random.default_rng([seed, list(BANDS).index(labelled.split), n])
      made = one_scene(rng, image_NHW, label_N, pieces, scene)
      for k, x in {**made, 'index': n}.items():
        if k in data:
          data[k][n] = x
    origin = {
      'name': name,
      'split': labelled.split,
      'kind': 'generated',
      'size': size,
      'seed': seed,
      'digits': dict(given.origin),
      'photographs': dict(over.origin),
    }
    return Loaded(data, origin)

  return Source(name, labelled.split, shapes, size, read)


def one_scene(
  rng: np.random.Generator,
  image_NHW: np.ndarray,
  label_N: np.ndarray,
  photographs_MHWC: np.ndarray,
  scene: Scene,
) -> Mapping[str, np.ndarray]:
  """What one scene holds, see `on_photographs`.

  A digit has its size, its place and its colour by chance; the colour is brighter than
  what lies below it, by CONTRAST in the mean. A place where more than a tenth of the
  smaller square would be common with another digit's is drawn again, and a digit that
  finds none is left out. Later digits cover earlier ones.

  Args:
    rng: draws all of it.
    image_NHW: float, 0..1.
    label_N: int.
    photographs_MHWC: uint8, at least as large as the scene.
    scene: what it is like.
  """
  side, most = scene.side, scene.most
  which, tall, wide = photographs_MHWC.shape[:3]
  top, left = rng.integers(tall - side + 1), rng.integers(wide - side + 1)
  piece = photographs_MHWC[rng.integers(which)]
  picture = DIMMED * piece[top : top + side, left : left + side].astype(np.float32)
  mask = np.zeros((side, side), np.uint8)
  box, label = np.zeros((most, 4), np.float32), np.zeros(most, np.int32)
  squares = []
  for _ in range(rng.integers(1, most + 1)):
    one = rng.integers(len(label_N))
    pixels = int(rng.integers(scene.smallest, scene.largest + 1))
    place = _place(rng, pixels, side, squares)
    if place is None:
      continue
    top, left = place
    at = np.s_[top : top + pixels, left : left + pixels]
    opaque = _resized(image_NHW[one], pixels)
    colour = _colour(rng, float(picture[at].mean()))
    picture[at] += opaque[..., None] * (colour - picture[at])
    mask[at] = np.where(opaque >= EDGE, VOID, mask[at])
    mask[at] = np.where(opaque >= INK, 1 + label_N[one], mask[at])
    (rows,), (columns,) = ((opaque >= INK).any(axis).nonzero() for axis in (1, 0))
    i = len(squares)
    box[i] = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    box[i] += top, left, top, left
    label[i] = label_N[one]
    squares.append((top, left, pixels))
  return {
    'image': np.rint(picture).astype(np.uint8),
    'mask': mask,
    'box': box,
    'label': label,
    'real': np.arange(most) < len(squares),
  }


def _band(image_MHWC: np.ndarray, split: str) -> np.ndarray:
  """The columns of a split; none is in that of another."""
  first, last = (round(share * image_MHWC.shape[2]) for share in BANDS[split])
  return image_MHWC[:, :, first:last]


def _place(rng, pixels: int, side: int, squares) -> tuple[int, int] | None:
  """Top and left of a square that hardly touches the others; None: none was found."""
  for _ in range(_TRIES):
    top, left = (int(x) for x in rng.integers(side - pixels + 1, size=2))
    for other_top, other_left, other in squares:
      height = min(top + pixels, other_top + other) - max(top, other_top)
      width = min(left + pixels, other_left + other) - max(left, other_left)
      if min(height, width) > 0 and height * width > _SHARED * min(pixels, other) ** 2:
        break
    else:
      return top, left
  return None


def _colour(rng: np.random.Generator, below: float) -> np.ndarray:
  """Red, green, blue in 0..255, whose mean is CONTRAST or more above `below`."""
  level = rng.uniform(below + CONTRAST, 255)
  tint = rng.uniform(-1, 1, 3)
  # Around the level, as far as the range of levels goes.
  room = min(60.0, level, 255 - level)
  return level + room * (tint - tint.mean()) / 2


def _resized(image_HW: np.ndarray, pixels: int) -> np.ndarray:
  """Bilinear, to a square; the largest value becomes 1."""
  down, across = (_weights(n, pixels) for n in image_HW.shape)
  found = down @ image_HW @ across.T
  return found / max(float(found.max()), 1e-6)


@functools.cache
def _weights(given: int, wanted: int) -> np.ndarray:
  """[wanted, given], rows sum to 1: a triangle, which widens where the size falls."""
  scale = given / wanted
  centre = (np.arange(wanted) + 0.5)[:, None] * scale
  off = np.abs(np.arange(given) + 0.5 - centre) / max(scale, 1.0)
  weights = np.maximum(0.0, 1.0 - off)
  return (weights / weights.sum(1, keepdims=True)).astype(np.float32)
