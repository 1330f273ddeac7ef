"""Early stopping and best weights as pure functions of the state: they resume."""

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.experiment import Config, Experiment
from dlx.state import Array, TrainState
from dlx.train import steps


class Best(NamedTuple):
  """What early stopping remembers.

  Attributes:
    value: best figure so far, float32; the worst finite number before the first.
    bad: int32, evaluations in a row without an improvement.
    weights: (params, model_state, ema) of the best evaluation, or () where they are
      not put back.
  """

  value: Array
  bad: Array
  weights: Any


def improved(value: Array, best: Array, mode: str, min_delta: float = 0.0) -> Array:
  """Whether a figure beats the best by more than `min_delta`; NaN never does."""
  return value < best - min_delta if mode == 'min' else value > best + min_delta


def configured(experiment: Experiment, config: Config) -> Experiment:
  """`early_stopping` as a config says: the experiment itself without a metric."""
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

  The state gains a `Best` beside the experiment's own model_state; everything else of
  the experiment sees the state that it knows. Its own after_eval runs first.

  Args:
    experiment: any.
    metric: "split/name" of an evaluation, e.g. 'test/loss'.
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

  def inner(state: TrainState) -> TrainState:
    return state._replace(model_state=state.model_state['run'])

  def outer(state: TrainState, best: Best) -> TrainState:
    return state._replace(model_state={'run': state.model_state, 'best': best})

  def weights(state: TrainState) -> Any:
    return (state.params, state.model_state, state.ema) if restore_best else ()

  def init(key):
    state = experiment.init(key)
    copies = jax.tree.map(jnp.copy, weights(state))
    return outer(state, Best(jnp.float32(worst), jnp.int32(0), copies))

  def train_step(state, batch):
    new, metrics = experiment.train_step(inner(state), batch)
    return outer(new, state.model_state['best']), metrics

  def after_eval(state, metrics):
    best: Best = state.model_state['best']
    state = inner(state)
    if metric in metrics:  # Evaluations may have intervals of their own.
      value = metrics[metric].astype(jnp.float32)
      better = improved(value, best.value, mode, min_delta)
      best = Best(
        jnp.where(better, value, best.value),
        jnp.where(better, 0, best.bad + 1),
        steps.where(better, weights(state), best.weights),
      )
      if experiment.after_eval is not None:
        state = experiment.after_eval(state, metrics)
      stop = best.bad >= patience
      if restore_best:
        params, model_state, ema = steps.where(stop, best.weights, weights(state))
        state = state._replace(params=params, model_state=model_state, ema=ema)
      return outer(state._replace(stop=state.stop | stop), best)
    if split in {name.partition('/')[0] for name in metrics}:
      raise ConfigError(
        f'early_stop_metric={metric} is not allowed: must be one of '
        f'{", ".join(sorted(metrics))}.'
      )
    if experiment.after_eval is not None:
      state = experiment.after_eval(state, metrics)
    return outer(state, best)

  def seen(function: Callable) -> Callable:
    return lambda state, *rest: function(inner(state), *rest)

  def warm_start(state):
    assert experiment.warm_start is not None
    new, origin = experiment.warm_start(inner(state))
    best = state.model_state['best']
    return outer(new, best._replace(weights=weights(new))), origin

  return experiment._replace(
    init=init,
    train_step=train_step,
    after_eval=after_eval,
    warm_start=None if experiment.warm_start is None else warm_start,
    evals={name: e._replace(step=seen(e.step)) for name, e in experiment.evals.items()},
    figures={
      name: f._replace(compute=None if f.compute is None else seen(f.compute))
      for name, f in experiment.figures.items()
    },
  )
