"""What a person sees of a run: a progress bar on a terminal, plain lines elsewhere."""

import collections
import os
import sys
import time
from typing import Any, Mapping, TextIO

import numpy as np

from dlx.run.records.lasting import Lasting

WINDOW = 16  # Updates over which the time left is estimated.
WIDE = 110  # Columns of a terminal that has room for more than two metrics.
# What a reader looks for first; all else follows in the order given.
FIRST = ('loss', 'accuracy')


def number(value: Any) -> str:
  """Four significant digits; of a vector over members, its mean."""
  return f'{float(np.mean(np.asarray(value, np.float64))):.4g}'


def line(metrics: Mapping[str, Any], most: int | None = None) -> str:
  """`loss 0.312  accuracy 0.91`, the loss first."""
  rank = {name: i for i, name in enumerate(FIRST)}
  names = sorted(metrics, key=lambda n: rank.get(n.rsplit('/')[-1], len(FIRST)))
  return '  '.join(f'{name} {number(metrics[name])}' for name in names[:most])


def duration(seconds: float | None) -> str:
  """`h:mm:ss`; `-:--:--` where it is not known."""
  if seconds is None or not np.isfinite(seconds):
    return '-:--:--'
  minutes, s = divmod(round(seconds), 60)
  return f'{minutes // 60}:{minutes % 60:02d}:{s:02d}'


class Progress:
  """Progress of one run on stderr; only process 0 makes one.

  On a terminal: a bar with step, metrics, examples a second and time left; notes and
  evaluations are printed above it. Elsewhere one plain line for each call.
  """

  def __init__(
    self,
    num_steps: int,
    *,
    terminal: bool | None = None,
    stream: TextIO | None = None,
    start: int = 0,
  ):
    """Shows the bar.

    Args:
      num_steps: of the whole run.
      terminal: None: whether `stream` is one, and $TERM not dumb.
      stream: None: stderr.
      start: step that the run goes on from.
    """
    self._num_steps = num_steps
    self._stream: Any = Lasting(sys.stderr if stream is None else stream)
    # (seconds, step) of the last updates. The first holds the start: until the second
    # update the time left counts compilation as if every step had it.
    self._marks = collections.deque([(time.monotonic(), start)], maxlen=WINDOW)
    self._compiled = False
    self._bar: Any = None
    if terminal is None:  # A dumb one cannot move its cursor.
      terminal = self._stream.isatty() and os.environ.get('TERM') != 'dumb'
    if terminal:
      self._bar, self._task = _make_bar(self._stream, num_steps, start)
      self._bar.start()

  def __enter__(self) -> 'Progress':
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def update(self, step: int, metrics: Mapping[str, Any], rate: float | None) -> None:
    """Shows training metrics at a step and `rate`, examples a second."""
    left = duration(self._seconds_left(step))
    speed = '' if rate is None else f'{rate:,.0f} examples/s'
    if self._bar is None:
      parts = (
        f'step {step}/{self._num_steps}',
        line(metrics),
        speed.replace(',', ''),
        f'eta {left}',
      )
      self._print('  '.join(p for p in parts if p))
    else:
      most = 4 if self._bar.console.width >= WIDE else 2
      self._bar.update(
        self._task, completed=step, rate=speed, metrics=line(metrics, most), left=left
      )

  def evaluation(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Shows metrics of an evaluation, named "split/name"."""
    self._print(f'step {step}/{self._num_steps}  {line(metrics)}')

  def ended(self, step: int) -> None:
    """The run is whole at this step, before the last one: so is the bar."""
    if self._bar is not None:
      self._bar.update(self._task, completed=step, total=step, left=duration(0))

  def note(self, text: str) -> None:
    """Says something, above the bar."""
    self._print(text)

  def close(self) -> None:
    """Leaves the bar as it stands, gives the terminal back; harmless when repeated."""
    if self._bar is not None:
      self._bar.stop()
      self._bar = None

  def _seconds_left(self, step: int) -> float | None:
    now = time.monotonic()
    then, at = self._marks[0]
    self._marks.append((now, step))
    if not self._compiled:  # From here on, without the first dispatch.
      self._compiled = True
      self._marks.popleft()
    return (now - then) / (step - at) * (self._num_steps - step) if step > at else None

  def _print(self, text: str) -> None:
    if self._bar is None:
      print(text, file=self._stream, flush=True)
    else:
      self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _make_bar(stream: TextIO, num_steps: int, start: int) -> tuple[Any, Any]:
  from rich import console, padding, progress, table

  class Bar(progress.Progress):
    def get_renderables(self):
      # Room for the ^C of a terminal: a line that it wraps leaves a bar behind.
      yield padding.Padding(self.make_tasks_table(self.tasks), (0, 2, 0, 0))

  def text(field: str, style: str = '', width: int | None = None) -> Any:
    return progress.TextColumn(
      field,
      style=style,
      markup=False,
      table_column=table.Column(no_wrap=True, min_width=width),
    )

  # The bar alone gives way on a narrow terminal, then the metrics.
  bar = Bar(
    text('{task.completed}/{task.total}', '', 2 * len(str(num_steps)) + 1),
    progress.BarColumn(bar_width=None),
    text('{task.fields[metrics]}', 'cyan'),
    text('{task.fields[rate]}', 'green', len('99,999 examples/s')),
    text('{task.fields[left]} left', 'dim', len('0:00:00 left')),
    console=console.Console(file=stream, force_terminal=True),
    refresh_per_second=4,
    expand=True,
  )
  task = bar.add_task(
    '',
    total=num_steps,
    completed=start,
    metrics='compiling',
    rate='',
    left=duration(None),
  )
  return bar, task
