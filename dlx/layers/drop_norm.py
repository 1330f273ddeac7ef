"""Dropout and layer norm as one layer, whose statistics are those of what is kept."""

from typing import Any

import flax.linen as nn
from jax import lax
import jax.numpy as jnp

from dlx.layers.dropout import draw_kept
from dlx.precision import at_least_float32
from dlx.state import Array


class DropNorm(nn.Module):
  """Layer norm over the units that dropout keeps.

  A norm after dropout counts the zeros as values, so that its mean and variance differ
  between training and evaluation (arXiv:1801.05134). Here a dropped unit is in neither:

    y = (scale (x - mean) / sqrt(variance + epsilon) + bias) / (1 - rate)    if kept
    y = 0                                                                    if dropped

  with mean and variance over the kept units of an example, in float32 or wider. In
  evaluation all are kept and nothing is divided: layer norm.

  Attributes:
    rate: probability that a unit is dropped, in [0, 1); it may be traced.
    deterministic: nothing is dropped.
    epsilon: added to the variance.
    stream: name of the random stream.
    dtype: of the result; None: that of the input.
    param_dtype: of the parameters.
  """

  rate: float | Array
  deterministic: bool
  epsilon: float = 1e-5
  stream: str = 'dropout'
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[..., D] -> the same; of fewer than two kept units the bias alone is left."""
    shape, last = (x.shape[-1],), (1,) * (x.ndim - 1) + (-1,)
    scale = self.param('scale', nn.initializers.ones, shape, self.param_dtype)
    bias = self.param('bias', nn.initializers.zeros, shape, self.param_dtype)
    wide = at_least_float32(x)
    if self.deterministic:
      kept, divisor = jnp.ones(x.shape, bool), 1
    else:
      kept = draw_kept(self.make_rng(self.stream), x, self.rate)
      divisor = 1 - self.rate
    count = jnp.maximum(kept.sum(-1, keepdims=True), 1).astype(wide.dtype)
    mean = jnp.where(kept, wide, 0).sum(-1, keepdims=True) / count
    centred = jnp.where(kept, wide - mean, 0)
    root = lax.rsqrt(jnp.square(centred).sum(-1, keepdims=True) / count + self.epsilon)
    y = centred * root * scale.reshape(last) + bias.reshape(last)
    return jnp.where(kept, y / divisor, 0).astype(self.dtype or x.dtype)
