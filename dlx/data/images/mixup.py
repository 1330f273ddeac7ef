"""Mixing the examples of a batch, images and labels alike: mixup, CutMix, in turn.

Row i is mixed with row i - 1 of the batch (row 0 with the last). Batches come in random
order, so this is a random partner, never itself, and over several devices only one row
of each travels. Every row has its own weight, drawn from its own key.
"""

import jax
import jax.numpy as jnp

from dlx.data.images.geometry import box_mask
from dlx.data.images.levels import check, check_float
from dlx.errors import ConfigError
from dlx.precision import work_dtype


def mixup(
  key: jax.Array, images_BHWC: jax.Array, labels_BK: jax.Array, *, alpha: float = 0.2
) -> tuple[jax.Array, jax.Array]:
  """w * row + (1 - w) * partner with w ~ Beta(alpha, alpha); arXiv:1710.09412.

  Args:
    key: of this step.
    images_BHWC: float, any range.
    labels_BK: one-hot or soft labels, float.
    alpha: above 0; the paper has 0.2 for ImageNet, 1 for CIFAR.

  Returns:
    Images and labels of the same shapes and dtypes.

  Raises:
    ConfigError: class numbers in place of one-hot labels, or alpha not above 0.
  """
  _check_batch(images_BHWC, labels_BK)
  return _blended(images_BHWC, labels_BK, *_draw(key, images_BHWC, alpha))


def cutmix(
  key: jax.Array, images_BHWC: jax.Array, labels_BK: jax.Array, *, alpha: float = 1.0
) -> tuple[jax.Array, jax.Array]:
  """Pastes a box of the partner; arXiv:1905.04899.

  The box has the shape of the image and the part 1 - w of its area, w ~ Beta(alpha,
  alpha); its centre is uniform, so the border may cut it. Labels are mixed by the exact
  part of the pixels that was kept.

  Args, returns and errors: as `mixup`.
  """
  _check_batch(images_BHWC, labels_BK)
  return _pasted(images_BHWC, labels_BK, *_draw(key, images_BHWC, alpha))


def mixup_or_cutmix(
  key: jax.Array,
  images_BHWC: jax.Array,
  labels_BK: jax.Array,
  *,
  mixup_alpha: float = 0.8,
  cutmix_alpha: float = 1.0,
  switch: float = 0.5,
) -> tuple[jax.Array, jax.Array]:
  """CutMix of the whole batch with probability `switch`, mixup of it otherwise.

  The recipe of DeiT (arXiv:2012.12877), Swin and ConvNeXt, whose code has one weight
  for all rows of a batch: here each row has its own.

  Args:
    mixup_alpha: above 0.
    cutmix_alpha: above 0.
    switch: in [0, 1].

  Other arguments, returns and errors: as `mixup`.
  """
  check('switch', switch, lambda p: 0 <= p <= 1, 'in [0, 1]')
  _check_batch(images_BHWC, labels_BK)
  _check_alpha(mixup_alpha, 'mixup_alpha')
  _check_alpha(cutmix_alpha, 'cutmix_alpha')
  switch_key, key = jax.random.split(key)
  cut = jax.random.uniform(switch_key, (), jnp.float32) < switch
  # Weights are drawn once: what draws them is most of the program.
  alpha = jnp.where(cut, jnp.float32(cutmix_alpha), jnp.float32(mixup_alpha))
  drawn = _draw(key, images_BHWC, alpha)
  return jax.lax.cond(cut, _pasted, _blended, images_BHWC, labels_BK, *drawn)


def _draw(key, images, alpha):
  """A weight and a key for whatever else is drawn, by row."""
  _check_alpha(alpha)
  rows = jnp.arange(images.shape[0], dtype=jnp.int32)
  keys_B2 = jax.vmap(lambda i: jax.random.split(jax.random.fold_in(key, i)))(rows)
  beta = lambda k: jax.random.beta(k, alpha, alpha, dtype=jnp.float32)
  return jax.vmap(beta)(keys_B2[:, 0]), keys_B2[:, 1]


def _check_alpha(alpha, name='alpha'):
  check(name, alpha, lambda a: a > 0, 'above 0; leave the mixing out for none')


def _blended(images_BHWC, labels_BK, weight_B, keys_B):
  """Mixup by these weights."""
  del keys_B
  return _mean(images_BHWC, weight_B), _mean(labels_BK, weight_B)


def _pasted(images_BHWC, labels_BK, weight_B, keys_B):
  """CutMix by these weights, boxes placed by these keys."""
  height, width = images_BHWC.shape[1:3]

  def box(key, weight):
    side = jnp.sqrt(1 - weight)
    rows = (height * side).astype(jnp.int32)
    columns = (width * side).astype(jnp.int32)
    y, x = jax.random.randint(
      key, (2,), 0, jnp.array([height, width], jnp.int32), dtype=jnp.int32
    )
    return box_mask(height, width, y - rows // 2, x - columns // 2, rows, columns)

  mask_BHW1 = jax.vmap(box)(keys_B, weight_B)
  images = jnp.where(mask_BHW1, jnp.roll(images_BHWC, 1, 0), images_BHWC)
  kept_B = 1 - mask_BHW1.mean((1, 2, 3), dtype=jnp.float32)
  return images, _mean(labels_BK, kept_B)


def _mean(x, weight_B):
  """weight * x + (1 - weight) * the row before."""
  dtype = work_dtype(x)
  weight = weight_B.astype(dtype).reshape((-1,) + (1,) * (x.ndim - 1))
  mixed = weight * x.astype(dtype) + (1 - weight) * jnp.roll(x, 1, 0).astype(dtype)
  return mixed.astype(x.dtype)


def _check_batch(images, labels):
  check_float(images)
  if labels.ndim != 2 or not jnp.issubdtype(labels.dtype, jnp.floating):
    raise ConfigError(
      f'labels of shape {labels.shape} and dtype {labels.dtype} are not allowed: must '
      'be float [B, K]; make them with jax.nn.one_hot.'
    )
  if images.ndim != 4 or images.shape[0] != labels.shape[0]:
    raise ConfigError(
      f'images of shape {images.shape} are not allowed: must be [B, H, W, C] with as '
      f'many rows as labels of shape {labels.shape}.'
    )
