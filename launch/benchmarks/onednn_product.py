"""Products of matrices by oneDNN's own primitive, through its C interface.

No program of XLA stands around it, so that it says what the library gives: float32 and
bfloat16, both operands plain, rows first.
"""

import ctypes
from typing import Any, Callable

import jax.numpy as jnp
import numpy as np

from kernels.onednn import library as onednn

# Of oneapi/dnnl/dnnl_types.h, version 3.
CPU, IN_ORDER, ROWS_FIRST = 1, 1, 3
TYPES = {'bfloat16': 2, 'float32': 3}
SOURCE, WEIGHTS, RESULT = 1, 33, 17


class _Argument(ctypes.Structure):
  _fields_ = (('arg', ctypes.c_int), ('memory', ctypes.c_void_p))


def product(dtype: str, size: int, library: str) -> tuple[Callable[[], Any], Any]:
  """(the product of two [size, size] of ones, result -> its first number).

  Raises:
    NotUsable: oneDNN is not installed.
    RuntimeError: it refuses.
  """
  del library  # There is one.
  dnnl = ctypes.CDLL(str(onednn.installed()))

  def make(name: str, *args: Any) -> ctypes.c_void_p:
    made = ctypes.c_void_p()
    if status := getattr(dnnl, name)(ctypes.byref(made), *args):
      raise RuntimeError(f'{name} gives status {status}')
    return made

  engine = make('dnnl_engine_create', CPU, ctypes.c_size_t(0))
  stream = make('dnnl_stream_create', engine, IN_ORDER)
  sizes = (ctypes.c_int64 * 12)(size, size)
  form = make('dnnl_memory_desc_create_with_tag', 2, sizes, TYPES[dtype], ROWS_FIRST)
  described = make(
    'dnnl_matmul_primitive_desc_create', engine, form, form, None, form, None
  )
  primitive = make('dnnl_primitive_create', described)
  given, out = (np.ones((size, size), jnp.dtype(dtype)) for _ in range(2))
  pointer = lambda x: ctypes.c_void_p(x.ctypes.data)
  a, c = (make('dnnl_memory_create', form, engine, pointer(x)) for x in (given, out))
  args = (_Argument * 3)((SOURCE, a), (WEIGHTS, a), (RESULT, c))
  keep = given  # The library holds its address alone.

  def multiply():
    if status := dnnl.dnnl_primitive_execute(primitive, stream, 3, args):
      raise RuntimeError(f'dnnl_primitive_execute gives status {status}')
    dnnl.dnnl_stream_wait(stream)
    return keep, out

  return multiply, lambda made: made[1][0, 0]
