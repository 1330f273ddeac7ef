"""What one session of a run writes down: log windows, evaluations, result.json."""

from typing import Any, Mapping, NamedTuple

import jax
import numpy as np

from dlx.run.records import history
from dlx.run.records.environment import environment
from dlx.run.records.json_files import write_json
from dlx.run.records.reporter import Reporter
from dlx.run.records.tensorboard import EventWriter
from dlx.run.records.workdir import Workdir
from dlx.run.timing import Clock
from dlx.state import ratios


class _Window(NamedTuple):
  """A closed log window whose sums are still on the device."""

  step: int
  sums: Any


class Records:
  """Reports of a run from a step on; a context manager. All processes call it alike."""

  def __init__(
    self,
    folder: Workdir,
    clock: Clock,
    *,
    num_steps: int,
    members: tuple[int, ...],
    rows: int,
    step: int,
    evaluated: int,
    restored: bool,
    terminal: bool | None,
  ):
    """Opens the files and drops the lines that this session writes again.

    Args:
      clock: is given the seconds of former sessions.
      num_steps: of the whole run.
      members: shape of a metric of each member: (n,), or () where there are none.
      rows: of a training batch; rates count them.
      step, evaluated: where the session starts.
      restored: whether that is a checkpoint.
      terminal: a progress bar or plain lines; None: as stderr is.
    """
    self._folder, self._clock, self._rows = folder, clock, rows
    self._reporter = Reporter(
      folder.path,
      num_steps,
      members=members,
      evaluated=evaluated,
      step=step if restored else None,
      terminal=terminal,
    )
    clock.add(self._reporter.seconds)
    self._other(folder.changed())
    self._window: _Window | None = None  # The last one closed, until it is written.
    self._mark = step, clock.seconds()['train']

  def __enter__(self) -> 'Records':
    return self

  def __exit__(self, *exc):
    self._reporter.close()

  @property
  def latest(self) -> Mapping[str, Any]:
    """Last figures by "split/name", also those of former sessions."""
    return self._reporter.latest

  @property
  def events(self) -> EventWriter | None:
    """TensorBoard; None on other processes than the first."""
    return self._reporter.events

  def history(self) -> Mapping[str, Any]:
    """What training has logged, also in former sessions; see history.py."""
    return history.of_training(self._reporter.lines())

  def note(self, text: str):
    """Tells a person something."""
    self._reporter.note(text)

  def calling(self, shape_id: int, calls: Mapping[str, int]):
    """Keeps in config.json what a program calls, or tells what is not as it was.

    Args:
      shape_id: of its batches.
      calls: their number by target, see dlx/run/calls.py.
    """
    self._other(self._folder.calling(shape_id, calls))

  def _other(self, changed: str):
    if changed:
      self.note(f'Other than at the start: {changed}. Bits may differ.')

  def stopped(self, step: int, metric: str | None):
    """Tells a person that early stopping ended the run.

    Args:
      metric: `early_stop_metric`; None: a rule of the experiment's own did.
    """
    why = f'{metric} improves no longer'  # Which weights are back is told besides.
    self._reporter.stopped(step, why if metric else 'by the experiment')

  def data(self, split: str, origin: Mapping[str, Any]):
    """Tells what the examples of a split were read from; see `Loaded`."""
    self._reporter.data(split, origin)

  def close_window(self, step: int, sums: Any):
    """Ends a log window. Its sums are fetched later, so that nothing waits for them."""
    self.write_window()
    self._window = _Window(step, sums)

  def write_window(self):
    """Writes the window that was closed last, unless that is done.

    Its time is up when its sums have come: a dispatch is sent long before it ends.
    """
    if self._window is None:
      return
    (step, sums), self._window = self._window, None
    with self._clock.span('train'):
      with np.errstate(invalid='ignore'):  # float16 may have skipped all: 0 of 0.
        fetched = ratios(jax.device_get(sums))
    seconds = self._clock.seconds()
    since, train = self._mark
    rate = (step - since) * self._rows / max(seconds['train'] - train, 1e-9)
    self._mark = step, seconds['train']
    values = jax.tree.map(np.array, dict(fetched))
    self._reporter.write(step, 'train', values, seconds, rate)

  def evaluated(self, step: int, found: Mapping[str, Mapping[str, np.ndarray]]):
    """Writes what evaluations found, by split and name."""
    for split, figures in found.items():
      self._reporter.write(step, split, figures, self._clock.seconds())

  def metrics(self, found: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """The metrics of evaluations by "split/name"; writes nothing."""
    return {
      f'{split}/{name}': value
      for split, figures in found.items()
      for name, value in self._reporter.scalars(figures).items()
    }

  def flush(self):
    """Before a save: no figure of a saved step may be lost."""
    self._reporter.flush()

  def finish(
    self,
    step: int,
    metrics: Mapping[str, Any],
    *,
    stopped_early: bool,
    weights: str,
    origins: Mapping[str, Mapping[str, Any]],
    seconds: Mapping[str, float],
    parameters: int,
    flops_per_step: int | None,
    fingerprint: str,
  ):
    """Writes result.json, the last file: without it the run counts as unfinished.

    Args:
      metrics: by "split/name".
      weights: which ones the run ends with, in words.
      origins: what data each split was read from.
      seconds: by kind and in total, of all sessions.
      parameters: their number, of all members.
      flops_per_step: operations of a step on all devices; None: not known.
      fingerprint: of the final state.
    """
    record = self._folder.record
    if self.events is not None:
      means = {name: float(np.mean(value)) for name, value in metrics.items()}
      self.events.hparams(step, record['config'], means)
    rate = step * self._rows / max(seconds['train'], 1e-9)
    done = {
      'experiment': record['experiment'],
      'dataset': {split: dict(origin) for split, origin in origins.items()},
      'metrics': dict(sorted(metrics.items())),
      'step': step,
      'num_steps': record['config']['num_steps'],
      'stopped_early': stopped_early,
      'weights': weights,
      'seconds': {kind: round(value, 3) for kind, value in seconds.items()},
      'examples_per_second': round(rate, 1),
      'parameters': parameters,
      'flops_per_step': flops_per_step,
      **environment(),
      'fingerprint': fingerprint,
      'finished': True,
    }
    if jax.process_index() == 0:
      write_json(self._folder.path / 'result.json', done)
