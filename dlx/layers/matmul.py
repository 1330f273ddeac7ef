"""Products of a stream with a matrix, in the form that the CPU runs fastest."""

from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from dlx.layers import mesh

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
    kernel: contracted along its first axes.
    dimension_numbers: as flax passes them; batch axes are not taken.
    precision: of the product.
    preferred_element_type: of the result.

  Raises:
    ValueError: other axes.
  """
  (x_axes, kernel_axes), (x_batch, kernel_batch) = dimension_numbers
  n = len(x_axes)
  last = tuple(range(x.ndim - n, x.ndim))
  if (tuple(x_axes), tuple(kernel_axes)) != (last, tuple(range(n))) or (
    len(x_batch) or len(kernel_batch)
  ):
    raise ValueError(
      f'Axes {dimension_numbers} are not allowed: must be the last of x with the first '
      'of the kernel, without batch axes.'
    )
  if mesh.size('sequence') > 1:
    return lax.dot_general(
      x,
      kernel,
      dimension_numbers,
      precision=precision,
      preferred_element_type=preferred_element_type,
    )
  rows, columns = x.shape[: x.ndim - n], kernel.shape[n:]
  depth = 1
  for size in kernel.shape[:n]:
    depth *= size
  y = lax.dot_general(
    x.reshape(-1, depth),
    kernel.reshape(depth, -1),
    (((1,), (0,)), ((), ())),
    precision=precision,
    preferred_element_type=preferred_element_type,
  )
  return jnp.reshape(y, rows + columns)
