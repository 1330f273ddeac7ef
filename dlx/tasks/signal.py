"""How the signal changes from layer to layer: an evaluation and a figure.

signal   an Eval: mean and variance of what every hidden layer gives
SIGNAL   declarations of what it reports
"""

from typing import Any, Callable, Mapping, Sequence

import jax.numpy as jnp

from dlx.data.dataset import Dataset
from dlx.experiment import Eval, Figure
from dlx.figures.layers import signal_by_layer
from dlx.precision import at_least_float32
from dlx.state import Array, Batch, Metric, TrainState

SIGNAL: Mapping[str, Metric] = {
  'signal/mean': Metric(
    'Mean of the last hidden layer',
    None,
    'Mean over the units of the last hidden layer and the examples.',
    '',
    'signal',
  ),
  'signal/variance': Metric(
    'Variance of the last hidden layer',
    None,
    'Variance over the units of the last hidden layer and the examples together.',
    '',
    'signal',
  ),
  'signal/largest_mean': Metric(
    'Largest mean of a hidden layer',
    None,
    'Largest absolute value of the means of all hidden layers.',
    '',
    'signal',
  ),
  'signal/least_variance': Metric(
    'Least variance of a hidden layer',
    None,
    'Least variance of all hidden layers.',
    '',
    'signal',
  ),
  'signal/largest_variance': Metric(
    'Largest variance of a hidden layer',
    None,
    'Largest variance of all hidden layers.',
    '',
    'signal',
  ),
}


def signal(
  hidden: Callable[[TrainState, Batch], Sequence[Array]],
  data: Dataset,
  layers: Sequence[str],
) -> tuple[Eval, Figure]:
  """The evaluation `signal`, and its figure, which draws an evaluation of that name.

  Units and examples of a layer count together, as in mean-field arguments: what differs
  between units is in the variance, too (arXiv:1706.02515, arXiv:1606.05340).

  Args:
    hidden: (state, batch) -> what each hidden layer gives, [B, ...], without dropout.
    data: one pass; its batches hold `weight`.
    layers: names of these layers, from the first to the last.
  """

  def step(state: TrainState, batch: Batch) -> dict[str, Array]:
    found = []
    for x in map(at_least_float32, hidden(state, batch)):
      rows = x.reshape(x.shape[0], -1)
      weight = batch['weight'].reshape(-1, 1).astype(rows.dtype)
      found.append(
        jnp.stack(
          [
            weight.sum() * rows.shape[1],
            (weight * rows).sum(),
            (weight * jnp.square(rows)).sum(),
          ]
        )
      )
    return {'powers': jnp.stack(found)}  # [L, 3]: sums of 1, x and x^2.

  def summarize(sums: Mapping[str, Any]) -> dict[str, Any]:
    count_L, first_L, second_L = jnp.moveaxis(sums['powers'], -1, 0)
    mean_L = first_L / count_L
    variance_L = jnp.maximum(second_L / count_L - jnp.square(mean_L), 0)
    return {
      'mean': mean_L[-1],
      'variance': variance_L[-1],
      'largest_mean': jnp.abs(mean_L).max(),
      'least_variance': variance_L.min(),
      'largest_variance': variance_L.max(),
      'layers': {'mean': mean_L, 'variance': variance_L},
    }

  def draw(found):
    by_layer = found['layers']
    return signal_by_layer(by_layer['mean'], by_layer['variance'], layers)

  return Eval(step, data, summarize=summarize), Figure(draw, eval='signal')
