"""Paths between two codes."""

import jax
import jax.numpy as jnp

from dlx.state import Array


def linear(a_ND: jax.Array, b_ND: jax.Array, t_S: jax.Array) -> jax.Array:
  """`(1 - t) a + t b` [N, S, D], for each of S times in [0, 1]."""
  t_1S1 = t_S[None, :, None]
  return (1 - t_1S1) * a_ND[:, None] + t_1S1 * b_ND[:, None]


def slerp(a_ND: jax.Array, b_ND: jax.Array, t_S: jax.Array) -> jax.Array:
  """Spherical interpolation [N, S, D] (Shoemake 1985; for codes arXiv 1609.04468).

  Draws of a standard normal in D dimensions have norms near sqrt(D); a straight line
  between two passes through norms that hardly occur, the great circle does not. The
  norm runs between those of the ends. Where the ends are (nearly) parallel it is the
  straight line.
  """
  unit = lambda x: x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
  cosine_N = jnp.clip((unit(a_ND) * unit(b_ND)).sum(-1), -1, 1)
  angle_N11 = jnp.arccos(cosine_N)[:, None, None]
  t = t_S[None, :, None]
  sine = jnp.sin(angle_N11)
  flat = sine < 1e-4
  safe = jnp.where(flat, 1, sine)
  left = jnp.where(flat, 1 - t, jnp.sin((1 - t) * angle_N11) / safe)
  right = jnp.where(flat, t, jnp.sin(t * angle_N11) / safe)
  return left * a_ND[:, None] + right * b_ND[:, None]


def spherical(a_Z: Array, b_Z: Array, share_S: Array) -> Array:
  """Points between two vectors on the arc between them, [S, Z] (arXiv:1609.04468).

  Normal noise of many entries has nearly one length; points on the chord are shorter,
  and no generator has seen such. The arc turns by equal angles and grows in length
  from |a| to |b| evenly.
  """
  length_a, length_b = jnp.linalg.norm(a_Z), jnp.linalg.norm(b_Z)
  a, b = a_Z / length_a, b_Z / length_b
  # Half the angle from chord and sum: exact for parallel vectors too.
  angle = 2 * jnp.arctan2(jnp.linalg.norm(a - b), jnp.linalg.norm(a + b))
  share_S1 = share_S[:, None]
  # sin(s w) / sin(w), which is s where w is 0.
  weight = lambda s: jnp.sinc(s * angle / jnp.pi) * s / jnp.sinc(angle / jnp.pi)
  unit_SZ = weight(1 - share_S1) * a[None, :] + weight(share_S1) * b[None, :]
  return unit_SZ * (length_a + (length_b - length_a) * share_S1)
