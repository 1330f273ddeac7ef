"""How far two domains are apart, as a loss of their features."""

import chex
import jax.numpy as jnp

from dlx.precision import at_least_float32
from dlx.state import Array


def coral(source_BD: Array, target_ND: Array) -> Array:
  """Squared distance of the covariances of features, over 4 D^2 (arXiv:1607.01719).

  Means do not count. A batch of one row, or none, has the covariance 0.

  Args:
    source_BD: features of one domain.
    target_ND: features of the other.

  Returns:
    A scalar of at least 0, float32 or wider.
  """
  chex.assert_rank([source_BD, target_ND], 2)
  chex.assert_equal_shape_suffix([source_BD, target_ND], 1)

  def covariance(x_BD):
    x_BD = at_least_float32(x_BD)
    rows = x_BD.shape[0]
    x_BD = x_BD - x_BD.sum(0, keepdims=True) / max(rows, 1)
    return x_BD.T @ x_BD / max(rows - 1, 1)

  apart_DD = covariance(source_BD) - covariance(target_ND)
  return jnp.square(apart_DD).sum() / (4 * source_BD.shape[1] ** 2)
