"""What the middle unit of a layer sees: an evaluation and a figure.

receptive_fields  an Eval: the field by theory, by gradients, and the effective one
FIELDS            declarations of what it reports
"""

from typing import Any, Callable, Mapping

import jax
import jax.numpy as jnp

from dlx.data.dataset import Dataset
from dlx.experiment import Eval, Figure
from dlx.figures.fields import gradient_map
from dlx.inspect.receptive_field import receptive_field
from dlx.state import Array, Batch, Key, Metric, TrainState

# Luo et al. (arXiv:1701.04128): a pixel counts whose gradient is more than this share
# of the largest, which two standard deviations of a normal distribution leave out.
THRESHOLD = 1 - 0.9545

FIELDS: Mapping[str, Metric] = {
  'field/theory': Metric(
    'Receptive field, theory',
    None,
    'Side of the square of pixels on which a unit of the layer can depend.',
    'pixels',
    'field',
  ),
  'field/measured': Metric(
    'Receptive field, measured',
    None,
    'Side of the square around all pixels with a gradient that is not 0.',
    'pixels',
    'field',
  ),
  'field/effective': Metric(
    'Effective receptive field',
    None,
    'Root of the number of pixels whose gradient, as root mean square over images, is '
    'more than 4.55 % of the largest (arXiv:1701.04128).',
    'pixels',
    'field',
  ),
}


def receptive_fields(
  layer: Callable[[TrainState, Array], Array],
  inputs: Callable[[Batch], Array],
  init: Callable[[Key], TrainState],
  data: Dataset,
) -> tuple[Eval, Figure]:
  """The evaluation `field`, and the figure of the gradients that it measures.

  Of the unit in the middle of the map the gradients of all channels together, with
  signs that are drawn by image, as no gradient shall cancel another for all of them.

  Args:
    layer: (state, x [B, H, W, C]) -> the map [B, H', W', C'], without dropout.
    inputs: a batch -> x.
    init: of the experiment, for the shapes of its state.
    data: one pass; its batches hold `weight`.
  """

  def step(state: TrainState, batch: Batch) -> dict[str, Array]:
    x_BHWC = inputs(batch)
    map_shape = jax.eval_shape(layer, state, x_BHWC).shape
    signs_BC = jax.random.rademacher(
      jax.random.fold_in(state.rng, state.step),
      (map_shape[0], map_shape[3]),
      x_BHWC.dtype,
    )

    def unit(x_BHWC):
      y_BHWC = layer(state, x_BHWC)
      middle_BC = y_BHWC[:, map_shape[1] // 2, map_shape[2] // 2]
      return (middle_BC.astype(signs_BC.dtype) * signs_BC).sum()

    slope_BHWC = jax.grad(unit)(x_BHWC)
    square_BHW = jnp.square(slope_BHWC).sum(3) * batch['weight'][:, None, None]
    return {'square': square_BHW.sum(0)}

  def theory() -> int:
    """The larger side, of the jaxpr of the layer."""
    state = jax.eval_shape(init, jax.random.key(0))
    leaves, treedef = jax.tree.flatten(state)
    batch = {
      name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in data.shapes[0].items()
    }
    x = jax.eval_shape(inputs, batch)
    of_leaves = lambda x, *leaves: layer(jax.tree.unflatten(treedef, leaves), x)
    (reaches,) = receptive_field(of_leaves, x, *leaves, axes={0: (1, 2)})
    sides = x.shape[1:3]
    return max(
      side if reach is None else reach.size
      for reach, side in zip(reaches, sides, strict=True)
    )

  def summarize(found: Mapping[str, Any]) -> dict[str, Any]:
    square_HW = found['square']
    tiny = jnp.finfo(square_HW.dtype).tiny
    rms_HW = jnp.sqrt(square_HW / jnp.maximum(square_HW.max(), tiny))
    seen_HW = square_HW > 0
    extents = [_extent(seen_HW.any(1 - axis)) for axis in (0, 1)]
    return {
      'theory': jnp.asarray(theory(), jnp.float32),
      'measured': jnp.maximum(*extents).astype(jnp.float32),
      'effective': jnp.sqrt((rms_HW > THRESHOLD).sum().astype(jnp.float32)),
      'map': rms_HW,
    }

  def draw(found: Mapping[str, Any]):
    sizes = {name: float(found[name]) for name in ('theory', 'effective')}
    return gradient_map(found['map'], **sizes)

  return Eval(step, data, summarize=summarize), Figure(draw, eval='field')


def _extent(seen_N: Array) -> Array:
  """From the first True to the last, both included; 0 of none."""
  place = jnp.arange(len(seen_N))
  first = jnp.where(seen_N, place, len(seen_N)).min()
  last = jnp.where(seen_N, place, -1).max()
  return jnp.maximum(last - first + 1, 0)
