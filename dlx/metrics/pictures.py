"""How near a picture is to another: PSNR and SSIM, one value an example."""

from typing import Mapping

import chex
import jax.numpy as jnp
import numpy as np

from dlx.config import check_bounds
from dlx.errors import ConfigError
from dlx.precision import EXACT
from dlx.state import Array, Metric

PICTURES: Mapping[str, Metric] = {
  'psnr': Metric(
    'PSNR',
    'higher',
    'Mean over the images of the peak signal-to-noise ratio, the decibels by which the '
    'range of pixels exceeds the root mean squared error.',
    'dB',
    'ratio',
  ),
  'ssim': Metric(
    'SSIM',
    'higher',
    'Mean structural similarity, 1 where an image is the same and about 0 where it has '
    'nothing of the structure.',
    '',
    'similarity',
  ),
}


def psnr(image_BHWC: Array, target_BHWC: Array, data_range: float = 1.0) -> Array:
  """Peak signal-to-noise ratio in dB, [B]: `10 log10(range^2 / mean squared error)`.

  inf where the images are equal: a mean over such images is inf, too.

  Args:
    image_BHWC: any shape with a batch axis.
    target_BHWC: the same shape.
    data_range: largest minus least possible pixel, above 0: 1 of images in [0, 1].
  """
  check_bounds('data_range', data_range, 0, above=True)
  x, y = _wide(image_BHWC, target_BHWC)
  square_B = jnp.square(x - y).mean(tuple(range(1, x.ndim)))
  return 20 * jnp.log10(jnp.asarray(data_range, x.dtype)) - 10 * jnp.log10(square_B)


def ssim(
  image_BHWC: Array,
  target_BHWC: Array,
  data_range: float = 1.0,
  *,
  window: int = 11,
  sigma: float = 1.5,
) -> Array:
  """Structural similarity (Wang et al. 2004), mean over pixels and channels, [B].

  Moments are of a Gaussian window with the population's covariance, at places where the
  window lies inside the image: scikit-image's `structural_similarity` with
  gaussian_weights=True, use_sample_covariance=False. K1 = 0.01, K2 = 0.03. Two equal
  images have 1, constant ones too.

  Args:
    image_BHWC: H and W at least `window`.
    target_BHWC: the same shape.
    data_range: largest minus least possible pixel, above 0.
    window: side of the window in pixels, odd.
    sigma: of the Gaussian, in pixels.

  Raises:
    ConfigError: an image that is smaller than the window.
  """
  check_bounds('data_range', data_range, 0, above=True)
  check_bounds('sigma', sigma, 0, above=True)
  x, y = _wide(image_BHWC, target_BHWC)
  chex.assert_rank(x, 4)
  if min(x.shape[1:3]) < window or window % 2 == 0:
    raise ConfigError(
      f'window={window} is not allowed: must be odd and at most {min(x.shape[1:3])}, '
      'the least side of the images.'
    )
  down_IH, across_JW = (
    _windows(n, window, sigma).astype(x.dtype) for n in x.shape[1:3]
  )
  blur = lambda z: jnp.einsum(
    'ih,bhwc,jw->bijc', down_IH, z, across_JW, precision=EXACT, optimize='optimal'
  )
  # Around the mean of each, which changes no covariance: less of it is rounded off.
  middle_x, middle_y = (z.mean((1, 2, 3), keepdims=True) for z in (x, y))
  x, y = x - middle_x, y - middle_y
  mean_x, mean_y = blur(x), blur(y)
  var_x = blur(x * x) - mean_x * mean_x
  var_y = blur(y * y) - mean_y * mean_y
  covariance = blur(x * y) - mean_x * mean_y
  mean_x, mean_y = mean_x + middle_x, mean_y + middle_y
  c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
  light = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
  structure = (2 * covariance + c2) / (var_x + var_y + c2)
  return (light * structure).mean((1, 2, 3))


def _windows(size: int, window: int, sigma: float) -> np.ndarray:
  """[size - window + 1, size]: row i weighs the pixels from i on."""
  offset = np.arange(window) - window // 2
  weight = np.exp(-0.5 * (offset / sigma) ** 2)
  places = size - window + 1
  rows = np.zeros((places, size))
  for i in range(places):
    rows[i, i : i + window] = weight / weight.sum()
  return rows


def _wide(a: Array, b: Array) -> tuple[Array, Array]:
  chex.assert_equal_shape([a, b])
  dtype = jnp.promote_types(jnp.promote_types(a.dtype, b.dtype), jnp.float32)
  return a.astype(dtype), b.astype(dtype)
