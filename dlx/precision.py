"""Reductions in float32 at least; products of features in full precision."""

from typing import Any

import jax
import jax.numpy as jnp

from dlx.state import Array

EXACT = jax.lax.Precision.HIGHEST  # A similarity in bfloat16 is off by half a percent.


def scale_for_squares(largest: Array) -> Array:
  """A factor that brings numbers to where float32 holds their squares and the sum.

  A square overflows from 1.8e19 on and vanishes below 1e-19. So a Euclidean norm is
  the root of the sum of squares of `x * factor`, over the factor.

  Args:
    largest: the largest magnitude of what is to be squared, float32 or wider.

  Returns:
    A power of 2: exactly 1 from 2^-40 to 2^40, so that ordinary sums keep their bits,
    and for 0; else what brings `largest` near the nearer of the two. Finite and above 0
    also for inf.
  """
  limits = jnp.finfo(largest.dtype)
  number = jax.lax.stop_gradient(jnp.clip(largest, limits.tiny, limits.max))
  # By the exponent, not as a quotient: XLA takes n / (a / b) for n b / a, which
  # overflows. And 1 for 0: squares of a constant 0 it folds to 0 times the factor's.
  _, exponent = jnp.frexp(jnp.where(largest == 0, 1, number))
  return jnp.ldexp(jnp.ones_like(number), jnp.clip(exponent, -40, 40) - exponent)


def euclidean_norm(x: Array, axis: int = -1, keepdims: bool = False) -> Array:
  """Root of the sum of squares along an axis, float32 or wider, of any finite size.

  inf where an entry is infinite; at 0 the derivative is nan.
  """
  x = at_least_float32(x)
  scale = scale_for_squares(jnp.abs(x).max(axis, keepdims=True))
  norm = jnp.sqrt(jnp.square(x * scale).sum(axis, keepdims=True)) / scale
  return norm if keepdims else norm.squeeze(axis)


def unit(x_BD: Array) -> Array:
  """Rows of length 1, float32 or wider; a row of zeros stays."""
  x_BD = at_least_float32(x_BD)
  # Only against overflow: rows that are too short are not made longer, see below.
  scale_B1 = scale_for_squares(jnp.abs(x_BD).max(-1, keepdims=True))
  x_BD = x_BD * jnp.minimum(scale_B1, 1)
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
