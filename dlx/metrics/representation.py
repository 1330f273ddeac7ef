"""What a set of features looks like: alignment, uniformity, principal components."""

import jax.numpy as jnp

from dlx.precision import EXACT, unit
from dlx.state import Array


def alignment(x_BD: Array, y_BD: Array) -> Array:
  """Mean squared distance of pairs of views, in [0, 4]; 0 is best, nan of no pairs."""
  return jnp.square(x_BD - y_BD).sum(-1).mean()


def uniformity(x_BD: Array) -> Array:
  """`log mean exp(-2 d^2)` over pairs of different rows; lower is more even.

  0 where all are one point; about -4 for directions drawn at random; nan of less than
  two rows.
  """
  squared_BB = 2 - 2 * jnp.dot(x_BD, x_BD.T, precision=EXACT)
  n = x_BD.shape[0]
  terms_BB = jnp.where(jnp.eye(n, dtype=bool), 0, jnp.exp(-2 * squared_BB))
  return jnp.log(terms_BB.sum() / (n * (n - 1)))


def cosine_distance(x_ND: Array) -> Array:
  """Mean of 1 - cosine over pairs of different rows, in [0, 2]; nan of fewer than two.

  0 where all rows point one way, as after too much smoothing over a graph (mean average
  distance, arXiv:1909.03211, over all pairs). Sums take N D operations, as the sum of
  all products of two rows is the square of the sum of the rows.
  """
  x_ND, n = unit(x_ND), x_ND.shape[0]
  length_N = jnp.square(x_ND).sum(-1)  # 1, or 0 of a row of zeros.
  products = jnp.square(x_ND.sum(0)).sum() - length_N.sum()
  return 1 - products / (n * (n - 1) if n > 1 else jnp.nan)


def principal_components(x_NF: Array, count: int = 2) -> Array:
  """The first principal components [N, count] of the rows, by SVD.

  The sign of a component is that which makes its largest weight positive. All 0 where
  all rows are equal, nan where a number is.
  """
  x_NF = x_NF - x_NF.mean(0, keepdims=True)
  _, _, axes_RF = jnp.linalg.svd(x_NF, full_matrices=False)
  axes_cF = axes_RF[:count]
  largest_c1 = jnp.take_along_axis(
    axes_cF, jnp.abs(axes_cF).argmax(1, keepdims=True), 1
  )
  return jnp.dot(x_NF, (axes_cF * jnp.sign(largest_c1)).T, precision=EXACT)
