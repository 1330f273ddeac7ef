"""Changes of light along the principal colours of a set (Krizhevsky et al. 2012, 4.1).

Every pixel of an image is moved by one vector: the principal components of the colours
of the training set, each times its eigenvalue and a normal number. Objects keep their
shape, and seem to stand in a light of another colour and strength.
"""

from typing import Sequence

import jax
import jax.numpy as jnp

from dlx.data.images.levels import check, check_float
from dlx.errors import ConfigError
from dlx.precision import EXACT, work_dtype

# Of pixels of ImageNet in [0, 1], as fb.resnet.torch and cuda-convnet's users have
# them: eigenvalues, the largest first, and a component a column, by red, green, blue.
EIGENVALUES = (0.2175, 0.0188, 0.0045)
COMPONENTS = (
  (-0.5675, 0.7192, 0.4009),
  (-0.5808, -0.0045, -0.8140),
  (-0.5836, -0.6948, 0.4203),
)


def lighting(
  image_HWC: jax.Array,
  amounts_3: jax.Array | Sequence[float],
  *,
  eigenvalues: Sequence[float] = EIGENVALUES,
  components: Sequence[Sequence[float]] = COMPONENTS,
) -> jax.Array:
  """Adds `components @ (amounts * eigenvalues)` to every pixel; nothing is clipped.

  Args:
    image_HWC: float [..., H, W, 3] in [0, 1]: red, green, blue.
    amounts_3: how far along each component; 0: not at all.
    eigenvalues: of the components, in the unit of the image.
    components: [3, 3], one a column.

  Raises:
    ConfigError: an image of another number of channels.
  """
  check_float(image_HWC)
  if image_HWC.shape[-1] != 3:
    raise ConfigError(
      f'image of {image_HWC.shape[-1]} channels is not allowed: must be 3 (red, green, '
      'blue), whose principal components are known.'
    )
  dtype = work_dtype(image_HWC)
  along_3 = jnp.asarray(amounts_3, dtype) * jnp.asarray(eigenvalues, dtype)
  moved_3 = jnp.matmul(jnp.asarray(components, dtype), along_3, precision=EXACT)
  moved = moved_3.reshape((1,) * (image_HWC.ndim - 1) + (3,))
  return (image_HWC.astype(dtype) + moved).astype(image_HWC.dtype)


def random_lighting(
  key: jax.Array, image_HWC: jax.Array, *, deviation: float = 0.1
) -> jax.Array:
  """`lighting` by three numbers of mean 0 and that standard deviation, as published."""
  check('deviation', deviation, lambda d: d >= 0, 'at least 0')
  amounts_3 = deviation * jax.random.normal(key, (3,), jnp.float32)
  return lighting(image_HWC, amounts_3)
