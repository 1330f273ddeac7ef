"""What is looked at first of a training: learning rate, gradient norm, update ratio.

A train step of one's own reports them in one line, where `config.curves` is set:

  return new, {**sums, **curves.of(config, tx, state, new, grads)}

A step of several players, or of one part of the parameters, by `between`. The loop
declares all of them.
"""

from typing import Iterable, Mapping

import jax
import jax.numpy as jnp
import optax

from dlx import optim
from dlx.experiment import Config
from dlx.state import Array, Mean, Metric, Metrics, PyTree, TrainState

CURVES: Mapping[str, Metric] = {
  'learning_rate': Metric(
    'Learning rate', None, 'Mean of the learning rate over the steps.'
  ),
  'gradient_norm': Metric(
    'Gradient norm',
    None,
    'Mean over the steps of the Euclidean norm of the gradient, before clipping.',
    '',
    'gradient norm',
  ),
  'update_ratio': Metric(
    'Update ratio',
    None,
    'Mean over the steps of the norm of the change of the parameters, divided by the '
    'norm of the parameters before.',
  ),
}
_MOST = 1e30  # A sum of so large norms is still a float32.


def of(
  config: Config,
  tx: optax.GradientTransformation,
  old: TrainState,
  new: TrainState,
  grads: PyTree,
) -> Metrics:
  """CURVES of one step, each a Mean of count 1; {} unless `config.curves`.

  Args:
    config: `curves` is read.
    tx: the optimiser. The learning rate of those of dlx.optim is known, and that of
      optax.inject_hyperparams; of others it is left out.
    old: before the step; `opt_state` is that of `tx`.
    new: after it.
    grads: of the whole batch, before clipping. A norm above 1e30 counts as 1e30.

  Returns:
    float32 or wider. `update_ratio` has count 0 where all parameters were 0.
  """
  parts = lambda state: (state.params, state.opt_state)
  return between(config, tx, old.step, parts(old), parts(new), grads)


def between(
  config: Config,
  tx: optax.GradientTransformation,
  step: Array,
  old: tuple[PyTree, PyTree],
  new: tuple[PyTree, PyTree],
  grads: PyTree,
  name: str = '',
) -> Metrics:
  """`of` one update of some parameters.

  Args:
    step: number of updates before, where the optimiser does not count them.
    old, new: (parameters, state of `tx`) before and after.
    name: of a player, `d` for `d_gradient_norm`; '': there is one.
    config, tx, grads: see `of`.
  """
  if not config.curves:
    return {}
  norm = jnp.minimum(optim.global_norm(grads), _MOST)
  moved = jax.tree.map(jnp.subtract, new[0], old[0])
  before = optim.global_norm(old[0])
  there = (before > 0).astype(before.dtype)
  ratio = jnp.minimum(optim.global_norm(moved) / jnp.where(there, before, 1), _MOST)
  rate = optim.learning_rate(tx, old[1], new[1], step)
  one = jnp.ones_like(norm)
  found = {
    **({} if rate is None else {'learning_rate': Mean(rate * one, one)}),
    'gradient_norm': Mean(norm, one),
    'update_ratio': Mean(ratio * there, there),
  }
  return {f'{name}_{key}' if name else key: value for key, value in found.items()}


def declared(names: Iterable[str]) -> dict[str, Metric]:
  """Declarations of those of `names` that `of` or `between` report."""
  found = {}
  for name in names:
    for key, metric in CURVES.items():
      player, last, end = name.rpartition(f'_{key}')
      if name == key:
        found[name] = metric
      elif last and not end:
        found[name] = metric._replace(title=f'{metric.title}, {player}')
  return found
