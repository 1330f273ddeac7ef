"""Losses: hand-computed numbers, stability, gradients, then torch and optax."""

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlx import losses, metrics
from dlx.errors import ConfigError
from dlx.losses import classification

EPS = float(np.finfo(np.float32).eps)


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape) * 3


class SoftmaxCrossEntropyTest(parameterized.TestCase):
  def test_hand_computed(self):
    # softmax(log [.7, .2, .1]) is [.7, .2, .1].
    logits = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]]))
    got = losses.softmax_cross_entropy(logits, jnp.array([0, 1]))
    # Numbers near 1 with a handful of roundings.
    np.testing.assert_allclose(got, [-np.log(0.7), -np.log(0.2)], rtol=8 * EPS)

  def test_smoothing_by_hand(self):
    # Smoothing .3 over 3 classes: target [.8, .1, .1].
    logits = jnp.log(jnp.array([[0.7, 0.2, 0.1]]))
    expected = -(0.8 * np.log(0.7) + 0.1 * np.log(0.2) + 0.1 * np.log(0.1))
    soft = jnp.array([[1.0, 0.0, 0.0]])
    for target in (jnp.array([0]), soft):
      got = losses.softmax_cross_entropy(logits, target, label_smoothing=0.3)
      np.testing.assert_allclose(got, [expected], rtol=8 * EPS)

  @parameterized.parameters((0.2, 2), (0.1, 10), (0.0, 3))
  def test_the_least_smoothed_loss(self, smoothing, classes):
    """Of logits whose softmax is the target."""
    shares = np.full(classes, smoothing / classes, np.float32)
    shares[0] += 1 - smoothing
    logits = np.log(np.maximum(shares, 1e-30))[None]
    least = losses.smoothed_entropy(smoothing, classes)
    found = losses.softmax_cross_entropy(
      jnp.asarray(logits), jnp.array([0]), label_smoothing=smoothing
    )
    np.testing.assert_allclose(found[0], least, rtol=1e-6, atol=1e-7)
    if classes == 2:  # 0.9 and 0.1.
      self.assertAlmostEqual(least, -0.9 * np.log(0.9) - 0.1 * np.log(0.1))

  def test_traced_smoothing(self):
    logits, label = normal(0, 4, 5), jnp.array([0, 1, 2, 4])
    swept = jax.vmap(lambda s: losses.softmax_cross_entropy(logits, label, s))(
      jnp.array([0.0, 0.1])
    )
    for got, s in zip(swept, (0.0, 0.1)):
      one = losses.softmax_cross_entropy(logits, label, s)
      np.testing.assert_allclose(got, one, rtol=8 * EPS, atol=8 * EPS)

  def test_gradient_is_softmax_minus_target(self):
    logits, label = normal(1, 6, 4), jnp.arange(6) % 4
    grad = jax.grad(lambda x: losses.softmax_cross_entropy(x, label).sum())(logits)
    expected = jax.nn.softmax(logits) - jax.nn.one_hot(label, 4)
    np.testing.assert_allclose(grad, expected, atol=8 * EPS)

  @parameterized.parameters(1e4, -1e4)
  def test_stable(self, big):
    logits = jnp.array([[big, 0.0, 0.0], [big, big + 1, big]])
    loss = lambda x: losses.softmax_cross_entropy(x, jnp.array([0, 1]))
    # Row 0: all mass on, or none on, the label. Row 1: log(2/e + 1).
    first = 0.0 if big > 0 else 1e4 + np.log(2)
    np.testing.assert_allclose(loss(logits), [first, np.log(2 / np.e + 1)], rtol=1e-6)
    grad = jax.grad(lambda x: loss(x).sum())(logits)
    self.assertTrue(np.isfinite(grad).all())

  def test_label_out_of_range_is_nan(self):
    got = losses.softmax_cross_entropy(normal(0, 3, 4), jnp.array([-1, 4, 3]))
    np.testing.assert_array_equal(np.isnan(got), [True, True, False])

  @parameterized.parameters(0.0, 0.1)
  def test_classes_of_logit_minus_infinity_are_none(self, smoothing):
    """A vocabulary that is filled up to 6 rows has the losses of its 4 words."""
    logits, label = normal(3, 5, 4), jnp.array([0, 1, 2, 3, 0])
    padded = jnp.pad(logits, ((0, 0), (0, 2)), constant_values=-jnp.inf)
    soft = jax.nn.softmax(normal(4, 5, 4))
    for target, wide in ((label, label), (soft, jnp.pad(soft, ((0, 0), (0, 2))))):
      loss = lambda x, t: losses.softmax_cross_entropy(x, t, smoothing)
      wanted, found = loss(logits, target), loss(padded, wide)
      np.testing.assert_allclose(found, wanted, rtol=8 * EPS)
      grad = jax.grad(lambda *args: losses.softmax_cross_entropy(*args).sum())
      slope, padded_slope = (
        grad(*args, smoothing) for args in ((logits, target), (padded, wide))
      )
      np.testing.assert_allclose(padded_slope[:, :4], slope, atol=8 * EPS)
      np.testing.assert_array_equal(padded_slope[:, 4:], 0)
    # A target there is impossible.
    self.assertEqual(float(losses.softmax_cross_entropy(padded, label + 4)[0]), np.inf)

  @parameterized.parameters(0.5, np.float32(1.0))
  def test_distillation_without_labels_is_soft_alone(self, alpha):
    """A share of (1 - alpha) would be lost without a word."""
    x = normal(5, 5, 4)
    with self.assertRaisesRegex(ConfigError, 'label_B=None .* alpha=1'):
      losses.distillation(x, x, alpha=alpha)
    losses.distillation(x, x, alpha=1)

  def test_distillation_with_classes_of_logit_minus_infinity(self):
    student, teacher = normal(5, 5, 4), normal(6, 5, 4)
    pad = lambda x: jnp.pad(x, ((0, 0), (0, 2)), constant_values=-jnp.inf)
    loss = lambda s, t: losses.distillation(s, t).sum()
    for padded in (pad(student), jnp.pad(student, ((0, 0), (0, 2)))):
      self.assertTrue(np.isfinite(loss(padded, pad(teacher))))
    np.testing.assert_allclose(
      loss(pad(student), pad(teacher)), loss(student, teacher), rtol=8 * EPS
    )
    slope = jax.grad(loss)(pad(student), pad(teacher))
    np.testing.assert_allclose(
      slope[:, :4], jax.grad(loss)(student, teacher), atol=16 * EPS
    )
    np.testing.assert_array_equal(slope[:, 4:], 0)

  def test_narrow_logits_are_widened(self):
    logits, label = normal(2, 8, 5).astype(jnp.bfloat16), jnp.arange(8) % 5
    got = losses.softmax_cross_entropy(logits, label)
    self.assertEqual(got.dtype, jnp.float32)
    wide = losses.softmax_cross_entropy(logits.astype(jnp.float32), label)
    np.testing.assert_array_equal(got, wide)

  def test_shapes_are_checked(self):
    with self.assertRaises(AssertionError):
      losses.softmax_cross_entropy(normal(0, 4, 3), jnp.zeros((4, 1), jnp.int32))
    with self.assertRaises(AssertionError):
      losses.softmax_cross_entropy(normal(0, 4), jnp.zeros(4, jnp.int32))

  def test_is_optax(self):
    logits, label = normal(3, 16, 7), jnp.arange(16) % 7
    # Loss values stay below about 20, each from some 7 roundings.
    np.testing.assert_allclose(
      losses.softmax_cross_entropy(logits, label),
      optax.softmax_cross_entropy_with_integer_labels(logits, label),
      atol=20 * 7 * EPS,
    )
    soft = jax.nn.softmax(normal(4, 16, 7))
    np.testing.assert_allclose(
      losses.softmax_cross_entropy(logits, soft),
      optax.softmax_cross_entropy(logits, soft),
      atol=20 * 7 * EPS,
    )

  @parameterized.parameters(0.0, 0.1)
  def test_is_torch(self, smoothing):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    logits, label = normal(5, 16, 7), jnp.arange(16) % 7
    x = torch.tensor(np.array(logits), requires_grad=True)
    reference = torch.nn.functional.cross_entropy(
      x,
      torch.tensor(np.array(label)).long(),
      reduction='none',
      label_smoothing=smoothing,
    )
    reference.sum().backward()
    loss = lambda x: losses.softmax_cross_entropy(x, label, smoothing)
    np.testing.assert_allclose(
      loss(logits), reference.detach().numpy(), atol=20 * 7 * EPS
    )
    grad = jax.grad(lambda x: loss(x).sum())(logits)
    np.testing.assert_allclose(grad, x.grad.numpy(), atol=8 * EPS)


class BinaryCrossEntropyTest(parameterized.TestCase):
  def test_probabilities_by_hand(self):
    got = losses.binary_cross_entropy(
      jnp.array([0.99, 0.01, 0.25]), jnp.array([1.0, 1.0, 0.0])
    )
    # -log .99 = .01005, -log .01 = 4.605, -log .75 = .28768; .99 itself is rounded.
    expected = [-np.log(0.99), -np.log(0.01), -np.log(0.75)]
    np.testing.assert_allclose(got, expected, rtol=0, atol=8 * EPS)

  def test_probabilities_of_0_and_1_are_clipped(self):
    p, target = jnp.array([0.0, 1.0, 0.0, 1.0]), jnp.array([1.0, 0.0, 0.0, 1.0])
    got = losses.binary_cross_entropy(p, target)
    worst = -np.log(1e-15)
    np.testing.assert_allclose(got, [worst, worst, 0, 0], rtol=4 * EPS)
    grad = jax.grad(lambda p: losses.binary_cross_entropy(p, target).sum())(p)
    self.assertTrue(np.isfinite(grad).all())

  def test_logits_by_hand(self):
    # sigmoid(log 3) = 3/4.
    x = jnp.log(jnp.array([3.0, 3.0]))
    got = losses.sigmoid_binary_cross_entropy(x, jnp.array([1, 0]))
    np.testing.assert_allclose(got, [-np.log(0.75), -np.log(0.25)], rtol=8 * EPS)

  def test_logits_stable_and_precise(self):
    x = jnp.array([1e4, -1e4, 1e4, -1e4, 30.0])
    target = jnp.array([1.0, 0.0, 0.0, 1.0, 1.0])
    loss = lambda x: losses.sigmoid_binary_cross_entropy(x, target)
    np.testing.assert_allclose(loss(x), [0, 0, 1e4, 1e4, np.exp(-30.0)], rtol=1e-6)
    grad = jax.grad(lambda x: loss(x).sum())(x)
    np.testing.assert_allclose(grad, [0, 0, 1, -1, -np.exp(-30.0)], rtol=1e-6)

  def test_logarithm_of_one_plus_keeps_its_digits(self):
    u = np.concatenate([[0, 1], np.logspace(-37, 0, 4001)]).astype(np.float32)
    found = np.asarray(jax.jit(classification._log1p)(u), np.float64)
    # A quotient, seven products and sums: some units in the last place.
    np.testing.assert_allclose(found, np.log1p(u.astype(np.float64)), rtol=4 * EPS)

  @parameterized.parameters(np.float32, np.float64)
  def test_derivatives_are_those_of_two_softplus(self, dtype):
    def plain(x, t):
      return t * jax.nn.softplus(-x) + (1 - t) * jax.nn.softplus(x)

    with jax.enable_x64(dtype == np.float64):
      x = jnp.asarray([-30.0, -3.0, -0.5, 0.25, 2.0, 30.0], dtype)
      t = jnp.asarray([0.0, 0.3, 1.0, 0.5, 0.9, 1.0], dtype)
      for f in (plain, losses.sigmoid_binary_cross_entropy):
        value = lambda x, t, f=f: jnp.sin(f(x, t)).sum()
        first = jax.grad(value, argnums=(0, 1))
        square = lambda x, t, g=first: sum((v**2).sum() for v in g(x, t))
        found = value(x, t), first(x, t), jax.grad(square, argnums=(0, 1))(x, t)
        if f is plain:
          wanted = found
    tight = 64 * np.finfo(dtype).eps
    chex.assert_trees_all_close(found, wanted, rtol=tight, atol=tight)

  def test_gradient_is_sigmoid_minus_target(self):
    x, target = normal(0, 9).at[0].set(0.0), jnp.linspace(0, 1, 9)
    grad = jax.grad(lambda x: losses.sigmoid_binary_cross_entropy(x, target).sum())(x)
    np.testing.assert_allclose(grad, jax.nn.sigmoid(x) - target, atol=4 * EPS)

  def test_trailing_axes_are_averaged(self):
    x, target = normal(1, 3, 2, 4), normal(2, 3, 2, 4) > 0
    got = losses.sigmoid_binary_cross_entropy(x, target)
    flat = losses.sigmoid_binary_cross_entropy(x.reshape(-1), target.reshape(-1))
    np.testing.assert_allclose(got, flat.reshape(3, 8).mean(1), rtol=8 * EPS)

  def test_is_optax_and_torch(self):
    x, target = normal(3, 32), jax.random.uniform(jax.random.key(4), (32,))
    got = losses.sigmoid_binary_cross_entropy(x, target)
    np.testing.assert_allclose(
      got, optax.sigmoid_binary_cross_entropy(x, target), rtol=8 * EPS, atol=8 * EPS
    )
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    f = torch.nn.functional
    tx, tt = torch.tensor(np.array(x)), torch.tensor(np.array(target))
    reference = f.binary_cross_entropy_with_logits(tx, tt, reduction='none')
    np.testing.assert_allclose(got, reference.numpy(), rtol=16 * EPS, atol=16 * EPS)
    p = jax.nn.sigmoid(x)
    reference = f.binary_cross_entropy(torch.tensor(np.array(p)), tt, reduction='none')
    np.testing.assert_allclose(
      losses.binary_cross_entropy(p, target), reference.numpy(), rtol=16 * EPS
    )


class RegressionTest(parameterized.TestCase):
  def test_by_hand(self):
    prediction, target = jnp.array([1.0, 2.0, -1.0]), jnp.array([1.0, 0.5, 2.0])
    np.testing.assert_array_equal(
      losses.squared_error(prediction, target), [0, 2.25, 9]
    )
    np.testing.assert_array_equal(
      losses.absolute_error(prediction, target), [0, 1.5, 3]
    )
    # |e| = 1.5 and 3 with delta 2: 1.125 and 2 * (3 - 1).
    np.testing.assert_array_equal(
      losses.huber(prediction, target, delta=2.0), [0, 1.125, 4]
    )

  @parameterized.parameters('squared_error', 'absolute_error', 'huber')
  def test_gradients(self, name):
    error = jnp.array([-3.0, -0.5, 0.0, 0.25, 4.0])
    target = jnp.ones(5)
    loss = getattr(losses, name)
    grad = jax.grad(lambda p: loss(p, target).sum())(target + error)
    expected = {
      'squared_error': 2 * error,
      'absolute_error': jnp.sign(error),
      'huber': jnp.clip(error, -1, 1),
    }[name]
    np.testing.assert_array_equal(grad, expected)

  @parameterized.parameters('squared_error', 'absolute_error', 'huber')
  def test_shapes_are_never_broadcast(self, name):
    with self.assertRaises(AssertionError):
      getattr(losses, name)(jnp.zeros((4, 1)), jnp.zeros(4))

  @parameterized.parameters(0.3, 1.0, 2.5)
  def test_huber_is_torch_and_optax(self, delta):
    prediction, target = normal(0, 40), normal(1, 40)
    got = losses.huber(prediction, target, delta)
    np.testing.assert_allclose(
      got, optax.huber_loss(prediction, target, delta=delta), rtol=8 * EPS, atol=1e-9
    )
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    p = torch.tensor(np.array(prediction), requires_grad=True)
    reference = torch.nn.functional.huber_loss(
      p, torch.tensor(np.array(target)), reduction='none', delta=delta
    )
    reference.sum().backward()
    np.testing.assert_allclose(got, reference.detach().numpy(), rtol=8 * EPS, atol=1e-9)
    grad = jax.grad(lambda p: losses.huber(p, target, delta).sum())(prediction)
    np.testing.assert_allclose(grad, p.grad.numpy(), rtol=4 * EPS)

  def test_huge_errors_in_half_precision(self):
    # 300^2 overflows float16; float32 holds it.
    got = losses.squared_error(jnp.full(1, 300, jnp.float16), jnp.zeros(1, jnp.float16))
    np.testing.assert_array_equal(got, [90000.0])
    self.assertTrue(np.isfinite(losses.huber(jnp.array([1e30]), jnp.zeros(1))).all())

  def test_gaussian_kl_by_hand_and_by_sampling(self):
    mean, log_var = (
      jnp.array([[1.0, 0.0, -2.0]]),
      jnp.log(jnp.array([[1.0, 4.0, 0.25]])),
    )
    # (m^2 + v - 1 - log v) / 2: 0.5, (3 - log 4) / 2, (4 - 0.75 + log 4) / 2.
    expected = np.array([[0.5, (3 - np.log(4)) / 2, (3.25 + np.log(4)) / 2]])
    terms = losses.gaussian_kl_terms(mean, log_var)
    np.testing.assert_allclose(terms, expected, rtol=8 * EPS)
    total = losses.gaussian_kl(mean, log_var)
    np.testing.assert_allclose(total, expected.sum(1), rtol=8 * EPS)
    noise = np.random.default_rng(0).normal(size=(400000, 3))
    z = np.array(mean) + noise * np.exp(np.array(log_var) / 2)
    log_ratio = (z**2 - noise**2 - np.array(log_var)).sum(1) / 2
    # The standard error of the mean of 400000 is 0.2 % of it.
    np.testing.assert_allclose(log_ratio.mean(), total[0], rtol=1e-2)
    nothing = jnp.zeros((1, 2))
    self.assertEqual(float(losses.gaussian_kl(nothing, nothing)[0]), 0)

  def test_gaussian_kl_keeps_small_numbers(self):
    # log_var^2 / 4 at 1e-4: exp(x) - 1 - x in float32 has no digit of it left.
    got = losses.gaussian_kl_terms(jnp.zeros((1, 1)), jnp.full((1, 1), 1e-3))
    np.testing.assert_allclose(got, [[2.5e-7]], rtol=0.3)

  @parameterized.parameters(1.0, 4.0)
  def test_distillation_equals_torch(self, temperature):
    student, teacher = normal(0, 6, 5), normal(1, 6, 5)
    label = jnp.array([0, 1, 2, 3, 4, 0])
    run = lambda s: losses.distillation(
      s, teacher, label, temperature=temperature, alpha=0.7
    )
    by_hand = []
    for s, t, y in zip(np.array(student), np.array(teacher), label, strict=True):
      p = np.exp(t / temperature) / np.exp(t / temperature).sum()
      log_q = s / temperature - np.log(np.exp(s / temperature).sum())
      hard = -(s[y] - np.log(np.exp(s).sum()))
      by_hand.append(
        0.7 * temperature**2 * (p * (np.log(p) - log_q)).sum() + 0.3 * hard
      )
    np.testing.assert_allclose(run(student), by_hand, rtol=1e-4)
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    f = torch.nn.functional
    s = torch.tensor(np.array(student), requires_grad=True)
    t = torch.tensor(np.array(teacher))
    soft = f.kl_div(
      f.log_softmax(s / temperature, 1),
      f.softmax(t / temperature, 1),
      reduction='batchmean',
    )
    hard = f.cross_entropy(s, torch.tensor(np.array(label, np.int64)))
    loss = 0.7 * temperature**2 * soft + 0.3 * hard
    loss.backward()
    np.testing.assert_allclose(run(student).mean(), loss.detach().numpy(), rtol=1e-5)
    grad = jax.grad(lambda s: run(s).mean())(student)
    np.testing.assert_allclose(grad, s.grad.numpy(), rtol=1e-4, atol=1e-6)

  def test_distillation_ends(self):
    student, teacher = normal(0, 4, 3), normal(1, 4, 3)
    label = jnp.array([0, 1, 2, 0])
    self.assertLess(float(losses.distillation(teacher, teacher).max()), 1e-5)
    np.testing.assert_allclose(
      losses.distillation(student, teacher, label, alpha=0.0),
      losses.softmax_cross_entropy(student, label),
    )
    grad = jax.grad(lambda t: losses.distillation(student, t).sum())(teacher)
    np.testing.assert_array_equal(grad, 0)
    # At a high temperature the gradient is that of matching centred logits, / K.
    hot = jax.grad(lambda s: losses.distillation(s, teacher, temperature=1e3).sum())(
      student
    )
    centred = lambda x: x - x.mean(1, keepdims=True)
    expected = (centred(student) - centred(teacher)) / 3
    # Terms of the next order are a factor |logit| / T = 1e-2 smaller.
    np.testing.assert_allclose(hot, expected, rtol=5e-2, atol=5e-2)

  def test_weighted_mean(self):
    got = metrics.mean(jnp.array([1.0, 2.0, 5.0]), jnp.array([1.0, 0.5, 0.0]))
    self.assertEqual((float(got.total), float(got.count)), (2.0, 1.5))


if __name__ == '__main__':
  absltest.main()
