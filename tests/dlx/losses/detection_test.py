"""Losses of heat maps and boxes: by hand, where they are 0, what they do not see."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx import losses


def log(x):
  return np.log(np.float64(x))


class HeatFocalTest(absltest.TestCase):
  def test_by_hand(self):
    # Two peaks and two cells that are none; p = 3/4, 1/2, 1/4, 1/2.
    logits = jnp.log(jnp.array([3.0, 1, 1 / 3, 1])).reshape(1, 2, 2, 1)
    target = jnp.array([1.0, 1, 0.5, 0]).reshape(1, 2, 2, 1)
    terms = (
      -log(3 / 4) / 16,
      -log(1 / 2) / 4,
      -log(3 / 4) / 16 / 16,  # (1 - t)^4 of a half.
      -log(1 / 2) / 4,
    )
    found = losses.heat_focal(logits, target)
    np.testing.assert_allclose(found, [sum(terms) / 2], rtol=1e-6)
    # Without both powers the cross-entropy of sigmoids, by the peaks.
    found = losses.heat_focal(logits, target.round(), alpha=0, beta=0)
    plain = losses.sigmoid_binary_cross_entropy(logits, target.round())
    np.testing.assert_allclose(found, plain * 4 / 2, rtol=1e-6)

  def test_no_peak_and_one_image_beside_another(self):
    logits = jax.random.normal(jax.random.key(0), (3, 2, 3, 2))
    target = jnp.zeros(logits.shape).at[1, 0, 0, 0].set(1.0).at[2, 1, 1, 1].set(jnp.nan)
    found, slope = jax.jit(
      lambda x: (
        losses.heat_focal(x, target),
        jax.grad(lambda x: losses.heat_focal(x, target)[:2].sum())(x),
      )
    )(logits)
    p = 1 / (1 + np.exp(-np.float64(logits[0])))
    np.testing.assert_allclose(found[0], -(p**2 * np.log1p(-p)).sum(), rtol=1e-5)
    np.testing.assert_array_equal(np.isnan(found), [False, False, True])
    self.assertLess(float(slope[1, 0, 0, 0]), 0)
    self.assertGreater(float(slope[0].min()), 0)

  def test_logits_that_are_right_or_wrong_for_certain(self):
    target = jnp.array([1.0, 0]).reshape(1, 1, 2, 1)
    call = jax.value_and_grad(lambda x: losses.heat_focal(x, target)[0])
    for scale, wanted in ((100.0, 0.0), (-100.0, 200.0)):
      found, slope = call((2 * target - 1) * scale)
      np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-30)
      self.assertTrue(np.isfinite(slope).all())


class BoxGiouTest(absltest.TestCase):
  def test_means_of_what_is_real(self):
    box = jnp.array([[0.0, 0, 2, 2]] * 3)[None].repeat(3, 0)
    found = box.at[0, 1].set(jnp.array([1.0, 1, 3, 3])).at[:, 2].set(jnp.nan)
    real = jnp.array([[True, True, False], [True, False, False], [False] * 3])

    @jax.jit
    def call(found):
      total = lambda x: losses.box_giou(x, box, real).sum()
      return losses.box_giou(found, box, real), jax.grad(total)(found)

    loss, slope = call(found)
    np.testing.assert_allclose(loss, [(1 - 1 / 7 + 2 / 9) / 2, 0, 0], atol=1e-6)
    self.assertTrue(np.isfinite(slope).all())
    self.assertFalse(slope[2].any())
    np.testing.assert_allclose(losses.box_giou(found, box)[1], np.nan)

  def test_descent_brings_boxes_together_that_have_nothing_in_common(self):
    box = jnp.array([[[10.0, 10, 14, 18]]])
    start = jnp.array([[[0.0, 0, 3, 3]]])

    def step(x, _):
      return x - 4 * jax.grad(lambda x: losses.box_giou(x, box)[0])(x), None

    found = jax.jit(lambda x: jax.lax.scan(step, x, length=400)[0])(start)
    self.assertGreater(float(losses.box_giou(start, box)[0]), 1.5)
    self.assertLess(float(losses.box_giou(found, box)[0]), 0.2)


if __name__ == '__main__':
  absltest.main()
