"""RandAugment, arXiv:1909.13719: N operations of one strength, by example."""

import jax
import jax.numpy as jnp

from dlx.data.images import color, filters, geometry
from dlx.data.images.levels import check, check_float
from dlx.precision import work_dtype

OPERATIONS = (
  'identity',
  'rotate',
  'shear_x',
  'shear_y',
  'translate_x',
  'translate_y',
  'brightness',
  'color',
  'contrast',
  'sharpness',
  'posterize',
  'solarize',
  'autocontrast',
  'equalize',
)


def randaugment(
  key: jax.Array,
  image_HWC: jax.Array,
  *,
  layers: int = 2,
  magnitude: float = 9.0,
  fill: str = 'constant',
  value: float = 0.5,
) -> jax.Array:
  """`layers` operations, each uniform over OPERATIONS, at `magnitude` of 30.

  At magnitude 30: rotation 30 degrees, shear 0.3, translation 0.45 of the side, colour
  factors 0.1 or 1.9, 4 bits, threshold 0; all linear in the magnitude, signs random.

  Args:
    key: of this example.
    image_HWC: float in [0, 1], 3 channels (or 1: `color` does nothing).
    layers: operations one after the other.
    magnitude: 0 to 30.
    fill: what moves in from outside, see geometry.py.
    value: for 'constant'; grey.
  """
  check_float(image_HWC)
  check('layers', layers, lambda n: n >= 0, 'at least 0')
  check('magnitude', magnitude, lambda m: 0 <= m <= 30, 'in [0, 30]')
  x = image_HWC.astype(work_dtype(image_HWC))

  def layer(x, i):
    which_key, sign_key = jax.random.split(jax.random.fold_in(key, i))
    which = jax.random.randint(which_key, (), 0, len(OPERATIONS), dtype=jnp.int32)
    sign = jnp.where(jax.random.bernoulli(sign_key), 1.0, -1.0).astype(jnp.float32)
    return operation(x, which, sign * (magnitude / 30), fill=fill, value=value), None

  # A loop: unrolled, XLA fuses one layer into the other and computes it many times.
  x, _ = jax.lax.scan(layer, x, jnp.arange(layers, dtype=jnp.int32))
  return x.astype(image_HWC.dtype)


def operation(
  image_HWC: jax.Array,
  which: jax.Array | int,
  strength: jax.Array | float,
  *,
  fill: str = 'constant',
  value: float = 0.5,
) -> jax.Array:
  """OPERATIONS[which] at a strength in [-1, 1], of which some use the size alone.

  Under vmap every branch of a switch is computed. So operations of one kind are one:
  five are the same warp, four the same blend.
  """
  strength = jnp.asarray(strength, jnp.float32)
  size = jnp.abs(strength)
  at = lambda name: jnp.equal(which, OPERATIONS.index(name))
  when = lambda name, amount: jnp.where(at(name), amount * strength, 0.0)

  turn_22 = geometry.rotation_matrix(when('rotate', 30.0))
  shear_22 = jnp.zeros((2, 2), jnp.float32)
  shear_22 = shear_22.at[0, 1].set(when('shear_y', 0.3))
  shear_22 = shear_22.at[1, 0].set(when('shear_x', 0.3))
  height, width = image_HWC.shape[:2]
  offset_2 = jnp.stack(
    [when('translate_y', 0.45 * height), when('translate_x', 0.45 * width)]
  )
  warped = geometry.affine(
    image_HWC, turn_22 + shear_22, offset_2, fill=fill, value=value
  )

  grey = jnp.broadcast_to(color.luma(image_HWC), image_HWC.shape)
  start = jnp.select(
    [at('brightness'), at('contrast'), at('sharpness')],
    [
      jnp.zeros_like(grey),
      jnp.broadcast_to(grey.mean(), grey.shape),
      filters.smooth(image_HWC).astype(grey.dtype),
    ],
    grey,
  )
  blended = color.blend(start, image_HWC, 1 + 0.9 * strength)

  bits = 8 - jnp.round(4 * size).astype(jnp.int32)
  warps, blends = OPERATIONS[1:6], OPERATIONS[6:10]
  is_one = lambda names: jnp.stack([at(name) for name in names]).any()
  return jnp.select(
    [
      is_one(warps),
      is_one(blends),
      at('posterize'),
      at('solarize'),
      at('autocontrast'),
      at('equalize'),
    ],
    [
      warped,
      blended,
      color.posterize(image_HWC, bits),
      color.solarize(image_HWC, 1 - size),
      color.autocontrast(image_HWC),
      color.equalize(image_HWC),
    ],
    image_HWC,
  )
