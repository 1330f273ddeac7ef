"""'onednn': products by a call of kernels.onednn on the CPU, summed in float32."""

from typing import Any

import jax
import jax.numpy as jnp

from kernels.dispatch import Refusal
from kernels.matmul.case import Case, batch_of
from kernels.onednn import library

Array = jax.Array


def refusal(case: Case) -> Refusal | None:
  """Float32 and bfloat16, where oneDNN is built and in use."""
  if case.dtype not in ('float32', 'bfloat16'):
    return Refusal(f'dtype={case.dtype}', 'float32 or bfloat16')
  if case.out_dtype not in (case.dtype, 'float32'):
    return Refusal(f'a result of {case.out_dtype} from {case.dtype}', case.dtype)
  if not library.usable():
    why = library.reason()
    if why is None:
      why = f'{jax.local_device_count()} CPU devices, or switched off by library.unused'
    return Refusal(f'oneDNN is not used: {why}')
  if case.dtype == 'bfloat16' and not library.has_bfloat16():
    return Refusal(f'{library.isa()} has no instructions for bfloat16', 'float32')
  return None


def forward(case: Case, a: Array, b: Array, *, precision: Any = None) -> Array:
  """[*batch, M, N] of the case's out_dtype; `precision` is float32's in any case."""
  del precision
  shape = (*batch_of(a.shape, b.shape), case.rows, case.columns)
  call = jax.ffi.ffi_call(
    'dlx_onednn_product', jax.ShapeDtypeStruct(shape, jnp.dtype(case.out_dtype))
  )
  return call(a, b, transpose_a=case.form[0] == 'T', transpose_b=case.form[1] == 'T')
