"""Paths between two codes."""

import jax
import jax.numpy as jnp


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
