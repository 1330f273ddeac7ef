"""What every regression reports: errors in the unit of the target, and least squares.

The model predicts the target less its mean, over its deviation.
"""

from typing import Any, Callable, Mapping, NamedTuple

import jax.numpy as jnp

from dlx import figures, metrics
from dlx.data.dataset import Dataset
from dlx.experiment import Figure
from dlx.state import Array, Batch, Metric, Metrics, TrainState


class Standardised(NamedTuple):
  """A target in deviations from its mean, as the model predicts it.

  Attributes:
    mean: of the training targets as measured.
    std: likewise.
    linear_rmse: error of least squares on the test split, in the unit of the target.
    name: of the target, for the axes of the figure.
    unit: of the target; '' where nobody knows.
  """

  mean: float
  std: float
  linear_rmse: float
  name: str = ''
  unit: str = ''

  def in_units(self, scaled: Array) -> Array:
    """In the unit of the target."""
    return scaled * self.std + self.mean

  def sums(self, outputs_B1: Array, batch: Batch, weight_B: Array) -> Metrics:
    """Of one batch, whose `target` is standardised: `metrics.regression_sums`."""
    prediction, target = (self.in_units(x) for x in (outputs_B1[:, 0], batch['target']))
    return metrics.regression_sums(prediction, target, weight_B, shift=self.mean)

  def train_sums(self, outputs_B1: Array, batch: Batch, weight_B: Array) -> Metrics:
    """`mae` alone: what adds up over the steps of a window."""
    return {'mae': self.sums(outputs_B1, batch, weight_B)['mae']}

  def summary(self, found: Metrics) -> Mapping[str, Any]:
    """`metrics.regression_summary`, and `linear_rmse`: of the test split."""
    linear = jnp.float32(self.linear_rmse)
    return {**metrics.regression_summary(found), 'linear_rmse': linear}

  @property
  def declared(self) -> dict[str, Metric]:
    """Declarations of what `summary` reports, but for the loss."""
    return {
      **metrics.regression_metrics(self.unit, self.std),
      'linear_rmse': Metric(
        'Error of least squares',
        None,
        'Root mean squared error of least squares on the same split, which a net '
        'should beat.',
        self.unit,
        'error',
      ),
    }

  def figure(self, outputs: Callable[[TrainState, Batch], Array], data: Dataset):
    """Predicted against true values of the first batch of `data`.

    Args:
      outputs: (state, batch) -> [B, 1], standardised.
    """

    def compute(state, key, batch):
      del key
      return tuple(
        self.in_units(x) for x in (outputs(state, batch)[:, 0], batch['target'])
      )

    draw = lambda tree: figures.scatter(tree[0], tree[1], unit=self.name)
    return Figure(draw, compute, data)
