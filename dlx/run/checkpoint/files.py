"""What lies on the disk for a checkpoint, and what may be wrong with it.

  checkpoints/20/arrays/            the leaves, written by Orbax
  checkpoints/20/meta/metadata      JSON: checksums, shapes, figures; ends in its digest
  checkpoints/20.corrupt            was set aside; a person may look at it
  checkpoints/20.orbax-checkpoint-tmp...  a save that was killed; removed at the start
  checkpoints/20.removed            a removal that was killed; removed at the start
  checkpoints/20.replaced           20 is being saved anew; put back if that fails

Nothing here needs the mesh that a checkpoint was written on.
"""

import contextlib
import errno
import hashlib
import json
import re
from typing import Any, Callable, Iterable, Iterator, Mapping, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import DISK, ConfigError
from dlx.run.checkpoint import checksums
from dlx.run.records.json_files import is_remote

_TEMPORARY = '.orbax-checkpoint-tmp'
_REMOVED, _REPLACED = '.removed', '.replaced'
_NAMES_SHOWN = 3
_TRIES = 20  # A run that saves every moment.
_T = TypeVar('_T')
# Failures of the machine, not of the bytes: a sound checkpoint must not be set aside
# for them. TensorStore and object stores tell theirs in the text of a ValueError.
_MACHINE = {
  errno.EACCES,
  errno.EPERM,
  errno.ENOMEM,
  errno.EMFILE,
  errno.ENFILE,
  errno.ESTALE,
  errno.ETIMEDOUT,
}
_MACHINE_TEXT = re.compile(
  r'PERMISSION_DENIED|UNAUTHENTICATED|UNAVAILABLE|DEADLINE_EXCEEDED|Permission denied'
)


class Damaged(ValueError):
  """The bytes of a checkpoint are not those that were saved; names the part."""


# What is there.


def is_finished(path) -> bool:
  """Whether a save to this folder came to its end."""
  import orbax.checkpoint as ocp

  if not re.fullmatch(r'\d+', path.name) or not path.is_dir():
    return False
  try:
    return bool(ocp.utils.is_checkpoint_finalized(path))
  except (FileNotFoundError, ValueError):  # A run has removed it in this moment.
    if path.exists():
      raise
    return False


def steps(folder) -> list[int]:
  """Steps of the finished checkpoints in a folder, oldest first."""
  if not folder.exists():
    return []
  return sorted(int(path.name) for path in folder.iterdir() if is_finished(path))


def follow(folder, pick: Callable[[], int], read: Callable[[int], _T]) -> _T:
  """`read(pick())`, a step of a run that may be under way.

  Picks again where the run has removed that checkpoint before it was read.
  """
  for _ in range(_TRIES):
    step = pick()
    try:
      return read(step)
    except ConfigError:
      if is_finished(folder / str(step)):
        raise
  return read(pick())


def others(folder) -> list[Any]:
  """Paths of what else lies there: leftovers, and what was set aside."""
  found = folder.iterdir() if folder.exists() else []
  return sorted((p for p in found if not is_finished(p)), key=lambda p: p.name)


def size_on_disk(path) -> int:
  """Bytes of all files of a folder, as far as they are still there."""
  total = 0
  with contextlib.suppress(FileNotFoundError):
    for file in _files_under(path):
      total += file.stat().length
  return total


def _files_under(path) -> Iterator[Any]:
  """All files of a folder; epath has no recursive glob."""
  if not path.is_dir():
    yield path
    return
  for inner in path.iterdir():
    yield from _files_under(inner)


# What is written, moved and removed: by process 0 alone.


def clean(folder):
  """Makes the folder, and takes away what killed saves and removals left there."""
  folder.mkdir(parents=True, exist_ok=True)
  for path in others(folder):
    half = re.fullmatch(r'\d+', path.name)  # Where a store cannot rename.
    if half or _TEMPORARY in path.name or path.name.endswith(_REMOVED):
      _delete(path)
  for path in others(folder):
    if path.name.endswith(_REPLACED):
      step = folder / path.name.removesuffix(_REPLACED)
      _delete(path) if is_finished(step) else _move(path, step)


def remove(folder, step: int):
  """Deletes a checkpoint; a kill in the middle leaves no half of it by its name."""
  _delete(_move(folder / str(step), folder / f'{step}{_REMOVED}'))


def make_room(folder, step: int):
  """Moves the checkpoint of a step that is saved anew out of the way, if there is one.

  It counts again, by `clean`, where the new one does not come to its end.
  """
  path = folder / str(step)
  if path.exists():
    _move(path, folder / f'{step}{_REPLACED}')


def drop_replaced(folder):
  """Deletes what `make_room` kept, once the new checkpoint is finished."""
  for path in folder.glob(f'*{_REPLACED}'):
    if is_finished(folder / path.name.removesuffix(_REPLACED)):
      _delete(path)


def set_aside(folder, step: int):
  """Renames a corrupt checkpoint to STEP.corrupt, or .corrupt-1, ...: its new path."""
  name, i = f'{step}.corrupt', 0
  while (folder / name).exists():
    i += 1
    name = f'{step}.corrupt-{i}'
  return _move(folder / str(step), folder / name)


def _delete(path):
  path.rmtree() if path.is_dir() else path.unlink()


def _move(source, target):
  """Renames a folder; copies it and removes the source where a store cannot rename."""
  try:
    return source.rename(target)
  except (NotImplementedError, OSError):
    if not is_remote(source):
      raise
    for path in _files_under(source):
      copy = target.joinpath(*path.parts[len(source.parts) :])
      copy.parent.mkdir(parents=True, exist_ok=True)
      copy.write_bytes(path.read_bytes())
    # The files that say it is finished go first: what a kill leaves does not count.
    for path in [p for p in source.iterdir() if not p.is_dir()]:
      path.unlink()
    source.rmtree()
    return target


# The metadata.


def digest(meta: Mapping[str, Any]) -> str:
  """sha256 of the metadata without the digest itself."""
  body = {k: v for k, v in meta.items() if k != 'digest'}
  return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def read_meta(path) -> dict[str, Any]:
  """The metadata of the checkpoint in a folder: step, leaves, checksums, metrics.

  Raises:
    Damaged: it is missing, no JSON, or not what was written.
    OSError: it cannot be read.
  """
  file = path / 'meta' / 'metadata'
  try:
    meta = json.loads(file.read_bytes())
    sound = isinstance(meta, dict) and meta.get('digest') == digest(meta)
  except (FileNotFoundError, NotADirectoryError):
    raise Damaged('meta/metadata is missing') from None
  except (ValueError, RecursionError) as error:
    raise Damaged(f'meta/metadata is no JSON: {error}') from None
  if not sound:
    raise Damaged('meta/metadata does not match its digest')
  return meta


def dtypes_and_shapes(leaves: Mapping[str, Any]) -> dict[str, list]:
  """{name: [dtype, shape]} as it stands in the metadata."""
  return {name: [str(x.dtype), list(x.shape)] for name, x in leaves.items()}


def check_structure(saved: Mapping[str, Any], wanted: Mapping[str, Any], path):
  """Raises ConfigError where leaves, dtypes or shapes differ; names them."""
  names = [
    name
    for name in sorted(saved.keys() | wanted.keys())
    if saved.get(name) != wanted.get(name)
  ]
  if names:
    told = ', '.join(
      f'{name} is {saved.get(name, "missing")} there and '
      f'{wanted.get(name, "missing")} here'
      for name in names[:_NAMES_SHOWN]
    )
    more = len(names) - _NAMES_SHOWN
    raise ConfigError(
      f'{path} is of another program: {told}{f", and {more} more" * (more > 0)}; use '
      'the code that wrote it, or another --workdir.'
    )


# The leaves.


def read_leaves(path, meta: Mapping[str, Any], names: Iterable[str]):
  """Leaves of a checkpoint on the host; a typed key as its key data, uint32.

  Args:
    meta: of `read_meta`.
    names: some of meta['leaves'].

  Raises:
    Exception: many kinds, of Orbax and TensorStore, where files are damaged.
  """
  import orbax.checkpoint as ocp

  names = list(names)
  stored = {name: 0 for name in names if np.prod(meta['leaves'][name][1])}
  arrays = {}
  if stored:
    as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
    arrays = ocp.PyTreeCheckpointHandler().restore(
      path / 'arrays',
      args=ocp.args.PyTreeRestore(
        item=stored, restore_args=dict.fromkeys(stored, as_numpy), partial_restore=True
      ),
    )
  return {
    name: arrays[name] if name in stored else _empty(*meta['leaves'][name])
    for name in names
  }


def _empty(dtype: str, shape) -> np.ndarray:
  return np.zeros(shape, np.uint32 if dtype.startswith('key<') else jnp.dtype(dtype))


def wrong_leaves(meta: Mapping[str, Any], leaves: Mapping[str, Any]) -> dict[str, str]:
  """{name: what is wrong} of the leaves whose checksum is not the one that was saved.

  Leaves of 8 bytes an element need JAX's 64-bit mode.
  """
  sums = checksums.as_text(jax.device_get(checksums.inspect(leaves)[0]))
  saved = meta['checksums']
  return {
    name: f'{name} has checksum {value}, saved was {saved[name]}'
    for name, value in sums.items()
    if saved[name] != value
  }


# Errors.


def one_line(error: BaseException) -> str:
  """Kind and text of an error, cut to one line."""
  text = ' '.join(str(error).split())[:160]
  return text if isinstance(error, Damaged) else f'{type(error).__name__}: {text}'


def is_damage(error: Exception) -> bool:
  """Whether an error of reading speaks of the bytes, rather than of the machine."""
  if isinstance(error, MemoryError):
    return False
  if isinstance(error, OSError) and error.errno in _MACHINE:
    return False
  # The devices' memory; TensorStore says the same of sizes that are nonsense.
  if type(error).__name__ == 'JaxRuntimeError' and 'RESOURCE_EXHAUSTED' in str(error):
    return False
  return not _MACHINE_TEXT.search(str(error))


def why_not_written(error: BaseException | None) -> str | None:
  """What a disk has against writing, in words; None where the error is another."""
  while error is not None:
    if isinstance(error, OSError) and error.errno in DISK:
      return DISK[error.errno]
    found = re.search(r"os_error_code='(\d+)'", str(error))  # TensorStore's.
    if found and int(found[1]) in DISK:
      return DISK[int(found[1])]
    error = error.__cause__ or error.__context__
  return None
