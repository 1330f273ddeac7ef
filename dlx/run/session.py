"""What one session of a run holds open: opened in order, closed in the reverse."""

import contextlib
from typing import Iterator, Mapping, NamedTuple

from dlx.experiment import Config, Experiment
from dlx.run import drawing, feed
from dlx.run.at import At
from dlx.run.checkpoint.checkpoints import Checkpoints
from dlx.run.dispatch import Dispatch
from dlx.run.evaluation import Evaluations
from dlx.run.feed import Placed
from dlx.run.initial import Source, told
from dlx.run.programs import Programs
from dlx.run.records.records import Records
from dlx.run.records.workdir import Workdir
from dlx.run.rehearsal import Rehearsed
from dlx.run.stop_request import StopRequest
from dlx.run.timing import Clock, Trace


class Session(NamedTuple):
  """The parts of a run; none knows another.

  Attributes:
    rehearsed: programs that were traced before anything was read.
    start: where this session starts: restored, or fresh.
  """

  experiment: Experiment
  config: Config
  folder: Workdir
  clock: Clock
  data: Mapping[int, Placed]
  programs: Programs
  evaluations: Evaluations
  checkpoints: Checkpoints
  records: Records
  trace: Trace
  stop: StopRequest
  rehearsed: Rehearsed
  start: At

  def draw(self, at: At):
    """Draws the figures of a step; needs no training step to have run before."""
    run, figures = self.evaluations.run, self.experiment.figures
    with self.clock.span('figures'):
      drawing.draw_figures(
        figures,
        self.rehearsed.figures,
        at.state,
        at.step,
        folder=self.folder.path,
        events=self.records.events,
        batch=lambda dataset: feed.one_batch(self.data[id(dataset)], 0),
        summary=lambda name: run([name], at.state)[name].figures,
        history=self.records.history,
      )


@contextlib.contextmanager
def opened(
  experiment: Experiment,
  config: Config,
  folder: Workdir,
  dispatch: Dispatch,
  data: Mapping[int, Placed],
  clock: Clock,
  rehearsed: Rehearsed,
  *,
  source: Source | None,
  trace_steps: tuple[int, int] | None,
  terminal: bool | None,
) -> Iterator[Session]:
  """Restores or begins; whatever fails later, all is closed.

  Args:
    folder: of the run, begun.
    data: every data set of the experiment.
    clock: of this session; what was spent so far counts.
    rehearsed: of this experiment and dispatch.
    source: what a run that begins takes of another.
    trace_steps, terminal: see loop.py's `fit`.
  """
  with contextlib.ExitStack() as held:  # What fails to close keeps none of the others.
    stop = held.enter_context(StopRequest())
    files = Checkpoints(experiment, config, folder.path, dispatch)
    checkpoints = held.enter_context(files)
    train = data[id(experiment.train_data)]
    programs = Programs(experiment, config, dispatch, train, clock)
    held.enter_context(programs)
    restored = checkpoints.restore()
    start = restored or programs.fresh(folder, source)
    records = Records(
      folder,
      clock,
      num_steps=config.num_steps,
      members=dispatch.state.stop.shape,
      rows=programs.rows,
      step=start.step,
      evaluated=start.evaluated,
      restored=restored is not None,
      terminal=terminal,
    )
    held.enter_context(records)
    programs.calling = records.calling
    trace = Trace(trace_steps, folder.path)
    held.callback(trace.stop)
    evaluations = Evaluations(
      experiment, config, dispatch, data, clock, rehearsed.evals
    )
    session = Session(
      experiment, config, folder, clock, data, programs, evaluations, checkpoints,
      records, trace, stop, rehearsed, start,
    )  # fmt: skip
    if source is not None and restored is None:
      for line in told(folder.record['init_from']):
        records.note(line)
    for split, origin in feed.origins(experiment, data).items():
      records.data(split, origin)
    yield session
