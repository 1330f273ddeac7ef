"""What is refused before a sweep compiles anything; what all its workers share."""

import hashlib
import json
from typing import Any, Mapping

from dlx.config_json import config_to_json
from dlx.errors import ConfigError
from dlx.run.records.json_files import flat
from dlx.study.rehearsal import reported
from dlx.study.search.declaration import TRIALS, Sweep, runs_of
from dlx.study.search.flagfile import flags_of
from dlx.study.search.sampling import Plan
from dlx.study.search.space import PREFIX
from dlx.study.search.storage import Store
from dlx.study.trials import Trial

CHECKED = 200  # Draws that are tried, where the trials are not known yet.
_AGREED = 'dlx'  # Attribute of a study of Optuna.


def most_trials(sweep: Sweep, plan: Plan) -> int | None:
  """Trials that there are at most; None: another budget ends the search."""
  most = sweep.trials
  if sweep.search != 'grid' and all(
    x is None for x in (most, sweep.minutes, sweep.steps)
  ):
    most = TRIALS
  limits = [x for x in (most, plan.most) if x is not None]
  return min(limits, default=None)


def check(sweep: Sweep, plan: Plan, most: int | None) -> Trial:
  """Refuses what cannot be before anything is begun; the first run.

  Raises:
    ConfigError: a value or a combination that the Config refuses, and see above.
  """
  for field in ('seeds', 'trials', 'minutes', 'steps', 'at_once'):
    value = getattr(sweep, field)
    if value is not None and value <= 0:
      raise ConfigError(f'--{field}={value} is not allowed: must be above 0.')
  if 'seed' in sweep.space.dimensions and sweep.seeds > 1:
    raise ConfigError(
      f'--seeds={sweep.seeds} is not allowed with --sweep={PREFIX}seed: give one of '
      'them.'
    )
  for name in ('compute_dtype', 'param_dtype'):
    dimension = sweep.space.dimensions.get(name)
    if dimension is not None and 'float64' in dimension.points:
      raise ConfigError(
        f'--sweep={PREFIX}{name}={dimension.text} is not allowed: float64 is a mode of '
        f'the whole process; give a sweep of its own --{PREFIX}{name}=float64.'
      )
  if sweep.search == 'halving':
    _check_halving(sweep)
  number = CHECKED if most is None or plan.params(0) is None else most
  number = number if plan.most is None else min(number, plan.most)
  for index in range(number):
    params = plan.params(index)
    params = sweep.space.draw(sweep.seed, index) if params is None else params
    try:
      sweep.space.config(params)
    except ConfigError as error:
      fields = flags_of(sweep.space.values(params))
      raise ConfigError(
        f'{error} It is of the trial {" ".join(fields)}: drop the value, or give a '
        "condition, --sweep='... if config.FIELD=VALUE'."
      ) from None
  params = plan.params(0)
  if params is None:
    params = sweep.space.draw(sweep.seed, 0)
  return runs_of(sweep, 0, params)[0]


def _check_halving(sweep: Sweep):
  base = sweep.space.base
  told = '--search=halving asks the metric on the way'
  if base.eval_every_steps is None:
    raise ConfigError(
      f'{told}: give --{PREFIX}eval_every_steps, the first step where it is asked, '
      f'e.g. {max(1, base.num_steps // 9)}.'
    )
  if sweep.metric.startswith('train/'):
    raise ConfigError(
      f'--metric={sweep.metric} is not allowed: {told}, of an evaluation.'
    )
  swept = {'num_steps', 'eval_every_steps'} & sweep.space.dimensions.keys()
  if swept:
    raise ConfigError(
      f'--sweep={PREFIX}{sorted(swept)[0]} is not allowed: {told}, at equal steps of '
      'all trials.'
    )


def declared(sweep: Sweep, first: Trial, mesh: str | None) -> Mapping[str, Any]:
  """What the experiment says of the metric."""
  known = reported(first, mesh)
  if sweep.metric not in known:
    hint = ''
    if sweep.metric.startswith('validation/'):
      hint = f' --{PREFIX}validation=0.1 holds out a tenth of the training examples.'
    raise ConfigError(
      f'--metric={sweep.metric} is not allowed: {first.found.short} reports no such '
      f'figure; must be one of {", ".join(sorted(known))}.{hint}'
    )
  return known[sweep.metric]


def is_highest(sweep: Sweep, said: Mapping[str, Any]) -> bool:
  """Whether the highest number is the best."""
  mode = sweep.mode
  if mode is None:
    mode = {'lower': 'min', 'higher': 'max'}.get(said.get('better') or '')
  if mode is None:
    raise ConfigError(
      f'--mode is missing: {sweep.found.short} does not declare whether a lower or a '
      f'higher {sweep.metric} is better; give --mode=min or --mode=max.'
    )
  return mode == 'max'


def agreement(sweep: Sweep) -> dict[str, Any]:
  """What all workers and all starts of a search have in common."""
  swept = sweep.space.dimensions
  fixed = flat(config_to_json(sweep.space.base)).items()
  return {
    'exp': sweep.found.short,
    'search': sweep.search,
    'metric': sweep.metric,
    'seed': sweep.seed,
    'seeds': sweep.seeds,
    'sweep': {PREFIX + name: dimension.text for name, dimension in swept.items()},
    'config': {PREFIX + name: value for name, value in fixed if name not in swept},
  }


def digest_name(agreed: Mapping[str, Any]) -> str:
  """Of a search in a database: equal commands have one."""
  digest = hashlib.sha256(json.dumps(agreed, sort_keys=True).encode()).hexdigest()
  return f'{agreed["exp"]}-{digest[:12]}'


def agree(store: Store, agreed: Mapping[str, Any]):
  """Raises ConfigError where the trials there are of another search."""
  there = store.agree(_AGREED, agreed)
  if there == agreed:
    return
  other = []
  for key, now in agreed.items():
    then = there.get(key) if isinstance(there, dict) else None
    if isinstance(now, dict) and isinstance(then, dict):
      names = sorted(now.keys() | then.keys())
      other += [
        f'{n}: {then.get(n, "not swept")} there, {now.get(n, "not swept")} now'
        for n in names
        if now.get(n) != then.get(n)
      ]
    elif now != then:
      other.append(f'--{key}: {then} there, {now} now')
  raise ConfigError(
    f'The trials there are of another search ({"; ".join(other[:4])}): use another '
    '--workdir or --study, or --fresh.'
  )
