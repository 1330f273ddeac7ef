"""Everything a run says: lines of metrics, TensorBoard events, progress."""

from typing import Any, Mapping

import jax
import numpy as np

from dlx.run.records.metrics_file import MetricsFile
from dlx.run.records.progress import Progress
from dlx.run.records.tensorboard import EventWriter


def as_floats(value: np.ndarray) -> Any:
  """A float, or a list of floats where there are members."""
  return np.asarray(value, np.float64).tolist()


def reported(value: Any, members: tuple[int, ...]) -> bool:
  """Whether it is a metric: a number, or one of each member; else it is for figures."""
  return getattr(value, 'shape', None) in ((), members)


class Reporter:
  """One place for what is reported; on other processes than the first it is silent.

  Attributes:
    latest: last figures by "split/name", also those of former sessions.
    seconds: by kind, of the sessions before.
    events: TensorBoard; None on other processes.
  """

  def __init__(
    self,
    folder,
    num_steps: int,
    *,
    members: tuple[int, ...],
    step: int | None,
    evaluated: int,
    terminal: bool | None,
  ):
    """Opens the files and drops what lies past the restored step.

    Args:
      folder: epath.Path of the workdir.
      members: shape of a metric of each member: (n,), or () where there are none.
      step, evaluated: of the restored state; None for a fresh run.
    """
    self._members = members
    self.latest: dict[str, Any] = {}
    self.seconds: Mapping[str, float] = {}
    self.events: EventWriter | None = None
    self._progress: Progress | None = None
    if jax.process_index() != 0:
      return
    self._lines = MetricsFile(folder)
    self._lines.rewind(step or 0, evaluated)
    for line in self._lines.read():
      self.latest |= {f'{line["split"]}/{k}': v for k, v in line['metrics'].items()}
      self.seconds = line['time']['seconds']
    self.events = EventWriter(folder, purge_step=step)
    self._progress = Progress(num_steps, terminal=terminal, start=step or 0)
    if step is not None:
      self.note(f'Going on from step {step} of {num_steps}.')

  def scalars(self, values: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What is reported of a mapping that may hold arrays for figures as well."""
    shown = {k: v for k, v in sorted(values.items()) if reported(v, self._members)}
    return {k: as_floats(v) for k, v in shown.items()}

  def write(
    self,
    step: int,
    split: str,
    values: Mapping[str, Any],
    seconds: Mapping[str, float],
    rate: float | None = None,
  ):
    """One line of metrics; `rate` (examples a second) marks a line of training.

    Groups of numbers, as norms by layer, are written of training alone: into the line
    and to TensorBoard, not to the terminal.
    """
    metrics = self.scalars(values)
    self.latest |= {f'{split}/{k}': v for k, v in metrics.items()}
    if self.events is None or self._progress is None:
      return
    time: dict[str, Any] = {'seconds': {k: round(v, 3) for k, v in seconds.items()}}
    if rate is not None:
      time['examples_per_second'] = round(rate, 1)
    groups = {
      name: {k: as_floats(v) for k, v in sorted(group.items())}
      for name, group in values.items()
      if isinstance(group, Mapping) and rate is not None
    }
    self._lines.write(step, split, metrics, time, groups)
    for name, group in groups.items():
      self.events.scalars(step, {f'{name}/{k}': np.mean(v) for k, v in group.items()})
    means = {k: float(np.mean(v)) for k, v in metrics.items()}
    self.events.scalars(step, {f'{split}/{k}': v for k, v in means.items()})
    if rate is None:
      self.events.flush()
      self._progress.evaluation(step, {f'{split}/{k}': v for k, v in means.items()})
    else:
      self._progress.update(step, means, rate)

  def lines(self) -> list[dict[str, Any]]:
    """All lines so far, of former sessions too; none on other processes."""
    return [] if self.events is None else self._lines.read()

  def note(self, text: str):
    """Tells a person something, above the progress bar."""
    if self._progress is not None:
      self._progress.note(text)

  def stopped(self, step: int, why: str):
    """Tells that the run ends here, before its last step."""
    if self._progress is not None:
      self._progress.note(f'Stopped early at step {step}: {why}.')
      self._progress.ended(step)

  def data(self, split: str, origin: Mapping[str, Any]):
    """Tells what the examples of a split were read from; see `Loaded`."""
    told = (str(origin[k]) for k in ('name', 'kind', 'size') if k in origin)
    where = f' from {origin["path"]}' if 'path' in origin else ''
    self.note(f'Data for {split}: {", ".join(told)} examples{where}')

  def flush(self):
    """Before a save: no figure of a saved step may be lost."""
    if self.events is not None:
      self._lines.flush()
      self.events.flush()

  def close(self):
    if self.events is not None and self._progress is not None:
      self._progress.close()
      self._lines.close()
      self.events.close()
