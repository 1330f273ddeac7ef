"""Products of a stream with a matrix: the one seam for all of them.

Every dense layer, projection, tied head and recurrent input goes through
`rows_dot_general` (`Dense` and `DenseGeneral` are flax's on it, `rows_product` is the
plain product), so that what computes a product is decided in one place: kernels.matmul.
"""

import math
from typing import Any

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from dlx.layers import mesh
from dlx.layers.bias import keep_bias_wide, narrow, written
from kernels.matmul import product

Array = jax.Array


def rows_dot_general(
  x: Array,
  kernel: Array,
  dimension_numbers: Any,
  precision: Any = None,
  preferred_element_type: Any = None,
) -> Array:
  """`lax.dot_general` of [..., D] and [D, ...] as a product of two matrices.

  The field `dot_general` of `nn.Dense` and `nn.DenseGeneral`. On the CPU (jax 0.10.2)
  the gradients of a product with two leading axes are not put into the form of a
  matrix product: those of Dense, GELU, Dense on [12, 64, 128] took 8.9 ms, and 3.5 ms
  with the leading axes merged. Merging is a bitcast. It would cost a gather where two
  merged axes are both divided among devices, so they stay where the ambient mesh has an
  axis for the tokens.

  Args:
    x: contracted along its last axes.
    kernel: contracted along its first axes, or along its last ones, as a table of
      embeddings [V, D] that is a head as well: it is not copied to be transposed.
    dimension_numbers: as flax passes them; batch axes are not taken.
    precision: of the product.
    preferred_element_type: of the result.

  Raises:
    ValueError: other axes.
  """
  (x_axes, kernel_axes), (x_batch, kernel_batch) = dimension_numbers
  n, rank = len(x_axes), kernel.ndim
  last = tuple(range(x.ndim - n, x.ndim))
  first, transposed = tuple(range(n)), tuple(range(rank - n, rank))
  if (
    tuple(x_axes) != last
    or tuple(kernel_axes) not in (first, transposed)
    or (len(x_batch) or len(kernel_batch))
  ):
    raise ValueError(
      f'Axes {dimension_numbers} are not allowed: must be the last of x with the first '
      'or the last of the kernel, without batch axes.'
    )
  if mesh.size('sequence') > 1:
    return lax.dot_general(
      x,
      kernel,
      dimension_numbers,
      precision=precision,
      preferred_element_type=preferred_element_type,
    )
  by_last = tuple(kernel_axes) != first
  rows = x.shape[: x.ndim - n]
  columns = kernel.shape[: rank - n] if by_last else kernel.shape[n:]
  depth = math.prod(x.shape[x.ndim - n :])
  width = math.prod(columns)
  y = product(
    x.reshape(math.prod(rows), depth),
    kernel.reshape((width, depth) if by_last else (depth, width)),
    transpose_b=by_last,
    precision=precision,
    preferred_element_type=preferred_element_type,
  )
  return jnp.reshape(y, rows + columns)


def rows_product(x: Array, kernel: Array, preferred_element_type: Any = None) -> Array:
  """x kernel: [..., D] times [D, F], as `rows_dot_general`."""
  axes = (((x.ndim - 1,), (0,)), ((), ()))
  return rows_dot_general(
    x, kernel, axes, preferred_element_type=preferred_element_type
  )


def kernel_gradient(x: Array, dy: Array, preferred_element_type: Any = None) -> Array:
  """[D, F]: x [..., D] times dy [..., F], summed over all axes but the last.

  The axes are merged where nothing is divided among devices.
  """
  rows = tuple(range(x.ndim - 1))
  if mesh.ambient() is not None:
    return lax.dot_general(
      x, dy, ((rows, rows), ((), ())), preferred_element_type=preferred_element_type
    )
  size = math.prod(x.shape[:-1])
  return product(
    x.reshape(size, x.shape[-1]),
    dy.reshape(size, dy.shape[-1]),
    transpose_a=True,
    preferred_element_type=preferred_element_type,
  )


class Dense(nn.Dense):
  """`flax.linen.Dense` on `rows_dot_general`; names and fields as of nn.Dense."""

  dot_general: Any = rows_dot_general
  promote_dtype: Any = keep_bias_wide

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[..., D] -> [..., features]."""
    return narrow(written(nn.Dense)(self, x), x, self.dtype, self.param_dtype)


class DenseGeneral(nn.DenseGeneral):
  """`flax.linen.DenseGeneral` on `rows_dot_general`, over the last axes of its input;
  names and fields as of nn.DenseGeneral."""

  dot_general: Any = rows_dot_general
  promote_dtype: Any = keep_bias_wide

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """The axes `axis` of x become `features`."""
    return narrow(written(nn.DenseGeneral)(self, x), x, self.dtype, self.param_dtype)
