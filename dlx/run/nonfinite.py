"""The NaN guard: which step, and which tensor of it, first was not finite.

A dispatch reports its first step with non-finite metrics, which costs next to nothing.
Only then is the run replayed from its last good checkpoint, one step at a time, and
the step looked into: batch, metrics, watched trees (gradients), new state.
"""

from typing import Any, Callable

import jax
from jax.extend import core as jex_core
import numpy as np

from dlx.errors import NonFiniteError
from dlx.run import blame
from dlx.run.at import At, NotFinite
from dlx.run.processes import to_host
from dlx.run.programs import copy
from dlx.run.session import Session
from dlx.run.sharding import traced_under
from dlx.state import TrainState, is_key, leaves_by_path
from dlx.train.steps import all_finite, first_non_finite


def watched_equations(jaxpr: Any) -> list[Any]:
  """The equations by which `dlx.train.steps.watch` has named values, in their order."""
  return [equation for equation in jaxpr.eqns if equation.primitive.name == 'name']


def watched(train_step: Callable, state: TrainState, batch: Any) -> dict[str, Any]:
  """Values that `dlx.train.steps.watch` has named in a train step, in its order."""
  closed = jax.make_jaxpr(train_step)(state, batch)
  named = [(e.params['name'], e.outvars[0]) for e in watched_equations(closed.jaxpr)]
  if not named:
    return {}
  info = closed.jaxpr.debug_info._replace(result_paths=None)
  jaxpr = closed.jaxpr.replace(outvars=[v for _, v in named], debug_info=info)
  run = jex_core.jaxpr_as_fun(jex_core.ClosedJaxpr(jaxpr, closed.consts))
  values = jax.jit(run)(*jax.tree.leaves((state, batch)))
  return dict(zip([name for name, _ in named], values, strict=True))


def explain(
  step: int, batch: Any, train_step: Callable, before: TrainState, after: TrainState
) -> str | None:
  """What was first not finite in one step, as a sentence; None: all was finite.

  Args:
    step: number of the step, counted from 0.
    batch: what the step received.
    train_step: of the experiment, not jitted.
    before, after: the states around it.
  """
  metrics = jax.jit(lambda s, b: train_step(s, b)[1])(before, batch)
  parts = (
    ('the batch', batch),
    ('the metrics', metrics),
    ('the gradients', watched(train_step, before, batch)),
    ('the new state', after),
  )
  for i, (what, tree) in enumerate(parts):
    found = first_non_finite(tree)
    if found is not None:
      path, value = found
      host = to_host(value).astype(np.float64)
      bad = int((~np.isfinite(host)).sum())
      fine = ' and '.join(name for name, _ in parts[:i]) or 'what came before'
      kind = 'NaN' if np.isnan(host).any() else 'inf'
      line = blame.line(train_step, before, batch) if i else None
      return (
        f'Step {step}: in {what}, {path} is the first tensor that is not finite '
        f'({kind}; {bad} of {host.size} values). {fine.capitalize()} '
        f'{"are" if i > 1 else "is"} finite.'
        + (f' The first operation that made one: {line}.' if line else '')
        + (_labels(train_step, before, batch) if i else '')
      )
  return None


def _labels(train_step: Callable, state: TrainState, batch: Any) -> str:
  """A sentence on an index outside its range, of which losses make NaN; else ''."""
  found = blame.index_out_of_range(train_step, state, batch)
  if found is None:
    return ''
  value, size, ndim = found
  for name, x in leaves_by_path(batch).items():
    if x.ndim == ndim and np.issubdtype(x.dtype, np.integer):
      if (rows := np.argwhere(to_host(x) == value)).size:
        row = ', '.join(map(str, rows[0]))
        return f' {name} is {value} in row {row} of the batch: must be in [0, {size}).'
  return f' An index is {value}: must be in [0, {size}).'


def look(run: Session, at: At):
  """For --debug, before a step: each operation of it alone, also what is masked later.

  Raises:
    NonFiniteError: the first that makes a NaN of none.
  """
  train_step = traced_under(run.programs.mesh, run.experiment.train_step)
  batch = run.programs.batch(at.step)
  made = blame.line(train_step, at.state, batch, infinite=False)
  if made is not None:
    raise NonFiniteError(
      f'Step {at.step}: the first operation that makes a NaN: {made}.'
      + _labels(train_step, at.state, batch)
    )


def diagnose(error: NotFinite | FloatingPointError, run: Session) -> NonFiniteError:
  """Replays a run from its last good checkpoint, one step at a time.

  Args:
    error: what was seen, by the run or by JAX_DEBUG_NANS.
    run: its programs, evaluations and checkpoints are used; what is in flight is not.

  Returns:
    The error to raise: symptom, first tensor that was not finite, what is kept.
  """
  end = error.end if isinstance(error, NotFinite) else run.programs.sent
  seen = str(error).partition('\n')[0].rstrip('.')
  run.records.note(f'{seen}. Replaying one step at a time to find the tensor.')
  run.checkpoints.wait()
  restored = run.checkpoints.restore()
  at = run.programs.fresh(run.folder) if restored is None else restored
  kept = 'No checkpoint had been saved'
  if restored is not None:
    kept = f'The last good checkpoint is that of step {restored.step}'
  with jax.debug_nans(False):
    found = _replay(run, at, end) or 'A replay one step at a time stayed finite.'
  return NonFiniteError(
    f'{seen}. {found} {kept}; nothing that is not finite was saved.'
  )


def _replay(run: Session, at: At, end: int) -> str | None:
  """The sentence of `explain` about a step before `end`; None: all were finite."""
  check = jax.jit(all_finite)
  while at.step < end:
    if names := run.evaluations.due(at):
      at = run.evaluations.fold_in(at, run.evaluations.run(names, at.state))
    before, step = copy(at.state), at.step
    at, fine = run.programs.one_step(at)
    if not (fine and bool(check(_floats(at.state)))):
      train_step = traced_under(run.programs.mesh, run.experiment.train_step)
      return explain(step, run.programs.batch(step), train_step, before, at.state)
  return None


def _floats(state: TrainState) -> dict[str, Any]:
  return {name: x for name, x in leaves_by_path(state).items() if not is_key(x)}
