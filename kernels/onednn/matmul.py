"""Products of matrices as calls of C++ on the CPU, float32 or bfloat16.

kernels.matmul gives them derivatives and chooses between them and XLA's.
"""

from typing import Any, Sequence

import jax
import jax.numpy as jnp


def product(
  a: jax.Array,
  b: jax.Array,
  shape: Sequence[int],
  dtype: Any,
  *,
  transpose_a: bool = False,
  transpose_b: bool = False,
) -> jax.Array:
  """[*batch, M, K] times [*batch, K, N], summed in float32.

  Args:
    a, b: of one dtype and rank; axes of `batch` may be 1 in one of them.
    shape: of the result, [*batch, M, N].
    dtype: of the result: theirs, or float32.
    transpose_a: a is given as [*batch, K, M].
    transpose_b: b is given as [*batch, N, K].
  """
  out = jax.ShapeDtypeStruct(tuple(shape), jnp.dtype(dtype))
  call = jax.ffi.ffi_call('dlx_onednn_product', out)
  return call(a, b, transpose_a=bool(transpose_a), transpose_b=bool(transpose_b))
