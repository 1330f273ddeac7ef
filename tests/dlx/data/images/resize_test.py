"""Resizing by hand, then against PIL and torch."""

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import PIL
from PIL import Image
import pytest
from sklearn.datasets import load_sample_image

from dlx.data.images import geometry, resize
from dlx.data.images.levels import IMAGENET_MEAN, IMAGENET_STD, denormalise, to_float
from dlx.errors import ConfigError

FILTERS = {
  'bilinear': Image.Resampling.BILINEAR,
  'bicubic': Image.Resampling.BICUBIC,
  'nearest': Image.Resampling.NEAREST,
}
# Weighted sums of K <= 30 values below 1, absolute weights adding up to 1.6 at most
# (cubic: 1.27 in one pass, twice), each product and sum rounded: 2 * 32 * 1.6 * 2**-24.
FLOAT_ATOL = 6e-6


def photo(*shape, seed=0):
  return jax.random.uniform(jax.random.key(seed), shape)


def pil_float(x_HW, size, method, box=None):
  """One plane through PIL in float: (height, width) -> array."""
  image = Image.fromarray(np.array(x_HW, np.float32))
  return np.array(image.resize((size[1], size[0]), FILTERS[method], box=box))


class ResizeTest(parameterized.TestCase):
  @parameterized.product(method=resize.METHODS, size=((3, 4), (8, 6), (13, 20)))
  def test_constant_stays(self, method, size):
    out = resize.resize(jnp.full((8, 6, 2), 0.7), *size, method=method)
    self.assertEqual(out.shape, (*size, 2))
    np.testing.assert_allclose(out, np.full((*size, 2), 0.7), atol=FLOAT_ATOL)

  @parameterized.parameters(*resize.METHODS)
  def test_same_size_is_the_image(self, method):
    x = photo(2, 7, 5, 3)
    chex.assert_trees_all_equal(resize.resize(x, 7, 5, method=method), x)

  def test_halving_by_hand(self):
    # Triangle of half-width 2 round 1 and 3, edges at 0..4: pixels 0.5, 1.5, 2.5, 3.5
    # have weights 3, 3, 1, 0 and 0, 1, 3, 3, over 7.
    row = jnp.array([0.0, 7.0, 14.0, 28.0]).reshape(1, 4, 1)
    out = resize.resize(row, 1, 2)
    np.testing.assert_allclose(out.ravel(), [5.0, 19.0], rtol=2.0**-21)
    # Without antialiasing the two pixels round 1 and 3 count alike.
    out = resize.resize(row, 1, 2, antialias=False)
    np.testing.assert_allclose(out.ravel(), [3.5, 21.0], rtol=2.0**-21)

  def test_doubling_by_hand(self):
    out = resize.resize(jnp.array([0.0, 4.0]).reshape(1, 2, 1), 1, 4)
    self.assertEqual(out.ravel().tolist(), [0.0, 1.0, 3.0, 4.0])

  @parameterized.product(
    method=('bilinear', 'bicubic'), size=((9, 31), (23, 17), (50, 61), (5, 4))
  )
  def test_as_pil_in_float(self, method, size):
    x = photo(23, 31, 2)
    out = resize.resize(x, *size, method=method)
    for channel in range(2):
      expected = pil_float(x[..., channel], size, method)
      np.testing.assert_allclose(out[..., channel], expected, atol=FLOAT_ATOL)

  @parameterized.parameters((9, 31), (23, 17), (50, 61), (5, 4))
  def test_nearest_as_pil(self, height, width):
    x = jax.random.randint(jax.random.key(0), (23, 31, 3), 0, 256).astype(jnp.uint8)
    expected = Image.fromarray(np.array(x)).resize((width, height), FILTERS['nearest'])
    out = resize.resize(x, height, width, method='nearest')
    chex.assert_trees_all_equal(np.array(out), np.array(expected))

  @parameterized.parameters('bilinear', 'bicubic')
  def test_photograph_as_pil_in_8_bits(self, method):
    x = load_sample_image('china.jpg')[:300:2, :400:2]
    for height, width in ((64, 90), (180, 170)):
      expected = np.array(Image.fromarray(x).resize((width, height), FILTERS[method]))
      out = resize.resize(
        to_float(jnp.asarray(x)), height, width, method=method, clip=(0.0, 1.0)
      )
      # PIL rounds after either pass. 1/2 level, spread by weights whose absolute values
      # add up to 1 (cubic: at most 1.27), and 1/2: 1 level (cubic: 1.14).
      most = {'bilinear': 1.0, 'bicubic': 1.14}[method]
      error = np.abs(np.array(out) * 255 - expected)
      self.assertLessEqual(error.max(), most + 255 * FLOAT_ATOL)
      # And no bias: to the same level nearly everywhere, 0.3 levels on average.
      self.assertLess(error.mean(), 0.4)

  @parameterized.parameters((10, 60), (60, 10), (19, 31), (13, 25), (4, 25), (50, 60))
  @pytest.mark.skipif(
    int(PIL.__version__.split('.')[0]) < 13, reason='Pillow 12: always across first'
  )
  def test_bicubic_passes_go_in_the_order_of_pil(self, height, width):
    """Black and white, where the bounds between the passes cut much: 20 levels."""
    x = np.random.default_rng(0).integers(0, 2, (20, 30), np.uint8) * 255
    image = Image.fromarray(x).resize((width, height), FILTERS['bicubic'])
    expected = np.array(image, np.float32)
    out = resize.resize(
      jnp.asarray(x / 255, jnp.float32)[..., None],
      height,
      width,
      method='bicubic',
      clip=(0.0, 1.0),
    )
    # See above; here PIL's fixed-point weights too.
    self.assertLessEqual(np.abs(out[..., 0] * 255 - expected).max(), 1.5)

  @parameterized.product(antialias=(True, False), size=((9, 31), (40, 17)))
  def test_as_torch(self, antialias, size):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    x = photo(2, 23, 31, 3)
    x_BCHW = torch.from_numpy(np.array(x.transpose(0, 3, 1, 2)))
    # torch's plain cubic has another a (-0.75); its antialiased one has ours.
    for method in ('bilinear', 'bicubic') if antialias else ('bilinear',):
      expected = torch.nn.functional.interpolate(
        x_BCHW, size, mode=method, align_corners=False, antialias=antialias
      )
      expected = expected.permute(0, 2, 3, 1).numpy()
      out = resize.resize(x, *size, method=method, antialias=antialias)
      # torch works out centres up to 31 in float32: 31 * 2**-23 = 4e-6 of a pixel, each
      # of up to 9 weights moves by as much, in both passes.
      np.testing.assert_allclose(out, expected, atol=2 * 9 * 4e-6)

  @parameterized.product(method=resize.METHODS, traced=(True, False))
  def test_crop_and_resize_is_both(self, method, traced):
    x = photo(19, 23, 2)
    top, left, height, width = 3, 5, 11, 16
    box = (top, left, height, width)
    cropped = geometry.crop(x, top, left, height, width)
    expected = resize.resize(cropped, 7, 20, method=method)
    fn = lambda *b: resize.crop_and_resize(x, *b, 7, 20, method=method)
    out = jax.jit(fn)(*box) if traced else fn(*box)
    # Traced boxes have their centres, up to 23, in float32: 23 * 2**-23 = 3e-6 of a
    # pixel, in up to 7 weights of 2 passes, besides the rounding of the sums.
    atol = 2 * 7 * 3e-6 if method != 'nearest' else 0
    np.testing.assert_allclose(out, expected, atol=atol)

  def test_short_side(self):
    self.assertEqual(
      resize.resize_short_side(jnp.zeros((20, 31, 1)), 10).shape, (10, 15, 1)
    )
    self.assertEqual(
      resize.resize_short_side(jnp.zeros((31, 20, 1)), 10).shape, (15, 10, 1)
    )

  def test_imagenet_eval_as_pil(self):
    x = load_sample_image('china.jpg')
    image = Image.fromarray(x).resize((256 * 640 // 427, 256), FILTERS['bilinear'])
    left = round((image.width - 224) / 2)
    image = image.crop((left, 16, left + 224, 16 + 224))
    expected = np.array(image, np.float32) / 255
    out = resize.imagenet_eval(jnp.asarray(x))
    self.assertEqual((out.shape, out.dtype), ((224, 224, 3), jnp.float32))
    back = denormalise(out, IMAGENET_MEAN, IMAGENET_STD)
    # One level: see above. Normalising and back rounds thrice, values below 3.
    atol = 1 / 255 + FLOAT_ATOL + 3 * 3 * 2.0**-24
    np.testing.assert_allclose(back, expected, atol=atol)
    # Written out once, against a change of the constants.
    by_hand = (expected[0, 0] - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(out[0, 0], by_hand, atol=1 / 255 / 0.224 + 1e-4)

  def test_to_shape_of_another_set(self):
    x = photo(2, 6, 4, 3)
    self.assertIs(resize.to_shape(x, (6, 4, 3)), x)
    grey = resize.to_shape(x, (6, 4, 1))
    np.testing.assert_allclose(grey[..., 0], x.mean(-1), atol=FLOAT_ATOL)
    colours = resize.to_shape(grey, (3, 5, 3))
    expected = resize.resize(grey, 3, 5)
    self.assertEqual(colours.shape, (2, 3, 5, 3))
    for i in range(3):
      np.testing.assert_array_equal(colours[..., i], expected[..., 0])

  def test_dtype_stays(self):
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
      self.assertEqual(resize.resize(jnp.ones((4, 4, 1), dtype), 2, 3).dtype, dtype)

  @parameterized.named_parameters(
    ('method', lambda x: resize.resize(x, 2, 2, method='lanczos'), "'lanczos'"),
    ('size', lambda x: resize.resize(x, 0, 2), 'height=0'),
    ('integers', lambda x: resize.resize(x.astype(jnp.uint8), 2, 2), 'to_float'),
  )
  def test_refuses(self, call, message):
    with self.assertRaisesRegex(ConfigError, message):
      call(jnp.ones((4, 5, 1)))


if __name__ == '__main__':
  absltest.main()
