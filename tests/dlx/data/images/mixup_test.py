"""Mixup and CutMix: what is mixed is what the labels say."""

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.images import mixup
from dlx.errors import ConfigError

# Image i is i everywhere and label i is one-hot, so that both can be read off.
B = 400
IMAGES = jnp.broadcast_to(jnp.arange(float(B)).reshape(B, 1, 1, 1), (B, 9, 7, 2))
LABELS = jnp.eye(B)


class MixTest(parameterized.TestCase):
  @parameterized.product(fn=(mixup.mixup, mixup.cutmix), alpha=(0.1, 1.0))
  def test_labels_are_the_part_of_the_images(self, fn, alpha):
    images, labels = fn(jax.random.key(0), IMAGES, LABELS, alpha=alpha)
    self.assertEqual(images.shape, IMAGES.shape)
    np.testing.assert_allclose(labels.sum(1), np.ones(B), atol=2.0**-22)
    rows, partner = np.arange(B), (np.arange(B) - 1) % B
    kept = np.array(labels)[rows, rows]
    np.testing.assert_allclose(
      kept + np.array(labels)[rows, partner], 1.0, atol=2.0**-22
    )
    # Mean over all pixels: kept * i + (1 - kept) * partner; sums of 126 values below
    # 400, each rounded: relative 126 * 2**-24.
    expected = kept * rows + (1 - kept) * partner
    np.testing.assert_allclose(images.mean((1, 2, 3)), expected, atol=400 * 8e-6)

  def test_mixup_is_the_same_at_every_pixel(self):
    images, _ = mixup.mixup(jax.random.key(0), IMAGES, LABELS, alpha=1.0)
    chex.assert_trees_all_equal(
      images, jnp.broadcast_to(images[:, :1, :1, :1], images.shape)
    )

  def test_cutmix_pastes_one_box(self):
    images, labels = mixup.cutmix(jax.random.key(0), IMAGES, LABELS)
    pasted = np.array(images != IMAGES)
    self.assertTrue((pasted[..., 0] == pasted[..., 1]).all())
    pasted = pasted[..., 0]
    area = pasted.any(2).sum(1) * pasted.any(1).sum(1)
    np.testing.assert_array_equal(pasted.sum((1, 2)), area)  # A full rectangle.
    np.testing.assert_allclose(np.diag(labels), 1 - area / 63, atol=2.0**-22)
    # All but the pixels of the box come from the row itself.
    partner = jnp.roll(IMAGES, 1, 0)
    chex.assert_trees_all_equal(images[pasted], partner[pasted])

  @parameterized.parameters(0.2, 1.0, 4.0)
  def test_weights_are_beta(self, alpha):
    _, labels = mixup.mixup(jax.random.key(1), IMAGES, LABELS, alpha=alpha)
    kept = np.float64(np.diag(labels))
    variance = 1 / (4 * (2 * alpha + 1))
    # Five standard errors of the mean; of the variance, at most those of values in
    # [0, 1/4] (the squared distance from 1/2).
    self.assertLess(abs(kept.mean() - 0.5), 5 * np.sqrt(variance / B))
    self.assertLess(abs(((kept - 0.5) ** 2).mean() - variance), 5 * 0.125 / np.sqrt(B))

  def test_cutmix_area_follows_the_weight(self):
    # 19 % of the boxes have sides above 0.9 of the image's, and of those a ninth a
    # centre in the middle third both ways, where more than half is pasted: 400 rows
    # without one have probability 0.979**400 = 2e-4. Of 1 row in 81 nothing is pasted.
    _, labels = mixup.cutmix(jax.random.key(0), IMAGES, LABELS)
    kept = np.diag(labels)
    self.assertLess(kept.min(), 0.5)
    self.assertEqual(kept.max(), 1)
    # A Beta tight about 1/2: sqrt(1/2) of 9 and 7 are 6.4 and 4.9 pixels.
    images, _ = mixup.cutmix(jax.random.key(0), IMAGES, LABELS, alpha=1e6)
    pasted = np.array(images != IMAGES)[..., 0]
    self.assertEqual((pasted.any(2).sum(1).max(), pasted.any(1).sum(1).max()), (6, 4))

  @parameterized.parameters(mixup.mixup, mixup.cutmix)
  def test_keys(self, fn):
    fn = jax.jit(fn)
    images, labels = IMAGES[:6], LABELS[:6]
    same = [fn(jax.random.key(0), images, labels) for _ in range(2)]
    chex.assert_trees_all_equal(*same)
    other = fn(jax.random.key(1), images, labels)
    self.assertFalse(np.array_equal(same[0][1], other[1]))
    # Rows draw for themselves: the weight of row 2 is the same in a smaller batch.
    small = fn(jax.random.key(0), images[:4], labels[:4])
    np.testing.assert_allclose(small[1][2], same[0][1][2], atol=2.0**-22)
    self.assertGreater(np.ptp(np.diag(same[0][1])), 0.01)

  def test_one_or_the_other_for_a_whole_batch(self):
    fn = jax.jit(mixup.mixup_or_cutmix, static_argnames=('switch',))
    images, labels = IMAGES[:6], LABELS[:6]
    boxes = []
    for i in range(60):
      found, target = fn(jax.random.key(i), images, labels, switch=0.25)
      # Pixels of a box are those of one row or the other.
      whole = (found == images) | (found == jnp.roll(images, 1, 0))
      boxes.append(bool(whole.all()))
      self.assertEqual(float(np.ptp(found, (1, 2, 3)).max()) == 0, not boxes[-1])
      np.testing.assert_allclose(target.sum(1), np.ones(6), atol=2.0**-22)
    # 60 draws of probability 1/4: within 4 deviations of 3.4.
    self.assertTrue(2 <= sum(boxes) <= 28)
    for switch, alone, alpha in ((0.0, mixup.mixup, 0.8), (1.0, mixup.cutmix, 1.0)):
      key = jax.random.split(jax.random.key(7))[1]
      chex.assert_trees_all_close(
        fn(jax.random.key(7), images, labels, switch=switch),
        alone(key, images, labels, alpha=alpha),
        atol=1e-5,
      )
    with self.assertRaisesRegex(ConfigError, 'switch=2'):
      mixup.mixup_or_cutmix(jax.random.key(0), images, labels, switch=2)

  @parameterized.parameters(mixup.mixup, mixup.cutmix)
  def test_dtype_stays(self, fn):
    images, labels = jax.eval_shape(
      fn, jax.random.key(0), IMAGES[:4].astype(jnp.bfloat16), LABELS[:4]
    )
    self.assertEqual((images.dtype, labels.dtype), (jnp.bfloat16, jnp.float32))

  @parameterized.named_parameters(
    ('classes', IMAGES[:4], jnp.arange(4), {}, 'one_hot'),
    ('rows', IMAGES[:4], LABELS[:3], {}, 'as many rows'),
    ('alpha', IMAGES[:4], LABELS[:4], dict(alpha=0.0), 'alpha=0.0'),
    ('integers', IMAGES[:4].astype(jnp.uint8), LABELS[:4], {}, 'to_float'),
  )
  def test_refuses(self, images, labels, options, message):
    for fn in (mixup.mixup, mixup.cutmix):
      with self.assertRaisesRegex(ConfigError, message):
        fn(jax.random.key(0), images, labels, **options)


if __name__ == '__main__':
  absltest.main()
