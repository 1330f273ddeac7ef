"""Two random views of an image, for contrastive learning."""

from typing import Sequence

import jax
import jax.numpy as jnp

from dlx.data.images import augment, erasing, geometry
from dlx.errors import ConfigError
from dlx.precision import EXACT
from dlx.state import Array, Key


def two_views(
  view: augment.Augment, key: Key, image_BHWC: Array
) -> tuple[Array, Array]:
  """Two independent draws of `view` for each image.

  Args:
    view: (key, image HWC) -> image.
    key: of the step; row i of the global batch has keys of its own.
    image_BHWC: in the range that `view` expects.
  """
  each = augment.per_example(view)
  first, second = (jax.random.fold_in(key, i) for i in range(2))
  return each(first, image_BHWC), each(second, image_BHWC)


def drawing_view(
  *,
  scale: Sequence[float] = (0.7, 1.2),
  degrees: float = 23.0,
  shear: float = 0.3,
  shift: float = 0.1,
  erase: float = 0.28,
) -> augment.Augment:
  """A view of a drawing on black ground: an affine warp, then one square erased.

  No mirror images: those of digits and letters are other signs.

  Args:
    scale: least and largest magnification, uniform.
    degrees: largest rotation either way.
    shear: largest shear either way, in pixels a pixel.
    shift: largest shift either way, as a part of height and width.
    erase: side of the square as a part of the height; its centre is uniform.
  """
  low, high = scale
  if not 0 < low <= high:
    raise ConfigError(
      f'scale={tuple(scale)} is not allowed: must be above 0, low first.'
    )

  def view(key, image_HWC):
    warp_key, erase_key = jax.random.split(key)
    draws = jax.random.uniform(warp_key, (5,), jnp.float32, -1.0, 1.0)
    angle, sheared, sized, move_2 = draws[0], draws[1], draws[2], draws[3:]
    factor = low + (high - low) * (sized + 1) / 2
    one, zero = jnp.ones(()), jnp.zeros(())
    shear_22 = jnp.stack([jnp.stack([one, zero]), jnp.stack([shear * sheared, one])])
    turn_22 = geometry.rotation_matrix(degrees * angle)
    matrix_22 = jnp.dot(turn_22, shear_22, precision=EXACT) / factor
    size_2 = jnp.asarray(image_HWC.shape[:2], jnp.float32)
    image_HWC = geometry.affine(
      image_HWC, matrix_22, shift * size_2 * move_2, fill='constant'
    )
    return erasing.cutout(erase_key, image_HWC, size=round(erase * image_HWC.shape[0]))

  return view


def photo_view(*, strength: float = 0.5, least_area: float = 0.2) -> augment.Augment:
  """SimCLR's view of a small photograph in [0, 1] (arXiv:2002.05709, appendix B.9).

  Crop and resize, mirror, colour jitter (probability 0.8), grey (0.2); no blur, as
  the paper on images of this size.

  Args:
    strength: of the colour jitter.
    least_area: of the crop, as a part of the image.
  """

  def view(key, image_HWC):
    height, width = image_HWC.shape[:2]

    def crop(key, image):
      return augment.random_resized_crop(
        key, image, height=height, width=width, scale=(least_area, 1.0)
      )

    def jitter(key, image):
      s = strength
      return augment.color_jitter(
        key,
        image,
        brightness=0.8 * s,
        contrast=0.8 * s,
        saturation=0.8 * s,
        hue=0.2 * s,
      )

    steps = (
      crop,
      augment.random_flip,
      augment.random_apply(jitter, 0.8),
      augment.random_grayscale,
    )
    return augment.compose(*steps)(key, image_HWC)

  return view


def view_of(shape_HWC: Sequence[int]) -> augment.Augment:
  """`photo_view` of images in colour; those in grey levels are taken for drawings."""
  return photo_view() if shape_HWC[-1] == 3 else drawing_view()
