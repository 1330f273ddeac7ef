"""What the loop does when a step was not finite: replay it and say where."""

from typing import TYPE_CHECKING, Any

from dlx.data.dataset import Resident
from dlx.run import cadence, evaluation, sharding
from dlx.run.nonfinite import NonFiniteError, replay

if TYPE_CHECKING:
  from dlx.run.session import Run


def diagnose(run: 'Run', end: int, symptom: str) -> NonFiniteError:
  """Replays a run from its last good checkpoint up to step `end`, one step at a time.

  Args:
    run: its programs, data and checkpoints are used; its state is not.
    end: the symptom was seen after this many steps.
    symptom: a sentence.

  Returns:
    The error to raise: symptom, first tensor that was not finite, what is kept.
  """
  run.reporter.note(f'{symptom} Replaying one step at a time to find the tensor.')
  run.checkpoints.wait()
  restored = run.checkpoints.restore(run.dispatch.state, run.dispatch.window)
  start = 0 if restored is None else restored.step
  state = run.fresh() if restored is None else restored.state
  experiment, data = run.experiment, run.experiment.train_data

  def batch(step: int) -> Any:
    return evaluation.one_batch(run.train, run.mesh, step)

  def advance(state, step):
    reads = run.train.arrays if isinstance(data, Resident) else batch(step)
    program = run.program(data.shape_id(step), reads)
    state, _, bad = program(state, run.zero_window(), reads, run.in_flight.count(1))
    due = cadence.evals_due(step + 1, experiment.evals, run.config)
    if due and step + 1 < end:
      state = run.fold_in(
        state, step + 1, {name: run.evaluate(name, state) for name in due}
      )
    return state, int(bad) < 0

  found = replay(
    state,
    start,
    end,
    advance=advance,
    get_batch=batch,
    train_step=sharding.traced_under(run.mesh, experiment.train_step),
  )
  kept = (
    f'The last good checkpoint is that of step {start}'
    if restored
    else 'No checkpoint had been saved'
  )
  return NonFiniteError(
    f'{symptom} {found or "A replay one step at a time stayed finite."} {kept}; '
    'nothing that is not finite was saved.'
  )
