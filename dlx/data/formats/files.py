"""Raw files: where they lie, reading them whole, and saying what was read.

Nothing is unpacked to disk and nothing is written. Paths go through etils.epath, so
that a bucket works as a folder does.
"""

import contextvars
import hashlib
import os
import tarfile
from typing import Any, Callable, Mapping, NamedTuple, Sequence
import zlib

from etils import epath
import numpy as np

from dlx.data.formats import expansion
from dlx.errors import ConfigError, DataError

ENVIRONMENT = 'DLX_DATA_DIR'
_ROWS = 1 << 14  # Of an array that are in memory at once.
_asked: contextvars.ContextVar[Any] = contextvars.ContextVar('data_dir', default=None)


class Known(NamedTuple):
  """Size in bytes and sha256 of a published file, uncompressed."""

  bytes: int
  sha256: str


def check_labels(
  label_N: np.ndarray,
  num_classes: int,
  where: Any,
  remedy: str = '',
  what: str = 'labels',
):
  """Refuses class labels outside [0, num_classes), before they are cast or used.

  Args:
    label_N: as they were read.
    num_classes: K.
    where: the file, or what else names the labels.
    remedy: where the set may be given more classes.
    what: they are, in the message.

  Raises:
    DataError: names the first such label and its row.
  """
  wrong = np.flatnonzero(~((label_N >= 0) & (label_N < num_classes)))
  if wrong.size:
    row = int(wrong[0])
    raise DataError(
      f'{where}: expected {what} 0 to {num_classes - 1}, found {label_N[row]} in row '
      f'{row} (from 0){remedy}.'
    )


def check_finite(where: Any, x: np.ndarray, *, may_lack: bool = False):
  """Refuses a NaN or inf in an array of floats, which is read by parts.

  Args:
    where: the file, or what else names the array.
    x: of any dtype, one example a row.
    may_lack: whether NaN stands for what is missing, and is allowed.

  Raises:
    DataError: names the first such row.
  """
  if x.dtype.kind != 'f':
    return
  for start in range(0, len(x), _ROWS):
    part = np.asarray(x[start : start + _ROWS])
    fine = (np.isfinite(part) | (may_lack & np.isnan(part))).reshape(len(part), -1)
    if not fine.all():
      row = start + int(fine.all(1).argmin())
      raise DataError(
        f'{where}: row {row} (from 0) holds {"an" if may_lack else "a NaN or"} inf: '
        'mend the row or leave it out.'
      )


def look_in(data_dir: Any) -> None:
  """Makes this the folder of data sets of the context, where none is given."""
  _asked.set(data_dir)


def root(data_dir: Any = None) -> epath.Path | None:
  """The folder of data sets: `data_dir`, else of `look_in`, else $DLX_DATA_DIR."""
  data_dir = data_dir or _asked.get()
  named = os.fspath(data_dir) if data_dir else os.environ.get(ENVIRONMENT)
  return epath.Path(named).expanduser() if named else None


def needed_root(data_dir: Any = None) -> epath.Path:
  """`root`. Raises ConfigError where none is named."""
  base = root(data_dir)
  if base is None:
    raise ConfigError(
      f'--data_dir is missing: name the folder of data sets, or set {ENVIRONMENT}.'
    )
  return base


def listing(folder: epath.Path) -> frozenset[str]:
  """Names in a folder; empty where there is no such folder."""
  try:
    return frozenset(p.name for p in folder.iterdir())
  except (FileNotFoundError, NotADirectoryError):
    return frozenset()
  except OSError as e:
    raise DataError(f'{folder}: cannot be listed: {e.strerror or e}.') from e


def folders(data_dir: Any, names: Sequence[str]) -> list[epath.Path]:
  """Where a set of one of these names may lie, likeliest first.

  DIR/NAME, DIR/NAME/raw (torchvision's layout), and DIR itself if it is called NAME. On
  a disk also where NAME is spelt otherwise: CIFAR10, Cora, SST-2.
  """
  base = root(data_dir)
  if base is None:
    return []
  plain = lambda name: ''.join(c for c in name.lower() if c.isalnum())
  wanted = {plain(name) for name in names}
  found = [base] if plain(base.name) in wanted else []
  spellings = list(names)
  if '://' not in str(base):  # Every look into a bucket is a request.
    spellings += sorted(n for n in listing(base) - set(names) if plain(n) in wanted)
  for name in spellings:
    found += [base / name, base / name / 'raw']
  return found


def gunzip(raw: bytes) -> tuple[bytes, str | None]:
  """Decompressed bytes, and what is wrong with the stream or None.

  A truncated stream gives the bytes that it still holds, so that the caller can say
  how many are missing. One that expands too far is unpacked up to there.
  """
  parts, left = [], expansion.most(len(raw))
  while raw:
    stream = zlib.decompressobj(wbits=31)
    try:
      parts.append(stream.decompress(raw, left + 1))
    except zlib.error as e:
      return b''.join(parts), f'damaged gzip ({e})'
    left -= len(parts[-1])
    if left < 0:
      return b''.join(parts), 'not unpacked any further'
    if not stream.eof:
      return b''.join(parts), 'truncated gzip'
    raw = stream.unused_data.lstrip(b'\0')  # Padding after the last member is allowed.
  return b''.join(parts), None


def read_bytes(path: epath.Path) -> bytes:
  """A whole file. Raises DataError where it cannot be read."""
  try:
    return path.read_bytes()
  except OSError as e:
    raise DataError(f'{path}: cannot be read: {e.strerror or e}.') from e


def read(
  path: epath.Path,
  known: Known | None = None,
  expected: Callable[[bytes], int | None] = lambda payload: None,
) -> tuple[bytes, dict[str, Any]]:
  """The uncompressed bytes of a file (gzip is known by its first bytes), checked.

  Args:
    path: the file.
    known: what the published file holds; None: not known, nothing to compare with.
    expected: from the bytes to how many there must be, by the file's own header; None:
      the header does not say.

  Returns:
    The bytes, and a record for `Loaded.origin`: file, bytes, sha256, verified.

  Raises:
    DataError: truncated, damaged, or not the published file; names the file, what was
      expected and what was found.
  """
  raw = read_bytes(path)
  payload, problem = gunzip(raw) if raw[:2] == b'\x1f\x8b' else (raw, None)
  size = expected(payload)
  if problem or (size is not None and size != len(payload)):
    if size is None and known is not None:
      size = known.bytes
    what = problem or ('truncated' if len(payload) < (size or 0) else 'too long')
    want = 'more' if size is None else f'{size} bytes'
    raise DataError(
      f'{path}: {what}: expected {want}, found {len(payload)} bytes uncompressed '
      f'({len(raw)} in the file); fetch the file again.'
    )
  record = describe(path, payload)
  if known is not None and record['sha256'] != known.sha256:
    raise DataError(unpublished(path, known, record))
  return payload, record | {'verified': known is not None}


def describe(path: Any, payload: bytes) -> dict[str, Any]:
  """A record of one file, not verified."""
  digest = hashlib.sha256(payload).hexdigest()
  return {'file': str(path), 'bytes': len(payload), 'sha256': digest, 'verified': False}


def unpublished(path: Any, known: Known, record: Mapping[str, Any]) -> str:
  """The one line for a file that is not the published one."""
  return (
    f'{path}: not the published file: expected {known.bytes} bytes of sha256 '
    f'{known.sha256}, found {record["bytes"]} bytes of sha256 {record["sha256"]} '
    '(uncompressed); fetch it again, or give a set of your own another name.'
  )


def read_archive(path: epath.Path, wanted: Sequence[str]) -> dict[str, bytes]:
  """Members of a tar archive by their last name, read in one pass without unpacking.

  Raises:
    DataError: the archive is damaged or truncated, or lacks a member; a member is a
      link or lies outside; or the members are far larger than the archive.
  """
  found: dict[str, bytes] = {}
  problem, packed = 'not in it', path.stat().length
  left = expansion.most(packed)
  try:
    with path.open('rb') as file, tarfile.open(fileobj=file, mode='r|*') as archive:
      for member in archive:
        parts, left = member.name.split('/'), left - member.size
        fault = ''
        if '..' in parts or not parts[0]:
          fault = 'lies outside of it'
        elif not (member.isfile() or member.isdir()):
          fault = 'is a link or a device'
        elif left < 0:
          fault = f'brings it to more than {expansion.most(packed)} bytes'
        if fault:
          raise DataError(
            f'{path}: its member {member.name!r} {fault}: not read; fetch the archive '
            'again.'
          )
        content = archive.extractfile(member) if parts[-1] in wanted else None
        if content is not None:
          found[parts[-1]] = content.read()
        if len(found) == len(wanted):
          return found
  except (tarfile.TarError, EOFError, zlib.error, OSError) as e:
    problem = f'truncated or damaged archive ({e})'
  lacking = [name for name in wanted if name not in found]
  raise DataError(
    f'{path}: {problem}: expected {len(wanted)} files, found {len(found)} in '
    f'{path.stat().length} bytes, without {lacking[0]}; fetch the archive again.'
  )


def missing(
  name: str,
  split: str,
  wanted: str,
  data_dir: Any,
  *,
  tfds: bool = True,
  folder: str | None = None,
  note: str = '',
) -> DataError:
  """The error for data that is nowhere: one line that names every remedy.

  Args:
    name: of the set.
    split: of the set.
    wanted: the raw files, as a phrase.
    data_dir: as given by the user.
    tfds: whether TFDS has the same set with the same splits.
    folder: where the raw files belong, below DIR; None: `name`.
    note: what else to try, a sentence.
  """
  base = root(data_dir)
  if base is None:
    where = f'neither --data_dir nor {ENVIRONMENT} is set'
  elif not base.exists():
    where = f'{base} does not exist'
  else:
    where = f'looked in {base}'
  if tfds:
    others = (
      f'(2) put a TFDS set prepared as array_record in DIR/{name}/VERSION or '
      f"~/tensorflow_datasets/{name}/VERSION; (3) pip install 'dlx[tfds]' and run with "
      'a network, so that TFDS downloads it.'
    )
  else:
    others = (
      '(2) a prepared TFDS set and (3) a download by '
      "pip install 'dlx[tfds]' do not help: TFDS has no set with these splits."
    )
  return DataError(
    f'dataset {name} ({split}) not found, {where}. Remedies: (1) put {wanted} in '
    f'DIR/{folder or name} and pass --data_dir=DIR or set {ENVIRONMENT}=DIR; {others}'
    + (f' {note}' if note else '')
  )
