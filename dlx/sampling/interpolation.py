"""Paths between two codes."""

from typing import Literal

import jax.numpy as jnp

from dlx.precision import euclidean_norm
from dlx.state import Array


def linear(a_ND: Array, b_ND: Array, t_S: Array) -> Array:
  """`(1 - t) a + t b` [N, S, D], for each of S times in [0, 1]."""
  t_1S1 = t_S[None, :, None]
  return (1 - t_1S1) * a_ND[:, None] + t_1S1 * b_ND[:, None]


def slerp(
  a_ND: Array,
  b_ND: Array,
  t_S: Array,
  *,
  norm: Literal['linear', 'elliptic'] = 'linear',
) -> Array:
  """Spherical interpolation [N, S, D] (Shoemake 1985; for codes arXiv 1609.04468).

  Draws of a standard normal in D dimensions have norms near sqrt(D); a straight line
  between two passes through norms that hardly occur, and no generator has seen such.
  The direction turns by equal angles. Ends of equal norm give one and the same arc of a
  circle; where the norms differ there are two answers:

    linear    the norm runs evenly from |a| to |b|
    elliptic  sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b, with w between a and b:
              Shoemake's weights for the ends themselves, an arc of an ellipse

  Parallel ends give the straight line, and so do opposite ones, which lie on no one
  great circle.
  """
  norm_of = lambda x: euclidean_norm(x, keepdims=True)
  length_a, length_b = norm_of(a_ND), norm_of(b_ND)
  unit_a, unit_b = (
    x / jnp.maximum(length, 1e-12) for x, length in ((a_ND, length_a), (b_ND, length_b))
  )
  # Half the angle from chord and sum: exact for parallel vectors too.
  angle_N1 = 2 * jnp.arctan2(norm_of(unit_a - unit_b), norm_of(unit_a + unit_b))
  angle_N11 = angle_N1[:, None]
  # sin(s w) / sin(w), which is s where w is 0.
  whole = jnp.sinc(angle_N11 / jnp.pi)
  opposite = whole < 1e-4
  safe = jnp.where(opposite, 1, whole)
  weight = lambda s: jnp.where(opposite, s, jnp.sinc(s * angle_N11 / jnp.pi) * s / safe)
  t = t_S[None, :, None]
  if norm == 'elliptic':
    return weight(1 - t) * a_ND[:, None] + weight(t) * b_ND[:, None]
  unit_NSD = weight(1 - t) * unit_a[:, None] + weight(t) * unit_b[:, None]
  return unit_NSD * (length_a + (length_b - length_a) * t[..., 0])[..., None]
