"""Blur and sharpness by hand, then against scipy, torch and PIL."""

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageEnhance
import pytest
import scipy.ndimage

from dlx.data.images import filters
from dlx.data.images.levels import to_float
from dlx.errors import ConfigError

# Two passes over 2 * 9 + 1 weights that sum to 1, values below 1, each product and sum
# rounded: 2 * 20 * 2**-24.
FLOAT_ATOL = 2.5e-6


def photo(*shape):
  return jax.random.uniform(jax.random.key(0), shape)


class BlurTest(parameterized.TestCase):
  def test_delta_becomes_the_gaussian(self):
    x = jnp.zeros((9, 9, 1)).at[4, 4, 0].set(1)
    out = filters.gaussian_blur(x, 1.0, radius=2)[..., 0]
    weights = np.exp([-2.0, -0.5, 0.0, -0.5, -2.0])
    weights /= weights.sum()
    expected = np.zeros((9, 9))
    expected[2:7, 2:7] = np.outer(weights, weights)
    np.testing.assert_allclose(out, expected, atol=FLOAT_ATOL)

  def test_radius_0_is_the_image(self):
    x = photo(2, 5, 4, 3)
    chex.assert_trees_all_equal(filters.gaussian_blur(x, 2.0, radius=0), x)

  def test_tiny_sigma_is_the_image(self):
    x = photo(5, 4, 3)
    chex.assert_trees_all_equal(filters.gaussian_blur(x, 0.05, radius=3), x)

  @parameterized.parameters(
    ('reflect', 'reflect'), ('nearest', 'nearest'), ('constant', 'constant')
  )
  def test_as_scipy(self, fill, mode):
    x = photo(12, 15, 2)
    out = filters.gaussian_blur(x, 1.7, radius=9, fill=fill)
    expected = scipy.ndimage.gaussian_filter(
      np.float64(x), 1.7, axes=(0, 1), mode=mode, radius=9
    )
    np.testing.assert_allclose(out, expected, atol=FLOAT_ATOL)

  def test_as_torch_depthwise(self):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    x = photo(2, 12, 15, 3)
    weights = torch.exp(-0.5 * (torch.arange(-4.0, 5) / 1.3) ** 2)
    weights /= weights.sum()
    kernel = (weights[:, None] * weights[None, :]).expand(3, 1, 9, 9)
    x_BCHW = torch.from_numpy(np.array(x.transpose(0, 3, 1, 2)))
    expected = torch.nn.functional.conv2d(x_BCHW, kernel, groups=3)  # The inside.
    out = filters.gaussian_blur(x, 1.3, radius=4)[:, 4:-4, 4:-4]
    # torch sums 81 products in one go: 82 * 2**-24.
    atol = FLOAT_ATOL + 5e-6
    np.testing.assert_allclose(out, expected.permute(0, 2, 3, 1).numpy(), atol=atol)

  def test_sigma_by_example(self):
    x, sigma = photo(3, 8, 8, 1), jnp.array([0.5, 1.0, 2.0])
    fn = jax.jit(jax.vmap(lambda x, s: filters.gaussian_blur(x, s, radius=3)))
    alone = filters.gaussian_blur(x[2], 2.0, radius=3)
    np.testing.assert_allclose(fn(x, sigma)[2], alone, atol=FLOAT_ATOL)

  def test_refuses(self):
    with self.assertRaisesRegex(ConfigError, r'sigma=0\.0'):
      filters.gaussian_blur(photo(4, 4, 1), 0.0, radius=1)
    with self.assertRaisesRegex(ConfigError, 'radius=-1'):
      filters.gaussian_blur(photo(4, 4, 1), 1.0, radius=-1)


class SharpnessTest(parameterized.TestCase):
  def test_smooth_by_hand(self):
    x = jnp.zeros((4, 4, 1)).at[1, 1, 0].set(13).at[0, 3, 0].set(26)
    expected = np.zeros((4, 4))
    expected[1:3, 1:3] = [[5, 1 + 2], [1, 1]]
    expected[0, 3] = 26  # The edge stays.
    np.testing.assert_allclose(filters.smooth(x)[..., 0], expected, atol=1e-5)

  def test_factor_1_is_the_image(self):
    x = photo(6, 5, 3)
    chex.assert_trees_all_equal(filters.sharpness(x, 1.0), x)

  def test_image_without_an_inside(self):
    x = photo(2, 5, 3)
    chex.assert_trees_all_equal(filters.smooth(x), x)

  @parameterized.parameters(0.0, 0.4, 1.9)
  def test_as_pil(self, factor):
    x = np.array(jax.random.randint(jax.random.key(1), (9, 8, 3), 0, 256), np.uint8)
    expected = ImageEnhance.Sharpness(Image.fromarray(x)).enhance(factor)
    out = filters.sharpness(to_float(jnp.asarray(x)), factor) * 255
    # PIL rounds the smoothed image (half a level, times |1 - factor|), then cuts the
    # decimals of the result off (a level).
    most = 0.5 * abs(1 - factor) + 1
    self.assertLessEqual(np.abs(np.array(out) - np.array(expected)).max(), most + 1e-3)


if __name__ == '__main__':
  absltest.main()
