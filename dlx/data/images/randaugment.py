"""RandAugment, arXiv:1909.13719: N operations of one strength, by example.

partial(randaugment, layers=2, magnitude=9)     as published
partial(randaugment, **increasing(9, 0.5))      timm's rand-m9-mstd0.5-inc1
"""

from typing import Any, Sequence

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
# Of timm's sets of operations that grow stronger with the magnitude.
INCREASING = (
  *OPERATIONS[1:10],
  'posterize_more',
  *OPERATIONS[11:],
  'invert',
  'solarize_add',
)
ALL = (*OPERATIONS, 'posterize_more', 'invert', 'solarize_add')


def increasing(level: float = 9.0, spread: float = 0.5) -> dict[str, Any]:
  """Arguments of `randaugment` that make it timm's rand-mLEVEL-mstdSPREAD-inc1.

  The augmentation of DeiT, Swin and ConvNeXt: two of INCREASING, each done with
  probability 1/2, at a level of 10 from a normal distribution.

  Args:
    level: mean, in [0, 10].
    spread: standard deviation, at least 0.
  """
  check('level', level, lambda x: 0 <= x <= 10, 'in [0, 10]')
  return {
    'magnitude': 3 * level,
    'spread': 3 * spread,
    'operations': INCREASING,
    'probability': 0.5,
  }


def randaugment(
  key: jax.Array,
  image_HWC: jax.Array,
  *,
  layers: int = 2,
  magnitude: float = 9.0,
  spread: float = 0.0,
  operations: Sequence[str] = OPERATIONS,
  probability: float = 1.0,
  fill: str = 'constant',
  value: float = 0.5,
) -> jax.Array:
  """`layers` operations, each uniform over `operations`, at `magnitude` of 30.

  At magnitude 30: rotation 30 degrees, shear 0.3, translation 0.45 of the side, colour
  factors 0.1 or 1.9, 4 bits, threshold 0; all linear in the magnitude, signs random.
  Besides those of the paper: posterize_more keeps 4 bits at 0 and none at 30,
  solarize_add makes the darker half brighter by up to 110/255.

  Args:
    key: of this example.
    image_HWC: float in [0, 1], 3 channels (or 1: `color` does nothing).
    layers: operations one after the other.
    magnitude: 0 to 30.
    spread: standard deviation of the magnitude of each operation, which is then kept
      within 0 and 30; in the same unit.
    operations: of ALL.
    probability: that an operation is done at all.
    fill: what moves in from outside, see geometry.py.
    value: for 'constant'; grey.
  """
  check_float(image_HWC)
  check('layers', layers, lambda n: n >= 0, 'at least 0')
  check('magnitude', magnitude, lambda m: 0 <= m <= 30, 'in [0, 30]')
  check('spread', spread, lambda m: m >= 0, 'at least 0')
  check('probability', probability, lambda p: 0 <= p <= 1, 'in [0, 1]')
  known = bool(operations) and all(name in ALL for name in operations)
  check('operations', operations, lambda _: known, 'one or more of ' + ', '.join(ALL))
  x = image_HWC.astype(work_dtype(image_HWC))
  numbers = jnp.asarray([ALL.index(name) for name in operations], jnp.int32)

  def layer(x, i):
    keys = jax.random.split(jax.random.fold_in(key, i), 4)
    which = jax.random.randint(keys[0], (), 0, len(operations), dtype=jnp.int32)
    sign = jnp.where(jax.random.bernoulli(keys[1]), 1.0, -1.0).astype(jnp.float32)
    at = magnitude + spread * jax.random.normal(keys[2], (), jnp.float32)
    done = jax.random.uniform(keys[3], (), jnp.float32) < probability
    which = jnp.where(done, numbers[which], ALL.index('identity'))
    strength = sign * (jnp.clip(at, 0, 30) / 30)
    return operation(x, which, strength, fill=fill, value=value), None

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
  """ALL[which] at a strength in [-1, 1], of which some use the size alone.

  Under vmap every branch of a switch is computed. So operations of one kind are one:
  five are the same warp, four the same blend.
  """
  strength = jnp.asarray(strength, jnp.float32)
  size = jnp.abs(strength)
  at = lambda name: jnp.equal(which, ALL.index(name))
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

  # Both kinds of posterize are one, too.
  bits = jnp.where(at('posterize'), 8 - jnp.round(4 * size), 4 - jnp.floor(4 * size))
  brighter = jnp.minimum(image_HWC + (110 / 255) * size, 1)
  warps, blends = OPERATIONS[1:6], OPERATIONS[6:10]
  is_one = lambda names: jnp.stack([at(name) for name in names]).any()
  return jnp.select(
    [
      is_one(warps),
      is_one(blends),
      is_one(('posterize', 'posterize_more')),
      at('solarize'),
      at('autocontrast'),
      at('equalize'),
      at('invert'),
      at('solarize_add'),
    ],
    [
      warped,
      blended,
      color.posterize(image_HWC, bits.astype(jnp.int32)),
      color.solarize(image_HWC, 1 - size),
      color.autocontrast(image_HWC),
      color.equalize(image_HWC),
      color.invert(image_HWC),
      jnp.where(image_HWC < 128 / 255, brighter, image_HWC).astype(image_HWC.dtype),
    ],
    image_HWC,
  )
