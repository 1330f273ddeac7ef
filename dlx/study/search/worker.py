"""One worker of a sweep: takes trials, trains them, tells what they found."""

import math
import statistics
import sys
import time
from typing import Any, Mapping, Sequence

from etils import epath

from dlx.errors import ConfigError
from dlx.study.results import Finished
from dlx.study.search import batches
from dlx.study.search.declaration import Sweep, name_of, runs_of
from dlx.study.search.outcome import Told
from dlx.study.search.sampling import Halving, Plan, suggest
from dlx.study.search.storage import Chooser, Store, Taken, TrialState
from dlx.study.trials import Trial

_POLL_SECONDS = 5.0


class Worker:
  """One process that asks, trains and tells."""

  def __init__(
    self,
    sweep: Sweep,
    plan: Plan,
    most: int | None,
    store: Store,
    workdir: epath.Path,
    told: Told,
    options: Mapping[str, Any],
  ):
    self._sweep, self._plan, self._most, self._store = sweep, plan, most, store
    self._workdir, self._told, self._options = workdir, told, options
    self._size = sweep.at_once or self._best_size()
    self._pruner = Halving(sweep.space.base.eval_every_steps or 1)
    store.study.pruner = self._pruner
    self._by = Chooser(
      plan.sampler, lambda trial: suggest(trial, sweep.space), self._is_whole
    )

  def _best_size(self) -> int:
    """Trials to choose at once: many where one program trains them."""
    search, plan = self._sweep.search, self._plan
    if search in ('halving', 'cmaes'):
      return plan.batch
    joint = getattr(self._sweep.found.module, 'SWEPT', None) is not None
    if search in ('grid', 'random') and not self._store.is_shared:
      return 256
    return plan.batch if joint else 1

  def work(self) -> bool:
    """Whether the search is finished; else a signal asked to leave."""
    waited = False
    while True:
      if not (taken := self._take()):
        others = [t for t in self._store.trials() if t.state == TrialState.RUNNING]
        if not others:
          return True
        if not waited:
          print(
            f'Waiting for {len(others)} trials of other workers.',
            file=sys.stderr, flush=True,
          )  # fmt: skip
        waited = True
        time.sleep(min(_POLL_SECONDS, (self._store.stale_seconds or 20) / 4))
        continue
      if not self._train(taken):
        return False
      self._told.write(False, brief=True)

  def _take(self) -> list[Taken]:
    """The next trials; what a former process of this workdir left comes first."""
    store, size = self._store, self._size
    taken = store.begun(self._by)
    most = self._most
    if self._spent():
      return taken
    if not store.is_shared:
      # Chosen at once are those of one block, also after a restart.
      begun = [t.index for t in taken]
      first = begun[0] if begun else len(store.trials())
      end = (first // size + 1) * size
      most = end if most is None else min(most, end)
    while len(taken) < size and (one := store.next(most, self._by)):
      taken.append(one)
    return taken

  def _is_whole(self, params: Mapping[str, Any]) -> bool:
    """Whether choices name every field that they should."""
    try:
      return self._sweep.space.choose(lambda d: params[d.name]).keys() == params.keys()
    except KeyError:
      return False

  def _spent(self) -> bool:
    """Whether a budget is used up."""
    done = [t.user_attrs for t in self._store.trials()]
    seconds = sum(t.get('seconds', 0.0) for t in done)
    steps = sum(t.get('steps', 0) for t in done)
    minutes, most = self._sweep.minutes, self._sweep.steps
    return (minutes is not None and seconds >= 60 * minutes) or (
      most is not None and steps >= most
    )

  def _train(self, taken: Sequence[Taken]) -> bool:
    """Trains and tells; whether no signal asked to leave."""
    left: dict[int, tuple[Taken, list[Trial]]] = {}
    for one in taken:
      try:
        runs = runs_of(self._sweep, one.index, one.params)
        runs[0].found.build(runs[0].config)
      except ConfigError as error:
        self._tell(one, {}, refused=str(error))
        continue
      left[one.index] = one, runs
    if self._sweep.search == 'halving':
      return all(self._by_rungs(one, runs) for one, runs in left.values())
    found: dict[str, Finished] = {}
    every = [run for _, runs in left.values() for run in runs]
    for status, finished in batches.train(self._workdir, every, self._options):
      found |= finished
      if status != 'finished':
        return False
      for index, (one, runs) in list(left.items()):
        if all(run.name in found for run in runs):
          self._tell(one, {run.name: found[run.name] for run in runs})
          del left[index]
    return True

  def _by_rungs(self, one: Taken, runs: Sequence[Trial]) -> bool:
    trial, store = one.trial, self._store

    def goes_on(step: int, values: Sequence[float]) -> bool:
      store.call(lambda: trial.report(statistics.fmean(values), step))
      return not store.call(trial.should_prune)

    rungs = self._pruner.rungs(runs[0].config.num_steps)
    metric = self._sweep.metric
    stopped = batches.by_rungs(
      self._workdir, runs, rungs, metric, self._options, goes_on
    )
    if stopped.status == batches.INTERRUPTED:
      return False
    pruned = stopped.step if stopped.status == 'pruned' else None
    self._tell(one, stopped.found, pruned=pruned)
    return True

  def _tell(
    self,
    one: Taken,
    found: Mapping[str, Finished],
    *,
    pruned: int | None = None,
    refused: str = '',
  ):
    """Writes what a trial found into the storage, a line on stderr, and its row.

    Args:
      one: the trial.
      found: by run.
      pruned: step at which it was left.
      refused: why the Config or the experiment refuses its choices.
    """
    metric, runs = self._sweep.metric, found.values()
    values = [f.metrics.get(metric, math.nan) for f in runs]
    value = statistics.fmean(values) if values else math.nan
    state = 'done'
    if refused:
      state = f'refused: {refused}'
    elif any(f.diverged for f in runs) or not math.isfinite(value):
      state = 'diverged'
    elif pruned is not None:
      state = f'pruned at step {pruned}'
    attributes = {
      'runs': {
        name: {
          'config': f.config,
          'metrics': {k: v for k, v in f.metrics.items() if math.isfinite(v)},
          'diverged': f.diverged,
          'seconds': f.seconds,
        }
        for name, f in found.items()
      },
      'seconds': sum(f.seconds for f in runs),
      'steps': sum(pruned or f.config['num_steps'] for f in runs),
      'state': state,
    }
    complete = state == 'done'
    if self._store.tell(one.trial, value if complete else None, attributes):
      self._told.one(one.index)
    else:
      print(
        f'{name_of(one.index)} was taken by another worker meanwhile: what was '
        'found here is left out.',
        file=sys.stderr, flush=True,
      )  # fmt: skip
