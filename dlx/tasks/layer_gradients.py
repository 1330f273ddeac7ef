"""How the gradient changes from layer to layer: an evaluation and a figure.

layer_gradients  an Eval: the gradient at the first layer over that at the last
LAYERS           declarations of what it reports
"""

from typing import Any, Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from dlx.data.dataset import Dataset
from dlx.experiment import Eval, Figure
from dlx.figures.layers import gradient_by_layer
from dlx.precision import euclidean_norm
from dlx.state import Array, Batch, Mean, Metric, PyTree, TrainState, ratios

LAYERS: Mapping[str, Metric] = {
  'gradients/first': Metric(
    'Gradient of the first layer',
    None,
    'Norm of the gradient of the loss by the kernel of the first layer.',
    '',
    'norm',
  ),
  'gradients/last': Metric(
    'Gradient of the last hidden layer',
    None,
    'Norm of the gradient of the loss by the kernel of the last hidden layer.',
    '',
    'norm',
  ),
  'gradients/ratio': Metric(
    'First over last gradient',
    None,
    'Norm of the gradient at the first layer over that at the last hidden layer: near '
    '0 where gradients vanish on the way back, large where they explode.',
    '',
    'ratio',
  ),
}


def layer_gradients(
  loss: Callable[[PyTree, TrainState, Batch], Array],
  data: Dataset,
  layers: Sequence[str],
) -> tuple[Eval, Figure]:
  """The evaluation `gradients`, and the figure of the same by layer.

  Norms are of the gradient of the mean loss of a batch, averaged over the batches.

  Args:
    loss: (parameters, state, batch) -> the loss of each example [B], without dropout.
    data: one pass; its batches hold `weight`.
    layers: names in the parameters, from the first to the last, two or more; each has a
      `kernel`.
  """

  def norms(state: TrainState, batch: Batch) -> Array:
    def mean(params):
      weight_B = batch['weight']
      return (loss(params, state, batch) * weight_B).sum() / weight_B.sum()

    grads: Any = jax.grad(mean)(state.params)
    # As exact of 1e-30, whose square float32 does not hold.
    kernels = [grads[name]['kernel'].reshape(-1) for name in layers]
    return jnp.stack([euclidean_norm(x) for x in kernels])

  def step(state: TrainState, batch: Batch) -> dict[str, Mean]:
    norm_L = norms(state, batch)
    one = jnp.ones(())
    return {'first': Mean(norm_L[0], one), 'last': Mean(norm_L[-1], one)}

  def summarize(found: Mapping[str, Any]) -> dict[str, Any]:
    values = dict(ratios(found))
    # Where no gradient is left at the last one either the ratio is 0.
    least = jnp.finfo(values['last'].dtype).tiny
    return {**values, 'ratio': values['first'] / jnp.maximum(values['last'], least)}

  def compute(state, key, batch):
    del key
    return norms(state, batch)

  figure = Figure(lambda norm_L: gradient_by_layer(norm_L, layers), compute, data)
  return Eval(step, data, summarize=summarize), figure
