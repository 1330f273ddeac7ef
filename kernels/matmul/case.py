"""What is asked of a product of matrices: a hashable description."""

import math
from typing import Any, NamedTuple, Sequence

import jax.numpy as jnp
import numpy as np

from kernels.onednn import library
from kernels.processor import processor

Axes = Sequence[int]


class Case(NamedTuple):
  """Sizes and what is computed; hashable.

  Attributes:
    batch: products of two matrices.
    rows, inner, columns: [rows, inner] times [inner, columns].
    form: 'N' where a matrix lies as it is multiplied and 'T' where it lies transposed,
      of the left one and of the right one: 'NN', 'NT', 'TN' or 'TT'.
    dtype: name of the dtype of both.
    out_dtype: name of the result's.
    vendor: see kernels.processor; '' where kernels.onednn is not used.
    isa: its instruction set, see kernels.onednn.library.ISAS; '' as well.
  """

  batch: int
  rows: int
  inner: int
  columns: int
  form: str = 'NN'
  dtype: str = 'float32'
  out_dtype: str = 'float32'
  vendor: str = ''
  isa: str = ''

  @property
  def work(self) -> int:
    """Multiplications."""
    return self.batch * self.rows * self.inner * self.columns

  @property
  def thinnest(self) -> int:
    """The least of rows, inner and columns: of a product with a vector it is 1."""
    return min(self.rows, self.inner, self.columns)


def sizes(shape: Axes, transposed: bool) -> tuple[int, int]:
  """Rows and columns of the matrices in an array, as they are multiplied."""
  return (shape[-1], shape[-2]) if transposed else (shape[-2], shape[-1])


def batch_of(a_shape: Axes, b_shape: Axes) -> tuple[int, ...]:
  """Of the result; an axis of 1 in one operand is repeated."""
  return tuple(map(int, np.broadcast_shapes(tuple(a_shape[:-2]), tuple(b_shape[:-2]))))


def describe(
  a: Any, b: Any, transpose_a: bool, transpose_b: bool, out_dtype: Any
) -> Case:
  """The case of two arrays of one dtype.

  Raises:
    ValueError: shapes or dtypes that do not fit.
  """
  found = f'a={a.dtype}{tuple(a.shape)}, b={b.dtype}{tuple(b.shape)}'
  if len(a.shape) < 2 or len(a.shape) != len(b.shape):
    raise ValueError(f'{found} is not allowed: must be of one rank, 2 or more.')
  if a.dtype != b.dtype:
    raise ValueError(f'{found} is not allowed: must be of one dtype.')
  rows, inner = sizes(a.shape, transpose_a)
  again, columns = sizes(b.shape, transpose_b)
  pairs = list(zip(a.shape[:-2], b.shape[:-2], strict=True))
  if inner != again or any(n != m and 1 not in (n, m) for n, m in pairs):
    forms = f'transpose_a={transpose_a}, transpose_b={transpose_b}'
    raise ValueError(
      f'{found} with {forms} is not allowed: inner sizes {inner} and {again} must be '
      'equal, and so must all axes before the last two be, or be 1.'
    )
  known = library.reason() is None
  return Case(
    batch=math.prod(batch_of(a.shape, b.shape)),
    rows=rows,
    inner=inner,
    columns=columns,
    form='NT'[transpose_a] + 'NT'[transpose_b],
    dtype=jnp.dtype(a.dtype).name,
    out_dtype=jnp.dtype(out_dtype).name,
    vendor=processor().vendor if known else '',
    isa=library.isa() if known else '',
  )
