"""A first convolution that whitens patches of the images, and is not trained.

Neighbouring pixels and colours are nearly equal, so that most directions of a patch
have almost no variance. Filters along the eigenvectors of the covariance of patches,
each divided by its standard deviation, give what lies in every direction the same
weight; with them a net learns faster (Page 2019; airbench, arXiv:2404.00498).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers.convolution import conv_general_dilated
from dlx.precision import at_least_float32

Array = jax.Array


def patches(x_BHWC: Array, size: int) -> Array:
  """All windows of size x size: [B, H - size + 1, W - size + 1, size * size * C].

  The last axis is ordered as a kernel [size, size, C] that is made flat.
  """
  height, width = (n - size + 1 for n in x_BHWC.shape[1:3])
  parts = [
    x_BHWC[:, i : i + height, j : j + width] for i in range(size) for j in range(size)
  ]
  return jnp.concatenate(parts, -1)


def whitening_filters(x_BHWC: Array, size: int, epsilon: float = 5e-4) -> Array:
  """Filters that whiten patches of such images, and their negatives.

  Args:
    x_BHWC: images, as the layer will see them.
    size: height and width of a patch.
    epsilon: added to the variance of each direction, which bounds the filters.

  Returns:
    Kernel [size, size, C, 2 D] with D = size * size * C, float32 or wider. Of a patch
    the first D give numbers whose covariance over all patches is the unit matrix, but
    for epsilon; the others their negatives, so that a following activation, which cuts
    off one side, loses neither.
  """
  wide = at_least_float32(x_BHWC)
  p_ND = patches(wide, size).reshape(-1, size * size * x_BHWC.shape[-1])
  p_ND = p_ND - p_ND.mean(0, keepdims=True)
  variance_D, vectors_DD = jnp.linalg.eigh(p_ND.T @ p_ND / len(p_ND))
  # A direction has two vectors: the one is taken that these numbers make positive.
  weigh_D = jnp.asarray(np.sqrt(np.arange(1, len(variance_D) + 1)), wide.dtype)
  sign_D = jnp.where(weigh_D @ vectors_DD < 0, -1, 1).astype(wide.dtype)
  scale_D = sign_D / jnp.sqrt(jnp.maximum(variance_D, 0) + epsilon)
  kernel = (vectors_DD * scale_D[None]).reshape(size, size, x_BHWC.shape[-1], -1)
  return jnp.concatenate([kernel, -kernel], -1)


class WhiteningConv(nn.Module):
  """`whitening_filters` of the first batch that is trained on, and a trained bias.

  The filters lie in the collection `batch_stats`, `kernel`, and `known` says whether
  they are there: until a first call with train=True they pick the entries of a patch.
  No gradient changes them.

  Attributes:
    size: height and width of a patch.
    epsilon: see `whitening_filters`.
    dtype: of the arithmetic.
    param_dtype: of the bias.
  """

  size: int = 2
  epsilon: float = 5e-4
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BHWC: Array, *, train: bool) -> Array:
    """[B, H, W, C] -> [B, H - size + 1, W - size + 1, 2 size size C]."""
    inputs = x_BHWC.shape[-1]
    count = self.size * self.size * inputs

    wide = jnp.promote_types(self.dtype, jnp.float32)

    def picking():
      eye = jnp.eye(count, dtype=wide)
      shape = (self.size, self.size, inputs, 2 * count)
      return jnp.concatenate([eye, -eye], -1).reshape(shape)

    kernel = self.variable('batch_stats', 'kernel', picking)
    known = self.variable('batch_stats', 'known', lambda: jnp.zeros((), jnp.bool_))
    bias = self.param('bias', nn.initializers.zeros, (2 * count,), self.param_dtype)
    if train and not self.is_initializing():
      kernel.value = jax.lax.cond(
        known.value,
        lambda x, old: old,
        lambda x, old: whitening_filters(x, self.size, self.epsilon).astype(old.dtype),
        jax.lax.stop_gradient(x_BHWC).astype(wide),
        kernel.value,
      )
      known.value = jnp.ones((), jnp.bool_)
    y = conv_general_dilated(
      x_BHWC.astype(self.dtype),
      kernel.value.astype(self.dtype),
      (1, 1),
      'VALID',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    return y + bias.astype(self.dtype)[None, None, None]
