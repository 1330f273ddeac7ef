"""Strides: a rule that says where each entry of a tensor lies in a flat buffer.

Entry (i, j) of a matrix lies at

  offset + i * strides[0] + j * strides[1]

In row-major order strides[k] is the product of the sizes after k: the last index runs
fastest. An index, a slice and a transpose change shape, strides and offset alone, and
copy nothing. NumPy and PyTorch hold arrays so (NumPy counts strides in bytes); an array
of JAX has no strides that a program sees.

>>> matrix = row_major((2, 3))
>>> matrix
Layout(shape=(2, 3), strides=(3, 1), offset=0)
>>> column = index(matrix, (slice(None), 1))
>>> column, list(positions(column))
(Layout(shape=(2,), strides=(3,), offset=1), [1, 4])
"""

from collections.abc import Iterator
import itertools
import math
from typing import Any, NamedTuple

Shape = tuple[int, ...]


class Layout(NamedTuple):
  """Sizes of the axes, steps in the buffer along them, position of the first entry."""

  shape: Shape
  strides: tuple[int, ...]
  offset: int = 0


def row_major(shape: Shape) -> Layout:
  """The layout of a fresh tensor.

  >>> row_major((2, 3, 4)).strides
  (12, 4, 1)
  """
  return Layout(shape, tuple(math.prod(shape[k + 1 :]) for k in range(len(shape))))


def positions(layout: Layout) -> Iterator[int]:
  """Where the entries lie, the last index fastest.

  >>> list(positions(transpose(row_major((2, 3)))))
  [0, 3, 1, 4, 2, 5]
  """
  for entry in itertools.product(*map(range, layout.shape)):
    yield layout.offset + sum(i * s for i, s in zip(entry, layout.strides))


def transpose(layout: Layout) -> Layout:
  """The axes in reverse order.

  >>> transpose(row_major((2, 3)))
  Layout(shape=(3, 2), strides=(1, 3), offset=0)
  """
  return Layout(layout.shape[::-1], layout.strides[::-1], layout.offset)


def index(layout: Layout, key: Any) -> Layout:
  """The layout of `x[key]`.

  Args:
    layout: of x.
    key: a whole number, a slice, `...`, None (a new axis of size 1), or a tuple.

  Raises:
    IndexError: out of bounds, too many indices, or two `...`.

  >>> x = row_major((4, 5))
  >>> index(x, 2)
  Layout(shape=(5,), strides=(1,), offset=10)
  >>> index(x, (slice(None, None, -1), slice(1, 4, 2)))
  Layout(shape=(4, 2), strides=(-5, 2), offset=16)
  >>> index(x, (..., None, -1))
  Layout(shape=(4, 1), strides=(5, 0), offset=4)
  """
  keys = list(key) if isinstance(key, tuple) else [key]
  rest = len(layout.shape) - sum(k is not None and k is not ... for k in keys)
  at = keys.index(...) if ... in keys else len(keys)
  keys[at : at + 1] = [slice(None)] * rest
  if rest < 0 or ... in keys:
    raise IndexError(f'index {key} does not fit the shape {layout.shape}')
  shape, strides, offset, axis = [], [], layout.offset, 0
  for k in keys:
    if k is None:
      shape.append(1)
      strides.append(0)
      continue
    size, stride = layout.shape[axis], layout.strides[axis]
    if isinstance(k, slice):
      chosen = range(size)[k]
      shape.append(len(chosen))
      strides.append(chosen.step * stride)
      offset += chosen.start * stride
    elif -size <= k < size:
      offset += k % size * stride
    else:
      raise IndexError(f'index {k} is out of bounds for axis {axis} of size {size}')
    axis += 1
  return Layout(tuple(shape), tuple(strides), offset)


def reshape(layout: Layout, shape: Shape) -> Layout | None:
  """The layout of the same entries, in the same order, with other sizes.

  Args:
    layout: of the tensor.
    shape: the new sizes; one may be -1: what is left.

  Returns:
    None where the entries do not lie in row-major order: they must be copied first.

  Raises:
    ValueError: another number of entries.

  >>> reshape(row_major((2, 6)), (3, -1))
  Layout(shape=(3, 4), strides=(4, 1), offset=0)
  >>> reshape(transpose(row_major((2, 6))), (12,)) is None
  True
  """
  new = filled(layout.shape, shape)
  plain = row_major(layout.shape).strides
  same = all(n == 1 or a == b for n, a, b in zip(layout.shape, layout.strides, plain))
  return row_major(new)._replace(offset=layout.offset) if same else None


def filled(old: Shape, shape: Shape) -> Shape:
  """`shape` with its -1, if any, replaced so that it has as many entries as `old`."""
  size, known = math.prod(old), math.prod(n for n in shape if n != -1)
  if shape.count(-1) == 1 and known:
    shape = tuple(size // known if n == -1 else n for n in shape)
  if min(shape, default=0) < 0 or math.prod(shape) != size:
    raise ValueError(f'{old} cannot be reshaped to {shape}')
  return shape
