"""Rotary positions (arXiv:2104.09864): queries and keys turned by where they stand."""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def rotate(x_BLHK: Array, position_L: Array, base: float = 10_000.0) -> Array:
  """Each pair of entries turned by position * base^(-2 i / K), i = 0 to K / 2 - 1.

  A pair is an entry of the first half and its fellow of the second, as in GPT-NeoX; the
  paper pairs neighbours, which is the same up to the order of the K entries. Norms
  stay, and products of a query with a key depend on the difference of their positions
  alone. Angles and products are in float32 or wider.

  Args:
    x_BLHK: queries or keys of H heads; K even.
    position_L: int, of each token in the whole sequence.
    base: slows the later pairs down.

  Raises:
    ValueError: an odd K.
  """
  width = x_BLHK.shape[-1]
  if width % 2:
    raise ValueError(f'Heads of width {width} cannot rotate: must be even.')
  wide = jnp.promote_types(x_BLHK.dtype, jnp.float32)
  speed_F = base ** (-np.arange(0, width, 2) / width)
  angle_LF = position_L.astype(wide)[:, None] * jnp.asarray(speed_F, wide)[None]
  cos_L1F, sin_L1F = jnp.cos(angle_LF)[:, None], jnp.sin(angle_LF)[:, None]
  a, b = jnp.split(x_BLHK.astype(wide), 2, axis=-1)
  turned = jnp.concatenate(
    [a * cos_L1F[None] - b * sin_L1F[None], b * cos_L1F[None] + a * sin_L1F[None]],
    axis=-1,
  )
  return turned.astype(x_BLHK.dtype)
