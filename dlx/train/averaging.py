"""Weights averaged evenly over the last part of training (SWA, arXiv:1803.05407).

In an experiment's Config, then around its learning rate and handed to the builder:

  averaging: Averaging = Averaging()        flags --config.averaging.NAME
  rate = config.averaging.held(optim.one_cycle(config.lr, num_steps), num_steps)
  image_classifier(config, ..., averaging=config.averaging)

The average is `state.ema`, which evaluations, functions and exports use. Before it
begins it is the parameters themselves. A net with batch norm needs statistics of the
averaged weights: from there on each step passes its batch through them, too, in place
of a pass over the training set afterwards (`launch.evaluate --average` makes that one).
All of it is state, so that a run that was killed goes on bit for bit.
"""

import dataclasses
from typing import Callable

import jax
import jax.numpy as jnp
import optax

from dlx.config import Config, Group
from dlx.errors import ConfigError
from dlx.optim import copies
from dlx.state import Array, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Averaging(Group):
  """When an even average of the weights begins."""

  # Share of the steps after which weights are averaged evenly (SWA); None: never.
  start: float | None = None

  def __post_init__(self):
    super().__post_init__()
    self.bounds('start', least=0, below=1)

  def first(self, num_steps: int) -> int:
    """The first step, from 0, whose weights count. Only where `start` is set."""
    assert self.start is not None
    return int(self.start * num_steps)

  def held(self, rate: optax.Schedule, num_steps: int) -> optax.Schedule:
    """The rate, which stays as it is where the average begins; itself where off.

    Weights that move at a steady rate are what the paper averages.
    """
    if self.start is None:
      return rate
    first = self.first(num_steps)
    return lambda count: rate(jnp.minimum(count, first))

  def check(self, config: Config):
    """Raises ConfigError where the run keeps another average, too."""
    if self.start is not None and config.ema_decay is not None:
      raise ConfigError(
        f'--config.averaging.start={self.start} is not allowed with '
        f'--config.ema_decay={config.ema_decay}: a run keeps one average: set one of '
        'them to None.'
      )

  def updated(
    self, average: PyTree, params: PyTree, step: Array, num_steps: int
  ) -> PyTree:
    """The average after step `step`, from 0, which gave `params`.

    Raises ConfigError: `average` is narrower than float32.
    """
    copies.check_average(average)
    count = jnp.maximum(step - self.first(num_steps), 0).astype(jnp.float32)
    mix = lambda a, p: a + (p.astype(a.dtype) - a) / (count + 1).astype(a.dtype)
    return jax.tree.map(mix, average, params)

  def statistics(
    self,
    passed: Callable[[PyTree], PyTree],
    average: PyTree,
    model_state: PyTree,
    step: Array,
    num_steps: int,
  ) -> PyTree:
    """Statistics of the averaged weights from where the average begins.

    Args:
      passed: average -> model_state after the batch of this step was passed through it.
      average: before this step.
      model_state: after this step by the weights that are trained.
      step, num_steps: as of `updated`.
    """
    if not jax.tree.leaves(model_state):
      return model_state
    averaged = lambda: jax.tree.map(
      lambda new, old: new.astype(old.dtype), passed(average), model_state
    )
    return jax.lax.cond(step >= self.first(num_steps), averaged, lambda: model_state)
