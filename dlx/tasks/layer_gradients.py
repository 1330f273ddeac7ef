"""How the gradient changes from layer to layer: an evaluation and a figure.

  return layer_gradients(image_classifier(config, ...), ['hidden_0', 'hidden_1'])

adds them to any experiment of one model: numbers over a whole split, as a study needs
them, where `dlx.inspect.inside` draws the gradients that training has taken.
"""

from typing import Any, Mapping, Sequence

import jax
import jax.numpy as jnp

from dlx.experiment import Eval, Experiment, Figure
from dlx.figures.layers import gradient_by_layer
from dlx.precision import euclidean_norm
from dlx.state import Array, Batch, Mean, Metric, TrainState, ratios

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
  experiment: Experiment, layers: Sequence[str], split: str = 'test'
) -> Experiment:
  """The experiment with the evaluation `gradients` and the figure of the same by layer.

  Norms are of the gradient of the mean loss of a batch, as the evaluation of `split`
  computes it: without dropout, of averaged parameters where they are kept. They are
  averaged over the batches.

  Args:
    experiment: whose evaluation reports `loss` as a Mean.
    layers: names in the parameters, from the first to the last, two or more; each has a
      `kernel`.
    split: name of the evaluation.
  """
  own = experiment.evals[split]

  def norms(state: TrainState, batch: Batch) -> Array:
    def mean(params):
      used = {'ema': params} if jax.tree.leaves(state.ema) else {'params': params}
      loss = own.step(state._replace(**used), batch)['loss']
      return loss.total / loss.count

    grads: Any = jax.grad(mean)(state.averaged)
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

  figure = Figure(lambda norm_L: gradient_by_layer(norm_L, layers), compute, own.data)
  gradients = Eval(step, own.data, summarize=summarize)
  return experiment._replace(
    evals={**experiment.evals, 'gradients': gradients},
    figures={**experiment.figures, 'gradients': figure},
    metrics={**experiment.metrics, **LAYERS},
  )
