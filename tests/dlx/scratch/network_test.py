"""Nets by hand: gradients against jax.grad and finite differences; both array kinds."""

import doctest

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.scratch import network
from dlx.scratch.network import NeuralNetwork


def numeric(loss, value, step=1e-5):
  """The gradient of loss() by the entries of an array, by central differences."""
  found = np.zeros_like(value)
  for i in np.ndindex(value.shape):
    old = value[i]
    ends = []
    for moved in (old + step, old - step):
      value[i] = moved
      ends.append(loss())
    value[i] = old
    found[i] = (ends[0] - ends[1]) / (2 * step)
  return found


class NeuralNetworkTest(parameterized.TestCase):
  def test_doctests(self):
    found = doctest.testmod(network)
    self.assertGreater(found.attempted, 10)
    self.assertEqual(found.failed, 0)

  def test_3_4_1_is_what_jax_grad_and_differences_give(self):
    rng = np.random.default_rng(0)
    net = NeuralNetwork(3, 4, 1, rng)
    net.b1, net.b2 = rng.normal(size=4), rng.normal(size=1)
    x, target = rng.normal(size=(7, 3)), rng.uniform(size=(7, 1))
    found = net.backward(x, target, net.forward(x))

    def loss(params):
      W1, b1, W2, b2 = params
      y = jax.nn.sigmoid(jax.nn.sigmoid(x @ W1 + b1[None]) @ W2 + b2[None])
      return 0.5 * jnp.mean((y - target) ** 2)

    with jax.enable_x64(True):
      wanted = jax.jit(jax.grad(loss))((net.W1, net.b1, net.W2, net.b2))
    for one, other in zip(found, wanted):
      np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
    for one, value in zip(found, (net.W1, net.b1, net.W2, net.b2)):
      slope = numeric(lambda: net.loss(target, net.forward(x)), value)
      np.testing.assert_allclose(one, slope, atol=1e-9)

  def test_one_step_by_hand(self):
    net = NeuralNetwork(1, 1, 1, np.random.default_rng(0))
    net.W1[:], net.W2[:] = 0, 2
    x, target = np.ones((1, 1)), np.zeros((1, 1))
    output = net.forward(x)  # hidden 1/2, z 1.
    p = 1 / (1 + np.exp(-1))
    self.assertAlmostEqual(net.loss(target, output), p**2 / 2)
    dW1, db1, dW2, db2 = net.backward(x, target, output)
    dz = p * p * (1 - p)
    np.testing.assert_allclose([db2[0], dW2[0, 0]], [dz, dz / 2])
    np.testing.assert_allclose([db1[0], dW1[0, 0]], [dz * 2 / 4, dz * 2 / 4])
    net.descend((dW1, db1, dW2, db2), rate=0.5)
    np.testing.assert_allclose(net.W2[0, 0], 2 - dz / 4)


class MlpTest(parameterized.TestCase):
  @parameterized.parameters((5, 3), (5, 4, 3), (6, 5, 4, 2), (3, 8, 8, 8, 4))
  def test_gradients_are_those_of_jax_grad(self, *widths):
    rng = np.random.default_rng(len(widths))
    layers = network.initialise(widths, rng)
    layers = [(W, rng.normal(size=b.shape)) for W, b in layers]
    x = rng.normal(size=(9, widths[0]))
    target = rng.dirichlet(np.ones(widths[-1]), 9)

    def reference(layers):
      h = x
      for W, b in layers[:-1]:
        h = jax.nn.relu(h @ W + b[None])
      logits = h @ layers[-1][0] + layers[-1][1][None]
      return -jnp.mean((target * jax.nn.log_softmax(logits)).sum(1))

    def by_hand(layers):
      logits, inputs = network.forward(layers, x)
      loss, slope = network.softmax_cross_entropy(logits, target)
      return loss, network.backward(layers, inputs, slope)

    loss, grads = by_hand(layers)
    self.assertIsInstance(grads[0][0], np.ndarray)
    with jax.enable_x64(True):
      wanted = jax.jit(jax.value_and_grad(reference))(layers)
      traced = jax.jit(by_hand)(jax.tree.map(jnp.asarray, layers))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    jax.tree.map(close, (loss, grads), wanted)
    jax.tree.map(close, (loss, grads), traced)

  def test_extreme_logits_are_finite(self):
    logits = np.array([[1000.0, 0.0], [-1000.0, 0.0]])
    loss, slope = network.softmax_cross_entropy(logits, np.array([[0.0, 1], [0, 1]]))
    self.assertEqual(loss, 500)
    np.testing.assert_array_equal(slope, [[0.5, -0.5], [0, 0]])

  def test_initial_weights_keep_the_size_of_signals(self):
    layers = network.initialise((400,) * 8, np.random.default_rng(0))
    x = np.random.default_rng(1).normal(size=(200, 400))
    _, inputs = network.forward(layers, x)
    square = [np.square(h).mean() for h in inputs]
    # Seven layers of 400 x 400 draws: a few percent each.
    np.testing.assert_allclose(square, 1, atol=0.25)


if __name__ == '__main__':
  absltest.main()
