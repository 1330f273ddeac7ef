"""Maps of what a score depends on: by the gradients of layers and of pixels.

Each function is (model, state, image_BHWC in [0, 1], class_B) -> [B, H, W], float32;
pure, to be jitted. A class activation map is at least 0, the others have a sign where
they say so. The score is the logit of the class (`Model.score_kind`).
"""

from typing import Any

import jax
import jax.numpy as jnp

from dlx.inspect.maps.model import Model, as_map
from dlx.inspect.maps.naming import Layer

Array = jax.Array
SAMPLES = 32  # Of smooth_grad: noisy copies.
NOISE = 0.15  # Of smooth_grad: its deviation as a share of the range of the pixels.
STEPS = 64  # Of integrated_gradients: points on the way.


def grad_cam_weights(value_BhwC: Array, slope_BhwC: Array) -> Array:
  """Weights of the channels [B, C] (arXiv:1610.02391, formula 1): mean gradients."""
  del value_BhwC
  return slope_BhwC.mean((1, 2))


def grad_cam_pp_weights(value_BhwC: Array, slope_BhwC: Array) -> Array:
  """Weights of the channels [B, C] of Grad-CAM++ (arXiv:1710.11063, formulas 5, 19).

  Of the exponential of the score, whose derivatives are powers of its gradient; a
  factor that all channels of an image share, exp(score), is left out.
  """
  square, sum_BC = slope_BhwC**2, value_BhwC.sum((1, 2), keepdims=True)
  below = 2 * square + sum_BC * slope_BhwC**3
  share = jnp.where(below != 0, square / jnp.where(below != 0, below, 1), 0)
  return (share * jnp.maximum(slope_BhwC, 0)).sum((1, 2))


def cam(value_BhwC: Array, weight_BC: Array) -> Array:
  """The sum of the channels by their weights, where it is above 0: [B, h, w]."""
  total = jnp.einsum('bhwc,bc->bhw', value_BhwC, weight_BC, precision='highest')
  return jnp.maximum(total, 0)


def upsampled(map_Bhw: Array, size: tuple[int, int]) -> Array:
  """A map of a layer as large as the image, bilinear: [B, H, W]."""
  return jax.image.resize(map_Bhw, (map_Bhw.shape[0], *size), 'bilinear')


def grad_cam(
  model: Model, layer: Layer, state: Any, image_BHWC: Array, class_B: Array
) -> Array:
  """Grad-CAM (arXiv:1610.02391) of a layer, as large as the image; at least 0."""
  value, slope = _maps(model, layer, state, image_BHWC, class_B)
  return upsampled(cam(value, grad_cam_weights(value, slope)), model.size)


def grad_cam_pp(
  model: Model, layer: Layer, state: Any, image_BHWC: Array, class_B: Array
) -> Array:
  """Grad-CAM++ (arXiv:1710.11063) of a layer, as large as the image; at least 0."""
  value, slope = _maps(model, layer, state, image_BHWC, class_B)
  return upsampled(cam(value, grad_cam_pp_weights(value, slope)), model.size)


def _maps(model, layer, state, image_BHWC, class_B) -> list[Array]:
  both = model.layer_gradient(layer, state, image_BHWC, class_B)
  return [as_map(x, model.size) for x in both]


def guided_grad_cam(
  model: Model, layer: Layer, state: Any, image_BHWC: Array, class_B: Array
) -> Array:
  """Grad-CAM times guided backpropagation, the largest channel of it; at least 0."""
  guided = model.image_gradient(state, image_BHWC, class_B, guided=True)
  where = grad_cam(model, layer, state, image_BHWC, class_B)
  return where * jnp.abs(guided).max(-1)


def saliency(model: Model, state: Any, image_BHWC: Array, class_B: Array) -> Array:
  """Absolute gradient by the pixels, the largest channel (arXiv:1312.6034)."""
  return jnp.abs(model.image_gradient(state, image_BHWC, class_B)).max(-1)


def smooth_grad(
  model: Model,
  state: Any,
  image_BHWC: Array,
  class_B: Array,
  key: Any,
  *,
  samples: int = SAMPLES,
  noise: float = NOISE,
) -> Array:
  """Mean gradient over noisy copies (arXiv:1706.03825), as `saliency` shows one.

  Args:
    model: of images.
    state: its state.
    image_BHWC: in [0, 1].
    class_B: numbers of classes.
    key: of the noise.
    samples: copies.
    noise: deviation of the noise, a share of the range of the pixels of each image.
  """
  axes = (1, 2, 3)
  spread = image_BHWC.max(axes, keepdims=True) - image_BHWC.min(axes, keepdims=True)

  def one(i, total):
    more = jax.random.normal(jax.random.fold_in(key, i), image_BHWC.shape)
    noisy = image_BHWC + noise * spread * more
    return total + model.image_gradient(state, noisy, class_B)

  total = jax.lax.fori_loop(0, samples, one, jnp.zeros_like(image_BHWC))
  return jnp.abs(total / samples).max(-1)


def integrated_gradients(
  model: Model,
  state: Any,
  image_BHWC: Array,
  class_B: Array,
  *,
  baseline: Array | float = 0.0,
  steps: int = STEPS,
) -> Array:
  """Attributions of pixels that sum to what the score gains (arXiv:1703.01365).

  The integral of the gradient on the straight way from the baseline, by the midpoint
  rule, times the way; channels are added. With a sign. `completeness` measures what the
  rule misses.

  Args:
    model: of images.
    state: its state.
    image_BHWC: in [0, 1].
    class_B: numbers of classes.
    baseline: where the way begins, in [0, 1]; 0 is black.
    steps: points of the rule.
  """
  start = jnp.broadcast_to(jnp.asarray(baseline, image_BHWC.dtype), image_BHWC.shape)
  way = image_BHWC - start

  def one(i, total):
    place = (i + 0.5) / steps
    return total + model.image_gradient(state, start + place * way, class_B)

  total = jax.lax.fori_loop(0, steps, one, jnp.zeros_like(image_BHWC))
  return (way * total / steps).sum(-1)


def completeness(
  model: Model,
  state: Any,
  image_BHWC: Array,
  class_B: Array,
  map_BHW: Array,
  *,
  baseline: Array | float = 0.0,
) -> tuple[Array, Array]:
  """(sum of the attributions, what the score gains from the baseline), both [B]."""
  start = jnp.broadcast_to(jnp.asarray(baseline, image_BHWC.dtype), image_BHWC.shape)
  score = lambda x: model.scores(state, x, class_B)[0]
  return map_BHW.sum((1, 2)), score(image_BHWC) - score(start)
