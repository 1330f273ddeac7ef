"""A sparse matrix times a dense one, float32, as a call of C++ on the CPU.

Other platforms gather rows and sum segments. Under vmap a call is made for each row.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp

Array = jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def product(
  rows_X: Array, columns_X: Array, values_X: Array, x_MF: Array, num_rows: int
) -> Array:
  """[num_rows, F]: the sum of `values * x[columns]` over the entries of each row.

  Reverse mode only, of any order.

  Args:
    rows_X: int32, in any order, repeats allowed.
    columns_X: int32.
    values_X: of the entries.
    x_MF: the dense matrix.
    num_rows: of the result.
  """
  args = (rows_X, columns_X, values_X, x_MF)
  plain = functools.partial(plain_product, num_rows=num_rows)
  call = jax.ffi.ffi_call(
    'dlx_sparse_product',
    jax.ShapeDtypeStruct((num_rows, x_MF.shape[1]), jnp.float32),
    vmap_method='sequential',
  )
  return lax.platform_dependent(*args, cpu=call, default=plain)


def plain_product(
  rows_X: Array, columns_X: Array, values_X: Array, x_MF: Array, num_rows: int
) -> Array:
  """`product` by a gather and a sum of segments, in any dtype."""
  parts_XF = x_MF[columns_X] * values_X[:, None].astype(x_MF.dtype)
  return jax.ops.segment_sum(parts_XF, rows_X, num_rows)


def _forward(rows_X, columns_X, values_X, x_MF, num_rows):
  args = (rows_X, columns_X, values_X, x_MF)
  return product(*args, num_rows), args


def _backward(num_rows, args, dy_NF):
  rows_X, columns_X, values_X, x_MF = args
  del num_rows
  dx_MF = product(columns_X, rows_X, values_X, dy_NF, x_MF.shape[0])
  d_values_X = (dy_NF[rows_X] * x_MF[columns_X]).sum(-1)
  return None, None, d_values_X, dx_MF


product.defvjp(_forward, _backward)
