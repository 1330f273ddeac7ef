"""What hides part of an image: cutout, random erasing.

As in augment.py every function is (key, image HWC) -> image, keyed by example.
"""

import jax
import jax.numpy as jnp

from dlx.data.images import augment, geometry
from dlx.data.images.levels import check, check_float
from dlx.errors import ConfigError

FILLS = ('noise', 'constant')


def cutout(
  key: jax.Array, image_HWC: jax.Array, *, size: int = 16, value: float = 0.0
) -> jax.Array:
  """Fills a square of `size` with `value`; arXiv:1708.04552.

  Its centre is uniform over the pixels, so the border may cut it, as in the paper. Use
  it after `normalise`, where 0 is the mean colour. Any dtype.
  """
  check('size', size, lambda s: s >= 0, 'at least 0')
  height, width = image_HWC.shape[:2]
  y, x = jax.random.randint(
    key, (2,), 0, jnp.asarray([height, width], jnp.int32), dtype=jnp.int32
  )
  return geometry.erase(
    image_HWC, y - size // 2, x - size // 2, size, size, value=value
  )


def random_erasing(
  key: jax.Array,
  image_HWC: jax.Array,
  *,
  probability: float = 0.25,
  scale: tuple[float, float] = (0.02, 1 / 3),
  ratio: tuple[float, float] = (0.3, 10 / 3),
  fill: str = 'noise',
  value: float = 0.0,
) -> jax.Array:
  """With that probability fills a rectangle in the image with noise; arXiv:1708.04896.

  Its area is a part of the image uniform in `scale`, its width / height log-uniform in
  `ratio`, its place uniform; where none of ten draws fits, nothing is erased. Use it
  after `normalise`, where the noise has the mean and deviation of the images.

  Args:
    key: of this example.
    image_HWC: float, of any range.
    probability: that anything is erased. The defaults are those of DeiT and ConvNeXt;
      the paper has 0.5 and areas of up to 0.4.
    scale: least and largest part of the image, in (0, 1].
    ratio: least and largest width / height.
    fill: 'noise', of a standard normal, each pixel and channel its own; or 'constant'.
    value: for 'constant'.

  Raises:
    ConfigError: a number out of range, or another fill.
  """
  check_float(image_HWC)
  check('probability', probability, lambda p: 0 <= p <= 1, 'in [0, 1]')
  if fill not in FILLS:
    raise ConfigError(f'fill={fill} is not allowed: must be one of {", ".join(FILLS)}.')
  chance_key, box_key, noise_key = jax.random.split(key, 3)
  height, width = image_HWC.shape[:2]
  found, rows, columns, place_key = augment.fitting_box(
    box_key, height, width, scale, ratio, attempts=10
  )
  room = jnp.stack([height - rows, width - columns])
  top, left = jax.random.randint(
    place_key, (2,), 0, jnp.maximum(room, 0) + 1, dtype=jnp.int32
  )
  chosen = jax.random.uniform(chance_key, (), jnp.float32) < probability
  rows = jnp.where(found & chosen, rows, 0)
  shown = value
  if fill == 'noise':
    shown = jax.random.normal(noise_key, image_HWC.shape, jnp.float32)
  return geometry.erase(image_HWC, top, left, rows, columns, value=shown)
