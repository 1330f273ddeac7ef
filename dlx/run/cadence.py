"""When things are due: absolute multiples of their intervals, so that resume agrees."""

from typing import Iterable, Mapping

from dlx.experiment import Config, Eval


def due(step: int, every: int | None, last: int) -> bool:
  """Whether something with this interval happens after `step` steps of `last`."""
  return step == last or (every is not None and step > 0 and step % every == 0)


def evals_due(step: int, evals: Mapping[str, Eval], config: Config) -> list[str]:
  """Names of the evaluations that are due after `step` steps."""
  if step == 0:
    return list(evals) if config.eval_at_start else []
  return [
    name
    for name, e in evals.items()
    if due(step, e.every or config.eval_every_steps, config.num_steps)
  ]


def save_due(step: int, evals: Mapping[str, Eval], config: Config) -> bool:
  """Whether a checkpoint is due: also after evaluations that may find a new best."""
  if step == 0:
    return False
  if due(step, config.save_every_steps, config.num_steps):
    return True
  split = (config.best_metric or '').partition('/')[0]
  return split in evals_due(step, evals, config)


def next_boundary(
  step: int,
  most: int,
  end: int,
  config: Config,
  evals: Mapping[str, Eval],
  cuts: Iterable[int] = (),
) -> int:
  """The step at which the next dispatch ends.

  A dispatch has at most `most` steps and ends at multiples of every interval, at `cuts`
  (of a trace) and at `end`.
  """
  intervals = [
    config.log_every_steps,
    config.eval_every_steps,
    config.save_every_steps,
    config.figure_every_steps,
    *(e.every for e in evals.values()),
  ]
  stops = [step + most, end, *(c for c in cuts if c > step)]
  stops += [(step // every + 1) * every for every in intervals if every is not None]
  return min(stops)
