"""Resizing as PIL does it: two passes of a filter that widens with the reduction.

One pass is a product with a matrix [out, in]: fast on every device, and the box that is
resized may be traced, so that random resized crops have static shapes.
"""

import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.images.geometry import center_crop
from dlx.data.images.levels import (
  IMAGENET_MEAN,
  IMAGENET_STD,
  check,
  check_float,
  normalise,
  to_float,
)
from dlx.precision import EXACT, work_dtype

METHODS = ('bilinear', 'bicubic', 'nearest')


def resize(
  image: jax.Array,
  height: int,
  width: int,
  *,
  method: str = 'bilinear',
  antialias: bool = True,
  clip: tuple[float, float] | None = None,
) -> jax.Array:
  """The whole image at another size.

  With `antialias`, PIL's filters: triangle, and cubic with a = -0.5, stretched by the
  reduction, over the pixels there are (weights sum to 1). Without, the filter is never
  stretched. 'nearest' takes the pixel under the centre of the new one.

  Args:
    image: float [..., H, W, C]; of any dtype for 'nearest'.
    height: of the result.
    width: of the result.
    method: 'bilinear', 'bicubic' or 'nearest'.
    antialias: False where a reduction should sample, not average.
    clip: bounds after either pass, for 'bicubic', which overshoots: PIL has them on
      8-bit images. The passes go in the order of Pillow 13, but for traced boxes.
      None: none.

  Raises:
    ConfigError: unknown method, size below 1, integers for another method than nearest.
  """
  return crop_and_resize(
    image,
    0,
    0,
    image.shape[-3],
    image.shape[-2],
    height,
    width,
    method=method,
    antialias=antialias,
    clip=clip,
  )


def crop_and_resize(
  image: jax.Array,
  top: jax.Array | int,
  left: jax.Array | int,
  box_height: jax.Array | int,
  box_width: jax.Array | int,
  height: int,
  width: int,
  *,
  method: str = 'bilinear',
  antialias: bool = True,
  clip: tuple[float, float] | None = None,
) -> jax.Array:
  """`resize(crop(image, box), height, width)` with a box that may be traced.

  Pixels outside the box have no part in the result. The box lies inside the image and
  has at least one pixel; whole pixels give what cropping first would.
  """
  check('method', method, lambda m: m in METHODS, 'one of ' + ', '.join(METHODS))
  for name, size in (('height', height), ('width', width)):
    check(name, size, lambda s: s >= 1, 'at least 1')
  rows, columns = image.shape[-3:-1]
  if method == 'nearest':
    y = _nearest(rows, top, box_height, height)
    x = _nearest(columns, left, box_width, width)
    return jnp.take(jnp.take(image, y, axis=-3, mode='clip'), x, axis=-2, mode='clip')
  check_float(image)
  dtype = work_dtype(image)
  options = dict(method=method, antialias=antialias, dtype=dtype)
  across = _weights(columns, left, box_width, width, **options)
  down = _weights(rows, top, box_height, height, **options)
  bound = (lambda x: x) if clip is None else (lambda x: jnp.clip(x, *clip))
  # EXACT: accelerators would multiply in bfloat16 or TF32, 1/255 of error and more.
  passes = [('...hwc,vw->...hvc', across), ('...hwc,gh->...gwc', down)]
  sizes = box_height, box_width, height, width
  # Without bounds in between the order changes the rounding alone.
  if clip is not None and method == 'bicubic' and _down_first(*sizes):
    passes.reverse()
  out = image.astype(dtype)
  for product, weights in passes:
    out = bound(jnp.einsum(product, out, weights, precision=EXACT))
  return out.astype(image.dtype)


def _down_first(box_height, box_width, height: int, width: int) -> bool:
  """Whether Pillow 13 resizes columns of pixels first, then rows.

  So it does where the height falls by more than twice what the width falls by: of 1454
  random pairs of sizes all agree (Pillow 12: never). Not of traced boxes: both orders
  would have to be computed.
  """
  if not (isinstance(box_height, int) and isinstance(box_width, int)):
    return False
  fall = box_height - height
  return fall > 0 and fall > 2 * (box_width - width)


def resize_short_side(
  image: jax.Array,
  size: int,
  *,
  method: str = 'bilinear',
  clip: tuple[float, float] | None = None,
) -> jax.Array:
  """Resizes so that the shorter side has `size` pixels (the longer: rounded down)."""
  height, width = image.shape[-3:-1]
  short = min(height, width)
  return resize(
    image, size * height // short, size * width // short, method=method, clip=clip
  )


def imagenet_eval(
  image: jax.Array, *, short_side: int = 256, size: int = 224, method: str = 'bilinear'
) -> jax.Array:
  """Short side to 256, middle 224 x 224, ImageNet's mean and std: one image, float32.

  The shape of the image is static: images of many sizes compile many programs, so bring
  them to one size on the host where there are more than a few.
  """
  image = resize_short_side(to_float(image), short_side, method=method, clip=(0.0, 1.0))
  return normalise(center_crop(image, size, size), IMAGENET_MEAN, IMAGENET_STD)


def _triangle(x, xp):
  return xp.maximum(0.0, 1.0 - xp.abs(x))


def _cubic(x, xp):
  """Keys' cubic convolution with a = -0.5."""
  x = xp.abs(x)
  near = (1.5 * x - 2.5) * x * x + 1.0
  far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
  return xp.where(x < 1.0, near, xp.where(x < 2.0, far, 0.0))


def _weights(n_in, start, size, n_out, *, method, antialias, dtype):
  """[out, in]: the part of each input pixel in each output pixel; rows sum to 1."""
  # Static boxes are worked out in float64: float32 loses 1e-4 of a pixel at 1000.
  fixed = isinstance(start, (int, float)) and isinstance(size, (int, float))
  xp, real = (np, np.float64) if fixed else (jnp, dtype)
  start, size = xp.asarray(start, real), xp.asarray(size, real)
  pixel = xp.arange(n_in, dtype=real)[None, :]
  scale = size / n_out
  centre = (xp.arange(n_out, dtype=real) + 0.5)[:, None] * scale + start
  stretch = xp.maximum(scale, 1.0) if antialias else 1.0
  kernel = {'bilinear': _triangle, 'bicubic': _cubic}[method]
  weights = kernel((pixel + 0.5 - centre) / stretch, xp)
  weights = xp.where((pixel >= start) & (pixel < start + size), weights, 0.0)
  return jnp.asarray(weights / weights.sum(1, keepdims=True), dtype)


def _nearest(n_in, start, size, n_out):
  """int32 [out]: the input pixel under the centre of each output pixel."""
  if isinstance(size, int):  # Whole numbers: no centre is rounded to the wrong side.
    index = (2 * np.arange(n_out) + 1) * size // (2 * n_out)
    index = jnp.asarray(index, jnp.int32)
  else:
    centre = (jnp.arange(n_out, dtype=jnp.float32) + 0.5) * (size / n_out)
    index = jnp.floor(centre).astype(jnp.int32)
  index = index + jnp.asarray(start, jnp.int32)
  return jnp.clip(index, 0, n_in - 1)


def to_shape(image: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
  """Images [..., H, W, C] as [..., *shape]: resized; grey in colours, or colours grey.

  A set of other images as a source of the same net; of equal shapes it is the identity.
  Grey is the mean of the colours, each channel alike.
  """
  height, width, channels = shape
  if image.shape[-3:-1] != (height, width):
    image = resize(image, height, width)
  if image.shape[-1] != channels:
    grey = image.mean(-1, keepdims=True)
    image = jnp.broadcast_to(grey, (*image.shape[:-1], channels))
  return image
