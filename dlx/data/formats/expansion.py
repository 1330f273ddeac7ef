"""Files that are small and would become very large are refused before they are."""

import os
from typing import Any
import zipfile

from dlx.errors import DataError

LARGE = 1 << 30  # Bytes: what becomes no more than this is never refused.
EXPANDS = 100  # Beyond that a file may hold so many times its own bytes.


def most(packed: int) -> int:
  """Bytes that a file of so many bytes may become."""
  return max(LARGE, EXPANDS * packed)


def check(path: Any, packed: int, size: int):
  """Raises DataError where `packed` bytes would become too many.

  Args:
    path: of the file.
    packed: its bytes.
    size: bytes that it would become.
  """
  if size > most(packed):
    raise DataError(f'{path}: {packed} bytes would become {size}: not unpacked.')


def check_zip(path: Any):
  """The same of a zip archive, as its own list of members says.

  Raises:
    DataError: it would become too large.
    zipfile.BadZipFile, OSError: it is damaged, or cannot be read.
  """
  with zipfile.ZipFile(path) as archive:
    size = sum(info.file_size for info in archive.infolist())
    check(path, os.path.getsize(path), size)
