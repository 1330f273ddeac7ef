"""Blur and sharpness: small filters, channel by channel."""

import jax
import jax.numpy as jnp

from dlx.data.images.color import blend
from dlx.data.images.geometry import pad
from dlx.data.images.levels import check, check_float
from dlx.precision import work_dtype


def gaussian_blur(
  image: jax.Array, sigma: jax.Array | float, *, radius: int, fill: str = 'reflect'
) -> jax.Array:
  """Gaussian of standard deviation `sigma` pixels, cut off at `radius` and normalised.

  Two passes of 2 * radius + 1 shifted sums: they fuse into one loop each, and unlike a
  convolution stay fast where every example has its own sigma.

  Args:
    image: float [..., H, W, C] of any range.
    sigma: above 0; may be traced.
    radius: static; three or four times the largest sigma loses nothing one can see.
    fill: what lies outside, see geometry.py; 'constant' is 0.
  """
  check_float(image)
  check('sigma', sigma, lambda s: s > 0, 'above 0')
  check('radius', radius, lambda r: r >= 0, 'at least 0')
  dtype = work_dtype(image)
  offsets = jnp.arange(-radius, radius + 1, dtype=dtype)
  weights = jax.nn.softmax(-0.5 * (offsets / jnp.asarray(sigma, dtype)) ** 2)
  out = image.astype(dtype)
  for axis, rows, columns in ((image.ndim - 3, radius, 0), (image.ndim - 2, 0, radius)):
    wide, size = pad(out, rows, columns, fill=fill), out.shape[axis]
    out = jnp.zeros_like(out)
    for i in range(2 * radius + 1):
      out += weights[i] * jax.lax.slice_in_dim(wide, i, i + size, axis=axis)
  return out.astype(image.dtype)


def smooth(image: jax.Array) -> jax.Array:
  """PIL's SMOOTH: the 3 x 3 mean with the middle counted 5 times; edges stay."""
  check_float(image)
  height, width = image.shape[-3:-1]
  if height < 3 or width < 3:
    return image
  x = image.astype(work_dtype(image))
  middle = x[..., 1:-1, 1:-1, :]
  total = sum(
    x[..., i : i + height - 2, j : j + width - 2, :] for i in range(3) for j in range(3)
  )
  return x.at[..., 1:-1, 1:-1, :].set((total + 4 * middle) / 13).astype(image.dtype)


def sharpness(image: jax.Array, factor: jax.Array | float) -> jax.Array:
  """0: smoothed; 1: as it is; above: sharper. Clipped to [0, 1]."""
  return blend(smooth(image), image, factor)
