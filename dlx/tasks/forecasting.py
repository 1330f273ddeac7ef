"""What every forecast of a series reports: errors, bands, and what a net should beat.

Arrays of whole stretches are NumPy, N of them, W numbers seen and H asked for.
"""

from typing import Any, Callable, Mapping, NamedTuple, Sequence

import jax.numpy as jnp
import numpy as np

from dlx.data.dataset import Dataset
from dlx.data.sets.series import Series, Windows
from dlx.experiment import Figure
from dlx.figures import forecasts
from dlx.state import Array, Batch, Mean, Metric, Metrics, TrainState, mean, ratios

BASELINES = {
  'persistence': 'the last number that was seen, for ever',
  'seasonal': 'the numbers of the period before',
  'linear': 'least squares on all that was seen, one fit a step ahead',
}


def persistence(past_NW: np.ndarray, horizon: int) -> np.ndarray:
  """[N, H]: the last number, for ever."""
  return np.repeat(past_NW[:, -1:], horizon, 1)


def seasonal_naive(past_NW: np.ndarray, horizon: int, period: int) -> np.ndarray:
  """[N, H]: the number of as many periods before as it takes; W is at least one."""
  return past_NW[:, past_NW.shape[1] - period + np.arange(horizon) % period]


def linear_autoregression(
  past_NW: np.ndarray, future_NH: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
  """Least squares from W numbers and a constant to each of the H that follow.

  Args:
    past_NW, future_NH: what is fitted to.

  Returns:
    past [M, W] -> forecast [M, H].
  """
  ones = lambda x: np.concatenate([x, np.ones((len(x), 1))], 1)
  weights, *_ = np.linalg.lstsq(ones(past_NW), future_NH, rcond=None)
  return lambda past_MW: ones(past_MW) @ weights


class Forecasts(NamedTuple):
  """A series, its stretches, and the levels of the quantiles that a model gives.

  The outputs of a model are [B, H, Q], in deviations from the mean of what was trained
  on; the middle level is the forecast, the outer two are its band.

  Attributes:
    series: what is forecast.
    windows: its stretches.
    levels: Q, odd, rising, the middle one 1/2.
  """

  series: Series
  windows: Windows
  levels: Sequence[float]

  def in_units(self, scaled: Array) -> Array:
    """In the unit of the series."""
    return scaled * self.windows.std + self.windows.mean

  def point(self, outputs_BHQ: Array) -> Array:
    """The forecast [B, H], in the unit of the series."""
    return self.in_units(outputs_BHQ[..., len(self.levels) // 2])

  def sums(self, outputs_BHQ: Array, batch: Batch, weight_B: Array) -> Metrics:
    """Of one batch: `mae`, `coverage`, `width`, and the squared error by step."""
    error_BH = self.point(outputs_BHQ) - self.in_units(batch['future'])
    low_BH, high_BH = outputs_BHQ[..., 0], outputs_BHQ[..., -1]
    inside_BH = (batch['future'] >= low_BH) & (batch['future'] <= high_BH)
    width_BH = (high_BH - low_BH) * self.windows.std
    squared_H = (jnp.square(error_BH) * weight_B[:, None]).sum(0)
    return {
      'mae': mean(jnp.abs(error_BH).mean(1), weight_B),
      'coverage': mean(inside_BH.mean(1), weight_B),
      'width': mean(width_BH.mean(1), weight_B),
      'squared_error': Mean(squared_H, weight_B.sum()),
    }

  def train_sums(self, outputs_BHQ: Array, batch: Batch, weight_B: Array) -> Metrics:
    """`mae` and `coverage` alone: what adds up over the steps of a window."""
    found = self.sums(outputs_BHQ, batch, weight_B)
    return {name: found[name] for name in ('mae', 'coverage')}

  def by_step(self, part: str) -> dict[str, np.ndarray]:
    """Of each baseline the root mean squared error [H] on a part of the series."""
    w = self.windows
    past_NW, horizon = w.past_NW[part], w.future_NH[part].shape[1]
    fitted = linear_autoregression(w.past_NW['train'], w.future_NH['train'])
    found = {
      'persistence': persistence(past_NW, horizon),
      'seasonal': seasonal_naive(past_NW, horizon, self.series.period),
      'linear': fitted(past_NW),
    }
    error = lambda x: np.sqrt(np.square(x - w.future_NH[part]).mean(0))
    return {name: error(x) for name, x in found.items()}

  def summary(self, part: str) -> Callable[[Metrics], Mapping[str, Any]]:
    """From sums to what is reported of a part of the series.

    `rmse`, and that of each baseline, are over all steps ahead; `rmse_by_step` [H] is
    for the figure.
    """
    whole = lambda rmse_H: np.sqrt(np.square(rmse_H).mean())
    beside = {f'{k}_rmse': jnp.float32(whole(x)) for k, x in self.by_step(part).items()}

    def summarize(found):
      numbers = dict(ratios(found))
      squared_H = numbers.pop('squared_error')
      return {
        **numbers,
        'rmse': jnp.sqrt(squared_H.mean()),
        'rmse_by_step': jnp.sqrt(squared_H),
        **beside,
      }

    return summarize

  @property
  def declared(self) -> dict[str, Metric]:
    """Declarations of what a run reports."""
    unit, share = self.series.unit, self.levels[-1] - self.levels[0]
    return {
      'loss': Metric(
        'Pinball loss',
        'lower',
        'Mean over stretches, steps and levels of the pinball loss of the quantiles, '
        'in deviations of the series.',
        '',
        'loss',
      ),
      'rmse': Metric(
        'Error',
        'lower',
        'Root mean squared error of the median, over all steps ahead.',
        unit,
        'error',
      ),
      'mae': Metric(
        'Absolute error',
        'lower',
        'Mean absolute error of the median, over all steps ahead.',
        unit,
        'error',
      ),
      'coverage': Metric(
        'Coverage',
        None,
        f'Share of the numbers that lie within the band, which is for {share:.0%}.',
        '%',
        'share',
      ),
      'width': Metric(
        'Width of the band',
        None,
        'Mean distance of the highest from the lowest quantile.',
        unit,
        'error',
      ),
      **{
        f'{name}_rmse': Metric(
          f'Error of {name}',
          None,
          f'Root mean squared error of {what}, on the same numbers.',
          unit,
          'error',
        )
        for name, what in BASELINES.items()
      },
    }

  def band_figure(
    self, outputs: Callable[[TrainState, Batch], Array], data: Dataset
  ) -> Figure:
    """Forecasts of the first batch of `data`, one after the other, with their bands.

    Args:
      outputs: (state, batch) -> [B, H, Q].
      data: stretches in the order of time, each a step later than the one before.
    """

    def compute(state, key, batch):
      del key
      horizon = batch['future'].shape[1]
      batch = {name: x[::horizon] for name, x in batch.items()}
      found = self.in_units(outputs(state, batch))
      return {'truth': self.in_units(batch['future']), 'quantiles': found}

    def draw(tree):
      return forecasts.bands(
        tree['truth'],
        tree['quantiles'],
        levels=self.levels,
        xlabel=f'{self.series.step.capitalize()}s of the test',
        ylabel=self.series.unit,
      )

    return Figure(draw, compute, data)

  def horizon_figure(self, part: str) -> Figure:
    """The error by how many steps it looks ahead, beside that of each baseline."""

    def draw(summary):
      return forecasts.error_by_step(
        {'model': summary['rmse_by_step'], **self.by_step(part)},
        xlabel=f'{self.series.step.capitalize()}s ahead',
        ylabel=f'Root mean squared error ({self.series.unit})',
      )

    return Figure(draw, eval=part)
