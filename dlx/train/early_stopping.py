"""Early stopping and best weights as pure functions of the state: they resume."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlx.config import check_choice
from dlx.errors import ConfigError
from dlx.experiment import Config, Experiment
from dlx.state import Array, TrainState


class Best(NamedTuple):
  """What early stopping remembers, in `TrainState.best`.

  Attributes:
    value: best figure so far, float32; the worst finite number before the first. One a
      member where the run has members, as `bad`.
    bad: int32, evaluations in a row without an improvement.
    weights: params, model_state and ema of the best evaluation by these names, or ()
      where they are not put back.
  """

  value: Array
  bad: Array
  weights: Any


def improved(value: Array, best: Array, mode: str, min_delta: float = 0.0) -> Array:
  """Whether a finite figure beats the best by more than `min_delta`."""
  beats = value < best - min_delta if mode == 'min' else value > best + min_delta
  return beats & jnp.isfinite(value)


def with_early_stopping(experiment: Experiment, config: Config) -> Experiment:
  """`early_stopping` as a config says; launchers call it on what `build` returns."""
  if config.early_stop_metric is None:
    return experiment
  return early_stopping(
    experiment,
    config.early_stop_metric,
    patience=config.early_stop_patience,
    mode=config.early_stop_mode,
  )


def early_stopping(
  experiment: Experiment,
  metric: str,
  *,
  patience: int = 10,
  mode: str = 'min',
  min_delta: float = 0.0,
  restore_best: bool = True,
) -> Experiment:
  """Stops a run whose figure has not improved for `patience` evaluations.

  The state gains a `Best` in `state.best`, which the experiment's own functions pass on
  untouched. Its own after_eval runs first. Where the run has members, each stops by a
  figure of its own, or all by the one figure that they share.

  Args:
    experiment: any.
    metric: "split/name" of an evaluation, e.g. 'validation/loss'.
    patience: evaluations in a row without an improvement after which the run stops.
    mode: 'min' or 'max'.
    min_delta: an improvement is more than this.
    restore_best: put parameters, model_state and EMA of the best evaluation back when
      the run is stopped by this.

  Raises:
    ConfigError: a value that cannot be.
  """
  split = metric.partition('/')[0]
  if split not in experiment.evals:
    raise ConfigError(
      f'early_stop_metric={metric} is not allowed: must be SPLIT/NAME '
      f'with SPLIT one of {", ".join(experiment.evals) or "none"}.'
    )
  if patience < 1:
    raise ConfigError(
      f'early_stop_patience={patience} is not allowed: must be at least 1.'
    )
  if mode not in ('min', 'max'):
    raise ConfigError(f'early_stop_mode={mode} is not allowed: must be min or max.')
  worst = float(jnp.finfo(jnp.float32).max) * (1 if mode == 'min' else -1)
  own = experiment.after_eval or (lambda state, metrics: state)

  def weights(state: TrainState) -> Any:
    names = ('params', 'model_state', 'ema') if restore_best else ()
    return {name: getattr(state, name) for name in names}

  def init(key):
    state = experiment.init(key)
    members = state.stop.shape
    copies = jax.tree.map(jnp.copy, weights(state))
    best = Best(
      jnp.full(members, worst, jnp.float32), jnp.zeros(members, jnp.int32), copies
    )
    return state._replace(best=best)

  def after_eval(state, metrics):
    seen, best = state, state.best
    state = own(state, metrics)
    if metric not in metrics:  # Evaluations may have intervals of their own.
      if split in {name.partition('/')[0] for name in metrics}:
        check_choice('early_stop_metric', metric, sorted(metrics))
      return state
    value = jnp.broadcast_to(metrics[metric], seen.stop.shape).astype(jnp.float32)
    running = ~seen.stop  # A member that has stopped changes no more.
    better = improved(value, best.value, mode, min_delta) & running
    best = Best(
      jnp.where(better, value, best.value),
      jnp.where(better, 0, best.bad + running),
      _where(better, weights(seen), best.weights),
    )
    stop = (best.bad >= patience) & running
    # Where no figure was ever finite, the best are the initial weights: not put back.
    kept = _where(stop & _found(best), best.weights, weights(state))
    return state._replace(stop=state.stop | stop, best=best, **kept)

  def warm_start(state):
    assert experiment.warm_start is not None
    new, origin = experiment.warm_start(state)
    return begun(new), origin

  return experiment._replace(
    init=init,
    after_eval=after_eval,
    warm_start=None if experiment.warm_start is None else warm_start,
  )


def begun(state: TrainState) -> TrainState:
  """A state before step 0 whose best weights are those that it has now."""
  if not isinstance(state.best, Best):
    return state
  weights = {name: getattr(state, name) for name in state.best.weights}
  return state._replace(best=state.best._replace(weights=weights))


def _found(best: Best) -> Array:
  """Whether there was a finite figure; one bool a member."""
  return jnp.abs(best.value) < jnp.finfo(jnp.float32).max


def held(state: TrainState, metric: str | None) -> str:
  """Which weights a finished run holds, in words; all processes call it.

  Args:
    state: the last.
    metric: of early stopping.
  """
  best, last = state.best, 'those of the last step'
  if not isinstance(best, Best):
    return last
  metric = metric or 'figure of early stopping'
  found, value = jax.device_get((_found(best), best.value))
  if not found.any():
    return f'{last}, since {metric} was never finite'
  told = f'the best {metric}, {", ".join(f"{v:.4g}" for v in np.ravel(value[found]))}'
  # Not model_state: members of one program keep more in it than what was put back.
  kept = {name: x for name, x in best.weights.items() if name != 'model_state'}
  now = {name: getattr(state, name) for name in kept}
  same = jax.jit(lambda a, b: jax.tree.map(lambda x, y: (x == y).all(), a, b))
  if now and all(map(bool, jax.tree.leaves(same(now, kept)))):
    return f'those of {told}'
  return f'{last}; {told}, was of other weights'


def _where(condition: Array, new: Any, old: Any) -> Any:
  """`new` where the condition holds: one for all, or one a member, the first axis."""
  spread = lambda x: condition.reshape(
    condition.shape + (1,) * (x.ndim - condition.ndim)
  )
  return jax.tree.map(lambda a, b: jnp.where(spread(a), a, b), new, old)
