"""Class weights, ignored labels, weights of a yes: by hand, at the edges, torch."""

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import losses
from dlx.state import Mean, ratios

EPS = float(np.finfo(np.float32).eps)
WEIGHT = jnp.array([0.5, 2.0, 0.0, 3.0])


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape) * 3


class ClassWeightTest(parameterized.TestCase):
  def test_by_hand(self):
    logits = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]]))
    weight = jnp.array([2.0, 1.0, 10.0])
    loss = lambda target, **more: losses.softmax_cross_entropy(
      logits, target, class_weight_K=weight, **more
    )
    found = loss(jnp.array([0, 1]))
    np.testing.assert_allclose(found, [-2 * np.log(0.7), -np.log(0.2)], rtol=8 * EPS)
    # Smoothing .3 over 3 classes: target [.8, .1, .1].
    found = loss(jnp.array([0, 0]), label_smoothing=0.3)[0]
    wanted = -(2 * 0.8 * np.log(0.7) + 0.1 * np.log(0.2) + 10 * 0.1 * np.log(0.1))
    np.testing.assert_allclose(found, wanted, rtol=8 * EPS)
    soft = jnp.array([[0.5, 0.0, 0.5], [0.0, 1.0, 0.0]])
    wanted = [-np.log(0.7) - 5 * np.log(0.1), -np.log(0.2)]
    np.testing.assert_allclose(loss(soft), wanted, rtol=8 * EPS)

  def test_ones_change_nothing_and_labels_out_of_range_are_nan(self):
    logits, label = normal(0, 5, 4), jnp.array([0, 3, -1, 4, 2])
    found = losses.softmax_cross_entropy(logits, label, class_weight_K=jnp.ones(4))
    wanted = losses.softmax_cross_entropy(logits, label)
    np.testing.assert_allclose(found, wanted, rtol=8 * EPS, atol=8 * EPS)
    np.testing.assert_array_equal(np.isnan(found), [False, False, True, True, False])
    weights = losses.example_weight(label, 4, class_weight_K=WEIGHT)
    np.testing.assert_array_equal(weights, [0.5, 3, np.nan, np.nan, 0])

  @parameterized.parameters(jnp.bfloat16, jnp.float16)
  def test_narrow_ones_are_widened(self, dtype):
    logits, label = normal(0, 5, 4).astype(dtype), jnp.arange(5) % 4
    found = losses.softmax_cross_entropy(
      logits, label, class_weight_K=WEIGHT.astype(dtype), ignore=3
    )
    self.assertEqual(found.dtype, jnp.float32)

  @parameterized.product(
    weighted=(False, True), smoothing=(0.0, 0.2), soft=(False, True)
  )
  def test_torch(self, weighted, smoothing, soft):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    logits = normal(1, 6, 4)
    target = (
      jax.nn.softmax(normal(2, 6, 4)) if soft else jnp.array([0, 3, -100, 1, 2, 3])
    )
    given = torch.tensor(np.array(logits), requires_grad=True)
    truth = torch.tensor(np.array(target))
    options = {'label_smoothing': smoothing}
    if weighted:
      options['weight'] = torch.tensor(np.array(WEIGHT))
    f = torch.nn.functional.cross_entropy
    truth = truth if soft else truth.long()
    each, mean = (f(given, truth, reduction=r, **options) for r in ('none', 'mean'))
    mean.backward()
    ours = {
      'class_weight_K': WEIGHT if weighted else None,
      'ignore': None if soft else -100,
    }
    loss = lambda x: losses.softmax_cross_entropy(x, target, smoothing, **ours)
    # Values up to 60, from some seven roundings each.
    np.testing.assert_allclose(loss(logits), each.detach().numpy(), atol=60 * 7 * EPS)
    weight = jnp.ones(6) if soft else losses.example_weight(target, 4, **ours)
    average = lambda x: loss(x).sum() / weight.sum()
    np.testing.assert_allclose(average(logits), mean.item(), rtol=32 * EPS)
    slope = jax.grad(average)(logits)
    np.testing.assert_allclose(slope, given.grad.numpy(), atol=16 * EPS)


class IgnoreTest(parameterized.TestCase):
  @parameterized.parameters(jnp.int32, jnp.int8)
  def test_ignored_rows_are_0_whatever_their_logits(self, dtype):
    logits = normal(0, 4, 3).at[1].set(jnp.nan).at[2].set(jnp.inf)
    label = jnp.array([0, -100, -100, 2], dtype)
    loss = lambda x: losses.softmax_cross_entropy(x, label, 0.1, ignore=-100)
    value, slope = loss(logits), jax.grad(lambda x: loss(x).sum())(logits)
    np.testing.assert_array_equal(value[1:3], 0)
    np.testing.assert_array_equal(slope[1:3], 0)
    others = losses.softmax_cross_entropy(logits[::3], label[::3], 0.1)
    np.testing.assert_array_equal(value[::3], others)
    self.assertGreater(np.abs(slope[::3]).min(), 0)

  def test_another_label_out_of_range_is_still_nan(self):
    label = jnp.array([-1, -100, 3])
    found = losses.softmax_cross_entropy(normal(0, 3, 3), label, ignore=-100)
    np.testing.assert_array_equal(np.isnan(found), [True, False, True])

  def test_all_rows_ignored_and_no_row(self):
    for size in (3, 0):
      label = jnp.full(size, -100)
      loss = losses.softmax_cross_entropy(normal(0, size, 3), label, ignore=-100)
      weight = losses.example_weight(label, 3, ignore=-100)
      chex.assert_shape([loss, weight], (size,))
      mean = Mean(loss.sum(), weight.sum())
      self.assertEqual((float(mean.total), float(mean.count)), (0, 0))
      self.assertTrue(np.isnan(ratios({'loss': mean})['loss']))

  def test_a_label_of_a_small_type_is_not_taken_for_it(self):
    # -100 in eight bits without a sign is 156.
    label = jnp.array([156], jnp.uint8)
    found = losses.softmax_cross_entropy(jnp.zeros((1, 200)), label, ignore=-100)
    np.testing.assert_allclose(found, np.log(200), rtol=4 * EPS)

  def test_soft_targets_cannot_be_ignored(self):
    with self.assertRaises(AssertionError):
      losses.softmax_cross_entropy(normal(0, 2, 3), jnp.ones((2, 3)) / 3, ignore=-100)


class PosWeightTest(parameterized.TestCase):
  def test_by_hand(self):
    # sigmoid(log 3) = 3/4.
    x = jnp.log(jnp.array([3.0, 3.0]))
    found = losses.sigmoid_binary_cross_entropy(x, jnp.array([1, 0]), 5.0)
    np.testing.assert_allclose(found, [-5 * np.log(0.75), -np.log(0.25)], rtol=8 * EPS)

  @parameterized.parameters(0.0, 0.25, 20.0)
  def test_extremes(self, pos_weight):
    x = jnp.array([1e4, -1e4, 1e4, -1e4, 0.0, jnp.inf, -jnp.inf])
    target = jnp.array([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0])
    loss = lambda x: losses.sigmoid_binary_cross_entropy(x, target, pos_weight)
    p = pos_weight
    wanted = [0, 0, 1e4, p * 1e4, p * np.log(2)]
    np.testing.assert_allclose(loss(x)[:5], wanted, rtol=4 * EPS)
    slope = jax.grad(lambda x: loss(x)[:5].sum())(x)
    np.testing.assert_allclose(slope[:5], [0, 0, 1, -p, -p / 2], rtol=4 * EPS)

  @parameterized.parameters(True, False)
  def test_torch(self, each):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    x, target = normal(0, 5, 4), jax.random.uniform(jax.random.key(1), (5, 4))
    weight = jnp.array([0.5, 2.0, 0.0, 3.0]) if each else jnp.asarray(7.0)
    given = torch.tensor(np.array(x), requires_grad=True)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(
      given,
      torch.tensor(np.array(target)),
      pos_weight=torch.tensor(np.array(weight)),
      reduction='none',
    ).mean(1)
    wanted.sum().backward()
    loss = lambda x: losses.sigmoid_binary_cross_entropy(x, target, weight)
    np.testing.assert_allclose(loss(x), wanted.detach().numpy(), rtol=16 * EPS)
    slope = jax.grad(lambda x: loss(x).sum())(x)
    np.testing.assert_allclose(slope, given.grad.numpy(), atol=16 * EPS)


class SmoothL1Test(parameterized.TestCase):
  def test_by_hand(self):
    # Errors 0, 1 and -3, beta 2: 0, 1 / 4, 3 - 1.
    prediction, target = jnp.array([1.0, 2.0, -1.0]), jnp.array([1.0, 1.0, 2.0])
    found = losses.smooth_l1(prediction, target, 2.0)
    np.testing.assert_array_equal(found, [0, 0.25, 2])
    found = losses.smooth_l1(prediction, target)  # Beta 1.
    np.testing.assert_array_equal(found, [0, 0.5, 2.5])

  @parameterized.parameters(0.3, 1.0, 2.5)
  def test_torch(self, beta):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    prediction, target = normal(0, 40), normal(1, 40)
    p = torch.tensor(np.array(prediction), requires_grad=True)
    wanted = torch.nn.functional.smooth_l1_loss(
      p, torch.tensor(np.array(target)), reduction='none', beta=beta
    )
    wanted.sum().backward()
    loss = lambda p: losses.smooth_l1(p, target, beta)
    np.testing.assert_allclose(
      loss(prediction), wanted.detach().numpy(), rtol=16 * EPS, atol=1e-9
    )
    slope = jax.grad(lambda p: loss(p).sum())(prediction)
    np.testing.assert_allclose(slope, p.grad.numpy(), rtol=8 * EPS)

  def test_infinities_and_no_row(self):
    x = jnp.array([jnp.inf, jnp.nan])
    found = losses.smooth_l1(x, jnp.zeros(2))
    np.testing.assert_array_equal(found, [np.inf, np.nan])
    for name in ('smooth_l1', 'huber', 'absolute_error', 'squared_error', 'hinge'):
      found = getattr(losses, name)(jnp.zeros(0), jnp.zeros(0))
      self.assertEqual(found.shape, (0,))


if __name__ == '__main__':
  absltest.main()
