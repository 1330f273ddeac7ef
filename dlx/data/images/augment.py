"""Random augmentation, keyed per example: every function is (key, image HWC) -> image.

  augment = per_example(compose(
      random_flip, partial(random_crop, padding=4), partial(color_jitter, hue=0.1)))
  images_BHWC = augment(key, images_BHWC)

All shapes are static and all randomness comes from the key: what happens to row i of
the global batch depends on neither the batch size nor the devices. Images are float, of
any range for geometry and in [0, 1] for colour; each keeps its dtype. Draws are float32
and int32, also where 64-bit types are on.
"""

from typing import Any, Callable

import jax
import jax.numpy as jnp

from dlx.data.images import color, filters, geometry
from dlx.data.images.levels import check, check_float
from dlx.data.images.resize import crop_and_resize
from dlx.errors import ConfigError
from dlx.precision import work_dtype

_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)  # What a turn of the jitter does.
Augment = Callable[[jax.Array, Any], Any]


def per_example(fn: Augment) -> Callable[..., Any]:
  """Maps `fn` over a batch; row i has the key fold_in(key, i).

  Returns:
    (key, images_BHWC, rows_B=None) -> images. `rows_B`: int32, the rows of the global
    batch that these are, for a part of a batch (a strided micro-batch); None: 0 .. B-1.
    Images may be a tree with one leading axis, if `fn` takes a tree.
  """

  def apply(key, images, rows_B=None):
    if rows_B is None:
      rows_B = jnp.arange(jax.tree.leaves(images)[0].shape[0], dtype=jnp.int32)
    keys_B = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows_B)
    return jax.vmap(fn)(keys_B, images)

  return apply


def compose(*fns: Augment) -> Augment:
  """One after the other; function i has the key fold_in(key, i)."""

  def apply(key, image):
    for i, fn in enumerate(fns):
      image = fn(jax.random.fold_in(key, i), image)
    return image

  return apply


def keyless(fn: Callable[[Any], Any]) -> Augment:
  """A function of the image alone (normalise, resize), for `compose`."""
  return lambda key, image: fn(image)


def random_apply(fn: Augment, probability: float) -> Augment:
  """`fn` with that probability; else the image, which must have the same shape."""
  check('probability', probability, lambda p: 0 <= p <= 1, 'in [0, 1]')

  def apply(key, image):
    chance, key = jax.random.split(key)
    new = fn(key, image)
    keep = _uniform(chance, 0.0, 1.0) < probability
    return jax.tree.map(lambda a, b: jnp.where(keep, a, b), new, image)

  return apply


def random_flip(
  key: jax.Array,
  image_HWC: jax.Array,
  *,
  probability: float = 0.5,
  vertical: bool = False,
) -> jax.Array:
  """Left to right, or upside down where `vertical`; any dtype."""
  flip = geometry.flip_up_down if vertical else geometry.flip_left_right
  return random_apply(lambda _, image: flip(image), probability)(key, image_HWC)


def random_shift(
  key: jax.Array,
  image_HWC: jax.Array,
  *,
  fraction: float = 0.2,
  fill: str = 'nearest',
  value: float = 0.0,
) -> jax.Array:
  """By whole pixels, up to `fraction` of height and width either way; any dtype."""
  check('fraction', fraction, lambda f: 0 <= f <= 1, 'in [0, 1]')
  height, width = image_HWC.shape[-3:-1]
  most = jnp.asarray([height * fraction, width * fraction], jnp.float32)
  # 1e-4: 0.2 * 10 pixels are 2 whole ones, whichever way 0.2 is rounded.
  most = jnp.floor(most + 1e-4).astype(jnp.int32)
  down, right = jax.random.randint(key, (2,), -most, most + 1, dtype=jnp.int32)
  return geometry.shift(image_HWC, down, right, fill=fill, value=value)


def random_rotation(
  key: jax.Array,
  image_HWC: jax.Array,
  *,
  degrees: float = 20.0,
  interpolation: str = 'bilinear',
  fill: str = 'nearest',
  value: float = 0.0,
) -> jax.Array:
  """By an angle uniform in [-degrees, degrees]."""
  check('degrees', degrees, lambda d: d >= 0, 'at least 0')
  angle = _uniform(key, -degrees, degrees)
  return geometry.rotate(
    image_HWC, angle, interpolation=interpolation, fill=fill, value=value
  )


def random_zoom(
  key: jax.Array,
  image_HWC: jax.Array,
  *,
  amount: float = 0.2,
  interpolation: str = 'bilinear',
  fill: str = 'nearest',
  value: float = 0.0,
) -> jax.Array:
  """By a factor uniform in [1 - amount, 1 + amount], the same in both directions."""
  check('amount', amount, lambda a: 0 <= a < 1, 'in [0, 1)')
  factor = _uniform(key, 1 - amount, 1 + amount)
  return geometry.zoom(
    image_HWC, factor, interpolation=interpolation, fill=fill, value=value
  )


def random_affine(
  key: jax.Array,
  image_HWC: jax.Array,
  *,
  degrees: float = 20.0,
  fraction: float = 0.2,
  amount: float = 0.2,
  interpolation: str = 'bilinear',
  fill: str = 'nearest',
  value: float = 0.0,
) -> jax.Array:
  """Rotation, then zoom, then shift, as above, in one warp.

  Cheaper than the three, and interpolated once. The shift has parts of pixels.
  """
  check('degrees', degrees, lambda d: d >= 0, 'at least 0')
  check('fraction', fraction, lambda f: 0 <= f <= 1, 'in [0, 1]')
  check('amount', amount, lambda a: 0 <= a < 1, 'in [0, 1)')
  angle_key, zoom_key, shift_key = jax.random.split(key, 3)
  angle = _uniform(angle_key, -degrees, degrees)
  factor = _uniform(zoom_key, 1 - amount, 1 + amount)
  size = jnp.asarray(image_HWC.shape[:2], jnp.float32)
  move_2 = fraction * size * jax.random.uniform(shift_key, (2,), jnp.float32, -1.0, 1.0)
  matrix_22 = geometry.rotation_matrix(angle) / factor
  # The image moves by +move: output p shows the input at M @ (p - move).
  offset_2 = -(matrix_22 * move_2[None, :]).sum(1)
  return geometry.affine(
    image_HWC, matrix_22, offset_2, interpolation=interpolation, fill=fill, value=value
  )


def random_crop(
  key: jax.Array,
  image_HWC: jax.Array,
  *,
  padding: int = 4,
  size: tuple[int, int] | None = None,
  fill: str = 'constant',
  value: float = 0.0,
) -> jax.Array:
  """Pads on all sides, then cuts a box at a uniform place; any dtype.

  Args:
    key: of this example.
    image_HWC: the image.
    padding: pixels on every side; CIFAR's customary 4.
    size: (height, width) of the result; None: of the image.
    fill: what the padding is, see geometry.py.
    value: for 'constant'.

  Raises:
    ConfigError: a size larger than the padded image.
  """
  height, width = image_HWC.shape[:2] if size is None else size
  padded = geometry.pad(image_HWC, padding, padding, fill=fill, value=value)
  room = jnp.asarray([padded.shape[0] - height, padded.shape[1] - width], jnp.int32)
  top, left = jax.random.randint(key, (2,), 0, room + 1, dtype=jnp.int32)
  return geometry.crop(padded, top, left, height, width)


def random_box(
  key: jax.Array,
  height: int,
  width: int,
  *,
  scale: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
  attempts: int = 10,
) -> tuple[jax.Array, ...]:
  """A random box inside an image: int32 (top, left, height, width).

  Its area is a part of the image uniform in `scale`, its width / height log-uniform in
  `ratio`. The first of `attempts` draws that fits is taken; where none does, the
  largest box in the middle whose ratio is within bounds: a box is always valid.
  """
  found, rows, columns, place_key = fitting_box(
    key, height, width, scale, ratio, attempts
  )
  whole = width / height
  aspect = min(max(whole, ratio[0]), ratio[1])
  middle_rows = max(1, min(height, round(width / aspect)))
  middle_columns = max(1, min(width, round(height * aspect)))
  rows = jnp.where(found, rows, middle_rows)
  columns = jnp.where(found, columns, middle_columns)
  room = jnp.stack([height - rows, width - columns])
  place = jax.random.randint(place_key, (2,), 0, room + 1, dtype=jnp.int32)
  top, left = jnp.where(found, place, room // 2)
  return top, left, rows, columns


def fitting_box(
  key: jax.Array,
  height: int,
  width: int,
  scale: tuple[float, float],
  ratio: tuple[float, float],
  attempts: int,
) -> tuple[jax.Array, ...]:
  """The size of `random_box`: (whether a draw fits, int32 height and width, a key)."""
  check('scale', scale, lambda s: 0 < s[0] <= s[1] <= 1, 'in (0, 1], low first')
  check('ratio', ratio, lambda r: 0 < r[0] <= r[1], 'above 0, low first')
  check('attempts', attempts, lambda a: a >= 1, 'at least 1')
  area_key, ratio_key, place_key = jax.random.split(key, 3)
  shape = (attempts,)
  area = height * width * jax.random.uniform(area_key, shape, jnp.float32, *scale)
  low, high = jnp.log(jnp.asarray(ratio, jnp.float32))
  aspect = jnp.exp(jax.random.uniform(ratio_key, shape, jnp.float32, low, high))
  rows = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
  columns = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
  fits = (rows >= 1) & (rows <= height) & (columns >= 1) & (columns <= width)
  first = jnp.argmax(fits)
  return fits.any(), rows[first], columns[first], place_key


def random_resized_crop(
  key: jax.Array,
  image_HWC: jax.Array,
  *,
  height: int,
  width: int,
  scale: tuple[float, float] = (0.08, 1.0),
  ratio: tuple[float, float] = (3 / 4, 4 / 3),
  method: str = 'bilinear',
  antialias: bool = True,
) -> jax.Array:
  """A random box of the image at a fixed size; arXiv:1409.4842.

  See `random_box` for the draw. 'bicubic' is clipped to [0, 1].
  """
  rows, columns = image_HWC.shape[:2]
  top, left, box_height, box_width = random_box(
    key, rows, columns, scale=scale, ratio=ratio
  )
  clip = (0.0, 1.0) if method == 'bicubic' else None
  return crop_and_resize(
    image_HWC,
    top,
    left,
    box_height,
    box_width,
    height,
    width,
    method=method,
    antialias=antialias,
    clip=clip,
  )


def random_brightness(
  key: jax.Array, image_HWC: jax.Array, *, amount: float = 0.1
) -> jax.Array:
  """By a factor uniform in [1 - amount, 1 + amount], not below 0."""
  return color.brightness(image_HWC, _factor(key, 'amount', amount))


def random_contrast(
  key: jax.Array, image_HWC: jax.Array, *, amount: float = 0.1
) -> jax.Array:
  """By a factor uniform in [1 - amount, 1 + amount], not below 0."""
  return color.contrast(image_HWC, _factor(key, 'amount', amount))


def random_grayscale(
  key: jax.Array, image_HWC: jax.Array, *, probability: float = 0.2
) -> jax.Array:
  """Grey, in as many channels, with that probability."""
  fn = keyless(color.grayscale)
  return random_apply(fn, probability)(key, image_HWC)


def color_jitter(
  key: jax.Array,
  image_HWC: jax.Array,
  *,
  brightness: float = 0.8,
  contrast: float = 0.8,
  saturation: float = 0.8,
  hue: float = 0.2,
) -> jax.Array:
  """Brightness, contrast, saturation and hue in random order; arXiv:2002.05709.

  Factors are uniform in [1 - x, 1 + x], not below 0; the hue turns by a part of the
  circle uniform in [-hue, hue]. 0 leaves an operation out. The defaults are SimCLR's
  at strength 1. Images have 1 or 3 channels; with one, saturation and hue do nothing.
  """
  check('hue', hue, lambda h: 0 <= h <= 0.5, 'in [0, 0.5]')
  check_float(image_HWC)
  order_key, *keys = jax.random.split(key, 5)
  factors = jnp.stack(
    [
      _factor(keys[0], 'brightness', brightness),
      _factor(keys[1], 'contrast', contrast),
      _factor(keys[2], 'saturation', saturation),
    ]
  )
  turns = _uniform(keys[3], -hue, hue)
  order_4 = jax.random.permutation(order_key, jnp.arange(4, dtype=jnp.int32))
  channels = image_HWC.shape[-1]
  if channels not in (1, 3):
    raise ConfigError(
      f'color_jitter: image of {channels} channels is not allowed: must '
      'be 1 or 3 (red, green, blue).'
    )
  x = image_HWC.astype(work_dtype(image_HWC))

  # A switch under vmap would do all four operations four times. Three of them blend
  # with black, with the mean luma or with the luma: one blend, whatever its turn. On
  # the CPU a loop is twice as fast as four copies, which XLA fuses into one another.
  def step(planes, turn):
    grey = color.luma(jnp.stack(planes, -1))[..., 0]
    start = jnp.where(turn == _BRIGHTNESS, jnp.zeros_like(grey), grey)
    start = jnp.where(turn == _CONTRAST, grey.mean(), start)
    factor = factors[turn % 3].astype(x.dtype)
    blended = [color.blend(start, plane, factor) for plane in planes]
    turned = planes
    if channels == 3:
      turned = color.turn_hue(planes[0], planes[1], planes[2], turns)
    return [jnp.where(turn == _HUE, a, b) for a, b in zip(turned, blended)], None

  planes, _ = jax.lax.scan(step, [x[..., i] for i in range(channels)], order_4)
  return jnp.stack(planes, -1).astype(image_HWC.dtype)


def random_blur(
  key: jax.Array,
  image_HWC: jax.Array,
  *,
  sigma: tuple[float, float] = (0.1, 2.0),
  radius: int | None = None,
) -> jax.Array:
  """Gaussian of a standard deviation uniform in `sigma`, in pixels; arXiv:2002.05709.

  `radius` None: a kernel of a tenth of the height, as the paper, at least 3 pixels.
  """
  check('sigma', sigma, lambda s: 0 < s[0] <= s[1], 'above 0, low first')
  if radius is None:
    radius = max(1, image_HWC.shape[0] // 20)
  return filters.gaussian_blur(image_HWC, _uniform(key, *sigma), radius=radius)


def _uniform(key, low, high):
  return jax.random.uniform(key, (), jnp.float32, low, high)


def _factor(key, name, amount):
  check(name, amount, lambda a: a >= 0, 'at least 0')
  return _uniform(key, jnp.maximum(1 - amount, 0), 1 + amount)
