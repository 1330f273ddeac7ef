"""Checkpoints: Orbax writes them, a checksum of every leaf proves them.

A checkpoint is the TrainState and the sums of the open log window. Beside them lie
`meta`: the checksums, since Orbax restores flipped bits without a word, and the figures
by which the best is kept. They are never needed to go on. What lies on the disk is told
in files.py.
"""

import contextlib
import math
from typing import Any, Callable, Mapping, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError, StorageError
from dlx.run import processes
from dlx.run.at import NotFinite
from dlx.run.checkpoint import checksums, files, quiet
from dlx.state import TrainState, is_key, leaves_by_path

_SOUND, _DAMAGED, _REFUSED = range(3)


class Restored(NamedTuple):
  step: int
  state: TrainState
  window: Any
  metrics: Mapping[str, float]


class Checkpointer:
  """The checkpoints of one workdir. All methods are host-side; `save` returns early.

  Several processes call every method together, in the same order. Process 0 alone
  removes and renames, and says which steps there are.

  Attributes:
    folder: epath.Path; one folder a step, named by the step.
  """

  def __init__(
    self,
    folder,
    *,
    keep: int = 2,
    best_metric: str | None = None,
    best_mode: str = 'max',
    note: Callable[[str], None] = print,
    read_only: bool = False,
  ):
    """Removes the leftovers of a dead process; reads no arrays.

    Args:
      folder: epath.Path of the checkpoints, made if missing.
      keep: newest checkpoints that are kept; the best one is kept besides.
      best_metric: "split/name"; None: none is kept for being best.
      best_mode: 'max' or 'min'.
      note: told what a person should know: a damaged checkpoint.
      read_only: removes, renames and makes nothing.

    Raises:
      StorageError: the folder cannot be written.
    """
    import orbax.checkpoint as ocp

    self.folder = folder
    self._ocp = ocp
    self._keep, self._note, self._read_only = keep, note, read_only
    self._best_metric, self._best_mode = best_metric, best_mode
    self._orbax = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
    self._quiet = contextlib.ExitStack()  # Holds `quiet.orbax` during a save.
    self._started: int | None = None  # The step whose save was started last.
    self._saving = False  # Whether it has not been waited for.
    if not read_only:
      with self._writing('the leftovers of killed saves could not be removed'):
        processes.first_does(lambda: files.clean(folder), f'clean {folder}')
    self._metrics: dict[int, float | None] = {}
    self._read_figures()

  def steps(self) -> list[int]:
    """Steps of the finished checkpoints, oldest first."""
    return files.steps(self.folder)

  def best(self) -> int | None:
    """Step of the best checkpoint by `best_metric`, the earliest of equals.

    None: there is none with a finite figure.
    """
    if self._read_only:  # A run may be adding to them.
      self._read_figures()
    sign = 1 if self._best_mode == 'max' else -1
    scored = [
      (sign * value, -step)
      for step in self.steps()
      if (value := self._metrics.get(step)) is not None and math.isfinite(value)
    ]
    return -max(scored)[1] if scored else None

  def save(
    self, step: int, state: TrainState, window: Any, metrics: Mapping[str, float]
  ):
    """Starts saving; replaces a checkpoint of the same step once it is finished.

    Waits for the device (the checksums say whether the state is finite) and for the
    save before; writing goes on in the background.

    Raises:
      NotFinite: names the leaf; nothing is written.
      StorageError: this save, or the one before, could not be written.
    """
    leaves = _flatten(state, window)
    sums, finite = jax.device_get(checksums.inspect(leaves))
    for name, ok in finite.items():
      if not ok:
        raise NotFinite(step, f'{name} is not finite after step {step}')
    meta: dict[str, Any] = {
      'step': step,
      'checksums': checksums.as_text(sums),
      'leaves': files.dtypes_and_shapes(leaves),
      'metrics': dict(metrics),
    }
    meta['digest'] = files.digest(meta)
    self.wait()
    self._quiet.enter_context(quiet.orbax())  # Until `wait`, as threads go on writing.
    args = self._ocp.args
    with self._writing(f'checkpoint {step} could not be saved'), quiet.orbax():
      processes.first_does(
        lambda: files.make_room(self.folder, step), f'move checkpoint {step}'
      )
      self._started, self._saving = step, True
      self._orbax.save(
        self.folder / str(step),
        args=args.Composite(
          arrays=args.StandardSave({n: _plain(x) for n, x in leaves.items() if x.size}),
          meta=args.JsonSave(meta),
        ),
      )
    self._metrics[step] = _mean(metrics.get(self._best_metric or ''))

  def wait(self):
    """Until the save that was started is on disk; then drops what is not kept.

    Raises:
      StorageError: it could not be written; the checkpoints before it are whole.
    """
    saved, self._saving = self._saving, False
    with self._writing(f'checkpoint {self._started} could not be saved'), self._quiet:
      self._orbax.wait_until_finished()
    if not saved or not processes.is_first():
      return
    with self._writing('an old checkpoint could not be removed'):
      files.drop_replaced(self.folder)
      steps = self.steps()
      kept = {*steps[-self._keep :], self.best()}
      for step in steps:
        if step not in kept:
          self._metrics.pop(step, None)
          files.remove(self.folder, step)

  def close(self):
    with quiet.orbax():
      try:
        self.wait()
      finally:
        self._orbax.close()

  def restore(
    self, state: TrainState, window: Any, step: int | None = None
  ) -> Restored | None:
    """The newest sound checkpoint, on the devices; None where there is none.

    One that is damaged is set aside under another name, with a note, and the one before
    is tried. Several processes agree: what one of them cannot read none takes.

    Args:
      state: ShapeDtypeStructs with shardings: any mesh, not only the one that saved.
      window: the same of the sums of the log window.
      step: only this one; nothing is set aside.

    Raises:
      ConfigError: the checkpoint is sound but of another structure, or `step` is not
        there or damaged.
      StorageError: it cannot be read for a reason that is not in its bytes.
    """
    steps = processes.of_first(self.steps())
    if step is not None:
      self._require(step, steps)
    for tried in reversed(steps) if step is None else (step,):
      found = self._try(tried, state, window)
      if isinstance(found, Restored):
        return found
      if step is not None:
        raise ConfigError(
          f'{self.folder / str(step)} is corrupt ({files.one_line(found)}): choose '
          f'another step of {", ".join(map(str, steps))}.'
        )
      self._skip(tried, found, tried == steps[0])
    return None

  def read_leaves(
    self, step: int, wanted: Mapping[str, Any] | Callable[[Any], Mapping[str, Any]]
  ) -> tuple[dict[str, np.ndarray], str]:
    """Some leaves of one checkpoint, on the host, and the digest of its metadata.

    Args:
      wanted: by their names there, e.g. 'state/params/hidden_0/kernel': anything with a
        shape and a dtype; or what chooses them: {name: [dtype, shape]} -> wanted.

    Raises:
      ConfigError: no such step, a leaf that is not there or of another shape or dtype,
        or a corrupt checkpoint.
    """
    path = self.folder / str(step)
    self._require(step, self.steps())
    try:
      meta = files.read_meta(path)
      wanted = wanted(meta['leaves']) if callable(wanted) else wanted
      there = {name: x for name, x in meta['leaves'].items() if name in wanted}
      files.check_structure(there, files.dtypes_and_shapes(wanted), path)
      with quiet.orbax():
        leaves = files.read_leaves(path, meta, wanted)
      for wrong in files.wrong_leaves(meta, leaves).values():
        raise files.Damaged(wrong)
    except ConfigError:
      raise
    except Exception as error:
      if not files.is_damage(error):
        raise _unreadable(path, error) from error
      raise ConfigError(f'{path} is corrupt ({files.one_line(error)}).') from None
    return leaves, meta['digest']

  def _require(self, step: int, steps: list[int]):
    if step not in steps:
      raise ConfigError(
        f'{self.folder} has no checkpoint of step {step}: there are '
        f'{", ".join(map(str, steps)) or "none"}.'
      )

  def _read_figures(self):
    if self._best_metric:
      self._metrics = {s: self._figures(s) for s in self.steps()}

  def _figures(self, step: int) -> float | None:
    try:
      meta = files.read_meta(self.folder / str(step))
      return _mean(meta['metrics'].get(self._best_metric))
    except Exception:  # A corrupt one is found and reported when it is restored.
      return None

  def _try(self, step: int, state: TrainState, window: Any) -> Restored | Exception:
    """A checkpoint, or what is damaged in it; the same on every process."""
    path, target = self.folder / str(step), _flatten(state, window)
    meta, arrays, trouble, kind = {}, {}, None, _SOUND
    try:
      meta, arrays = self._read(path, target)
    except ConfigError as error:
      trouble, kind = error, _REFUSED
    except Exception as error:  # Orbax and TensorStore raise many kinds.
      kind = _DAMAGED if files.is_damage(error) else _REFUSED
      trouble = error if kind == _DAMAGED else _unreadable(path, error)
    # No process may go on to the collectives below alone.
    worst = processes.largest(kind)
    elsewhere = f'another process could not read {path}; its log says why'
    if worst == _REFUSED:
      raise trouble if trouble and kind == worst else StorageError(f'{elsewhere}.')
    if worst == _DAMAGED:
      if trouble and not processes.is_first():  # Process 0 tells when it sets it aside.
        self._note(f'Checkpoint {step} is corrupt here ({files.one_line(trouble)}).')
      return trouble or files.Damaged(elsewhere)
    leaves = _rebuild(target, arrays)
    for wrong in files.wrong_leaves(meta, leaves).values():
      return files.Damaged(wrong)
    values = [leaves[name] for name in target]  # jit sorts the names of a dict.
    count = len(jax.tree.leaves(state))
    return Restored(
      step,
      jax.tree.unflatten(jax.tree.structure(state), values[:count]),
      jax.tree.unflatten(jax.tree.structure(window), values[count:]),
      meta['metrics'],
    )

  def _read(self, path, target: Mapping[str, Any]) -> tuple[Any, Any]:
    """Metadata and arrays; talks to no other process."""
    if not path.exists():
      raise StorageError(
        f'{path}, which process 0 has found, is not there for process '
        f'{jax.process_index()}: all must see the same --workdir, on a shared disk.'
      )
    meta = files.read_meta(path)
    files.check_structure(meta['leaves'], files.dtypes_and_shapes(target), path)
    plain = {n: _plain(x) for n, x in target.items() if np.prod(x.shape)}
    # The handler itself: Orbax's Checkpointer ends in a barrier, at which the others
    # would wait for a process that could not read.
    handler = self._ocp.StandardCheckpointHandler()
    args = self._ocp.args.StandardRestore(plain)
    with quiet.orbax():
      return meta, handler.restore(path / 'arrays', args=args)

  def _skip(self, step: int, trouble: Exception, last: bool):
    """Sets a damaged checkpoint aside and says so."""
    where = 'left where it is'
    if not self._read_only:
      self._metrics.pop(step, None)
      moved = []
      with self._writing(f'the corrupt checkpoint {step} could not be set aside'):
        processes.first_does(
          lambda: moved.append(files.set_aside(self.folder, step)),
          f'set checkpoint {step} aside',
        )
      where = f'set aside as {moved[0].name}' if moved else ''
    if processes.is_first():
      on = 'there is none before it' if last else 'going on from the one before'
      self._note(
        f'Checkpoint {step} is corrupt ({files.one_line(trouble)}); {where}, {on}.'
      )

  @contextlib.contextmanager
  def _writing(self, what: str):
    """Turns what a disk has against writing into one line."""
    try:
      yield
    except StorageError:
      raise
    except Exception as error:
      why = files.why_not_written(error)
      if why is None:
        raise
      newest = max(self.steps(), default=0)
      raise StorageError(
        f'{self.folder}: {what} ({why}): mend that and give the same command, which '
        f'goes on from step {newest}.'
      ) from error


def _rebuild(target: Mapping[str, Any], arrays: Mapping[str, Any]) -> dict[str, Any]:
  """The leaves of the target out of plain arrays, on the devices."""

  def rebuild(plain, keys):
    out = {}
    for name, x in target.items():
      if name in keys:
        out[name] = jax.random.wrap_key_data(keys[name], impl=_impl(x))
      else:
        out[name] = plain[name] if name in plain else jnp.zeros(x.shape, x.dtype)
    return out

  keys = {name: x for name, x in arrays.items() if is_key(target[name])}
  plain = {name: x for name, x in arrays.items() if name not in keys}
  shardings = {name: x.sharding for name, x in target.items()}
  # Donated, so that the state is in memory once: a step that fits can be resumed. What
  # comes out are the program's own buffers; a CPU copies what it does not own.
  return jax.jit(rebuild, donate_argnums=0, out_shardings=shardings)(plain, keys)


def _unreadable(path, error: Exception) -> Exception:
  """A shortage of memory as it is; what else keeps from reading, as one line."""
  if isinstance(error, MemoryError) or 'RESOURCE_EXHAUSTED' in str(error):
    return error
  return StorageError(
    f'{path} cannot be read ({files.one_line(error)}): it is left as it is; mend that '
    'and give the same command.'
  )


def _mean(value: Any) -> float | None:
  """A figure; of a list over members, their mean."""
  return None if value is None else float(np.mean(value))


def _flatten(state: TrainState, window: Any) -> dict[str, Any]:
  """State, then window, by path, in the order of their leaves."""
  return {
    **{f'state/{n}': x for n, x in leaves_by_path(state).items()},
    **{f'window/{n}': x for n, x in leaves_by_path(window).items()},
  }


def _impl(x) -> str:
  """Implementation of the ShapeDtypeStruct of a typed key, by name."""
  seen: list[str] = []
  jax.eval_shape(
    lambda key: seen.append(str(jax.random.key_impl(key))),
    jax.ShapeDtypeStruct(x.shape, x.dtype),
  )
  return seen[0]


def _plain(x):
  """A key as its key data; Orbax stores plain arrays."""
  if not is_key(x):
    return x
  if isinstance(x, jax.Array):
    return jax.random.key_data(x)
  data = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(x.shape, x.dtype))
  return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=x.sharding)
