"""Colour by hand, then against PIL and colorsys."""

import colorsys

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from sklearn.datasets import load_sample_image

from dlx.data.images import color
from dlx.data.images.levels import to_float
from dlx.errors import ConfigError


def photograph():
  return load_sample_image('flower.jpg')[100:350:5, 150:500:5]


def photo(*shape):
  return jax.random.uniform(jax.random.key(0), shape)


def pixel(*values):
  return jnp.array(values, jnp.float32).reshape(1, 1, -1)


class BlendTest(parameterized.TestCase):
  @parameterized.product(
    fn=(color.brightness, color.contrast, color.saturation), channels=(1, 3)
  )
  def test_factor_1_is_the_image(self, fn, channels):
    x = photo(2, 6, 5, channels)
    chex.assert_trees_all_equal(fn(x, 1.0), x)

  def test_by_hand(self):
    x = pixel(0.2, 0.4, 0.8)
    # Luma 0.0598 + 0.2348 + 0.0912 = 0.3858; on one pixel it is the mean too.
    luma = 0.2 * 0.299 + 0.4 * 0.587 + 0.8 * 0.114
    # Five roundings of values below 2.
    close = lambda out, expected: np.testing.assert_allclose(
      out.ravel(), expected, atol=6 * 2.0**-23
    )
    close(color.brightness(x, 2.0), [0.4, 0.8, 1.0])
    close(color.grayscale(x), [luma] * 3)
    close(color.contrast(x, 0.0), [luma] * 3)
    close(color.saturation(x, 0.0), [luma] * 3)
    close(color.saturation(x, 0.5), [(v + luma) / 2 for v in (0.2, 0.4, 0.8)])
    close(color.contrast(x, 3.0), [0.0, 3 * 0.4 - 2 * luma, 1.0])

  def test_contrast_keeps_the_mean(self):
    x = 0.25 + 0.5 * photo(8, 8, 1)
    # 64 values below 1 are added up: 64 * 2**-24, divided by 64; and a few roundings.
    np.testing.assert_allclose(color.contrast(x, 0.3).mean(), x.mean(), atol=1e-6)

  def test_batch_has_means_of_its_own(self):
    x = photo(2, 4, 4, 3)
    together = color.contrast(x, 0.5)
    np.testing.assert_allclose(together[1], color.contrast(x[1], 0.5), atol=1e-6)

  @parameterized.product(
    pair=(
      (color.brightness, ImageEnhance.Brightness),
      (color.contrast, ImageEnhance.Contrast),
      (color.saturation, ImageEnhance.Color),
    ),
    factor=(0.0, 0.3, 0.9, 1.7),
  )
  def test_as_pil(self, pair, factor):
    ours, theirs = pair
    x = photograph()
    out = ours(to_float(jnp.asarray(x)), factor) * 255
    expected = np.array(theirs(Image.fromarray(x)).enhance(factor))
    # PIL rounds the luma (half a level; of the mean, twice) times |1 - factor|, and
    # cuts the decimals of the result off (a level).
    most = abs(1 - factor) * (1.0 if ours is color.contrast else 0.5) + 1
    self.assertLessEqual(np.abs(np.array(out) - expected).max(), most + 1e-3)


class HueTest(parameterized.TestCase):
  def test_by_hand(self):
    red = pixel(1.0, 0.0, 0.0)
    np.testing.assert_allclose(color.hue(red, 1 / 3).ravel(), [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(color.hue(red, -1 / 3).ravel(), [0, 0, 1], atol=1e-6)
    np.testing.assert_allclose(color.hue(red, 0.5).ravel(), [0, 1, 1], atol=1e-6)
    np.testing.assert_allclose(color.hue(red, 1 / 12).ravel(), [1, 0.5, 0], atol=1e-6)

  def test_grey_and_one_channel_stay(self):
    grey = jnp.full((3, 3, 3), 0.4)
    chex.assert_trees_all_equal(color.hue(grey, 0.3), grey)
    chex.assert_trees_all_equal(color.hue(grey[..., :1], 0.3), grey[..., :1])

  @parameterized.parameters(-0.5, -0.13, 0.0, 0.2, 0.5)
  def test_as_colorsys(self, turns):
    x = photo(8, 9, 3)
    expected = np.zeros(x.shape)
    for place in np.ndindex(8, 9):
      h, s, v = colorsys.rgb_to_hsv(*np.float64(x[place]))
      expected[place] = colorsys.hsv_to_rgb((h + turns) % 1, s, v)
    # The hue in sixths, below 8, is rounded some 6 times: 6 * 8 * 2**-24 = 3e-6, times
    # the chroma, below 1.
    np.testing.assert_allclose(color.hue(x, turns), expected, atol=4e-6)

  def test_there_and_back(self):
    x = photo(2, 5, 5, 3)
    np.testing.assert_allclose(color.hue(color.hue(x, 0.3), -0.3), x, atol=1e-5)


class LevelsTest(parameterized.TestCase):
  def test_by_hand(self):
    x = pixel(0.0, 0.4, 0.5, 0.9)
    np.testing.assert_allclose(color.invert(x).ravel(), [1, 0.6, 0.5, 0.1], atol=1e-6)
    np.testing.assert_allclose(
      color.solarize(x, 0.4).ravel(), [0, 0.6, 0.5, 0.1], atol=1e-6
    )
    levels = pixel(0, 63, 64, 130, 255) / 255
    out = color.posterize(levels, 2) * 255
    np.testing.assert_allclose(out.ravel(), [0, 0, 64, 128, 192], atol=1e-4)

  def test_autocontrast_by_hand(self):
    x = jnp.array([[0.2, 0.5], [0.3, 0.5], [0.4, 0.5]])[None]
    expected = [[0, 0.5], [0.5, 0.5], [1, 0.5]]
    np.testing.assert_allclose(color.autocontrast(x)[0], expected, atol=1e-6)

  @parameterized.parameters(0, 1, 4, 7, 8)
  def test_posterize_as_pil(self, bits):
    x = photograph()
    # PIL has no 0 bits.
    expected = np.array(ImageOps.posterize(Image.fromarray(x), bits)) if bits else 0 * x
    out = color.posterize(to_float(jnp.asarray(x)), jnp.int32(bits)) * 255
    np.testing.assert_allclose(out, expected, atol=1e-4)

  @parameterized.parameters(0, 100, 256)
  def test_solarize_as_pil(self, threshold):
    x = photograph()
    expected = np.array(ImageOps.solarize(Image.fromarray(x), threshold))
    # Between two levels, so that no rounding matters.
    out = color.solarize(to_float(jnp.asarray(x)), (threshold - 0.5) / 255) * 255
    np.testing.assert_allclose(out, expected, atol=1e-4)

  def test_autocontrast_as_pil(self):
    x = photograph() // 2 + 30
    expected = np.array(ImageOps.autocontrast(Image.fromarray(x)))
    out = color.autocontrast(to_float(jnp.asarray(x))) * 255
    # PIL cuts the decimals off.
    self.assertLessEqual(np.abs(np.array(out) - expected).max(), 1 + 1e-3)

  @parameterized.parameters('photograph', 'constant', 'two', 'dark')
  def test_equalize_as_pil(self, kind):
    x = {
      'photograph': photograph(),
      'constant': np.full((5, 6, 3), 77, np.uint8),
      'two': np.uint8(np.arange(36).reshape(3, 4, 3) > 20) * 200,
      'dark': photograph() // 9,
    }[kind]
    expected = np.array(ImageOps.equalize(Image.fromarray(x)))
    out = color.equalize(to_float(jnp.asarray(x))) * 255
    np.testing.assert_array_equal(np.round(out), expected)


class DtypeTest(parameterized.TestCase):
  CASES = (
    ('brightness', 0.5),
    ('contrast', 0.5),
    ('saturation', 0.5),
    ('hue', 0.1),
    ('grayscale',),
    ('invert',),
    ('solarize', 0.5),
    ('posterize', 4),
    ('autocontrast',),
    ('equalize',),
  )

  def all_of(self, x):
    return {name: getattr(color, name)(x, *args) for name, *args in self.CASES}

  def test_dtype(self):
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
      x = jax.ShapeDtypeStruct((2, 4, 5, 3), dtype)
      for name, out in jax.eval_shape(self.all_of, x).items():
        self.assertEqual((out.shape, out.dtype), (x.shape, dtype), name)

  def test_leading_axes(self):
    x, program = photo(2, 3, 4, 5, 3), jax.jit(self.all_of)
    together, alone = program(x), program(x[1, 2])
    # Some ten roundings of values below 8 (the hue).
    for name, out in together.items():
      np.testing.assert_allclose(
        out[1, 2], alone[name], atol=8 * 10 * 2.0**-24, err_msg=name
      )

  @parameterized.named_parameters(
    ('two_channels', lambda: color.hue(jnp.ones((2, 2, 2)), 0.1), '2 channels'),
    ('integers', lambda: color.invert(jnp.ones((2, 2, 3), jnp.uint8)), 'to_float'),
    ('bits', lambda: color.posterize(jnp.ones((2, 2, 3)), 9), 'bits=9'),
  )
  def test_refuses(self, call, message):
    with self.assertRaisesRegex(ConfigError, message):
      call()


if __name__ == '__main__':
  absltest.main()
