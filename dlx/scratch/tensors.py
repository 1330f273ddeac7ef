"""A tensor: a flat buffer, and the layout that says where each entry lies.

Indexing, slicing, transposing and most reshapes give a view: another layout of the same
buffer. What is written to a view shows in the tensor that it is of. Arithmetic makes a
new buffer. An array of JAX cannot be written to: `x.at[0].set(10)` is a new array.

>>> x = tensor([[0, 1, 2], [3, 4, 5]])
>>> column = x[:, 1]
>>> column[0] = 10
>>> x
Tensor([[0, 10, 2], [3, 4, 5]])
"""

from collections.abc import Callable
import operator
from typing import Any

from dlx.scratch import strides
from dlx.scratch.strides import Layout


class Tensor:
  """Numbers in a list, seen through a layout."""

  def __init__(self, buffer: list, layout: Layout):
    self.buffer, self.layout = buffer, layout

  @property
  def shape(self) -> strides.Shape:
    return self.layout.shape

  def tolist(self) -> Any:
    """Nested lists; of a tensor without axes its number.

    >>> tensor([[1, 2], [3, 4]]).tolist(), tensor(5).tolist()
    ([[1, 2], [3, 4]], 5)
    """
    if not self.shape:
      return self.buffer[self.layout.offset]
    return [self[i].tolist() for i in range(self.shape[0])]

  def __repr__(self) -> str:
    return f'Tensor({self.tolist()})'

  def __getitem__(self, key: Any) -> 'Tensor':
    """A view; keys as in strides.index.

    >>> x = tensor([[0, 1, 2, 3], [4, 5, 6, 7]])
    >>> x[1, 2], x[-1], x[..., 0]
    (Tensor(6), Tensor([4, 5, 6, 7]), Tensor([0, 4]))
    >>> x[::-1, 1:4:2], x[:, None].shape
    (Tensor([[5, 7], [1, 3]]), (2, 1, 4))
    """
    return Tensor(self.buffer, strides.index(self.layout, key))

  def __setitem__(self, key: Any, number: float):
    """Writes one number to all entries of a view.

    >>> x = tensor([[0, 0], [0, 0]])
    >>> x[:, 0] = 7
    >>> x
    Tensor([[7, 0], [7, 0]])
    """
    for position in strides.positions(self[key].layout):
      self.buffer[position] = number

  def reshape(self, *shape: int) -> 'Tensor':
    """A view where the entries lie in order, else a copy; one size may be -1.

    >>> x = tensor([0, 1, 2, 3, 4, 5])
    >>> x.reshape(3, -1), x.reshape(3, -1).buffer is x.buffer
    (Tensor([[0, 1], [2, 3], [4, 5]]), True)
    >>> y = x.reshape(2, 3).T.reshape(6)
    >>> y, y.buffer is x.buffer
    (Tensor([0, 3, 1, 4, 2, 5]), False)
    """
    layout = strides.reshape(self.layout, shape)
    if layout is not None:
      return Tensor(self.buffer, layout)
    return fresh(self.entries(), strides.filled(self.shape, shape))

  @property
  def T(self) -> 'Tensor':  # As NumPy, JAX and PyTorch name it.
    """A view with the axes in reverse order.

    >>> tensor([[0, 1, 2], [3, 4, 5]]).T
    Tensor([[0, 3], [1, 4], [2, 5]])
    """
    return Tensor(self.buffer, strides.transpose(self.layout))

  def entries(self) -> list:
    """The numbers in order, in a new list."""
    return [self.buffer[p] for p in strides.positions(self.layout)]

  def __add__(self, other: 'Tensor | float') -> 'Tensor':
    """Entry by entry, with a tensor of the same shape or a number.

    >>> tensor([1, 2]) + tensor([10, 20]), tensor([1, 2]) + 1
    (Tensor([11, 22]), Tensor([2, 3]))
    """
    return combine(operator.add, self, other)

  def __mul__(self, other: 'Tensor | float') -> 'Tensor':
    """Entry by entry; not the product of matrices.

    >>> tensor([1, 2]) * tensor([10, 20]), tensor([1, 2]) * 3
    (Tensor([10, 40]), Tensor([3, 6]))
    """
    return combine(operator.mul, self, other)


def combine(operation: Callable, a: Tensor, b: Tensor | float) -> Tensor:
  """A new tensor: `operation` of each pair; other shapes are for broadcasting.py."""
  if not isinstance(b, Tensor):
    return fresh([operation(x, b) for x in a.entries()], a.shape)
  if a.shape != b.shape:
    raise ValueError(f'shapes {a.shape} and {b.shape} are not equal')
  return fresh(list(map(operation, a.entries(), b.entries())), a.shape)


def fresh(buffer: list, shape: strides.Shape) -> Tensor:
  """The tensor of a row-major buffer."""
  return Tensor(buffer, strides.row_major(shape))


def tensor(nested: Any) -> Tensor:
  """Of nested lists, in which all of one depth have one length.

  >>> tensor([[1, 2, 3], [4, 5, 6]]).shape
  (2, 3)
  """
  if not isinstance(nested, list):
    return fresh([nested], ())
  rows = [tensor(row) for row in nested]
  shapes = {row.shape for row in rows}
  if len(shapes) > 1:
    raise ValueError(f'rows of one depth have several shapes: {sorted(shapes)}')
  inner = shapes.pop() if shapes else ()
  return fresh([x for row in rows for x in row.buffer], (len(rows), *inner))
