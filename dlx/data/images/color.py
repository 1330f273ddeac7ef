"""Colour of images in [0, 1], [..., H, W, C]: as PIL, without its rounding to 8 bits.

A factor of 1 leaves an image as it is. Results are clipped to [0, 1], so normalise
afterwards. Levels (posterize, equalize) are those of 8 bits.
"""

import jax
import jax.numpy as jnp

from dlx.data.images.levels import check, check_float
from dlx.errors import ConfigError
from dlx.precision import work_dtype

LUMA = (0.299, 0.587, 0.114)  # Weights of R, G, B (ITU-R 601).


def blend(start: jax.Array, end: jax.Array, factor: jax.Array | float) -> jax.Array:
  """start + factor * (end - start), clipped to [0, 1]; factors may lie outside too.

  `start` has the shape of `end`, or 1 where it is constant.
  """
  dtype = work_dtype(end)
  factor = jnp.asarray(factor, dtype)
  out = (1 - factor) * start.astype(dtype) + factor * end.astype(dtype)
  return jnp.clip(out, 0, 1).astype(end.dtype)


def luma(image: jax.Array) -> jax.Array:
  """Brightness as seen, [..., H, W, 1], in the dtype of arithmetic.

  Three channels are red, green and blue; of another number the mean is taken.
  """
  check_float(image)
  x = image.astype(work_dtype(image))
  if x.shape[-1] != 3:
    return x.mean(-1, keepdims=True)
  r, g, b = LUMA
  return r * x[..., 0:1] + g * x[..., 1:2] + b * x[..., 2:3]


def grayscale(image: jax.Array) -> jax.Array:
  """Luma in every channel: the number of channels stays.

  Raises:
    ConfigError: neither 1 nor 3 channels.
  """
  _check_channels(image)
  if image.shape[-1] == 1:
    return image
  return jnp.broadcast_to(luma(image), image.shape).astype(image.dtype)


def brightness(image: jax.Array, factor: jax.Array | float) -> jax.Array:
  """0: black; 2: twice as bright."""
  check_float(image)
  return blend(jnp.zeros((1,) * image.ndim, image.dtype), image, factor)


def contrast(image: jax.Array, factor: jax.Array | float) -> jax.Array:
  """0: the mean luma of the image everywhere. (Keras keeps a mean a channel.)"""
  check_float(image)
  mean_image = image.astype(work_dtype(image)).mean((-3, -2), keepdims=True)
  return blend(luma(mean_image), image, factor)


def saturation(image: jax.Array, factor: jax.Array | float) -> jax.Array:
  """0: grey. An image of one channel stays as it is.

  Raises:
    ConfigError: neither 1 nor 3 channels.
  """
  _check_channels(image)
  return image if image.shape[-1] == 1 else blend(luma(image), image, factor)


def hue(image: jax.Array, turns: jax.Array | float) -> jax.Array:
  """Turns the hue (HSV) by a part of the circle: 1/3 makes red green, green blue.

  Value and saturation stay; nothing needs clipping. One channel stays as it is.

  Raises:
    ConfigError: neither 1 nor 3 channels.
  """
  _check_channels(image)
  if image.shape[-1] == 1:
    return image
  dtype = work_dtype(image)
  r, g, b = (image[..., i].astype(dtype) for i in range(3))
  return jnp.stack(turn_hue(r, g, b, turns), -1).astype(image.dtype)


def turn_hue(
  r: jax.Array, g: jax.Array, b: jax.Array, turns: jax.Array | float
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """`hue` on separate planes of red, green and blue."""
  high = jnp.maximum(jnp.maximum(r, g), b)
  chroma = high - jnp.minimum(jnp.minimum(r, g), b)
  unit = jnp.where(chroma > 0, chroma, 1)  # Grey has no hue: any will do.
  sixths = jnp.where(
    high == r,
    (g - b) / unit,
    jnp.where(high == g, 2 + (b - r) / unit, 4 + (r - g) / unit),
  )
  sixths = sixths + 6 * jnp.asarray(turns, r.dtype)

  def plane(place):  # 5, 3, 1 for red, green, blue.
    k = place + sixths
    # Not `k % 6`: on the CPU that calls fmod, six times the time of all the rest.
    k = k - 6 * jnp.floor(k / 6)
    return high - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)

  return plane(5), plane(3), plane(1)


def invert(image: jax.Array) -> jax.Array:
  """1 - image."""
  check_float(image)
  return 1 - image


def solarize(image: jax.Array, threshold: jax.Array | float) -> jax.Array:
  """Inverts what is at least as bright as `threshold`."""
  check_float(image)
  return jnp.where(image < jnp.asarray(threshold, image.dtype), image, 1 - image)


def posterize(image: jax.Array, bits: jax.Array | int) -> jax.Array:
  """Keeps the upper `bits` of 8, 0 to 8."""
  check_float(image)
  check('bits', bits, lambda b: 0 <= b <= 8, 'in [0, 8]')
  lost = 8 - jnp.asarray(bits, jnp.int32)
  levels = (_levels(image) >> lost) << lost
  return (levels.astype(work_dtype(image)) / 255).astype(image.dtype)


def autocontrast(image: jax.Array) -> jax.Array:
  """Stretches every channel to [0, 1]; a channel of one value stays."""
  check_float(image)
  x = image.astype(work_dtype(image))
  low, high = x.min((-3, -2), keepdims=True), x.max((-3, -2), keepdims=True)
  span = high - low
  return jnp.where(span > 0, (x - low) / jnp.where(span > 0, span, 1), x).astype(
    image.dtype
  )


def equalize(image: jax.Array) -> jax.Array:
  """Equalises the histogram of every channel, in 256 levels, exactly as PIL does."""
  check_float(image)
  height, width, channels = image.shape[-3:]
  levels_XNC = _levels(image).reshape(-1, height * width, channels)
  one = jax.vmap(jax.vmap(_equalize, in_axes=-1, out_axes=-1))
  out = one(levels_XNC).reshape(image.shape)
  return (out.astype(work_dtype(image)) / 255).astype(image.dtype)


def _equalize(levels_N):
  count_K = jnp.zeros(256, jnp.int32).at[levels_N].add(1)
  last = count_K[levels_N.max()]
  step = (levels_N.size - last) // 255
  before_K = jnp.cumsum(count_K, dtype=jnp.int32) - count_K
  table_K = jnp.minimum((before_K + step // 2) // jnp.maximum(step, 1), 255)
  return jnp.where(step > 0, jnp.take(table_K, levels_N, mode='clip'), levels_N)


def _levels(image):
  x = jnp.floor(image.astype(work_dtype(image)) * 255 + 0.5)
  return jnp.clip(x, 0, 255).astype(jnp.int32)


def _check_channels(image):
  check_float(image)
  if image.shape[-1] not in (1, 3):
    raise ConfigError(
      f'image of {image.shape[-1]} channels is not allowed: must be 1 or 3 (red, '
      'green, blue); take those channels out of the image first.'
    )
