"""Fresh tensors: of one number, of a range, of normal numbers.

A program that is to give the same numbers again passes its seed: nothing is drawn from
a hidden generator. `jax.random.normal(key, shape)` asks for a key for that reason.
"""

import math

import numpy as np

from dlx.scratch.strides import Shape
from dlx.scratch.tensors import Tensor, fresh


def full(shape: Shape, number: float) -> Tensor:
  """One number everywhere.

  >>> full((2, 2), 7)
  Tensor([[7, 7], [7, 7]])
  """
  return fresh([number] * math.prod(shape), shape)


def zeros(*shape: int) -> Tensor:
  """Sizes are given one by one.

  >>> zeros(2, 3)
  Tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
  """
  return full(shape, 0.0)


def arange(*bounds: int) -> Tensor:
  """Whole numbers below a bound, or from a first one below a bound by a step.

  >>> arange(4), arange(1, 10, 3)
  (Tensor([0, 1, 2, 3]), Tensor([1, 4, 7]))
  """
  numbers = list(range(*bounds))
  return fresh(numbers, (len(numbers),))


def randn(seed: int, *shape: int) -> Tensor:
  """Standard normal numbers, of uniform ones by Box and Muller (1958).

  With u, v uniform on (0, 1), sqrt(-2 log u) cos(2 pi v) is normal.

  >>> randn(0, 2, 3).shape, randn(0, 2, 3).tolist() == randn(0, 2, 3).tolist()
  ((2, 3), True)
  """
  u, v = np.random.default_rng(seed).random((2, math.prod(shape)))
  normal = np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * v)
  return fresh(normal.tolist(), shape)
