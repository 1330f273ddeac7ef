"""What is hidden: one rectangle, its size, place and content."""

from functools import partial

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.images import erasing
from dlx.errors import ConfigError

N = 1000
KEYS = jax.random.split(jax.random.key(0), N)


def draws(fn, x):
  """fn(key, x) for N keys, on the host."""
  return np.array(jax.jit(jax.vmap(fn, in_axes=(0, None)))(KEYS, x))


def rectangles(test, out, value):
  """Rows and columns of what has `value`, one full rectangle an image (or none)."""
  cut = out == value
  test.assertTrue((cut[..., 0] == cut[..., -1]).all())
  test.assertTrue((cut | (out == 1)).all())
  rows, columns = cut[..., 0].any(2).sum(1), cut[..., 0].any(1).sum(1)
  np.testing.assert_array_equal(cut[..., 0].sum((1, 2)), rows * columns)
  return rows, columns, cut[..., 0]


class ErasingTest(parameterized.TestCase):
  def test_cutout_area(self):
    fn = partial(erasing.cutout, size=4, value=0.5)
    rows, columns, _ = rectangles(self, draws(fn, jnp.ones((12, 10, 2))), 0.5)
    # Centre y covers y - 2 .. y + 1: 4 rows, 2 or 3 at the upper edge, 3 at the lower.
    self.assertEqual(set(rows), {2, 3, 4})
    self.assertEqual(set(columns), {2, 3, 4})

  def test_area_and_ratio(self):
    fn = partial(
      erasing.random_erasing, probability=1.0, fill='constant', value=0.25,
      scale=(0.1, 0.3), ratio=(0.5, 2.0),
    )  # fmt: skip
    rows, columns, cut = rectangles(self, draws(fn, jnp.ones((60, 40, 2))), 0.25)
    # Either side is off by half a pixel: of sides from 10.9 to 38 up to 5 %.
    area, ratio = rows * columns / 2400, columns / rows
    self.assertTrue(((area > 0.09) & (area < 0.32)).all())
    self.assertTrue(((ratio > 0.46) & (ratio < 2.16)).all())
    # Draws that do not fit (40 wide at most) make neither end rarer than 5 %.
    self.assertLess(area.min(), 0.11)
    self.assertGreater(area.max(), 0.29)
    # Up to the four edges pixels are hidden now and then, and the middle most often.
    share = cut.mean(0)
    self.assertGreater(min(share[30].min(), share[:, 20].min()), 0)
    self.assertGreater(share[30, 20], 3 * share[[0, 0, -1, -1], [0, -1, 0, -1]].max())

  def test_probability(self):
    fn = partial(erasing.random_erasing, fill='constant')
    rows, _, _ = rectangles(self, draws(fn, jnp.ones((10, 10, 1))), 0)
    # Five standard errors of a quarter of 1000.
    self.assertLess(abs((rows > 0).mean() - 0.25), 5 * np.sqrt(0.25 * 0.75 / N))

  def test_noise_is_standard_normal_and_each_entry_its_own(self):
    fn = partial(erasing.random_erasing, probability=1.0)
    out = draws(fn, jnp.full((8, 8, 3), 99.0))
    noise = out[out != 99]
    n = len(noise)
    self.assertGreater(n, 0.02 * out.size)
    self.assertLess(abs(noise.mean()), 5 / np.sqrt(n))
    self.assertLess(abs(noise.std() - 1), 5 / np.sqrt(2 * n))
    # Of 2**23 numbers two are equal now and then.
    self.assertGreater(len(np.unique(noise)), 0.99 * n)

  def test_where_nothing_fits_nothing_is_erased(self):
    # A tenth of 2 x 100 pixels at a ratio of 1: 4.5 rows.
    x = jnp.ones((2, 100, 1))
    fn = partial(
      erasing.random_erasing, probability=1.0, scale=(0.1, 0.2), ratio=(0.9, 1.1)
    )
    chex.assert_trees_all_equal(draws(fn, x)[0], np.ones((2, 100, 1), np.float32))

  @parameterized.parameters(jnp.bfloat16, jnp.float32)
  def test_dtype_stays_where_64_bits_are_on(self, dtype):
    for x64 in (False, True):
      with jax.enable_x64(x64):
        x = jnp.ones((8, 8, 3), dtype)
        for fn in (erasing.cutout, erasing.random_erasing):
          jaxpr = jax.make_jaxpr(fn)(jax.random.key(0), x)
          self.assertEqual(jaxpr.out_avals[0].dtype, dtype)
          self.assertNotRegex(str(jaxpr), r'f64\[\d')
    self.assertEqual(
      erasing.cutout(KEYS[0], jnp.ones((20, 20, 1), jnp.uint8)).dtype, jnp.uint8
    )

  @parameterized.parameters(
    (dict(probability=1.5), 'probability=1.5'),
    (dict(scale=(0.0, 0.5)), 'scale='),
    (dict(ratio=(2.0, 1.0)), 'ratio='),
    (dict(fill='grey'), 'fill=grey is not allowed: must be one of noise, constant'),
  )
  def test_refuses(self, options, message):
    with self.assertRaisesRegex(ConfigError, message):
      erasing.random_erasing(KEYS[0], jnp.ones((8, 8, 3)), **options)
    with self.assertRaisesRegex(ConfigError, 'dtype uint8'):
      erasing.random_erasing(KEYS[0], jnp.ones((8, 8, 3), jnp.uint8))


if __name__ == '__main__':
  absltest.main()
