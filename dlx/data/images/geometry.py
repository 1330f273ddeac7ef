"""Geometry of images: flip, shift, crop, pad and one inverse warp for all the rest.

Images are [..., H, W, C] of any range. Rows count downwards, columns to the right.

What lies outside the image is, by `fill`:
  'nearest'   the nearest pixel:            a a a | a b c d | d d d
  'reflect'   the image, mirrored:          c b a | a b c d | d c b
  'constant'  `value`:                      v v v | a b c d | v v v
These are the names of Keras and scipy.ndimage; NumPy calls the first two 'edge' and
'symmetric' (its 'reflect' does not repeat the edge).
"""

import jax
import jax.numpy as jnp

from dlx.data.images.levels import check, check_float
from dlx.precision import work_dtype

_PAD_MODES = {'nearest': 'edge', 'reflect': 'symmetric', 'constant': 'constant'}
FILLS = tuple(_PAD_MODES)
INTERPOLATIONS = ('bilinear', 'nearest')


def flip_left_right(image: jax.Array) -> jax.Array:
  """The mirror image: column 0 becomes the last."""
  return jnp.flip(image, -2)


def flip_up_down(image: jax.Array) -> jax.Array:
  """Upside down: row 0 becomes the last."""
  return jnp.flip(image, -3)


def pad(
  image: jax.Array,
  rows: int,
  columns: int,
  *,
  fill: str = 'constant',
  value: float = 0.0,
) -> jax.Array:
  """Adds `rows` above and below and `columns` left and right; any dtype."""
  _check_fill(fill)
  check('rows', rows, lambda n: n >= 0, 'at least 0')
  check('columns', columns, lambda n: n >= 0, 'at least 0')
  widths = [(0, 0)] * (image.ndim - 3) + [(rows, rows), (columns, columns), (0, 0)]
  if fill == 'constant':
    return jnp.pad(image, widths, constant_values=value)
  return jnp.pad(image, widths, mode=_PAD_MODES[fill])


def crop(
  image: jax.Array, top: jax.Array | int, left: jax.Array | int, height: int, width: int
) -> jax.Array:
  """The box of that size whose upper left pixel is (top, left); any dtype.

  A box that would leave the image is moved inside.

  Raises:
    ConfigError: a box larger than the image.
  """
  _check_box(image, height, width)
  # Clipped here, since dynamic_slice counts negative starts from the end.
  most = (image.shape[-3] - height, image.shape[-2] - width)
  top, left = (
    jnp.clip(jnp.asarray(start, jnp.int32), 0, limit)
    for start, limit in zip((top, left), most)
  )
  zero = jnp.int32(0)
  starts = [zero] * (image.ndim - 3) + [top, left, zero]
  sizes = image.shape[:-3] + (height, width, image.shape[-1])
  return jax.lax.dynamic_slice(image, starts, sizes)


def center_crop(image: jax.Array, height: int, width: int) -> jax.Array:
  """The middle; where it lies on a half pixel, as torchvision (half to even).

  Raises:
    ConfigError: a box larger than the image.
  """
  _check_box(image, height, width)
  top = round((image.shape[-3] - height) / 2)
  left = round((image.shape[-2] - width) / 2)
  return image[..., top : top + height, left : left + width, :]


def shift(
  image: jax.Array,
  down: jax.Array | int,
  right: jax.Array | int,
  *,
  fill: str = 'nearest',
  value: float = 0.0,
) -> jax.Array:
  """Moves the image by whole pixels; any dtype, any distance (`affine` does parts)."""
  _check_fill(fill)
  height, width = image.shape[-3:-1]
  rows_H = jnp.arange(height, dtype=jnp.int32) - jnp.asarray(down, jnp.int32)
  columns_W = jnp.arange(width, dtype=jnp.int32) - jnp.asarray(right, jnp.int32)
  moved = jnp.take(image, _index(rows_H, height, fill), axis=-3, mode='clip')
  moved = jnp.take(moved, _index(columns_W, width, fill), axis=-2, mode='clip')
  if fill != 'constant':
    return moved
  inside_HW1 = _inside(rows_H, height)[:, None] & _inside(columns_W, width)[None]
  return _select(inside_HW1[..., None], moved, value)


def rotate(
  image: jax.Array,
  degrees: jax.Array | float,
  *,
  interpolation: str = 'bilinear',
  fill: str = 'nearest',
  value: float = 0.0,
) -> jax.Array:
  """Turns the image about its centre, counter-clockwise as seen; the size stays.

  Exact for multiples of 90 degrees: of a square, equal to `jnp.rot90` to the bit.
  """
  return affine(
    image, rotation_matrix(degrees), interpolation=interpolation, fill=fill, value=value
  )


def zoom(
  image: jax.Array,
  factor: jax.Array | float,
  *,
  interpolation: str = 'bilinear',
  fill: str = 'nearest',
  value: float = 0.0,
) -> jax.Array:
  """Magnifies about the centre: 2 shows the middle half twice as large; size stays.

  Factors below 1 shrink, without a low-pass filter (`resize` has one).
  """
  check('factor', factor, lambda f: f > 0, 'above 0')
  matrix_22 = jnp.eye(2, dtype=jnp.float32) / factor
  return affine(image, matrix_22, interpolation=interpolation, fill=fill, value=value)


def rotation_matrix(degrees: jax.Array | float) -> jax.Array:
  """The matrix that `affine` takes to turn an image counter-clockwise.

  The angle is split into quarter turns, which are exact, and a rest within 45 degrees:
  cos(pi / 2) is not 0 in floating point.
  """
  degrees = jnp.asarray(degrees, jnp.float32)
  quarters = jnp.round(degrees / 90)
  rest = jnp.deg2rad(degrees - 90 * quarters)
  quarter = quarters.astype(jnp.int32) % 4
  cos, sin = jnp.cos(rest), jnp.sin(rest)
  cos, sin = (
    jnp.select([quarter == 0, quarter == 1, quarter == 2], [cos, -sin, -cos], sin),
    jnp.select([quarter == 0, quarter == 1, quarter == 2], [sin, cos, -sin], -cos),
  )
  return jnp.stack([jnp.stack([cos, sin]), jnp.stack([-sin, cos])])


def affine(
  image: jax.Array,
  matrix_22: jax.Array,
  offset_2: jax.Array | None = None,
  *,
  interpolation: str = 'bilinear',
  fill: str = 'nearest',
  value: float = 0.0,
) -> jax.Array:
  """Inverse warp: output pixel p shows the image at `matrix @ p + offset`.

  Coordinates are (row, column) in pixels from the centre of the image. With 'constant'
  the image lies in an endless plane of `value`, so that its edge is interpolated too
  ('grid-constant' of scipy, 'zeros' of torch).

  Args:
    image: float [..., H, W, C]; of any dtype where interpolation is 'nearest'.
    matrix_22: of output to input coordinates: the inverse of what happens to the image.
    offset_2: in pixels; None: 0.
    interpolation: 'bilinear', or 'nearest' (halves are rounded up).
    fill: see the top of the file.
    value: of what lies outside, for 'constant'.

  Raises:
    ConfigError: unknown `fill` or `interpolation`; bilinear on integers.
  """
  _check_fill(fill)
  check(
    'interpolation',
    interpolation,
    lambda i: i in INTERPOLATIONS,
    'one of ' + ', '.join(INTERPOLATIONS),
  )
  if interpolation == 'bilinear':
    check_float(image)
  dtype = work_dtype(image)
  height, width, channels = image.shape[-3:]
  m, o = jnp.asarray(matrix_22, dtype), offset_2
  o = jnp.zeros(2, dtype) if o is None else jnp.asarray(o, dtype)
  middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
  y_H1 = (jnp.arange(height, dtype=dtype) - middle_y)[:, None]
  x_1W = (jnp.arange(width, dtype=dtype) - middle_x)[None, :]
  y_HW = m[0, 0] * y_H1 + m[0, 1] * x_1W + (o[0] + middle_y)
  x_HW = m[1, 0] * y_H1 + m[1, 1] * x_1W + (o[1] + middle_x)
  pixels = image.reshape(image.shape[:-3] + (height * width, channels))

  def at(rows_HW, columns_HW):
    index_HW = _index(rows_HW, height, fill) * width + _index(columns_HW, width, fill)
    values = jnp.take(pixels, index_HW, axis=-2, mode='clip')
    if fill != 'constant':
      return values
    inside_HW = _inside(rows_HW, height) & _inside(columns_HW, width)
    return _select(inside_HW[..., None], values, value)

  if interpolation == 'nearest':
    return at(_whole(jnp.floor(y_HW + 0.5)), _whole(jnp.floor(x_HW + 0.5)))
  floor_y, floor_x = jnp.floor(y_HW), jnp.floor(x_HW)
  y, x = _whole(floor_y), _whole(floor_x)
  part = (1,) * (image.ndim - 3) + (height, width, 1)
  part_y, part_x = (y_HW - floor_y).reshape(part), (x_HW - floor_x).reshape(part)
  upper = at(y, x) * (1 - part_x) + at(y, x + 1) * part_x
  lower = at(y + 1, x) * (1 - part_x) + at(y + 1, x + 1) * part_x
  return (upper * (1 - part_y) + lower * part_y).astype(image.dtype)


def box_mask(
  height: int,
  width: int,
  top: jax.Array | int,
  left: jax.Array | int,
  box_height: jax.Array | int,
  box_width: jax.Array | int,
) -> jax.Array:
  """bool [H, W, 1], true inside a box; parts of the box outside the image are lost."""
  y_H = jnp.arange(height, dtype=jnp.int32)
  x_W = jnp.arange(width, dtype=jnp.int32)
  rows_H = (y_H >= top) & (y_H < top + box_height)
  columns_W = (x_W >= left) & (x_W < left + box_width)
  return (rows_H[:, None] & columns_W[None, :])[..., None]


def erase(
  image: jax.Array,
  top: jax.Array | int,
  left: jax.Array | int,
  height: jax.Array | int,
  width: jax.Array | int,
  *,
  value: jax.Array | float = 0.0,
) -> jax.Array:
  """Fills a box with `value`; parts of it may lie outside the image.

  A value of the image's shape is another picture, of which the box is shown.
  """
  rows, columns = image.shape[-3:-1]
  mask_HW1 = box_mask(rows, columns, top, left, height, width)
  return _select(~mask_HW1, image, value)


def _whole(x):
  """float to int32, kept from overflow whatever the matrix: the side stays the same."""
  return jnp.clip(x, -(2**24), 2**24).astype(jnp.int32)


def _index(i, n, fill):
  """Row or column i of the endless plane to one of 0 .. n - 1."""
  if fill == 'reflect':
    i = i % (2 * n)
    return jnp.minimum(i, 2 * n - 1 - i)
  return jnp.clip(i, 0, n - 1)


def _inside(i, n):
  return (i >= 0) & (i < n)


def _select(mask, values, other):
  """`where` with a mask of fewer axes; keeps the dtype of `values`."""
  mask = mask.reshape((1,) * (values.ndim - mask.ndim) + mask.shape)
  return jnp.where(mask, values, jnp.asarray(other, values.dtype))


def _check_fill(fill):
  check('fill', fill, lambda f: f in FILLS, 'one of ' + ', '.join(FILLS))


def _check_box(image, height, width):
  for name, size, limit in (
    ('height', height, image.shape[-3]),
    ('width', width, image.shape[-2]),
  ):
    check(
      name,
      size,
      lambda s, limit=limit: 1 <= s <= limit,
      f'in [1, {limit}], the size of the image; pad or resize it first',
    )
