"""The printed graph has the numbers of paper; differences agree with the tape."""

import jax
import numpy as np
import pytest

from dlx.scratch import computation_graph, local_derivatives
from dlx.scratch.tape import Node, apply


def fields(text):
  """Rows of a printed graph by the name of their node."""
  header, *lines = text.splitlines()
  starts = [header.index(word) for word in ('node', 'comp', 'value', 'local', 'dL/')]
  cut = lambda line: [
    line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)
  ]
  return {row[0]: row[1:] for row in map(cut, lines)}


def test_a_neuron_by_hand():
  # sigmoid(w x + b) at w = 2, x = -1, b = 3: u = 1, s = 0.7311, s (1 - s) = 0.1966.
  w, x, b = Node(2.0), Node(-1.0), Node(3.0)
  rows = fields(computation_graph.table((w * x + b).sigmoid(), w=w, x=x, b=b))
  assert list(rows) == ['w', 'x', 'b', 'n4', 'n5', 'n6']
  assert rows['w'] == ['', '2', '', '-0.1966']
  assert rows['x'] == ['', '-1', '', '0.3932']
  assert rows['b'] == ['', '3', '', '0.1966']
  assert rows['n4'] == ['multiply(w, x)', '-2', 'dw: -1, dx: 2', '0.1966']
  assert rows['n5'] == ['add(n4, b)', '1', 'dn4: 1, db: 1', '0.1966']
  assert rows['n6'] == ['sigmoid(n5)', '0.7311', 'dn5: 0.1966', '1']


def test_fan_out_constants_and_arrays():
  x = Node([1.0, 2.0])
  y = x * 3.0
  rows = fields(computation_graph.table((y * y).sum(), x=x, y=y))
  assert rows['x'] == ['', '[1.0, 2.0]', '', '[18.0, 36.0]']
  assert rows['y'][:2] == ['multiply(x, 3)', '[3.0, 6.0]']
  assert rows['y'][2] == 'dx: [[3.0, 0.0], [0.0, 3.0]], d3: [1.0, 2.0]'
  assert rows['y'][3] == '[6.0, 12.0]'
  large = Node(np.ones((3000, 400)))
  rows = fields(computation_graph.table(large.exp().mean(), x=large))
  assert rows['x'][1] == 'shape (3000, 400)'
  assert rows['n2'][2] == 'dx: shape (3000, 400, 3000, 400)'


def test_local_derivatives_are_jacobians_of_jax():
  a, b = np.arange(6.0).reshape(2, 3), np.cos(np.arange(6.0)).reshape(3, 2)
  got = computation_graph.jacobians(Node(a) @ Node(b))
  with jax.enable_x64(True):
    expected = jax.jit(jax.jacobian(lambda a, b: a @ b, (0, 1)))(a, b)
  for ours, theirs in zip(got, expected, strict=True):
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-14)
  assert computation_graph.jacobians(Node(a)) == []


def network(x, w, b):
  hidden = (x @ w + b).tanh()
  return (hidden.logsumexp(axis=1) - hidden[:, 0]).mean()


def test_differences_agree_with_the_tape():
  rng = np.random.default_rng(0)
  arrays = rng.normal(size=(5, 3)), rng.normal(size=(3, 4)), rng.normal(size=4)
  assert 0 < computation_graph.check(network, *arrays) < 1e-9


@pytest.mark.parametrize('wrong', [0.0, 1.001])
def test_a_wrong_derivative_is_found(monkeypatch, wrong):
  tanh = local_derivatives.OPERATIONS['tanh']
  pull = lambda g, y, x: (wrong * tanh.pull(g, y, x)[0],)
  monkeypatch.setitem(local_derivatives.OPERATIONS, 'tanh', tanh._replace(pull=pull))
  error = computation_graph.check(lambda x: apply('tanh', x).sum(), np.ones(3))
  np.testing.assert_allclose(error, abs(1 - wrong) * (1 - np.tanh(1) ** 2), rtol=1e-4)
