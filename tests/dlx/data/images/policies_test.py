"""Augmentation by name: what of a batch changes, and what does not."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.images import policies
from dlx.errors import ConfigError

K = 4


def batch():
  # Normalised images: of any range.
  image = jax.random.normal(jax.random.key(1), (6, 5, 5, 1))
  return {'image': image, 'label': jnp.array([0, 1, 2, 3, 0, 1]), 'row': jnp.arange(6)}


class PoliciesTest(parameterized.TestCase):
  def test_none_is_nothing(self):
    self.assertIsNone(policies.by_name('none', K))

  def test_crop_and_flip(self):
    self.assertIsNone(policies.crop_and_flip(0, False))
    rows = jnp.arange(1.0, 6).reshape(1, 1, 5, 1)  # 1 2 3 4 5 in every row.
    given = {'image': jnp.tile(rows, (64, 5, 1, 1)), 'label': jnp.arange(64)}
    found = policies.crop_and_flip(0, True)(jax.random.key(0), given)
    self.assertEqual(set(found), {'image', 'label'})
    first = np.asarray(found['image'][:, 0, 0, 0])
    self.assertEqual(set(first), {1.0, 5.0})
    # One pixel of zeros around: columns shift by -1, 0 or 1, never more.
    middle = policies.crop_and_flip(1, False)(jax.random.key(0), given)
    self.assertEqual(set(np.asarray(middle['image'][:, 2, 2, 0])), {2.0, 3.0, 4.0})
    self.assertEqual(set(np.asarray(middle['image'][:, 2, 0, 0])), {0.0, 1.0, 2.0})

  def test_translate_mirrors_what_lies_beyond_the_edge(self):
    self.assertIsNone(policies.translate(0))
    rows = jnp.arange(1.0, 6).reshape(1, 1, 5, 1)  # 1 2 3 4 5 in every row.
    given = {'image': jnp.tile(rows, (64, 5, 1, 1)), 'label': jnp.arange(64)}
    found = policies.translate(2)(jax.random.key(0), given)
    seen = {tuple(map(int, row)) for row in np.asarray(found['image'][:, 0, :, 0])}
    # From two pixels to the right to two to the left.
    ways = [(2, 1, 1, 2, 3), (1, 1, 2, 3, 4), (1, 2, 3, 4, 5), (2, 3, 4, 5, 5)]
    self.assertEqual(seen, {*ways, (3, 4, 5, 5, 4)})

  def test_a_chain_gives_each_its_own_key(self):
    self.assertIsNone(policies.chain(None, None))
    drawn = lambda key, batch: {**batch, 'x': [*batch['x'], jax.random.bits(key)]}
    found = policies.chain(drawn, None, drawn)(jax.random.key(0), {'x': []})
    self.assertLen(found['x'], 2)
    self.assertNotEqual(*map(int, found['x']))

  def test_crop_flip_by_name(self):
    given = batch()
    named = policies.by_name('crop_flip', K)(jax.random.key(0), given)
    own = policies.crop_and_flip(4, True)(jax.random.key(0), given)
    np.testing.assert_array_equal(named['image'], own['image'])

  def test_a_chain_goes_from_the_first_to_the_last(self):
    self.assertIsNone(policies.chain(None, None))
    keys = []

    def step(key, batch):
      keys.append(key)
      return {**batch, 'row': 2 * batch['row'] + len(keys)}

    found = policies.chain(step, None, step)(jax.random.key(0), batch())
    np.testing.assert_array_equal(found['row'], 2 * (2 * np.arange(6) + 1) + 2)
    self.assertNotEqual(*map(str, keys))
    both = policies.chain(
      policies.crop_and_flip(1, True), policies.by_name('mixup', K)
    )(jax.random.key(0), batch())
    self.assertEqual(both['target'].shape, (6, K))

  def test_colour_sees_images_in_the_unit_interval(self):
    mean, std = (0.5, 0.25, 0.125), (0.25, 0.5, 0.125)  # Exact in floating point.
    levels = np.random.default_rng(0).integers(0, 257, (6, 5, 4, 3)) / np.float32(256)
    normalised = (levels - np.float32(mean)) / np.float32(std)
    given = {**batch(), 'image': jnp.asarray(normalised)}
    seen = policies.in_unit(
      mean,
      std,
      lambda key, image: image + jax.random.uniform(key),
      lambda key, image: image / 2,
    )(jax.random.key(0), given)
    self.assertEqual(set(seen), set(given))
    added = 2 * (np.asarray(seen['image']) * std + mean) - levels
    # A number of its own for each image, and each once.
    np.testing.assert_allclose(
      added, np.broadcast_to(added[:, :1, :1, :1], added.shape), atol=2.0**-20
    )
    self.assertTrue(((added > 0) & (added < 1)).all())
    self.assertLen(set(added[:, 0, 0, 0].round(4)), 6)

  def test_another_name(self):
    with self.assertRaisesRegex(ConfigError, 'augment=blur is .* one of none, flip, '):
      policies.by_name('blur', K)

  @parameterized.parameters(*policies.GEOMETRY)
  def test_geometry_changes_images_alone_and_each_by_itself(self, name):
    given = batch()
    policy = jax.jit(policies.by_name(name, K))
    found = policy(jax.random.key(0), given)
    self.assertEqual(set(found), set(given))
    np.testing.assert_array_equal(found['label'], given['label'])
    np.testing.assert_array_equal(found['row'], given['row'])
    self.assertEqual(found['image'].shape, given['image'].shape)
    self.assertTrue((found['image'] != given['image']).any())
    # fill='nearest' and weights that sum to 1: no new extremes.
    self.assertLessEqual(
      float(found['image'].max()), float(given['image'].max()) + 1e-5
    )
    other = {**given, 'image': given['image'].at[0].set(0)}
    again = policy(jax.random.key(0), other)
    np.testing.assert_array_equal(found['image'][1:], again['image'][1:])

  @parameterized.parameters(*policies.MIXES)
  def test_mixing_gives_soft_labels_of_what_was_mixed(self, name):
    given = batch()
    constant = jnp.broadcast_to(
      jnp.arange(1.0, 7.0)[:, None, None, None], given['image'].shape
    )
    given['image'] = constant  # Row i is i + 1 everywhere: its mean tells the weight.
    found = jax.jit(policies.by_name(name, K))(jax.random.key(0), given)
    np.testing.assert_array_equal(found['label'], given['label'])
    np.testing.assert_allclose(found['target'].sum(1), 1, rtol=1e-6)
    own, partner = np.arange(1.0, 7.0), np.roll(np.arange(1.0, 7.0), 1)
    share_B = (np.mean(found['image'], (1, 2, 3)) - partner) / (own - partner)
    hard = np.eye(K)[np.asarray(given['label'])]
    wanted = share_B[:, None] * hard + (1 - share_B[:, None]) * np.roll(hard, 1, 0)
    np.testing.assert_allclose(found['target'], wanted, atol=1e-5)
    self.assertTrue(((share_B > 1e-3) & (share_B < 1 - 1e-3)).any())


if __name__ == '__main__':
  absltest.main()
