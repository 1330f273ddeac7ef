"""Reverse-mode automatic differentiation: record what is computed, walk it backwards.

Each operation on a Node makes a new Node that remembers its inputs: a graph. Let L be
its last number, and g(n) = dL/dn the gradient of a node. Then g(L) = 1, and by the
chain rule a node passes to each of its inputs what `pull` of its operation gives
(local_derivatives.py). A node that is used several times receives a sum:

  dL/dx = sum over the nodes y that used x of dL/dy dy/dx

so it must pass nothing on before all that used it have passed theirs. Going by depth,
the longest way from a leaf, sees to that: a node is deeper than its inputs. One walk
gives the gradients of all inputs, at about twice the cost of L itself.

>>> x, y = Node(2.0), Node(3.0)
>>> z = x * y + x.square()
>>> z.value.tolist(), [g.tolist() for g in gradients(z, [x, y])]
(10.0, [7.0, 2.0])

`gradient(f)` is the same as a function, like `jax.grad` of all arguments.

>>> slope = gradient(lambda w, b: ((w @ np.ones(3) + b).sigmoid()).log())
>>> [g.tolist() for g in slope(np.zeros(3), 0.0)]
[[0.5, 0.5, 0.5], 0.5]

The graph is data: gradients of several numbers of one graph may be asked for, and asked
for again. Numbers are float64.
"""

from collections.abc import Callable, Iterable, Sequence
import functools
from typing import Any

import numpy as np

from dlx.scratch.local_derivatives import OPERATIONS


class Node:
  """A value, and how it came about; also any operation by name, as in x.exp().

  Attributes:
    value: float64 array.
    operation: a key of OPERATIONS; '' of a leaf: an argument or a constant.
    inputs: the nodes that it was computed from.
    options: what else the operation was given, such as an axis.
    depth: steps of the longest way from a leaf.
  """

  __array_ufunc__ = None  # `array * node` is left to the node.

  def __init__(self, value: Any, operation: str = '', inputs=(), options=None):
    self.value = np.asarray(value, np.float64)
    self.operation, self.inputs, self.options = operation, inputs, options or {}
    self.depth = 1 + max((x.depth for x in inputs), default=-1)

  def __getattr__(self, name: str) -> Callable[..., 'Node']:
    if name not in OPERATIONS:
      raise AttributeError(f'{name!r} is not one of {", ".join(OPERATIONS)}')
    return functools.partial(apply, name, self)

  def __neg__(self):
    return apply('negative', self)

  def __add__(self, other):
    return apply('add', self, other)

  def __radd__(self, other):
    return apply('add', other, self)

  def __sub__(self, other):
    return apply('subtract', self, other)

  def __rsub__(self, other):
    return apply('subtract', other, self)

  def __mul__(self, other):
    return apply('multiply', self, other)

  def __rmul__(self, other):
    return apply('multiply', other, self)

  def __truediv__(self, other):
    return apply('divide', self, other)

  def __rtruediv__(self, other):
    return apply('divide', other, self)

  def __pow__(self, other):
    return apply('power', self, other)

  def __matmul__(self, other):
    return apply('matmul', self, other)

  def __rmatmul__(self, other):
    return apply('matmul', other, self)

  def __getitem__(self, key):
    return apply('index', self, key=key)


def apply(name: str, *xs: Any, **options: Any) -> Node:
  """Computes one operation and records it; what is no node becomes a constant leaf."""
  inputs = tuple(x if isinstance(x, Node) else Node(x) for x in xs)
  value = OPERATIONS[name].forward(*(x.value for x in inputs), **options)
  return Node(value, name, inputs, options)


def order(last: Node) -> list[Node]:
  """All nodes that `last` depends on, itself included, inputs before what used them.

  Without recursion: a graph may be deeper than the stack of Python.
  """
  found, todo = {id(last): last}, [last]
  while todo:
    for x in todo.pop().inputs:
      if id(x) not in found:
        found[id(x)] = x
        todo.append(x)
  return sorted(found.values(), key=lambda node: node.depth)


def all_gradients(last: Node) -> dict[int, np.ndarray]:
  """dL/dn of each node n that L = `last` depends on, by id(n)."""
  if last.value.size != 1:
    raise ValueError(f'The gradient is of one number, not of shape {last.value.shape}.')
  found = {id(last): np.ones_like(last.value)}
  for node in reversed(order(last)):
    if node.operation:
      values, g = [x.value for x in node.inputs], found[id(node)]
      pulled = OPERATIONS[node.operation].pull(g, node.value, *values, **node.options)
      for x, to_x in zip(node.inputs, pulled):
        found[id(x)] = found[id(x)] + to_x if id(x) in found else to_x
  return found


def gradients(last: Node, nodes: Iterable[Node]) -> list[np.ndarray]:
  """dL/dn of these nodes; 0 of a node that L does not depend on."""
  found = all_gradients(last)
  return [np.asarray(found.get(id(n), np.zeros_like(n.value))) for n in nodes]


def gradient(function: Callable[..., Node]) -> Callable[..., Sequence[np.ndarray]]:
  """The function of the same arrays that gives the gradient with respect to each."""

  def slope(*arrays):
    leaves = [Node(x) for x in arrays]
    return gradients(function(*leaves), leaves)

  return slope
