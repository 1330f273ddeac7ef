"""Rows that are files of pictures, decoded when they are asked for."""

import functools
import hashlib
import os
from typing import Any

import numpy as np

from dlx.data.lazy import Rows
from dlx.data.pictures import decode
from dlx.data.pictures.crops import Crop, middle_box, random_box
from dlx.data.room import empty
from dlx.errors import DISK, DataError

REMEDY = 'bring the file back, or remove the set and prepare it again'


class PictureFiles(Rows):
  """uint8 [N, S, S, C]: the middle of each picture, or in training a part at random.

  Attributes:
    root: folder of the pictures.
    file: their paths below it, UTF-8 filled up with zeros: uint8 [N, L].
    size_N: bytes of each, int64 [N].
    short_side: to which the shorter side of a picture is resized for its middle.
    crop: of training.
  """

  dtype = np.dtype(np.uint8)

  def __init__(
    self,
    root: str,
    file_NL: np.ndarray,
    size_N: np.ndarray,
    *,
    size: int,
    channels: int = 3,
    short_side: int,
    crop: Crop,
  ):
    self.root, self.file_NL, self.size_N = root, file_NL, size_N
    self.short_side, self.crop = short_side, crop
    self.shape = (len(file_NL), size, size, channels)

  def __getitem__(self, index: Any) -> np.ndarray:
    rows = np.arange(len(self))[index]
    middle = lambda width, height: middle_box(
      width, height, self.short_side, self.shape[1]
    )
    out = empty((rows.size, *self.shape[1:]), self.dtype)
    for i, row in enumerate(rows.reshape(-1).tolist()):
      out[i] = self._decoded(row, middle, scaled=False)
    return out.reshape(*rows.shape, *self.shape[1:])

  def drawn(self, index: np.ndarray, seed: int, place: np.ndarray) -> np.ndarray:
    """A part of each picture at random, by the seed and its place in the stream."""
    out = empty((len(index), *self.shape[1:]), self.dtype)
    for i, (row, where) in enumerate(zip(index.tolist(), place.tolist(), strict=True)):
      choose = functools.partial(random_box, self.crop, seed, where)
      out[i] = self._decoded(row, choose, scaled=True)
    return out

  def pick(self, rows: np.ndarray) -> 'PictureFiles':
    return self._with(self.file_NL[rows], self.size_N[rows], self.crop)

  def cropped(self, crop: Crop) -> 'PictureFiles':
    """The same pictures with another crop in training."""
    return self._with(self.file_NL, self.size_N, crop)

  def path(self, row: int) -> str:
    """Of a picture.

    Raises:
      DataError: it would lie outside of the folder of the pictures.
    """
    name = os.fsdecode(self.file_NL[row].tobytes().rstrip(b'\0'))
    if not name or name.startswith('/') or '\0' in name or '..' in name.split('/'):
      raise DataError(
        f'{self.root}: row {row} (from 0) of the set names {name!r}: must be a file in '
        'this folder; prepare the set again.'
      )
    return os.path.join(self.root, *name.split('/'))

  def read(self, row: int) -> bytes:
    """The file of a row.

    Raises:
      DataError: it cannot be read, or has another size than when the set was prepared.
    """
    path = self.path(row)
    try:
      with open(path, 'rb') as file:
        raw = file.read()
    except OSError as error:
      told = DISK.get(error.errno or 0, error.strerror or str(error))
      raise DataError(f'{path}: cannot be read ({told}): {REMEDY}.') from None
    if len(raw) != self.size_N[row]:
      raise DataError(
        f'{path}: has {len(raw)} bytes, {self.size_N[row]} when the set was prepared: '
        f'{REMEDY}.'
      )
    return raw

  def damaged(self, sha256_ND: np.ndarray) -> str | None:
    """The first file whose bytes are not those of the set; None: all are.

    Args:
      sha256_ND: uint8 [N, 32].
    """
    for row in range(len(self)):
      try:
        raw = self.read(row)
      except DataError as error:
        return str(error)
      if hashlib.sha256(raw).digest() != sha256_ND[row].tobytes():
        return f'{self.path(row)}: its sha256 is not that of the set: {REMEDY}.'
    return None

  def _decoded(self, row: int, choose: decode.Choose, scaled: bool) -> np.ndarray:
    _, size, _, channels = self.shape
    try:
      return decode.part(
        self.read(row),
        choose,
        size,
        grey=channels == 1,
        method=self.crop.method,
        scaled=scaled,
      )
    except DataError:
      raise
    except Exception as error:  # Pillow raises many kinds, all of them the file's.
      raise DataError(
        f'{self.path(row)}: is no picture that can be read ('
        f'{error or type(error).__name__}): {REMEDY}, there with --skip_bad.'
      ) from error

  def _with(self, file_NL: Any, size_N: Any, crop: Crop) -> 'PictureFiles':
    _, size, _, channels = self.shape
    return PictureFiles(
      self.root,
      file_NL,
      size_N,
      size=size,
      channels=channels,
      short_side=self.short_side,
      crop=crop,
    )
