"""Contrastive learning: two views, InfoNCE, a queue of keys, a momentum encoder.

Vectors that are compared have length 1 (`unit`); a similarity is their dot product.
"""

import dataclasses
from typing import Any, NamedTuple, Sequence

import chex
import jax
import jax.numpy as jnp

from dlx.data.dataset import Source
from dlx.data.images import augment, geometry
from dlx.errors import ConfigError
from dlx.state import Array, Key, PyTree

EXACT = jax.lax.Precision.HIGHEST  # A similarity in bfloat16 is off by half a percent.


def unit(x_BD: Array) -> Array:
  """Rows of length 1, float32 or wider; a row of zeros stays."""
  x_BD = x_BD.astype(jnp.promote_types(x_BD.dtype, jnp.float32))
  square_B1 = jnp.square(x_BD).sum(-1, keepdims=True)
  # Below a length of 1e-12 not normalised: the root of 0 has no gradient, and that of
  # the least positive number one that overflows.
  return x_BD * jax.lax.rsqrt(jnp.maximum(square_B1, 1e-24))


# The loss.


class InfoNCE(NamedTuple):
  """The loss of each query and what it did.

  Attributes:
    loss_B: in nats; log(1 + N) where nothing is told apart.
    hit_B: whether the positive is the most similar of all.
    positive_B: similarity of the pair, in [-1, 1].
  """

  loss_B: Array
  hit_B: Array
  positive_B: Array


def info_nce(
  query_BD: Array, key_BD: Array, negative_ND: Array, temperature: float | Array
) -> InfoNCE:
  """Which of 1 + N keys belongs to the query? (arXiv:1807.03748, arXiv:1911.05722)

  `-log exp(q.k / t) / (exp(q.k / t) + sum_n exp(q.n / t))`; queries see only their own
  key and the negatives, so that parts of a batch give the loss of the whole.

  Args:
    query_BD: of length 1.
    key_BD: row i belongs to query i; of length 1.
    negative_ND: keys of other images; of length 1.
    temperature: t, above 0.
  """
  chex.assert_rank([query_BD, key_BD, negative_ND], 2)
  chex.assert_equal_shape([query_BD, key_BD])
  positive_B = (query_BD * key_BD).sum(-1)
  negative_BN = jnp.dot(query_BD, negative_ND.T, precision=EXACT)
  logits_BN = jnp.concatenate([positive_B[:, None], negative_BN], 1) / temperature
  loss_B = jax.nn.logsumexp(logits_BN, 1) - logits_BN[:, 0]
  return InfoNCE(loss_B, logits_BN.argmax(1) == 0, positive_B)


def in_batch_info_nce(
  query_BD: Array, key_BD: Array, temperature: float | Array
) -> InfoNCE:
  """InfoNCE whose negatives are the keys of the other rows (arXiv:2002.05709).

  Without a queue; not additive over parts of a batch.
  """
  chex.assert_rank([query_BD, key_BD], 2)
  chex.assert_equal_shape([query_BD, key_BD])
  logits_BB = jnp.dot(query_BD, key_BD.T, precision=EXACT) / temperature
  own_B = jnp.diagonal(logits_BB)
  row_B = jnp.arange(query_BD.shape[0], dtype=jnp.int32)
  return InfoNCE(
    jax.nn.logsumexp(logits_BB, 1) - own_B,
    logits_BB.argmax(1) == row_B,
    own_B * temperature,
  )


# The queue.


class Queue(NamedTuple):
  """The last N keys, as a ring.

  Attributes:
    keys_ND: in ring order.
    start: int32 scalar, the row of the oldest: the next one to be overwritten.
  """

  keys_ND: Array
  start: Array


def init_queue(key: Key, size: int, width: int, dtype: Any = jnp.float32) -> Queue:
  """A queue of random keys of length 1."""
  keys_ND = unit(jax.random.normal(key, (size, width), dtype))
  return Queue(keys_ND.astype(dtype), jnp.zeros((), jnp.int32))


def push(queue: Queue, new_BD: Array) -> Queue:
  """First in, first out: the new rows take the places of the B oldest.

  Args:
    queue: of N rows; N need not be a multiple of B.
    new_BD: row 0 counts as the oldest of them. Of more than N only the last N stay.
  """
  chex.assert_equal_shape_suffix([queue.keys_ND, new_BD], 1)
  size, count = queue.keys_ND.shape[0], new_BD.shape[0]
  kept = min(size, count)
  place = jnp.arange(count - kept, count, dtype=jnp.int32)
  index = (queue.start + place) % size
  keys_ND = queue.keys_ND.at[index].set(
    new_BD[count - kept :].astype(queue.keys_ND.dtype),
    unique_indices=True,
    mode='promise_in_bounds',
  )
  return Queue(keys_ND, (queue.start + count) % size)


def oldest_first(queue: Queue) -> Array:
  """The keys [N, D] in the order in which they came."""
  return jnp.roll(queue.keys_ND, -queue.start, 0)


def momentum_update(slow: PyTree, fast: PyTree, momentum: float | Array) -> PyTree:
  """`momentum * slow + (1 - momentum) * fast`, in the dtypes of `slow`."""
  mix = lambda s, f: (s + (1 - momentum) * (f.astype(s.dtype) - s)).astype(s.dtype)
  return jax.tree.map(mix, slow, fast)


# Views.


def unlabelled(source: Source) -> Source:
  """A source without the field `label`: what is not in a batch cannot leak."""

  def read(data_dir):
    loaded = source.read(data_dir)
    return loaded._replace(data={k: x for k, x in loaded.data.items() if k != 'label'})

  shapes = {name: x for name, x in source.shapes.items() if name != 'label'}
  return dataclasses.replace(source, shapes=shapes, read=read)


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
    return augment.cutout(erase_key, image_HWC, size=round(erase * image_HWC.shape[0]))

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


# How good a representation is, without labels (arXiv:2005.10242).


def alignment(x_BD: Array, y_BD: Array) -> Array:
  """Mean squared distance of pairs of views, in [0, 4]; 0 is best."""
  return jnp.square(x_BD - y_BD).sum(-1).mean()


def uniformity(x_BD: Array) -> Array:
  """`log mean exp(-2 d^2)` over pairs of different rows; lower is more even.

  0 where all are one point; about -4 for directions drawn at random.
  """
  squared_BB = 2 - 2 * jnp.dot(x_BD, x_BD.T, precision=EXACT)
  n = x_BD.shape[0]
  terms_BB = jnp.where(jnp.eye(n, dtype=bool), 0, jnp.exp(-2 * squared_BB))
  return jnp.log(terms_BB.sum() / (n * (n - 1)))
