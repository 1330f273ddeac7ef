"""Operations, and how each passes a gradient back: the alphabet of backpropagation.

An operation y = f(x) is given by two functions:

  forward(*xs, **options) -> y
  pull(g, y, *xs, **options) -> one gradient for each x

g is the gradient of some number L with respect to y. `pull` gives those with respect to
the inputs by the chain rule, dL/dx_i = sum_j g_j dy_j/dx_i: a product of g and the
Jacobian, which is never formed. Entry by entry it is g times a slope.

>>> x = np.array([0.0, 1.0])
>>> OPERATIONS['exp'].pull(np.array([10.0, 10.0]), np.exp(x), x)[0].round(3).tolist()
[10.0, 27.183]

An operand that was broadcast receives the sum over the axes that were stretched.

>>> x, bias = np.ones((3, 2)), np.zeros(2)
>>> [g.tolist() for g in OPERATIONS['add'].pull(np.ones((3, 2)), x + bias, x, bias)]
[[[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]], [3.0, 3.0]]

Where a slope has no value it is that of JAX: at 0 that of |x| is 1 and that of relu is
0; equal arguments of an extremum share its gradient.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from dlx.scratch.broadcasting import expand, unbroadcast


class Operation(NamedTuple):
  forward: Callable[..., np.ndarray]
  pull: Callable[..., tuple[np.ndarray, ...]]


def unary(forward: Callable, slope: Callable) -> Operation:
  """Entry by entry; slope(x, y) is dy/dx."""
  return Operation(forward, lambda g, y, x: (g * slope(x, y),))


def binary(forward: Callable, slopes: Callable) -> Operation:
  """Entry by entry of two that broadcast; slopes(a, b, y) are dy/da and dy/db."""

  def pull(g, y, a, b):
    to_a, to_b = slopes(a, b, y)
    return unbroadcast(g * to_a, a.shape), unbroadcast(g * to_b, b.shape)

  return Operation(forward, pull)


def reduction(forward: Callable, slope: Callable) -> Operation:
  """Over one axis, some or all; slope(x, y, axis) is dy/dx; y has axes of size 1."""

  def pull(g, y, x, axis=None):
    kept = np.sum(x, axis, keepdims=True).shape
    return (g.reshape(kept) * slope(x, y.reshape(kept), axis),)

  return Operation(lambda x, axis=None: forward(x, axis), pull)


def log_sum_exp(x, axis):
  top = x.max(axis, keepdims=True)  # Nothing overflows: the largest exponent is 0.
  total = np.exp(x - top).sum(axis)
  return np.log(total) + top.reshape(total.shape)


def of_extremum(x, y, axis):
  return (x == y) / np.sum(x == y, axis, keepdims=True)


def matmul_pull(g, y, a, b):
  """dL/dA = g B^T and dL/dB = A^T g; a vector is a matrix of one row or one column."""
  row, column = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
  g = g[..., None] if b.ndim == 1 else g
  g = np.expand_dims(g, -2) if a.ndim == 1 else g
  to_a = unbroadcast(g @ column.swapaxes(-1, -2), row.shape)
  to_b = unbroadcast(row.swapaxes(-1, -2) @ g, column.shape)
  return to_a.reshape(a.shape), to_b.reshape(b.shape)


def larger(a, b):
  """1 where a is the larger of two, 1/2 where they are equal."""
  return (a > b) + (a == b) / 2


def power_slopes(a, b, y):
  """Of the exponent 0 where a <= 0: only a constant exponent is meant there."""
  return b * a ** np.where(b == 0, 1, b - 1), y * np.log(np.where(a > 0, a, 1))


def index_pull(g, y, x, key):
  """An entry that was taken several times receives a sum."""
  whole = np.zeros_like(x)
  np.add.at(whole, key, g)
  return (whole,)


def where_pull(g, y, a, b, condition):
  return unbroadcast(g * condition, a.shape), unbroadcast(g * ~condition, b.shape)


def concatenate_pull(g, y, *xs, axis):
  return tuple(np.split(g, np.cumsum([x.shape[axis] for x in xs])[:-1], axis))


OPERATIONS: dict[str, Operation] = {
  'negative': unary(np.negative, lambda x, y: -1),
  'exp': unary(np.exp, lambda x, y: y),
  'expm1': unary(np.expm1, lambda x, y: np.exp(x)),
  'log': unary(np.log, lambda x, y: 1 / x),
  'log1p': unary(np.log1p, lambda x, y: 1 / (1 + x)),
  'sqrt': unary(np.sqrt, lambda x, y: 0.5 / y),
  'square': unary(np.square, lambda x, y: 2 * x),
  'reciprocal': unary(np.reciprocal, lambda x, y: -y * y),
  'absolute': unary(np.absolute, lambda x, y: np.where(x < 0, -1, 1)),
  'sin': unary(np.sin, lambda x, y: np.cos(x)),
  'cos': unary(np.cos, lambda x, y: -np.sin(x)),
  'tan': unary(np.tan, lambda x, y: 1 + y * y),
  'arctan': unary(np.arctan, lambda x, y: 1 / (1 + x * x)),
  'tanh': unary(np.tanh, lambda x, y: 1 - y * y),
  'sigmoid': unary(lambda x: np.exp(-np.logaddexp(0, -x)), lambda x, y: y * (1 - y)),
  'softplus': unary(lambda x: np.logaddexp(x, 0), lambda x, y: -np.expm1(-y)),
  'relu': unary(lambda x: np.maximum(x, 0), lambda x, y: x > 0),
  'add': binary(np.add, lambda a, b, y: (1, 1)),
  'subtract': binary(np.subtract, lambda a, b, y: (1, -1)),
  'multiply': binary(np.multiply, lambda a, b, y: (b, a)),
  'divide': binary(np.divide, lambda a, b, y: (1 / b, -y / b)),
  'power': binary(np.power, power_slopes),
  'maximum': binary(np.maximum, lambda a, b, y: (larger(a, b), larger(b, a))),
  'minimum': binary(np.minimum, lambda a, b, y: (larger(b, a), larger(a, b))),
  'sum': reduction(np.sum, lambda x, y, axis: np.ones_like(x)),
  'mean': reduction(np.mean, lambda x, y, axis: np.full_like(x, y.size / x.size)),
  'max': reduction(np.max, of_extremum),
  'min': reduction(np.min, of_extremum),
  'logsumexp': reduction(log_sum_exp, lambda x, y, axis: np.exp(x - y)),
  'matmul': Operation(np.matmul, matmul_pull),
  'index': Operation(lambda x, key: x[key], index_pull),
  'where': Operation(lambda a, b, condition: np.where(condition, a, b), where_pull),
  'concatenate': Operation(
    lambda *xs, axis: np.concatenate(xs, axis), concatenate_pull
  ),
  'transpose': Operation(
    np.transpose, lambda g, y, x, axes: (g.transpose(np.argsort(axes)),)
  ),
  'reshape': Operation(np.reshape, lambda g, y, x, shape: (g.reshape(x.shape),)),
  'expand': Operation(expand, lambda g, y, x, shape: (unbroadcast(g, x.shape),)),
}
