"""What is looked at first of a training: learning rate, gradient norm, update ratio.

A train step of one's own reports them in one line, where `config.curves` is set:

  return new, {**sums, **curves.of(config, tx, state, new, grads)}

The loop declares them.
"""

from typing import Mapping

import jax
import jax.numpy as jnp
import optax

from dlx import optim
from dlx.experiment import Config
from dlx.state import Mean, Metric, Metrics, PyTree, TrainState

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
  if not config.curves:
    return {}
  norm = jnp.minimum(optim.global_norm(grads), _MOST)
  moved = jax.tree.map(jnp.subtract, new.params, old.params)
  before = optim.global_norm(old.params)
  there = (before > 0).astype(before.dtype)
  ratio = jnp.minimum(optim.global_norm(moved) / jnp.where(there, before, 1), _MOST)
  rate = optim.learning_rate(tx, old.opt_state, new.opt_state, old.step)
  one = jnp.ones_like(norm)
  return {
    **({} if rate is None else {'learning_rate': Mean(rate * one, one)}),
    'gradient_norm': Mean(norm, one),
    'update_ratio': Mean(ratio * there, there),
  }
