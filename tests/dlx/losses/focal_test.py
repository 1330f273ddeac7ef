"""Focal losses: by hand, cross-entropy at gamma 0, extremes, optax."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlx import losses

EPS = float(np.finfo(np.float32).eps)


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape) * 3


def value_and_slope(loss, x):
  """Values, and the gradient of their sum."""
  return jax.jit(lambda x: (loss(x), jax.grad(lambda x: loss(x).sum())(x)))(x)


class SoftmaxFocalTest(parameterized.TestCase):
  def test_by_hand(self):
    logits = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]))
    label, weight = jnp.array([0, 2]), jnp.array([1.0, 1.0, 4.0])
    found = losses.softmax_focal(logits, label, 2.0)
    np.testing.assert_allclose(
      found, [-0.09 * np.log(0.7), -0.81 * np.log(0.1)], rtol=16 * EPS
    )
    weighted = losses.softmax_focal(logits, label, 2.0, weight)
    np.testing.assert_allclose(weighted, found * np.array([1, 4]), rtol=2 * EPS)

  def test_gamma_0_is_cross_entropy(self):
    logits, label = normal(0, 16, 5), jnp.arange(16) % 5
    pair = (
      lambda x: losses.softmax_focal(x, label, 0.0),
      lambda x: losses.softmax_cross_entropy(x, label),
    )
    for found, wanted in zip(*(value_and_slope(f, logits) for f in pair), strict=True):
      np.testing.assert_allclose(found, wanted, rtol=8 * EPS, atol=8 * EPS)

  @parameterized.parameters(0.5, 1.0, 2.0, 5.0)
  def test_the_definition_in_float64(self, gamma):
    logits, label = normal(1, 32, 4), jnp.arange(32) % 4
    definition = lambda x: (
      -((1 - jax.nn.softmax(x)) ** gamma * jax.nn.log_softmax(x))[np.arange(32), label]
    )
    loss = lambda x: losses.softmax_focal(x, label, gamma)
    found = value_and_slope(loss, logits)
    with jax.enable_x64(True):
      wide = jnp.asarray(np.asarray(logits), jnp.float64)
      wanted = value_and_slope(definition, wide)
    for f, w in zip(found, wanted, strict=True):
      # gamma times a logarithm of up to 20 is rounded before its exponential.
      np.testing.assert_allclose(f, w, rtol=20 * (1 + gamma) * 4 * EPS, atol=16 * EPS)

  @parameterized.parameters(0.0, 0.5, 2.0)
  def test_extremes(self, gamma):
    logits = jnp.array([[1e4, 0, -1e4], [-1e4, 0, 1e4], [0, 0, 0]])
    loss = lambda x: losses.softmax_focal(x, jnp.array([0, 0, 0]), gamma)
    wanted = [0, 2e4, (2 / 3) ** gamma * np.log(3)]
    found, slope = value_and_slope(loss, logits)
    np.testing.assert_allclose(found, wanted, rtol=8 * EPS)
    self.assertTrue(np.isfinite(slope).all())
    np.testing.assert_allclose(slope[1], [-1, 0, 1], atol=4 * EPS)

  def test_stated_nan_and_no_row(self):
    found = losses.softmax_focal(normal(0, 3, 4), jnp.array([-1, 4, 3]))
    np.testing.assert_array_equal(np.isnan(found), [True, True, False])
    self.assertEqual(
      losses.softmax_focal(normal(0, 0, 4), jnp.zeros(0, int)).shape, (0,)
    )
    narrow = losses.softmax_focal(normal(0, 3, 4).astype(jnp.bfloat16), jnp.arange(3))
    self.assertEqual(narrow.dtype, jnp.float32)


class SigmoidFocalTest(parameterized.TestCase):
  def test_by_hand(self):
    # sigmoid(log 3) = 3/4.
    x, target = jnp.log(jnp.array([3.0, 3.0])), jnp.array([1, 0])
    found = losses.sigmoid_focal(x, target, 2.0)
    wanted = np.array([-np.log(0.75) / 16, -np.log(0.25) * 9 / 16])
    np.testing.assert_allclose(found, wanted, rtol=16 * EPS)
    np.testing.assert_array_equal(losses.sigmoid_focal(x, target), found)
    found = losses.sigmoid_focal(x, target, 2.0, 0.25)
    np.testing.assert_allclose(found, wanted * [0.25, 0.75], rtol=16 * EPS)

  @parameterized.parameters(False, True)
  def test_gamma_0_is_binary_cross_entropy(self, soft):
    x, target = normal(0, 4, 6), jax.random.uniform(jax.random.key(1), (4, 6))
    target = target if soft else (target > 0.5)
    found, slope = value_and_slope(lambda x: losses.sigmoid_focal(x, target, 0.0), x)
    wanted, wanted_slope = value_and_slope(
      lambda x: losses.sigmoid_binary_cross_entropy(x, target), x
    )
    np.testing.assert_allclose(found, wanted, rtol=16 * EPS)
    np.testing.assert_allclose(slope, wanted_slope, atol=8 * EPS)

  @parameterized.product(gamma=(0.5, 2.0), alpha=(None, 0.25))
  def test_optax(self, gamma, alpha):
    x, target = normal(0, 40), (normal(1, 40) > 0).astype(jnp.float32)
    ours = lambda x: losses.sigmoid_focal(x, target, gamma, alpha)
    theirs = lambda x: optax.sigmoid_focal_loss(x, target, alpha=alpha, gamma=gamma)
    # 1 - p there has an absolute error of an eps, of which the root is taken.
    tight = 64 * EPS if gamma > 1 else 4 * EPS**0.5
    found, slope = value_and_slope(ours, x)
    wanted, wanted_slope = value_and_slope(theirs, x)
    np.testing.assert_allclose(found, wanted, rtol=64 * EPS, atol=tight)
    np.testing.assert_allclose(slope, wanted_slope, rtol=1e-3, atol=tight)

  @parameterized.product(gamma=(0.5, 2.0), alpha=(None, 0.25))
  def test_torch(self, gamma, alpha):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    x, target = normal(0, 8, 5), (normal(1, 8, 5) > 0).astype(jnp.float32)
    given = torch.tensor(np.array(x, np.float64), requires_grad=True)
    t = torch.tensor(np.array(target, np.float64))
    # As torchvision's sigmoid_focal_loss.
    ce = torch.nn.functional.binary_cross_entropy_with_logits(
      given, t, reduction='none'
    )
    p = torch.sigmoid(given)
    wanted = ce * (1 - (p * t + (1 - p) * (1 - t))) ** gamma
    if alpha is not None:
      wanted = wanted * (alpha * t + (1 - alpha) * (1 - t))
    wanted.mean(1).sum().backward()
    loss = lambda x: losses.sigmoid_focal(x, target, gamma, alpha)
    np.testing.assert_allclose(
      loss(x), wanted.mean(1).detach().numpy(), rtol=64 * EPS, atol=4 * EPS
    )
    slope = jax.grad(lambda x: loss(x).sum())(x)
    np.testing.assert_allclose(slope, given.grad.numpy(), rtol=64 * EPS, atol=4 * EPS)

  @parameterized.parameters(0.0, 0.5, 2.0)
  def test_extremes(self, gamma):
    x, target = jnp.array([1e4, -1e4, 1e4, -1e4]), jnp.array([1, 0, 0, 1])
    loss = lambda x: losses.sigmoid_focal(x, target, gamma)
    found, slope = value_and_slope(loss, x)
    np.testing.assert_array_equal(found, [0, 0, 1e4, 1e4])
    np.testing.assert_array_equal(slope, [0, 0, 1, -1])


if __name__ == '__main__':
  absltest.main()
