"""Broadcasting: operands of unequal shapes, without a copy.

Shapes are aligned at their last axes. Sizes of an axis must be equal, or 1, or missing;
the result has the other size. An axis that is stretched gets the stride 0: going along
it does not move in the buffer, so that all its entries are one number in memory.

  shape     (3, 1)      strides  (8, 8)       3 numbers of 8 bytes
  expanded  (2, 3, 4)   strides  (0, 8, 0)    the same 3 numbers, seen 24 times

>>> column = np.array([[1.0], [2.0], [3.0]])
>>> wide = expand(column, (2, 3, 4))
>>> wide.shape, wide.strides, np.shares_memory(wide, column)
((2, 3, 4), (0, 8, 0), True)

The gradient goes the other way: what was seen many times receives a sum.

>>> unbroadcast(np.ones((2, 3, 4)), (3, 1)).tolist()
[[8.0], [8.0], [8.0]]
"""

import numpy as np

Shape = tuple[int, ...]


def broadcast_shape(*shapes: Shape) -> Shape:
  """The shape that all of them are expanded to.

  Raises:
    ValueError: some axis has two sizes, neither of them 1. NumPy raises ValueError and
      PyTorch RuntimeError for the same shapes.

  >>> broadcast_shape((3, 1), (2, 1, 4), ())
  (2, 3, 4)
  >>> broadcast_shape((2, 3), (2,))
  Traceback (most recent call last):
  ValueError: Shapes (2, 3) and (2,) do not broadcast: sizes 3 and 2 of axis -1 differ.
  """
  result: list[int] = []  # From the last axis to the first.
  owners: list[Shape] = []  # Which of the shapes gave each size.
  for shape in shapes:
    for k, size in enumerate(reversed(shape)):
      if k == len(result):
        result.append(size)
        owners.append(shape)
      elif result[k] == 1:
        result[k], owners[k] = size, shape
      elif size not in (1, result[k]):
        raise ValueError(
          f'Shapes {owners[k]} and {shape} do not broadcast: sizes {result[k]} and '
          f'{size} of axis {-1 - k} differ.'
        )
  return tuple(reversed(result))


def expand(x: np.ndarray, shape: Shape) -> np.ndarray:
  """A read-only view of x with this shape, as `np.broadcast_to` gives it.

  Args:
    x: any array.
    shape: its last axes are those of x, or x has size 1 there; -1 keeps the size of x,
      as `expand` of PyTorch has it.

  Raises:
    ValueError: fewer axes than x, or a size of x that is neither 1 nor the new one.

  >>> expand(np.array([[1], [2]]), (-1, 3)).tolist()
  [[1, 1, 1], [2, 2, 2]]
  >>> expand(np.zeros(1), (10**6, 10**6)).nbytes  # Of 8 bytes in memory.
  8000000000000
  >>> expand(np.zeros((2, 3)), (3,))
  Traceback (most recent call last):
  ValueError: Shape (2, 3) does not expand to (3,): it has more axes.
  >>> expand(np.zeros((2, 1)), (3, 1))
  Traceback (most recent call last):
  ValueError: Shape (2, 1) does not expand to (3, 1): axis -2 has size 2, not 1 or 3.
  """
  told = f'Shape {x.shape} does not expand to {shape}'
  new = len(shape) - x.ndim
  if new < 0:
    raise ValueError(f'{told}: it has more axes.')
  sizes, strides = [], []
  for k, size in enumerate(shape):
    old = x.shape[k - new] if k >= new else 1
    if size == -1 and k >= new:
      size = old
    if size < 0:
      raise ValueError(f'{told}: axis {k - len(shape)} has size {size}.')
    if old not in (1, size):
      raise ValueError(
        f'{told}: axis {k - len(shape)} has size {old}, not 1 or {size}.'
      )
    sizes.append(size)
    strides.append(x.strides[k - new] if k >= new and old == size else 0)
  return np.lib.stride_tricks.as_strided(x, sizes, strides, writeable=False)


def expand_as(x: np.ndarray, other: np.ndarray) -> np.ndarray:
  """`x.expand_as(other)` of PyTorch: a read-only view of x with the shape of the other.

  >>> expand_as(np.array([1, 2]), np.zeros((3, 2))).tolist()
  [[1, 2], [1, 2], [1, 2]]
  """
  return expand(x, other.shape)


def broadcast_tensors(*xs: np.ndarray) -> list[np.ndarray]:
  """Read-only views of one shape: `torch.broadcast_tensors`, `np.broadcast_arrays`.

  >>> a, b = broadcast_tensors(np.array([[1], [2]]), np.array([10, 20, 30]))
  >>> (a + b).tolist()
  [[11, 21, 31], [12, 22, 32]]
  """
  shape = broadcast_shape(*(x.shape for x in xs))
  return [expand(x, shape) for x in xs]


def unbroadcast(grad: np.ndarray, shape: Shape) -> np.ndarray:
  """The gradient of what was expanded: summed over all axes that were stretched.

  Args:
    grad: gradient of the expanded array.
    shape: of the array before; it expands to that of `grad`.

  Returns:
    An array of `shape`.

  >>> unbroadcast(np.array([[1, 2, 3], [4, 5, 6]]), (2, 1)).tolist()
  [[6], [15]]
  >>> unbroadcast(np.array([[1, 2, 3], [4, 5, 6]]), (3,)).tolist()
  [5, 7, 9]
  """
  new = grad.ndim - len(shape)
  stretched = [k for k, n in enumerate(shape, new) if n == 1 != grad.shape[k]]
  return grad.sum(axis=(*range(new), *stretched)).reshape(shape)
