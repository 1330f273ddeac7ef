"""PSNR and SSIM: by hand, then scikit-image's definition, written with SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from dlx import metrics
from dlx.errors import ConfigError


def pair(seed=0, shape=(3, 16, 20, 2), noise=0.2):
  rng = np.random.default_rng(seed)
  target = scipy.ndimage.gaussian_filter(rng.uniform(size=shape), (0, 2, 2, 0))
  target = (target - target.min()) / np.ptp(target)
  image = np.clip(target + noise * rng.normal(size=shape), 0, 1)
  return image.astype(np.float32), target.astype(np.float32)


def skimage_ssim(x, y, data_range):
  """Of one channel: `structural_similarity(gaussian_weights=True, sigma=1.5,
  use_sample_covariance=False)` of scikit-image 0.25, whose window has radius 5."""
  blur = lambda z: scipy.ndimage.gaussian_filter(z, 1.5, truncate=3.5)
  x, y = np.float64(x), np.float64(y)
  ux, uy = blur(x), blur(y)
  vx, vy, vxy = blur(x * x) - ux * ux, blur(y * y) - uy * uy, blur(x * y) - ux * uy
  c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
  s = (2 * ux * uy + c1) * (2 * vxy + c2)
  s /= (ux**2 + uy**2 + c1) * (vx + vy + c2)
  return s[5:-5, 5:-5].mean()


@pytest.mark.parametrize('scale', [1.0, 255.0])
@pytest.mark.parametrize('noise', [0.0, 0.02, 0.5])
def test_ssim_is_that_of_scikit_image(scale, noise):
  image, target = pair(noise=noise)
  image, target = scale * image, scale * target
  wanted = [
    np.mean([skimage_ssim(a[..., c], b[..., c], scale) for c in range(2)])
    for a, b in zip(image, target)
  ]
  got = jax.jit(metrics.ssim)(image, target, scale)
  # Variances below 1e-3 of the range are compared with c2 = 9e-4 in float32.
  np.testing.assert_allclose(got, wanted, atol=2e-5)


def test_ssim_of_bright_images_keeps_its_digits():
  """Means of 100 and a range of 1: squares are 1e4 times what is compared."""
  image, target = pair(noise=0.05)
  wanted = metrics.ssim(image, target)
  c1 = 1e-4  # Means are so near each other that their term is 1.
  got = metrics.ssim(image + np.float32(100), target + np.float32(100))
  assert c1 < 1 and (np.asarray(got) > np.asarray(wanted) - 1e-3).all()
  wanted = [
    np.mean([skimage_ssim(np.float64(a[..., c]) + 100, np.float64(b[..., c]) + 100, 1.0)
             for c in range(2)])
    for a, b in zip(image, target)
  ]  # fmt: skip
  # Pixels near 100 in float32 are themselves rounded to 4e-6.
  np.testing.assert_allclose(got, wanted, atol=1e-3)


def test_ssim_by_hand():
  # Constant images have structure 1: (2 a b + c1) / (a^2 + b^2 + c1).
  a, b = jnp.full((1, 11, 11, 1), 0.2), jnp.full((1, 11, 11, 1), 0.6)
  np.testing.assert_allclose(
    metrics.ssim(a, b), [(0.24 + 1e-4) / (0.4 + 1e-4)], rtol=1e-5
  )
  np.testing.assert_allclose(metrics.ssim(a, a), [1.0], rtol=1e-6)
  image, target = pair()
  np.testing.assert_allclose(metrics.ssim(target, target), 1, rtol=1e-5)
  # A negative has the opposite structure.
  assert (np.asarray(metrics.ssim(1 - target, target)) < 0).all()
  assert (np.asarray(metrics.ssim(image, target)) < 0.9).all()


def test_psnr_by_hand():
  a, b = (
    jnp.zeros((2, 4, 4, 1)),
    jnp.stack([jnp.full((4, 4, 1), x) for x in (0.1, 0.0)]),
  )
  np.testing.assert_allclose(metrics.psnr(a, b), [20.0, np.inf], rtol=1e-6)
  np.testing.assert_allclose(metrics.psnr(255 * a, 255 * b, 255.0)[0], 20, rtol=1e-6)
  image, target = pair()
  wanted = [
    -10 * np.log10(np.square(np.float64(x) - y).mean()) for x, y in zip(image, target)
  ]
  np.testing.assert_allclose(metrics.psnr(image, target), wanted, rtol=1e-5)
  whole = np.uint8([[[[0]], [[255]]]])  # Whole numbers do not wrap around.
  np.testing.assert_allclose(metrics.psnr(whole, whole[:, ::-1], 255.0), [0], atol=1e-5)


def test_nan_stays_and_rows_are_alone():
  image, target = pair()
  image[1, 0, 0, 0] = np.nan
  for metric in (metrics.psnr, metrics.ssim):
    got = metric(image, target)
    np.testing.assert_array_equal(np.isnan(got), [False, True, False])
    np.testing.assert_allclose(metric(image[2:], target[2:])[0], got[2], rtol=1e-6)


def test_an_empty_batch_gives_no_rows():
  none = jnp.zeros((0, 16, 16, 1))
  assert metrics.psnr(none, none).shape == (0,)
  assert metrics.ssim(none, none).shape == (0,)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'window': 17}, 'window=17 is not allowed: must be odd and at most 16'),
    ({'window': 10}, 'window=10 is not allowed: must be odd and at most 16'),
    ({'data_range': 0.0}, 'data_range=0.0 is not allowed: must be above 0'),
    ({'sigma': 0.0}, 'sigma=0.0 is not allowed: must be above 0'),
  ],
)
def test_refuses(options, message):
  with pytest.raises(ConfigError, match=message):
    metrics.ssim(*pair(), **options)
