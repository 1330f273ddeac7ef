"""Reductions in float32 at least; products of features in full precision."""

from typing import Any

import jax
import jax.numpy as jnp

from dlx.state import Array

EXACT = jax.lax.Precision.HIGHEST  # A similarity in bfloat16 is off by half a percent.


def unit(x_BD: Array) -> Array:
  """Rows of length 1, float32 or wider; a row of zeros stays."""
  x_BD = x_BD.astype(jnp.promote_types(x_BD.dtype, jnp.float32))
  square_B1 = jnp.square(x_BD).sum(-1, keepdims=True)
  # Below a length of 1e-12 not normalised: the root of 0 has no gradient, and that of
  # the least positive number one that overflows.
  return x_BD * jax.lax.rsqrt(jnp.maximum(square_B1, 1e-24))


def at_least_float32(x: Array) -> Array:
  """The array in its own dtype if that is float32 or wider, else in float32."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def work_dtype(image: jax.Array) -> Any:
  """The dtype that arithmetic on an image is done in: float32, or its own if wider."""
  return jnp.promote_types(image.dtype, jnp.float32)
