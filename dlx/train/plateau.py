"""The learning rate falls where an evaluated figure no longer improves; it resumes.

In an experiment's Config, then around its optimiser and around what `build` returns
(`supervised` and `image_classifier` do both, given `plateau=config.plateau`):

  plateau: Plateau = Plateau()              flags --config.plateau.NAME
  tx = config.plateau.wrap(optim.adam(config.lr))
  return config.plateau.watching(Experiment(...))

All that it remembers lies in the optimiser's state, so that a run that was killed goes
on as if it had not been. The rule is that of torch's ReduceLROnPlateau.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlx.config import Group, check_choice
from dlx.errors import ConfigError
from dlx.experiment import Experiment
from dlx.optim.copies import in_float32
from dlx.optim.optimizers import rated
from dlx.state import Array, PyTree, TrainState


class Lowered(NamedTuple):
  """State of an optimiser whose rate falls on a plateau.

  Attributes:
    lowered: factor of the learning rate so far, float32, as the next.
    best: best figure so far; the worst finite number before the first.
    bad: int32, evaluations in a row without an improvement.
    rest: int32, evaluations that are not counted yet, after a fall.
    inner: state of the optimiser itself.
  """

  lowered: Array
  best: Array
  bad: Array
  rest: Array
  inner: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plateau(Group):
  """When the learning rate falls, and by how much."""

  # Metric whose standstill lowers the learning rate, e.g. validation/loss; None: off.
  metric: str | None = None
  mode: str = 'min'  # Whether the metric of the plateau shall fall or rise: min or max.
  factor: float = 0.1  # What the learning rate is multiplied by on a plateau.
  # Evaluations without an improvement after which one more lowers the rate.
  patience: int = 10
  # Share of the best figure by which a better one must beat the best.
  threshold: float = 1e-4
  # Evaluations after a fall of the learning rate that are not counted.
  cooldown: int = 0
  least: float = 0.0  # Least share of the scheduled rate that a plateau leaves.

  def __post_init__(self):
    super().__post_init__()
    self.require(
      'metric',
      self.metric is None or '/' in self.metric,
      'SPLIT/NAME, e.g. validation/loss, or None for off',
    )
    self.choice('mode', of=('min', 'max'))
    self.bounds('factor', above=0, below=1)
    self.bounds('patience', 'cooldown', 'threshold', least=0)
    self.bounds('least', least=0, most=1)

  def wrap(self, tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """`tx`, whose steps are multiplied by what its state says; itself where off.

    Of every optimiser of dlx.optim that is its learning rate: decoupled decays, too.
    Clipping and freezing go around it.
    """
    if self.metric is None:
      return tx
    inner = optax.with_extra_args_support(tx)
    worst = float(jnp.finfo(jnp.float32).max) * (1 if self.mode == 'min' else -1)

    def init(params: PyTree) -> Lowered:
      zero = jnp.zeros((), jnp.int32)
      best = jnp.asarray(worst, jnp.float32)
      one = jnp.ones((), jnp.float32)
      return Lowered(one, best, zero, jnp.copy(zero), inner.init(params))

    def update(updates, state, params=None, **extra):
      moves, new = inner.update(updates, state.inner, params, **extra)
      moves = jax.tree.map(lambda m: (m * state.lowered).astype(m.dtype), moves)
      return moves, state._replace(inner=new)

    lowering = optax.GradientTransformationExtraArgs(init, update)
    return rated(in_float32(lowering), getattr(tx, 'rate', None))

  def seen(self, state: Lowered, value: Array) -> Lowered:
    """After an evaluation. A figure that is not finite is no improvement."""
    best, share = state.best, self.threshold * jnp.abs(state.best)
    beats = value < best - share if self.mode == 'min' else value > best + share
    better = beats & jnp.isfinite(value)
    rest = jnp.maximum(state.rest - 1, 0)
    bad = jnp.where(better | (state.rest > 0), 0, state.bad + 1)
    falls = bad > self.patience
    lower = jnp.maximum(state.lowered * self.factor, self.least)
    return state._replace(
      lowered=jnp.where(falls, jnp.minimum(lower, state.lowered), state.lowered),
      best=jnp.where(better, value, best).astype(best.dtype),
      bad=jnp.where(falls, 0, bad).astype(jnp.int32),
      rest=jnp.where(falls, self.cooldown, rest).astype(jnp.int32),
    )

  def watching(self, experiment: Experiment) -> Experiment:
    """The experiment, whose evaluations lower the rate; itself where off.

    Its own after_eval runs first. Every optimiser of its state that `wrap` made takes
    part.

    Raises:
      ConfigError: no evaluation has the split, or none of its figures the name.
    """
    if self.metric is None:
      return experiment
    metric, split = self.metric, self.metric.partition('/')[0]
    if split not in experiment.evals:
      raise ConfigError(
        f'plateau.metric={metric} is not allowed: must be SPLIT/NAME with SPLIT one of '
        f'{", ".join(experiment.evals) or "none"}.'
      )
    own = experiment.after_eval or (lambda state, metrics: state)

    def after_eval(state: TrainState, metrics) -> TrainState:
      state = own(state, metrics)
      if metric not in metrics:  # Evaluations may have intervals of their own.
        if split in {name.partition('/')[0] for name in metrics}:
          check_choice('plateau.metric', metric, sorted(metrics))
        return state
      is_one = lambda x: isinstance(x, Lowered)
      found = [is_one(x) for x in jax.tree.leaves(state.opt_state, is_leaf=is_one)]
      if not any(found):
        raise ConfigError(
          f'plateau.metric={metric} would have no effect: no optimiser of the state '
          'was made by plateau.wrap.'
        )
      look = lambda x: self.seen(x, metrics[metric]) if is_one(x) else x
      opt_state = jax.tree.map(look, state.opt_state, is_leaf=is_one)
      return state._replace(opt_state=opt_state)

    return experiment._replace(after_eval=after_eval)
