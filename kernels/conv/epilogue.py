"""What follows the convolution: scale, shift, residual and activation, elementwise.

In the float32 (or wider) of the sums, before the cast to the output's dtype. All of it
is elementwise or by the last axis, so that a kernel can do it for its block.
"""

import math

import jax
from jax import lax
import jax.numpy as jnp

from kernels.conv.case import Case

Array = jax.Array

# Activations whose slope is known from their value.
FROM_VALUE = ('relu', 'relu6')


def apply(
  case: Case,
  total: Array,
  scale: Array | None = None,
  shift: Array | None = None,
  residual: Array | None = None,
) -> Array:
  """activation(total * scale + shift + residual), in the dtype of total.

  Args:
    case: of it the activation is used.
    total: sums of the convolution, or a block of them, in float32 or wider.
    scale, shift: of the last axis of total, or of as many axes; None: none.
    residual: like total, of any dtype; None: none.
  """
  if scale is not None:
    total = total * by_feature(scale, total)
  if shift is not None:
    total = total + by_feature(shift, total)
  if residual is not None:
    total = total + residual.astype(total.dtype)
  return activate(case.activation, total)


def by_feature(v: Array, like: Array) -> Array:
  """[O] of the dtype and with the number of axes of `like`."""
  if v.ndim < like.ndim:
    v = v.reshape((1,) * (like.ndim - v.ndim) + v.shape)
  return v.astype(like.dtype)


def activate(name: str | None, z: Array) -> Array:
  """`name` of z; None: z."""
  if name is None:
    return z
  if name == 'relu':
    return jnp.maximum(z, 0)
  if name == 'relu6':
    return jnp.minimum(jnp.maximum(z, 0), 6)
  if name == 'silu':
    return z * lax.logistic(z)
  assert name == 'gelu', name
  return z * _normal(z)


def slope(name: str, z: Array) -> Array:
  """Derivative of `activate`; for those in FROM_VALUE, z may be its value instead.

  0 at the kinks of relu and relu6. bool for those two.
  """
  if name == 'relu':
    return z > 0
  if name == 'relu6':
    return (z > 0) & (z < 6)
  if name == 'silu':
    s = lax.logistic(z)
    return s * (1 + z * (1 - s))
  assert name == 'gelu', name
  return _normal(z) + z * jnp.exp(-z * z / 2) * (1 / math.sqrt(2 * math.pi))


def _normal(z: Array) -> Array:
  """Phi(z), the share of normal numbers below z."""
  return (1 + lax.erf(z * math.sqrt(0.5))) / 2


def wide(x: Array) -> Array:
  """In float32, or wider where it is."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
