"""Random augmentation: ranges of the draws, keys by row, geometry, validity."""

from functools import partial

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.images import augment, color, erasing, geometry
from dlx.errors import ConfigError

N = 1000
KEYS = jax.random.split(jax.random.key(0), N)


def photo(*shape, seed=0):
  return jax.random.uniform(jax.random.key(seed), shape)


def draws(fn, *args):
  """fn(key, *args) for N keys, on the host."""
  return np.array(
    jax.jit(jax.vmap(fn, in_axes=(0,) + (None,) * len(args)))(KEYS, *args)
  )


def check_uniform(test, values, low, high):
  """Inside [low, high], reaching both ends, and with the mean of a uniform draw."""
  values = np.float64(values)
  slack = 1e-5 * max(abs(low), abs(high))
  test.assertGreaterEqual(values.min(), low - slack)
  test.assertLessEqual(values.max(), high + slack)
  # All n miss the outer 2 % with probability 0.98**1000 = 2e-9.
  test.assertLess(values.min(), low + 0.02 * (high - low))
  test.assertGreater(values.max(), high - 0.02 * (high - low))
  # Standard error of the mean: (high - low) / sqrt(12 n); 5 of them.
  error = 5 * (high - low) / np.sqrt(12 * len(values))
  test.assertLess(abs(values.mean() - (low + high) / 2), error)


class KeysTest(parameterized.TestCase):
  def test_a_row_does_not_depend_on_its_batch(self):
    fn = jax.jit(
      augment.per_example(
        augment.compose(
          augment.random_flip,
          augment.random_crop,
          augment.random_affine,
          partial(augment.color_jitter, hue=0.1),
          augment.random_blur,
          erasing.cutout,
        )
      )
    )
    key, x = jax.random.key(1), photo(8, 10, 12, 3)
    eight, four = fn(key, x), fn(key, x[:4])
    # The draws are the same bits; XLA may round the arithmetic of another shape another
    # way: some 40 operations on values up to 2.
    np.testing.assert_allclose(eight[:4], four, atol=40 * 2.0**-23)
    rows = jnp.array([1, 3, 5, 7], jnp.int32)
    np.testing.assert_allclose(fn(key, x[1::2], rows), eight[1::2], atol=40 * 2.0**-23)
    chex.assert_trees_all_equal(eight, fn(key, x))

  def test_draws_of_a_row_are_the_same_bits(self):
    fn = augment.per_example(lambda key, x: jax.random.bits(key, (4,)) + 0 * x)
    key, x = jax.random.key(1), jnp.zeros((8, 4), jnp.uint32)
    chex.assert_trees_all_equal(fn(key, x)[:4], fn(key, x[:4]))

  def test_rows_and_keys_differ(self):
    fn = jax.jit(augment.per_example(augment.random_affine))
    x = jnp.broadcast_to(photo(9, 9, 1), (6, 9, 9, 1))
    out = np.array(
      jnp.concatenate([fn(jax.random.key(0), x), fn(jax.random.key(1), x)])
    )
    self.assertLen({row.tobytes() for row in out}, 12)

  def test_compose_keys_and_order(self):
    key = jax.random.key(3)
    noise = lambda key, x: x + jax.random.uniform(key)
    out = augment.compose(noise, augment.keyless(lambda x: 2 * x), noise)(key, 1.0)
    first, last = (jax.random.uniform(jax.random.fold_in(key, i)) for i in (0, 2))
    np.testing.assert_allclose(out, 2 * (1 + first) + last, rtol=2.0**-22)

  def test_per_example_takes_a_tree(self):
    def fn(key, tree):
      return jax.tree.map(lambda x: augment.random_flip(key, x), tree)

    x = photo(5, 4, 4, 1)
    out = augment.per_example(fn)(jax.random.key(0), {'image': x, 'mask': x > 0.5})
    chex.assert_trees_all_equal(out['mask'], out['image'] > 0.5)

  @parameterized.parameters(0.0, 0.3, 1.0)
  def test_random_apply(self, probability):
    fn = augment.random_apply(augment.keyless(lambda x: x + 1), probability)
    rate = draws(fn, jnp.zeros(())).mean()
    # Five standard errors of a share of 1000: 0.08 at most; none at 0 and 1.
    error = 5 * np.sqrt(probability * (1 - probability) / N)
    self.assertLessEqual(abs(rate - probability), error)


class GeometryTest(parameterized.TestCase):
  def test_flip(self):
    x = photo(3, 4, 1)
    out = draws(augment.random_flip, x)
    flipped = (out == np.array(geometry.flip_left_right(x))).all((1, 2, 3))
    kept = (out == np.array(x)).all((1, 2, 3))
    self.assertTrue((flipped ^ kept).all())
    self.assertLess(abs(flipped.mean() - 0.5), 5 * 0.5 / np.sqrt(N))
    out = augment.random_flip(KEYS[0], x, probability=1.0, vertical=True)
    chex.assert_trees_all_equal(out, geometry.flip_up_down(x))

  def test_shift_reaches_exactly_its_bounds(self):
    x = jnp.zeros((20, 10, 1)).at[10, 5, 0].set(1)
    _, rows, columns, _ = np.nonzero(draws(augment.random_shift, x))
    # 0.2 of 20 and of 10. Each of 9 rows is missed with probability (8/9)**1000.
    self.assertEqual(sorted(set(rows - 10)), list(range(-4, 5)))
    self.assertEqual(sorted(set(columns - 5)), list(range(-2, 3)))

  def test_rotation_range(self):
    # A ramp along the columns: at the pixel right of the middle, by sin and cos.
    y = jnp.broadcast_to(jnp.arange(-2.0, 3.0)[:, None, None], (5, 5, 1))
    out = draws(augment.random_rotation, y)[:, 2, 3, 0]
    check_uniform(self, np.rad2deg(np.arcsin(out)), -20, 20)

  def test_zoom_range(self):
    y = jnp.broadcast_to(jnp.arange(-2.0, 3.0)[:, None, None], (5, 5, 1))
    out = draws(augment.random_zoom, y)[:, 3, 2, 0]
    check_uniform(self, 1 / out, 0.8, 1.2)

  def test_affine_is_zoom_and_shift_where_there_is_no_rotation(self):
    y = jnp.broadcast_to(jnp.arange(-20.0, 21.0)[:, None, None], (41, 41, 1))
    fn = partial(augment.random_affine, degrees=0.0)
    out = draws(fn, y)
    factor = 1 / (out[:, 21, 20, 0] - out[:, 20, 20, 0])
    check_uniform(self, factor, 0.8, 1.2)
    check_uniform(self, -out[:, 20, 20, 0] * factor, -8.2, 8.2)

  def test_affine_turns_about_the_centre(self):
    y = jnp.broadcast_to(jnp.arange(-2.0, 3.0)[:, None, None], (5, 5, 1))
    out = draws(partial(augment.random_affine, fraction=0.0, amount=0.0), y)
    np.testing.assert_allclose(out[:, 2, 2, 0], np.zeros(N), atol=1e-6)
    check_uniform(self, np.rad2deg(np.arcsin(out[:, 2, 3, 0])), -20, 20)

  @parameterized.parameters('constant', 'reflect')
  def test_crop_is_a_window_of_the_padded_image(self, fill):
    x = 1 + photo(6, 5, 1)
    out = draws(partial(augment.random_crop, padding=2, fill=fill), x)
    padded = np.array(geometry.pad(x, 2, 2, fill=fill))
    windows = {
      padded[i : i + 6, j : j + 5].tobytes() for i in range(5) for j in range(5)
    }
    # Each of 25 windows is missed with probability 0.96**1000 = 2e-18.
    self.assertEqual({row.tobytes() for row in out}, windows)

  def test_crop_to_a_size(self):
    x = photo(6, 5, 2)
    self.assertEqual(
      augment.random_crop(KEYS[0], x, padding=0, size=(3, 4)).shape, (3, 4, 2)
    )
    chex.assert_trees_all_equal(augment.random_crop(KEYS[0], x, padding=0), x)


class ResizedCropTest(parameterized.TestCase):
  @parameterized.parameters((32, 32), (20, 45), (7, 100), (1, 1))
  def test_box_is_always_inside(self, height, width):
    fn = lambda key: jnp.stack(augment.random_box(key, height, width))
    top, left, rows, columns = draws(fn).T
    for start, size, limit in ((top, rows, height), (left, columns, width)):
      self.assertGreaterEqual(start.min(), 0)
      self.assertGreaterEqual(size.min(), 1)
      self.assertLessEqual((start + size).max(), limit)

  def test_area_and_ratio(self):
    # A small scale in a large square: every first draw fits, so nothing is rejected.
    fn = lambda key: jnp.stack(augment.random_box(key, 1000, 1000, scale=(0.1, 0.5)))
    _, _, rows, columns = draws(fn).T
    # Sides of 270 and more are rounded by 1/2: 0.4 % of the area, 0.4 % of the ratio.
    area = rows * columns / 1e6
    self.assertGreater(area.min(), 0.1 * 0.996)
    self.assertLess(area.max(), 0.5 * 1.004)
    self.assertLess(abs(area.mean() - 0.3), 5 * 0.4 / np.sqrt(12 * N) + 0.002)
    ratio = np.log(columns / rows)
    limit = np.log(4 / 3)
    self.assertLess(np.abs(ratio).max(), limit + 0.004)
    self.assertLess(abs(ratio.mean()), 5 * 2 * limit / np.sqrt(12 * N) + 0.004)

  def test_fallback_is_the_middle(self):
    # No box of nine tenths of this image is less than twice as wide as high.
    fn = lambda key: jnp.stack(augment.random_box(key, 10, 40, scale=(0.9, 1.0)))
    expected = np.tile([0, (40 - 13) // 2, 10, 13], (N, 1))
    np.testing.assert_array_equal(draws(fn), expected)

  def test_whole_image(self):
    x = photo(8, 8, 3)
    fn = partial(
      augment.random_resized_crop, height=8, width=8, scale=(1.0, 1.0), ratio=(1.0, 1.0)
    )
    np.testing.assert_allclose(fn(KEYS[0], x), x, atol=2.0**-22)

  def test_shape_and_constant(self):
    x = jnp.full((20, 30, 1), 0.6)
    for method in ('bicubic', 'nearest'):
      fn = partial(augment.random_resized_crop, height=9, width=7, method=method)
      out = draws(fn, x)[:50]
      np.testing.assert_allclose(out, np.full((50, 9, 7, 1), 0.6), atol=6e-6)


class ColourTest(parameterized.TestCase):
  def test_contrast_and_brightness_ranges(self):
    x = jnp.array([0.4, 0.6]).reshape(1, 2, 1)
    out = draws(augment.random_contrast, x)
    check_uniform(self, (out[:, 0, 1, 0] - out[:, 0, 0, 0]) / 0.2, 0.9, 1.1)
    out = draws(augment.random_brightness, x)
    check_uniform(self, out[:, 0, 0, 0] / 0.4, 0.9, 1.1)

  def test_jitter_is_each_of_its_parts(self):
    x = 0.3 + 0.3 * photo(6, 5, 3)
    off = dict(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    program = jax.jit(
      jax.vmap(
        lambda key, amounts: augment.color_jitter(key, x, **amounts), in_axes=(0, None)
      )
    )
    jitter = lambda **on: np.array(program(KEYS[:20], off | on))
    np.testing.assert_allclose(jitter(), np.tile(x, (20, 1, 1, 1)), atol=1e-6)
    # From the result back to the factor, then the function itself; roundings of values
    # below 1 in 4 turns, larger by the division: 1e-5.
    out = jitter(brightness=0.4)
    factor = out[:, 0, 0, 0] / x[0, 0, 0]
    np.testing.assert_allclose(
      out, jax.vmap(color.brightness, (None, 0))(x, factor), atol=1e-5
    )
    for name in ('contrast', 'saturation'):
      out = jitter(**{name: 0.4})
      spread = lambda image: image[..., 0, 0, 0] - image[..., 0, 0, 1]
      factor = spread(out) / spread(x)
      self.assertGreater(np.ptp(np.array(factor)), 0.2)
      fn = jax.vmap(getattr(color, name), (None, 0))
      np.testing.assert_allclose(out, fn(x, factor), atol=1e-5)
    out = jitter(hue=0.5)
    np.testing.assert_allclose(out.max(-1), np.tile(x.max(-1), (20, 1, 1)), atol=1e-6)
    np.testing.assert_allclose(out.min(-1), np.tile(x.min(-1), (20, 1, 1)), atol=1e-6)
    self.assertGreater(np.abs(out - np.array(x)).max(), 0.1)

  def test_jitter_has_both_orders(self):
    # What is clipped tells brightness before contrast from contrast before brightness.
    x = jnp.array([0.2, 0.9]).reshape(1, 2, 1)
    fn = partial(
      augment.color_jitter, brightness=1.0, contrast=1.0, saturation=0, hue=0
    )
    out = draws(fn, x)
    self.assertGreaterEqual(out.min(), 0)
    self.assertLessEqual(out.max(), 1)

    def one(key):
      _, *keys = jax.random.split(key, 5)
      b, c = (jax.random.uniform(k, (), jnp.float32, 0.0, 2.0) for k in keys[:2])
      return jnp.stack(
        [
          color.contrast(color.brightness(x, b), c),
          color.brightness(color.contrast(x, c), b),
        ]
      )

    both = draws(one)
    first, second = (np.abs(both[:, i] - out).max((1, 2, 3)) < 1e-5 for i in (0, 1))
    self.assertTrue((first | second).all())
    # Where they differ, either order has half of the draws: five standard errors.
    differ = ~(first & second)
    share, count = first[differ].mean(), differ.sum()
    self.assertGreater(count, 100)
    self.assertLess(abs(share - 0.5), 5 * 0.5 / np.sqrt(count))

  def test_grayscale_rate(self):
    x = photo(2, 2, 3)
    out = draws(augment.random_grayscale, x)
    grey = (out[..., 0] == out[..., 1]).all((1, 2))
    self.assertLess(abs(grey.mean() - 0.2), 5 * 0.4 / np.sqrt(N))

  def test_blur_range(self):
    # Of a delta along a row: log of neighbour / middle is -1 / (2 sigma^2).
    x = jnp.zeros((1, 9, 1)).at[0, 4, 0].set(1)
    fn = partial(augment.random_blur, sigma=(0.5, 2.0), radius=2)
    out = draws(fn, x)
    sigma = np.sqrt(-0.5 / np.log(out[:, 0, 5, 0] / out[:, 0, 4, 0]))
    check_uniform(self, sigma, 0.5, 2.0)


class DtypeTest(parameterized.TestCase):
  NAMES = (
    'random_flip',
    'random_shift',
    'random_rotation',
    'random_zoom',
    'random_affine',
    'random_crop',
    'random_contrast',
    'random_brightness',
    'color_jitter',
    'random_blur',
    'random_grayscale',
  )

  def test_bfloat16_stays(self):
    x = photo(8, 8, 3).astype(jnp.bfloat16)
    for name in self.NAMES:
      out = jax.eval_shape(getattr(augment, name), KEYS[0], x)
      self.assertEqual((out.shape, out.dtype), (x.shape, jnp.bfloat16), name)

  def test_float32_stays_where_64_bits_are_on(self):
    crop = partial(augment.random_resized_crop, height=4, width=5)
    for x64 in (False, True):
      with jax.enable_x64(x64):
        x = jnp.ones((8, 8, 3), jnp.float32)
        for fn in [getattr(augment, name) for name in self.NAMES] + [crop]:
          jaxpr = jax.make_jaxpr(fn)(jax.random.key(0), x)
          self.assertEqual(jaxpr.out_avals[0].dtype, jnp.float32)
          # Python numbers stand there as scalars; no array is widened.
          self.assertNotRegex(str(jaxpr), r'f64\[\d')

  @parameterized.parameters('random_flip', 'random_shift', 'random_crop')
  def test_whole_pixels_take_any_dtype(self, name):
    x = jnp.ones((20, 20, 1), jnp.uint8)
    self.assertEqual(getattr(augment, name)(KEYS[0], x).dtype, jnp.uint8)


class RefusalTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('probability', augment.random_flip, dict(probability=1.5), 'probability=1.5'),
    ('fraction', augment.random_shift, dict(fraction=-0.1), 'fraction=-0.1'),
    ('amount', augment.random_zoom, dict(amount=1.0), 'amount=1.0'),
    ('degrees', augment.random_rotation, dict(degrees=-1), 'degrees=-1'),
    ('size', augment.random_crop, dict(size=(99, 4)), 'height=99'),
    ('sigma', augment.random_blur, dict(sigma=(2.0, 1.0)), 'sigma='),
    ('hue', augment.color_jitter, dict(hue=0.7), 'hue=0.7'),
    (
      'scale',
      augment.random_resized_crop,
      dict(height=2, width=2, scale=(0.0, 1.0)),
      'scale=',
    ),
  )
  def test_refuses(self, fn, options, message):
    with self.assertRaisesRegex(ConfigError, message) as caught:
      fn(KEYS[0], jnp.ones((8, 8, 3)), **options)
    self.assertNotIn('\n', str(caught.exception))


if __name__ == '__main__':
  absltest.main()
