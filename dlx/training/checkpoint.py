"""Checkpoints: Orbax writes them, a checksum of every leaf proves them.

A checkpoint is the TrainState and the sums of the open log window. Beside them lie
`meta`: the checksums, since Orbax restores flipped bits without a word, and the figures
by which the best is kept. They are never needed to go on.
"""

import hashlib
import json
import re
from typing import Any, Callable, Mapping, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.training import fingerprint
from dlx.training.state import TrainState, is_key, leaves_by_path

_TEMPORARY = '.orbax-checkpoint-tmp'
_REMOVED = '.removed'


class Restored(NamedTuple):
  step: int
  state: TrainState
  window: Any
  metrics: Mapping[str, float]


class NotFinite(FloatingPointError):
  """A state that holds a NaN or inf was about to be saved."""


class Checkpointer:
  """The checkpoints of one workdir. All methods are host-side; `save` returns early.

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
    """Removes the unfinished temporaries of a dead process; reads no arrays.

    Args:
      folder: epath.Path of the checkpoints, made if missing.
      keep: newest checkpoints that are kept; the best one is kept besides.
      best_metric: "split/name"; None: none is kept for being best.
      best_mode: 'max' or 'min'.
      note: told what a person should know (a checkpoint set aside).
      read_only: removes and makes nothing; for `restore` of one step.
    """
    import orbax.checkpoint as ocp

    self.folder = folder
    self._ocp = ocp
    self._keep, self._note, self._read_only = keep, note, read_only
    self._best_metric, self._best_mode = best_metric, best_mode
    self._orbax = ocp.AsyncCheckpointer(ocp.CompositeCheckpointHandler())
    if jax.process_index() == 0 and not read_only:
      folder.mkdir(parents=True, exist_ok=True)
      for path in folder.iterdir():
        if _TEMPORARY in path.name or path.name.endswith(_REMOVED):
          path.rmtree()
    self._metrics = {s: self._figures(s) for s in self.steps()} if best_metric else {}

  def steps(self) -> list[int]:
    """Steps of the finished checkpoints, oldest first."""
    if not self.folder.exists():
      return []
    finished = self._ocp.utils.is_checkpoint_finalized
    return sorted(
      int(p.name)
      for p in self.folder.iterdir()
      if re.fullmatch(r'\d+', p.name) and finished(p)
    )

  def best(self) -> int | None:
    """Step of the best finished checkpoint by `best_metric`, the earliest of equals."""
    sign = 1 if self._best_mode == 'max' else -1
    scored = [
      (sign * value, -step)
      for step in self.steps()
      if (value := self._metrics.get(step)) is not None
    ]
    return -max(scored)[1] if scored else None

  def save(
    self, step: int, state: TrainState, window: Any, metrics: Mapping[str, float]
  ):
    """Starts saving; replaces a checkpoint of the same step.

    Waits for the device (the checksums say whether the state is finite) and for the
    save before; writing goes on in the background.

    Raises:
      NotFinite: names the leaf; nothing is written.
    """
    leaves = _flatten(state, window)
    sums, finite = jax.device_get(fingerprint.inspect(leaves))
    for name, ok in finite.items():
      if not ok:
        raise NotFinite(f'{name} is not finite after step {step}')
    meta: dict[str, Any] = {
      'step': step,
      'checksums': fingerprint.as_text(sums),
      'leaves': _describe(leaves),
      'metrics': dict(metrics),
    }
    meta['digest'] = _digest(meta)
    self.wait()
    if (self.folder / str(step)).exists():
      self._remove(step)
    args = self._ocp.args
    self._orbax.save(
      self.folder / str(step),
      args=args.Composite(
        arrays=args.StandardSave({n: _plain(x) for n, x in leaves.items() if x.size}),
        meta=args.JsonSave(meta),
      ),
    )
    self._metrics[step] = _mean(metrics.get(self._best_metric or ''))

  def wait(self):
    """Until the save that was started is on disk; then drops what is not kept."""
    self._orbax.wait_until_finished()
    if jax.process_index() != 0 or self._read_only:
      return
    steps = self.steps()
    kept = set(steps[-self._keep :]) | {self.best()}
    for step in steps:
      if step not in kept:
        self._remove(step)

  def close(self):
    self.wait()
    self._orbax.close()

  def restore(
    self, state: TrainState, window: Any, step: int | None = None
  ) -> Restored | None:
    """The newest sound checkpoint, on the devices; None where there is none.

    One that is corrupt is set aside under another name, with a note, and the one
    before is tried.

    Args:
      state: ShapeDtypeStructs with shardings: any mesh, not only the one that saved.
      window: the same of the sums of the log window.
      step: only this one; nothing is set aside.

    Raises:
      ConfigError: the checkpoint is sound but of another structure, or `step` is not
        there.
    """
    steps = self.steps()
    if step is not None:
      self._require(step)
      try:
        return self._read(step, state, window)
      except ConfigError:
        raise
      except Exception as error:
        raise ConfigError(
          f'{self.folder / str(step)} is corrupt ({_one_line(error)}): choose another '
          f'step of {", ".join(map(str, steps))}.'
        ) from None
    for step in reversed(steps):
      try:
        return self._read(step, state, window)
      except ConfigError:
        raise
      except Exception as error:  # Orbax and TensorStore raise many kinds.
        aside = self._set_aside(step)
        self._note(
          f'Checkpoint {step} is corrupt ({_one_line(error)}); '
          f'set aside as {aside.name}, going on from the one before.'
        )
    return None

  def read_leaves(
    self, step: int, wanted: Mapping[str, Any]
  ) -> tuple[dict[str, np.ndarray], str]:
    """Some leaves of one checkpoint, on the host, and the digest of its metadata.

    Args:
      wanted: by their names there, e.g. 'state/params/Dense_0/kernel': anything with a
        shape and a dtype.

    Raises:
      ConfigError: no such step, a leaf that is not there or of another shape or dtype,
        or a corrupt checkpoint.
    """
    path = self.folder / str(step)
    self._require(step)
    args = self._ocp.args
    try:
      meta = self._meta(step)
      there = {name: x for name, x in meta['leaves'].items() if name in wanted}
      _check_structure(there, _describe(wanted), path)
      target = {name: 0 for name, x in wanted.items() if np.prod(x.shape)}
      as_numpy = self._ocp.RestoreArgs(restore_type=np.ndarray)
      restore = args.PyTreeRestore(
        item=target, restore_args=dict.fromkeys(target, as_numpy), partial_restore=True
      )
      found = self._ocp.Checkpointer(self._ocp.CompositeCheckpointHandler()).restore(
        path, args=args.Composite(arrays=restore)
      )
      leaves = {
        name: found.arrays[name] if name in target else np.zeros(x.shape, x.dtype)
        for name, x in wanted.items()
      }
      sums = fingerprint.as_text(jax.device_get(fingerprint.inspect(leaves)[0]))
      for name, value in sums.items():
        if meta['checksums'][name] != value:
          raise ValueError(f'{name} does not have its checksum')
    except ConfigError:
      raise
    except Exception as error:
      raise ConfigError(f'{path} is corrupt ({_one_line(error)}).') from None
    return leaves, meta['digest']

  def _require(self, step: int):
    steps = self.steps()
    if step not in steps:
      raise ConfigError(
        f'{self.folder} has no checkpoint of step {step}: there are '
        f'{", ".join(map(str, steps)) or "none"}.'
      )

  def _figures(self, step: int) -> float | None:
    try:
      return _mean(self._meta(step)['metrics'].get(self._best_metric))
    except Exception:  # A corrupt one is found and reported when it is restored.
      return None

  def _meta(self, step: int) -> dict[str, Any]:
    handler = self._ocp.Checkpointer(self._ocp.CompositeCheckpointHandler())
    args = self._ocp.args
    meta = handler.restore(
      self.folder / str(step), args=args.Composite(meta=args.JsonRestore())
    ).meta
    if meta.get('digest') != _digest(meta):
      raise ValueError('the metadata does not match its digest')
    return meta

  def _read(self, step: int, state: TrainState, window: Any) -> Restored:
    meta = self._meta(step)
    target = _flatten(state, window)
    _check_structure(meta['leaves'], _describe(target), self.folder / str(step))
    args = self._ocp.args
    plain = {n: _plain(x) for n, x in target.items() if np.prod(x.shape)}
    arrays = (
      self._ocp.Checkpointer(self._ocp.CompositeCheckpointHandler())
      .restore(
        self.folder / str(step), args=args.Composite(arrays=args.StandardRestore(plain))
      )
      .arrays
    )

    def rebuild(arrays):
      out = {}
      for name, x in target.items():
        if name not in arrays:
          out[name] = jnp.zeros(x.shape, x.dtype)
        elif is_key(x):
          out[name] = jax.random.wrap_key_data(arrays[name], impl=_impl(x))
        else:
          # A copy: the program's own buffer, so that donation works from the start.
          out[name] = jnp.copy(arrays[name])
      return out

    shardings = {name: x.sharding for name, x in target.items()}
    leaves = jax.jit(rebuild, out_shardings=shardings)(arrays)
    sums = fingerprint.as_text(jax.device_get(fingerprint.inspect(leaves)[0]))
    for name, value in meta['checksums'].items():
      if sums[name] != value:
        raise ValueError(f'{name} has checksum {sums[name]}, saved was {value}')
    values = [leaves[name] for name in target]  # jit sorts the names of a dict.
    count = len(jax.tree.leaves(state))
    return Restored(
      step,
      jax.tree.unflatten(jax.tree.structure(state), values[:count]),
      jax.tree.unflatten(jax.tree.structure(window), values[count:]),
      meta['metrics'],
    )

  def _remove(self, step: int):
    """Deletes a checkpoint; a kill in the middle leaves no half of it by its name."""
    path = self.folder / str(step)
    self._metrics.pop(step, None)
    _move(path, self.folder / f'{step}{_REMOVED}').rmtree()

  def _set_aside(self, step: int):
    name, i = f'{step}.corrupt', 0
    while (self.folder / name).exists():
      i += 1
      name = f'{step}.corrupt-{i}'
    self._metrics.pop(step, None)
    return _move(self.folder / str(step), self.folder / name)


def _move(source, target):
  """Renames a folder; copies it and removes the source where a store cannot rename."""
  try:
    return source.rename(target)
  except (NotImplementedError, OSError):
    for path in source.glob('**/*'):
      if not path.is_dir():
        copy = target.joinpath(*path.parts[len(source.parts) :])
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    source.rmtree()
    return target


def _mean(value: Any) -> float | None:
  """A figure; of a list over members, their mean."""
  return None if value is None else float(np.mean(value))


def _one_line(error: Exception) -> str:
  return f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'


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


def _describe(leaves: Mapping[str, Any]) -> dict[str, list]:
  return {name: [str(x.dtype), list(x.shape)] for name, x in leaves.items()}


def _plain(x):
  """A key as its key data; Orbax stores plain arrays."""
  if not is_key(x):
    return x
  if isinstance(x, jax.Array):
    return jax.random.key_data(x)
  data = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(x.shape, x.dtype))
  return jax.ShapeDtypeStruct(data.shape, data.dtype, sharding=x.sharding)


def _digest(meta: Mapping[str, Any]) -> str:
  body = {k: v for k, v in meta.items() if k != 'digest'}
  return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _check_structure(saved: Mapping[str, Any], wanted: Mapping[str, Any], path):
  for name in sorted(saved.keys() | wanted.keys()):
    if saved.get(name) != wanted.get(name):
      raise ConfigError(
        f'{path} is of another program: {name} is {saved.get(name, "missing")} there '
        f'and {wanted.get(name, "missing")} here; use the code that wrote it, or '
        'another --workdir.'
      )
