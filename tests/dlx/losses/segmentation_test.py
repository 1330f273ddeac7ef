"""Losses of pixels: by hand, of ignored pixels, and as a loop over classes has them."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx import losses

EPS = float(np.finfo(np.float32).eps)
VOID = 255


def value_and_slope(loss, x):
  """Values, and the gradient of their sum."""
  return jax.jit(lambda x: (loss(x), jax.grad(lambda x: loss(x).sum())(x)))(x)


def drawn(*shape, classes, void):
  """Logits and labels, some of them VOID."""
  rng = np.random.default_rng(0)
  label = rng.integers(classes, size=shape)
  label[rng.uniform(size=shape) < void] = VOID
  logits = 2 * rng.normal(size=(*shape, classes))
  return jnp.asarray(logits, jnp.float32), jnp.asarray(label, jnp.uint8)


class SegmentationLossesTest(parameterized.TestCase):
  def test_cross_entropy_by_hand(self):
    # Two pixels an image: probabilities 0.7 and 0.2 of the true class; 0.1 and void.
    logits = jnp.log(jnp.array([0.7, 0.2, 0.1])).reshape(1, 1, 1, 3)
    logits = jnp.broadcast_to(logits, (2, 1, 2, 3))
    label = jnp.array([[[0, 1]], [[2, VOID]]], jnp.uint8)
    found = losses.pixel_cross_entropy(logits, label, ignore=VOID)
    wanted = [-(np.log(0.7) + np.log(0.2)) / 2, -np.log(0.1)]
    np.testing.assert_allclose(found, wanted, rtol=8 * EPS)
    weight = jnp.array([1.0, 3.0, 5.0])
    found = losses.pixel_cross_entropy(
      logits, label, class_weight_K=weight, ignore=VOID
    )
    wanted[0] = -(np.log(0.7) + 3 * np.log(0.2)) / 4
    np.testing.assert_allclose(found, wanted, rtol=8 * EPS)

  def test_dice_by_hand(self):
    # Probabilities 3/6, 2/6, 1/6 of three pixels, two of class 0, one of class 1.
    logits = jnp.log(jnp.array([3.0, 2.0, 1.0])).reshape(1, 1, 1, 3)
    logits = jnp.broadcast_to(logits, (1, 3, 1, 3))
    label = jnp.array([[[0], [0], [1]]], jnp.int32)
    found = losses.dice(logits, label, smooth=0.5)
    scores = (2 * 1 + 0.5) / (1.5 + 2 + 0.5), (2 / 3 + 0.5) / (1 + 1 + 0.5)
    np.testing.assert_allclose(found, [1 - np.mean(scores)], rtol=8 * EPS)
    # With the last pixel void, class 1 is absent, and two pixels are left.
    found = losses.dice(logits, label.at[0, 2].set(VOID), smooth=0.5, ignore=VOID)
    np.testing.assert_allclose(found, [1 - 2.5 / (1 + 2 + 0.5)], rtol=8 * EPS)

  @parameterized.parameters(0.0, 0.4)
  def test_dice_as_a_loop_over_images_and_classes(self, void):
    logits, label = drawn(3, 2, 3, classes=4, void=void)
    found = losses.dice(logits, label, ignore=VOID)
    for b in range(3):
      counted = np.asarray(label[b]) != VOID
      p = np.exp(np.asarray(logits[b], np.float64)[counted])
      p /= p.sum(1, keepdims=True)
      own, scores = np.asarray(label[b])[counted], []
      for k in range(4):
        both, total = p[own == k, k].sum(), p[:, k].sum() + (own == k).sum()
        if (own == k).any():
          scores.append((2 * both + 1) / (total + 1))
      np.testing.assert_allclose(found[b], 1 - np.mean(scores), rtol=64 * EPS)

  @parameterized.parameters('pixel_cross_entropy', 'dice')
  def test_right_is_0_and_ignored_pixels_change_nothing(self, name):
    loss = lambda x, label: getattr(losses, name)(x, label, ignore=VOID)
    logits, label = drawn(2, 4, 4, classes=3, void=0.5)
    certain = 50 * jax.nn.one_hot(jnp.where(label == VOID, 0, label), 3)
    self.assertLess(float(jnp.abs(loss(certain, label)).max()), 1e-6)
    broken = jnp.where((label == VOID)[..., None], jnp.nan, logits)
    value, slope = value_and_slope(lambda x: loss(x, label), logits)
    again, same = value_and_slope(lambda x: loss(x, label), broken)
    np.testing.assert_array_equal(value, again)
    np.testing.assert_array_equal(slope, same)
    np.testing.assert_array_equal(slope[label == VOID], 0)
    self.assertTrue(bool((jnp.abs(slope[label != VOID]).max(1) > 0).all()))
    # An image of void alone, beside one that is none; a label that is no class.
    label = label.at[0].set(VOID)
    value, slope = value_and_slope(lambda x: loss(x, label), logits)
    self.assertEqual(float(value[0]), 0)
    self.assertGreater(float(value[1]), 0)
    np.testing.assert_array_equal(slope[0], 0)
    wrong = loss(logits, label.at[0, 0, 0].set(3))
    np.testing.assert_array_equal(np.isnan(wrong), [True, False])

  @parameterized.parameters('pixel_cross_entropy', 'dice')
  def test_gradient_goes_down(self, name):
    logits, label = drawn(2, 4, 4, classes=3, void=0.2)
    loss = lambda x: getattr(losses, name)(x, label, ignore=VOID)
    value, slope = value_and_slope(loss, logits)
    # A step of size h against the gradient lowers the sum by h times its square.
    h = 1e-2
    fall = float((value - loss(logits - h * slope)).sum())
    np.testing.assert_allclose(fall, h * float((slope**2).sum()), rtol=2e-2)

  def test_bfloat16_is_widened(self):
    logits, label = drawn(2, 4, 4, classes=3, void=0.2)
    for loss in (losses.pixel_cross_entropy, losses.dice):
      found = loss(logits.astype(jnp.bfloat16), label, ignore=VOID)
      self.assertEqual(found.dtype, jnp.float32)


if __name__ == '__main__':
  absltest.main()
