"""Weights that are means of weights: of checkpoints of a run, of several runs.

--average  of checkpoints: stochastic weight averaging (arXiv 1803.05407)
--soup     of runs: model soups (arXiv 2203.05482)

Where a run keeps a moving average of its parameters, that is what is averaged.
"""

from typing import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.run import processes
from dlx.run.combining.classifiers import Member
from dlx.run.combining.norm_statistics import recomputed
from dlx.run.reopen import Opened, saved_steps, unplaced
from dlx.state import PyTree, TrainState, leaves_by_path


def steps_of(asked: str, member: Member, flag: str = '--average=') -> list[int]:
  """The checkpoints that are averaged.

  Args:
    asked: `last:N`, `from:STEP`, or `steps:A,B,C`.
    member: the run.
    flag: that gave it.

  Raises:
    ConfigError: no such form, or checkpoints that the run has not kept.
  """
  saved = saved_steps(member.config, member.workdir)
  kind, _, rest = asked.partition(':')
  numbers = [x.strip() for x in rest.split(',')]
  whole = all(x.isdecimal() for x in numbers)
  if (
    kind not in ('last', 'from', 'steps')
    or not whole
    or (kind != 'steps' and len(numbers) > 1)
  ):
    raise ConfigError(
      f'{flag}{asked} is not allowed: must be last:N, from:STEP or steps:A,B,C.'
    )
  counts = sorted({int(x) for x in numbers})
  if kind == 'last':
    wanted = saved[-counts[0] :] if counts[0] else []
    missing = counts[0] - len(saved)
  elif kind == 'from':
    wanted, missing = [x for x in saved if x >= counts[0]], 0
  else:
    wanted, missing = counts, len(set(counts) - set(saved))
  if missing > 0 or len(wanted) < 2:
    raise ConfigError(
      f'{flag}{asked}: {member.workdir} has checkpoints of the steps '
      f'{", ".join(map(str, saved)) or "none"}, and two or more are averaged, all of '
      'them there: train with --config.keep_checkpoints=N (now '
      f'{member.config.keep_checkpoints}) and --config.save_every_steps (now '
      f'{member.config.save_every_steps}).'
    )
  return wanted


def averaged(opened: Opened, member: Member, steps: Sequence[int], norm_batches: int):
  """The state of a run with the mean weights of its checkpoints, see `with_weights`."""
  found = mean_of(weights_of(member, step) for step in steps)
  return with_weights(opened, found, norm_batches)


def weights_of(member: Member, step: int | str) -> PyTree:
  """The parameters of a checkpoint that its functions use, on the host."""
  state = unplaced(
    member.experiment,
    member.config,
    member.workdir,
    step=step,
    without=('opt_state', 'model_state', 'best'),
  )
  return on_host(state)


def on_host(state: TrainState) -> PyTree:
  """The weights that functions use."""
  return jax.tree.map(processes.to_host, state.averaged)


def mean_of(trees: Iterable[PyTree]) -> PyTree:
  """The mean of each leaf, added up in float64, in the dtype of the first.

  Leaves that are no floats are those of the first.
  """
  first, total, count = None, None, 0
  for tree in trees:
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), tree)
    total = wide if total is None else jax.tree.map(np.add, total, wide)
    first, count = tree if first is None else first, count + 1

  def mean(x: np.ndarray, sum_: np.ndarray) -> np.ndarray:
    floats = jnp.issubdtype(x.dtype, jnp.floating)
    return (sum_ / count).astype(x.dtype) if floats else x

  return jax.tree.map(mean, first, total)


def with_weights(opened: Opened, weights: PyTree, norm_batches: int) -> TrainState:
  """The state of a run with other weights: parameters, and the average it may keep.

  All else, a frozen teacher for instance, is that of the run.

  Args:
    opened: with the data of training, where the model has batch norm.
    weights: as `TrainState.averaged`, on the host.
    norm_batches: training batches over which statistics of batch norm are found anew.
  """
  state, shardings = opened.state, opened.dispatch.state
  new = {'params': state.params}
  if jax.tree.leaves(state.ema):
    new['ema'] = state.ema
  for part, old in new.items():
    cast = jax.tree.map(lambda x, like: x.astype(like.dtype), weights, old)
    where = jax.tree.map(lambda x: x.sharding, getattr(shardings, part))
    new[part] = processes.put(cast, where)
  found = recomputed(opened, state._replace(**new), norm_batches)
  return processes.put(found, jax.tree.map(lambda x: x.sharding, shardings))


def check_same_shapes(first: Member, other: Member, flag: str):
  """Raises ConfigError where the weights of two runs are not of the same shapes."""
  of = lambda member: {
    k: x.shape
    for k, x in leaves_by_path(
      jax.eval_shape(lambda: member.experiment.init(jax.random.key(0))).averaged
    ).items()
  }
  a, b = of(first), of(other)
  for name in sorted(a.keys() | b.keys()):
    if a.get(name) != b.get(name):
      raise ConfigError(
        f'{flag} is not allowed of {first.workdir} and {other.workdir}: weights must '
        f'have the same shapes, and {name} is {a.get(name)} and {b.get(name)}.'
      )


def greedy_soup(
  candidates: Sequence[PyTree], score: Callable[[PyTree], float]
) -> tuple[list[int], PyTree]:
  """Which weights make a soup that is no worse than without them, and their mean.

  arXiv 2203.05482, algorithm 1: from the best to the worst, each is kept if the mean
  with it is as accurate on held-out examples as the mean before.

  Args:
    candidates: weights.
    score: of weights, on held-out examples: higher is better.

  Returns:
    The numbers of those that are kept, the best first; and the soup.
  """
  alone = [score(tree) for tree in candidates]
  order = sorted(range(len(candidates)), key=lambda i: -alone[i])
  kept = order[:1]
  soup, best = candidates[kept[0]], alone[kept[0]]
  for i in order[1:]:
    tried = mean_of([candidates[j] for j in (*kept, i)])
    found = score(tried)
    if found >= best:
      kept, soup, best = [*kept, i], tried, found
  return kept, soup
