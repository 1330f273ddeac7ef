"""The tape against jax.grad in float64: each operation, graphs of them, a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.scratch import local_derivatives, tape
from dlx.scratch.tape import Node, apply, gradient, gradients

RNG = np.random.default_rng(0)
# Asked for is 1e-6. In float64 sums of a few products are exact to some 1e-16 each.
TOLERANCE = 1e-12
JAX = {
  'concatenate': lambda *xs, axis: jnp.concatenate(xs, axis),
  'expand': jnp.broadcast_to,
  'index': lambda x, key: x[key],
  'logsumexp': jax.nn.logsumexp,
  'relu': jax.nn.relu,
  'sigmoid': jax.nn.sigmoid,
  'softplus': jax.nn.softplus,
  'where': lambda a, b, condition: jnp.where(condition, a, b),
}
BINARY = ('add', 'subtract', 'multiply', 'divide', 'power', 'maximum', 'minimum')
X, ABOVE = RNG.normal(size=(3, 4)), RNG.uniform(0.2, 3, (3, 4))
ROW, COLUMN = RNG.uniform(0.2, 3, 4), RNG.uniform(0.2, 3, (3, 1))
FAR = np.array([-700.0, -40.0, -1e-9, 0.0, 1e-9, 40.0, 700.0])
SMALL = np.array([[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]])  # With equal entries in a row.
SHAPED = [
  ('sum', (X,), {}),
  ('sum', (X,), {'axis': 0}),
  ('mean', (X,), {'axis': (0, 1)}),
  ('mean', (X,), {'axis': -1}),
  ('max', (SMALL,), {'axis': 1}),
  ('min', (-SMALL,), {}),
  ('logsumexp', (X * 300,), {'axis': 1}),
  ('logsumexp', (X,), {}),
  ('matmul', (X, X.T), {}),
  ('matmul', (X, ROW), {}),
  ('matmul', (ROW, X.T), {}),
  ('matmul', (ROW, ROW), {}),
  ('matmul', (RNG.normal(size=(2, 1, 3, 4)), RNG.normal(size=(5, 4, 2))), {}),
  ('matmul', (ROW, RNG.normal(size=(2, 4, 3))), {}),
  ('matmul', (RNG.normal(size=(2, 3, 4)), ROW), {}),
  ('index', (X,), {'key': (slice(None, None, 2), 1)}),
  ('index', (X,), {'key': (np.array([0, 2, 0, 0]), np.array([1, 3, 1, 2]))}),
  ('where', (X, ROW), {'condition': np.array([[True], [False], [True]])}),
  ('concatenate', (X, ABOVE[:1], X[1:]), {'axis': 0}),
  ('transpose', (RNG.normal(size=(2, 3, 4)),), {'axes': (1, 2, 0)}),
  ('reshape', (X,), {'shape': (2, -1)}),
  ('expand', (COLUMN,), {'shape': (2, 3, 4)}),
]
ELEMENTWISE = [
  (name, xs, {})
  for name in local_derivatives.OPERATIONS
  if name not in {name for name, *_ in SHAPED}
  for xs in (
    [(ABOVE, ROW), (COLUMN, ABOVE), (SMALL, SMALL[:, ::-1] + 1)]
    if name in BINARY
    else [(ABOVE,) if name in ('log', 'log1p', 'sqrt') else (X,)]
  )
]
EDGES = [
  *((name, (FAR,), {}) for name in ('absolute', 'relu', 'sigmoid', 'softplus')),
  ('expm1', (FAR[:5],), {}),
  ('tanh', (FAR,), {}),
  ('maximum', (SMALL, SMALL[::-1]), {}),
  ('minimum', (SMALL, SMALL[::-1]), {}),
  ('power', (FAR, np.array(2.0)), {}),
  ('power', (FAR[FAR != 0], np.array(0.0)), {}),
]
CASES = [*SHAPED, *ELEMENTWISE, *EDGES]


def by_jax(xs):
  """Values and gradients of all cases, in one program."""
  found = []
  for (name, _, options), args in zip(CASES, xs, strict=True):
    y, pull = jax.vjp(
      lambda *a, n=name, o=options: JAX.get(n, getattr(jnp, n, None))(*a, **o), *args
    )
    found.append((y, pull(weights(y.shape))))
  return found


def weights(shape):
  """What each entry of a result counts in L; no two equal."""
  return np.cos(np.arange(np.prod(shape, dtype=int), dtype=float)).reshape(shape)


@pytest.fixture(scope='module')
def expected():
  with jax.enable_x64(True), jax.numpy_rank_promotion('allow'):
    return jax.tree.map(np.asarray, jax.jit(by_jax)([xs for _, xs, _ in CASES]))


def close(got, wanted):
  np.testing.assert_allclose(got, wanted, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize('case', range(len(CASES)), ids=[name for name, *_ in CASES])
def test_each_operation_is_that_of_jax(expected, case):
  (name, xs, options), (value, slopes) = CASES[case], expected[case]
  leaves = [Node(x) for x in xs]
  y = apply(name, *leaves, **options)
  assert y.value.shape == value.shape
  close(y.value, value)
  got = gradients((y * weights(value.shape)).sum(), leaves)
  # The exponent is a constant where the base is not above 0.
  compared = 1 if name == 'power' and xs[0].min() <= 0 else len(xs)
  for g, wanted in list(zip(got, slopes))[:compared]:
    assert g.shape == wanted.shape
    close(g, wanted)


def test_there_are_thirty_operations_and_all_are_compared():
  assert {name for name, *_ in CASES} == set(local_derivatives.OPERATIONS)
  assert len(local_derivatives.OPERATIONS) >= 30


def by_jax_grad(function, *arrays):
  with jax.enable_x64(True):
    slope = jax.jit(jax.grad(function, argnums=tuple(range(len(arrays)))))
    return [np.asarray(g) for g in slope(*map(jnp.asarray, arrays))]


def test_operators_fan_out_and_broadcasting():
  # x is used five times, along ways of unequal length.
  def ours(x, b):
    u = 2.0 - x / b
    v = (x * u + 1) ** 2.0
    return (
      (x @ v.transpose(axes=(1, 0))) - 3 * (u + x)[0, 1] + 1 / b[0]
    ).sum() - v.mean()

  def theirs(x, b):
    b = jnp.broadcast_to(b, x.shape)
    u = 2.0 - x / b
    v = (x * u + 1) ** 2.0
    last = x @ v.T - 3 * (u + x)[0, 1] + jnp.broadcast_to(1 / b[0, 0], (3, 3))
    return last.sum() - v.mean()

  for got, wanted in zip(gradient(ours)(X, ROW), by_jax_grad(theirs, X, ROW)):
    close(got, wanted)


def test_three_layers_of_a_network():
  sizes, labels = (5, 8, 7, 3), np.array([0, 2, 1, 1])
  inputs = RNG.normal(size=(4, 5))
  params = [RNG.normal(size=s) / 2 for n in zip(sizes, sizes[1:]) for s in (n, n[1:])]

  def ours(*params):
    x = Node(inputs)
    for k in range(0, 6, 2):
      x = x @ params[k] + params[k + 1]
      x = x.tanh() if k == 0 else x.relu() if k == 2 else x
    picked = x[np.arange(4), labels]
    return (x.logsumexp(axis=1) - picked).mean()

  def theirs(*params):
    x = inputs
    for k in range(0, 6, 2):
      x = x @ params[k] + params[k + 1][None]
      x = jnp.tanh(x) if k == 0 else jax.nn.relu(x) if k == 2 else x
    return -jax.nn.log_softmax(x)[np.arange(4), labels].mean()

  for got, wanted in zip(gradient(ours)(*params), by_jax_grad(theirs, *params)):
    assert np.abs(wanted).max() > 1e-3
    close(got, wanted)


def test_second_use_of_a_graph():
  x, y = Node(3.0), Node(5.0)
  product = x * y
  first, second = product.square(), product + x
  assert gradients(first, [x, y]) == gradients(first, [x, y]) == [150.0, 90.0]
  assert gradients(second, [x, y, product]) == [6.0, 3.0, 1.0]
  # What is built on a graph later sees all of it; another leaf receives nothing.
  assert gradients(first + second, [x, y, Node(1.0)]) == [156.0, 93.0, 0.0]


def test_a_graph_deeper_than_the_stack():
  x = Node(1.0)
  last = x
  for _ in range(20_000):
    last = last + x
  assert gradients(last, [x]) == [20_001.0]
  depths = [node.depth for node in tape.order(last)]
  assert depths == sorted(depths)
  assert len(depths) == 20_001


def test_ways_that_double_at_each_step_are_walked_once():
  x = Node(1.0)
  last = x
  for _ in range(60):
    last = last + last
  assert gradients(last, [x]) == [2.0**60]


def test_arrays_on_the_left_and_errors():
  x = Node([1.0, 2.0])
  assert isinstance(np.ones(2) * x, Node)
  assert isinstance(np.ones((2, 2)) @ x, Node)
  assert (np.ones(2) - x).value.tolist() == [0.0, -1.0]
  with pytest.raises(ValueError, match=r'of one number, not of shape \(2,\)'):
    gradients(x, [x])
  with pytest.raises(AttributeError, match="'softmax' is not one of negative, exp"):
    x.softmax()
