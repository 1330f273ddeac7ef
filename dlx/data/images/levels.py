"""What an image is here: a float array [..., H, W, C], in [0, 1] unless said otherwise.

Functions on images take one image or any leading axes (which then share the arguments),
keep the float dtype they are given, and compute in float32 at least. Arguments that are
Python numbers are checked; arrays and tracers are taken as they are.
"""

from typing import Any, Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.precision import work_dtype

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # Of R, G, B in [0, 1], over the training set.
IMAGENET_STD = (0.229, 0.224, 0.225)


def check(name: str, value: Any, holds: Callable[[Any], bool], allowed: str) -> None:
  """Raises ConfigError unless `holds(value)`; arrays and tracers are not looked at."""
  if not isinstance(value, (jax.Array, np.ndarray)) and not holds(value):
    raise ConfigError(f'{name}={value!r} is not allowed: must be {allowed}.')


def check_float(image: jax.Array) -> None:
  """Raises ConfigError unless the image is [..., H, W, C] and of a float dtype."""
  if jnp.ndim(image) < 3:
    raise ConfigError(
      f'image of shape {jnp.shape(image)} is not allowed: must be [..., H, W, C]; add '
      'a channel axis with image[..., None].'
    )
  if not jnp.issubdtype(jnp.result_type(image), jnp.floating):
    raise ConfigError(
      f'image of dtype {jnp.result_type(image)} is not allowed: must be a float; '
      'convert it with to_float.'
    )


def to_float(image: jax.Array) -> jax.Array:
  """uint8 in [0, 255] to float32 in [0, 1]; floats pass through.

  Raises:
    ConfigError: another integer dtype, whose range is not known.
  """
  image = jnp.asarray(image)
  if image.dtype == jnp.uint8:
    return image.astype(jnp.float32) / 255
  check_float(image)
  return image


def to_uint8(image: jax.Array) -> jax.Array:
  """Float in [0, 1] to uint8, rounded half up; what lies outside is clipped."""
  check_float(image)
  levels = jnp.floor(image.astype(work_dtype(image)) * 255 + 0.5)
  return jnp.clip(levels, 0, 255).astype(jnp.uint8)


def normalise(
  image: jax.Array,
  mean_C: Sequence[float] | jax.Array,
  std_C: Sequence[float] | jax.Array,
) -> jax.Array:
  """(image - mean) / std, channel by channel.

  Raises:
    ConfigError: as many values as channels are not given, or a std is not above 0.
  """
  return _normalise(image, mean_C, std_C, lambda x, mean, std: (x - mean) / std)


def denormalise(
  image: jax.Array,
  mean_C: Sequence[float] | jax.Array,
  std_C: Sequence[float] | jax.Array,
) -> jax.Array:
  """The inverse of `normalise`: image * std + mean."""
  return _normalise(image, mean_C, std_C, lambda x, mean, std: x * std + mean)


def _normalise(image, mean_C, std_C, formula):
  check_float(image)
  dtype, channels = work_dtype(image), image.shape[-1]
  check('std', std_C, lambda v: all(s > 0 for s in v), 'above 0 in every channel')
  rows = []
  for name, values in (('mean', mean_C), ('std', std_C)):
    values = jnp.asarray(values, dtype)
    if values.shape != (channels,):
      raise ConfigError(
        f'{name} of shape {values.shape} is not allowed: must be ({channels},), '
        'one number a channel of the image.'
      )
    rows.append(values.reshape((1,) * (image.ndim - 1) + (channels,)))
  return formula(image.astype(dtype), *rows).astype(image.dtype)
