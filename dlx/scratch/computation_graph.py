"""The chain rule on paper: a graph of a computation with all of its numbers.

Forwards each node gets its value; backwards its gradient, dL/dn. Between stand local
derivatives, of a node with respect to each of its inputs, and the gradient of a node is

  sum over the nodes y that used it of dL/dy times the local derivative dy/dn

L = (x + y) z at x = -2, y = 5, z = -4: the sum u is 3 and L is -12. dL/dz is u = 3.
dL/du is z = -4, and as du/dx = du/dy = 1, so are dL/dx and dL/dy.

>>> x, y, z = Node(-2.0), Node(5.0), Node(-4.0)
>>> print(table((x + y) * z, x=x, y=y, z=z))
node  computed as      value  local derivatives  dL/dnode
x                      -2                        -4
y                      5                         -4
z                      -4                        3
n4    add(x, y)        3      dx: 1, dy: 1       -4
n5    multiply(n4, z)  -12    dn4: -4, dz: 3     1

How is one sure of a derivative? By a finite difference: (f(x + h) - f(x - h)) / 2h is
f'(x) up to a term in h^2, and up to rounding, eps |f| / h. Their sum is least where h
is near eps^(1/3), 6e-6 in float64, and is then near eps^(2/3), 4e-11.

>>> check(lambda x, w: (x @ w).tanh().sum(), np.ones((2, 3)), np.arange(3.0)) < 1e-9
True
"""

from collections.abc import Callable

import numpy as np

from dlx.scratch.local_derivatives import OPERATIONS
from dlx.scratch.tape import Node, all_gradients, gradient, order


def jacobians(node: Node) -> list[np.ndarray]:
  """Local derivatives of a node: for each input an array [*node.shape, *input.shape].

  One pull for each entry of the node, which costs that many times a walk backwards.

  >>> [j.tolist() for j in jacobians(Node([1.0, 2.0]).square())]
  [[[2.0, 0.0], [0.0, 4.0]]]
  """
  if not node.operation:
    return []
  values = [x.value for x in node.inputs]
  pull = OPERATIONS[node.operation].pull
  rows = [
    pull(unit.reshape(node.value.shape), node.value, *values, **node.options)
    for unit in np.eye(node.value.size)
  ]
  shape = node.value.shape
  return [np.reshape(row, (*shape, *x.shape)) for row, x in zip(zip(*rows), values)]


def table(last: Node, **leaves: Node) -> str:
  """The graph of L = `last` as text, a node a line, inputs before what used them.

  Args:
    last: a node of one number.
    **leaves: nodes by the names that they shall have. Others are n and their line, or,
      of a constant number, that number.

  Returns:
    Name, operation, value, local derivatives by input, and dL/dnode. Of arrays of more
    than four entries the shape.
  """
  names = {id(node): name for name, node in leaves.items()}
  found = all_gradients(last)
  rows = [('node', 'computed as', 'value', 'local derivatives', 'dL/dnode')]
  places = {name: k for k, name in enumerate(names)}
  place = lambda node: (node.depth, places.get(id(node), len(places)))
  for node in sorted(order(last), key=place):
    constant = not node.operation and not node.value.ndim
    names.setdefault(id(node), told(node.value) if constant else f'n{len(rows)}')
    inputs = [names[id(x)] for x in node.inputs]
    local = zip(inputs, told_locally(node))
    rows.append(
      (
        names[id(node)],
        f'{node.operation}({", ".join(inputs)})' if node.operation else '',
        told(node.value),
        ', '.join(f'd{name}: {derivative}' for name, derivative in local),
        told(found[id(node)]),
      )
    )
  widths = [max(map(len, column)) for column in zip(*rows)]
  lines = ('  '.join(map(str.ljust, row, widths)).rstrip() for row in rows)
  return '\n'.join(lines)


def told_locally(node: Node) -> list[str]:
  """Local derivatives as text; of more than four rows they are not computed."""
  if node.value.size > 4:
    return [f'shape {(*node.value.shape, *x.value.shape)}' for x in node.inputs]
  return [told(jacobian) for jacobian in jacobians(node)]


def told(x: np.ndarray) -> str:
  """A number, up to four numbers, or a shape."""
  if x.size > 4:
    return f'shape {x.shape}'
  return str(np.round(x, 4).tolist()) if x.ndim else f'{x:.4g}'


def numeric(function: Callable[..., Node], *arrays: np.ndarray) -> list[np.ndarray]:
  """Gradients by central differences, two evaluations for each entry of an array."""
  h = np.finfo(np.float64).eps ** (1 / 3)
  found = []
  for k, x in enumerate(arrays):
    slope = np.zeros_like(x, np.float64)
    for entry in np.ndindex(slope.shape):
      step = np.zeros_like(slope)
      step[entry] = h * max(1.0, abs(x[entry]))
      high, low = (
        function(*map(Node, (*arrays[:k], x + sign * step, *arrays[k + 1 :])))
        for sign in (1, -1)
      )
      slope[entry] = (high.value - low.value) / (2 * step[entry])
    found.append(slope)
  return found


def check(function: Callable[..., Node], *arrays: np.ndarray) -> float:
  """The largest error of a gradient: |tape - numeric| / max(1, |numeric|).

  Args:
    function: of nodes; gives a node of one number.
    *arrays: where to look; not at a kink, where a difference sees both sides.
  """
  pairs = zip(gradient(function)(*arrays), numeric(function, *arrays))
  errors = (np.abs(ours - d) / np.maximum(1, np.abs(d)) for ours, d in pairs)
  return float(max(np.max(error, initial=0) for error in errors))
