"""Which checkpoint of a run is meant by latest, best or a number."""

from dlx.errors import ConfigError
from dlx.run.checkpoint.checkpointer import Checkpointer


def pick(
  saved: Checkpointer,
  workdir: object,
  step: int | str,
  metric: str | None,
  *,
  flag: str = '--step=',
) -> int:
  """The number of a step.

  Args:
    saved: of the run, by `metric`.
    workdir: of the run, as messages name it.
    step: 'latest', 'best' (by `metric`) or a number, which need not be there.
    metric: `config.best_metric` of the run.
    flag: what stands before the step where a user gave it.

  Raises:
    ConfigError: there is no checkpoint, or none that is the best.
  """
  steps = saved.steps()
  if not steps:
    raise ConfigError(f'{workdir} holds no checkpoint: train there first.')
  if step == 'best':
    found = saved.best()
    if found is None:
      why = f'{metric} was not finite at any step that was saved'
      way = f'use {flag}latest'
      if metric is None:
        why, way = 'no metric says which', f'train with --config.best_metric, or {way}'
      raise ConfigError(
        f'{flag}best: the run in {workdir} kept no best checkpoint, as {why}: {way}.'
      )
    return found
  return steps[-1] if step == 'latest' else int(step)
