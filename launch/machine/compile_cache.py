"""Keeps dlx's folder of compiled programs sound and bounded.

JAX never replaces an entry, so that one which a kill or a full disk cut short costs its
compilation at every start; and it bounds a cache only with a lock and a look at all
entries for each program.
"""

import contextlib
import importlib
import os
import pathlib
import time
from typing import Any
import zlib

MOST_BYTES = 4 * 2**30
_CHECKED = '.checked'  # Its time: entries from before were whole.
_YOUNG_S = 10.0  # Another process may be writing it.


def tidy(folder: str, most_bytes: int = MOST_BYTES):
  """Removes entries that are cut short, then those unused for longest beyond a bound.

  Each entry is read once, at the first start after it was written. Fails silently: a
  cache is no reason to stop.

  Args:
    folder: local; what is not an entry of JAX's stays.
    most_bytes: of all entries; where they are more, a fifth of that is made free.
  """
  with contextlib.suppress(OSError):
    _tidy(pathlib.Path(folder), most_bytes)


def _tidy(folder: pathlib.Path, most_bytes: int):
  mark, now = folder / _CHECKED, time.time()
  checked = mark.stat().st_mtime if mark.exists() else 0.0
  kept = []
  for entry in os.scandir(folder):
    if not entry.name.endswith('-cache'):
      continue
    found = entry.stat()
    new = checked <= found.st_mtime < now - _YOUNG_S
    whole = not new or _whole(pathlib.Path(entry.path).read_bytes())
    if not whole:
      os.unlink(entry.path)
    else:
      if new:  # This look is no use.
        os.utime(entry.path, ns=(found.st_atime_ns, found.st_mtime_ns))
      used = max(found.st_atime, found.st_mtime)
      kept.append((used, found.st_size, entry.path))
  mark.touch()
  os.utime(mark, (now, now - _YOUNG_S))
  size = sum(size for _, size, _ in kept)
  if size <= most_bytes:
    return
  for _, length, path in sorted(kept):
    if size <= 0.8 * most_bytes:
      return
    os.unlink(path)
    size -= length


def _whole(data: bytes) -> bool:
  """Whether a compressed stream comes to its end; True where nobody here can tell."""
  if not data:
    return False
  if data[:1] == b'\x78':  # zlib.
    stream = zlib.decompressobj()
    try:
      stream.decompress(data)
    except zlib.error:
      return False
    return stream.eof
  try:
    zstandard: Any = importlib.import_module('zstandard')  # Where it is, JAX uses it.
  except ImportError:
    return True
  try:
    zstandard.ZstdDecompressor().decompress(data)
  except zstandard.ZstdError:
    return False
  return True
