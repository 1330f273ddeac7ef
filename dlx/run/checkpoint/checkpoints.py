"""When a run saves, and what lies beside the state that is saved."""

import contextlib
from typing import Any, Mapping

from absl import logging
import jax
import numpy as np

from dlx.experiment import Config, Experiment
from dlx.run import cadence, processes
from dlx.run.at import At
from dlx.run.checkpoint.checkpointer import Checkpointer
from dlx.run.dispatch import Dispatch
from dlx.run.records.json_files import write_bytes
from dlx.run.records.workdir import SAVED


class Checkpoints:
  """The checkpoints of a run under way; a context manager."""

  def __init__(
    self, experiment: Experiment, config: Config, folder: Any, dispatch: Dispatch
  ):
    """Opens WORKDIR/checkpoints. `folder`: epath.Path of the workdir."""
    self._evals, self._config, self._dispatch = experiment.evals, config, dispatch
    self._files = Checkpointer(
      folder / 'checkpoints',
      keep=config.keep_checkpoints,
      best_metric=config.best_metric,
      best_mode=config.best_mode,
      note=logging.warning,
    )
    self._saved: tuple[int, int] | None = None  # (step, evaluated) of the last save.
    self._mark, self._marked = folder / SAVED, False

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *exc):
    # A failed process must not wait for the others: they may wait for it elsewhere.
    if exc[0] is None or jax.process_count() == 1:
      self._files.close()

  def restore(self) -> At | None:
    """The newest sound checkpoint; None: there is none."""
    found = self._files.restore(self._dispatch.state, self._dispatch.window)
    if found is None:
      return None
    evaluated, stop = jax.device_get((found.state.evaluated, found.state.stop))
    self._saved = found.step, int(evaluated)
    stopped = bool(np.all(stop))
    return At(found.state, found.window, found.step, int(evaluated), stopped)

  def due(self, at: At) -> bool:
    """Whether a checkpoint is to be made at this step."""
    due = cadence.save_due(at.step, self._evals, self._config)
    return due or (at.stopped and at.step > 0)

  def has(self, at: At) -> bool:
    """Whether this is what was saved or restored last."""
    return self._saved == (at.step, at.evaluated)

  def save(self, at: At, latest: Mapping[str, Any]):
    """Starts saving.

    Args:
      latest: figures by "split/name"; those of this step lie beside the state.

    Raises:
      NotFinite: names the leaf; nothing is written.
      StorageError: see `Checkpointer.save`.
    """
    splits = cadence.evals_due(at.step, self._evals, self._config)
    figures = {
      name: value
      for name, value in latest.items()
      if at.evaluated == at.step and name.partition('/')[0] in splits
    }
    self._files.save(at.step, at.state, at.window, figures)  # The one before is done.
    self._note_saved()
    self._saved = at.step, at.evaluated

  def best(self) -> int | None:
    """Step of the checkpoint that is kept as the best; None: there is none."""
    return self._files.best()

  def wait(self):
    """Until the save that was started is on disk."""
    self._files.wait()
    self._note_saved()

  def _note_saved(self):
    """Leaves a mark, so that checkpoints which are lost later are missed."""
    if self._saved and not self._marked and processes.is_first():
      self._marked = True
      with contextlib.suppress(OSError):
        write_bytes(self._mark, b'')
