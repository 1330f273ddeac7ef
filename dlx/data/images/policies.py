"""Augmentation by name: what a flag of an experiment chooses.

Each is (key, batch) -> batch for the argument `augment` of `image_classifier`. Those of
geometry change the image alone; those that mix examples give the field `target`, soft
labels [B, K], and keep `label` as it was. Images may be normalised: none depends on
their range, but for what `in_unit` wraps.
"""

import functools
from typing import Any, Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from dlx.config import check_choice
from dlx.data.images import augment, geometry, mixup
from dlx.data.images.levels import denormalise, normalise

Policy = Callable[[jax.Array, Mapping[str, Any]], dict[str, Any]]

GEOMETRY: Mapping[str, augment.Augment] = {
  'flip': augment.random_flip,
  'crop_flip': augment.compose(
    functools.partial(augment.random_crop, padding=4), augment.random_flip
  ),
  'shift': functools.partial(augment.random_shift, fraction=0.2),
  'rotation': functools.partial(augment.random_rotation, degrees=20.0),
  'zoom': functools.partial(augment.random_zoom, amount=0.2),
  'affine': functools.partial(
    augment.random_affine, degrees=20.0, fraction=0.2, amount=0.2
  ),
}
MIXES = {
  'mixup': functools.partial(mixup.mixup, alpha=1.0),
  'cutmix': functools.partial(mixup.cutmix, alpha=1.0),
}
NAMES = ('none', *GEOMETRY, *MIXES)


def each(fn: augment.Augment) -> Policy:
  """A function of one image, applied to each with a key of its own."""
  batched = augment.per_example(fn)
  return lambda key, batch: {**batch, 'image': batched(key, batch['image'])}


def in_unit(
  mean: Sequence[float], std: Sequence[float], *fns: augment.Augment
) -> Policy:
  """Functions that need images in [0, 1], one after the other, of normalised images.

  Args:
    mean: by channel, by which the images are normalised.
    std: likewise.
    fns: of colour, RandAugment: (key, image HWC in [0, 1]) -> image.
  """
  to_unit = augment.keyless(lambda image: denormalise(image, mean, std))
  back = augment.keyless(lambda image: normalise(image, mean, std))
  return each(augment.compose(to_unit, *fns, back))


def mixing(
  mix: Callable[[jax.Array, Any, Any], tuple[Any, Any]], num_classes: int
) -> Policy:
  """Mixes examples and their one-hot labels, which become `target`.

  Args:
    mix: (key, images, labels [B, K]) -> the same mixed, see mixup.py.
    num_classes: K.
  """

  def mixed(key, batch):
    target_BK = jax.nn.one_hot(batch['label'], num_classes)
    image, target_BK = mix(key, batch['image'], target_BK)
    return {**batch, 'image': image, 'target': target_BK}

  return mixed


def crop_and_flip(pad: int, flip: bool) -> Policy | None:
  """The standard augmentation of small photographs (arXiv 1512.03385, CIFAR).

  Images should be normalised: what is padded is 0, their mean.

  Args:
    pad: pixels of padding around the image before a random crop of its size; 0: none.
    flip: from left to right, half of the images.

  Returns:
    None, where there is nothing to do.
  """
  moves = [functools.partial(augment.random_crop, padding=pad)] * (pad > 0)
  moves += [augment.random_flip] * flip
  if not moves:
    return None
  return each(augment.compose(*moves))


def translate(pad: int) -> Policy | None:
  """Moves by up to `pad` pixels either way, edges mirrored; None of 0 pixels."""
  if not pad:
    return None
  return each(functools.partial(augment.random_crop, padding=pad, fill='reflect'))


def alternating_flip(seed: int | jax.Array) -> Policy:
  """Left to right in every other epoch: half of the images in the first, then the rest.

  By a coin for each epoch half of the images are seen the same way in two epochs in a
  row, a quarter in three; in turn, two epochs show both sides of all (arXiv
  2404.00498).

  Args:
    seed: says which images are flipped in the first epoch.

  Returns:
    A policy of batches with the fields `index` and `epoch` of
    dlx/data/batches/numbered.py, which takes nothing from its key.
  """

  def flipped(key, batch):
    del key
    keys_B = jax.vmap(jax.random.fold_in, (None, 0))(
      jax.random.key(seed), batch['index']
    )
    first_B = jax.vmap(jax.random.bernoulli)(keys_B)
    turned_B = first_B ^ (batch['epoch'] % 2 == 1)
    image = batch['image']
    mirrored = geometry.flip_left_right(image)
    return {**batch, 'image': jnp.where(turned_B[:, None, None, None], mirrored, image)}

  return flipped


def chain(*policies: Policy | None) -> Policy | None:
  """One after the other, each with a key of its own; None where all are None."""
  own = [policy for policy in policies if policy is not None]
  if not own:
    return None

  def apply(key, batch):
    for i, policy in enumerate(own):
      batch = policy(jax.random.fold_in(key, i), batch)
    return batch

  return apply


def by_name(name: str, num_classes: int) -> Policy | None:
  """One of NAMES; None of 'none'.

  flip: left to right, half of the images. crop_flip: `crop_and_flip` with 4 pixels of
  padding. shift: up to a fifth of height and width, by whole pixels. rotation: up to 20
  degrees either way. zoom: by a factor of 0.8 to 1.2. affine: rotation, zoom and shift
  in one. mixup and cutmix: with weights drawn from Beta(1, 1).

  Args:
    name: of the policy.
    num_classes: K, of the soft labels.

  Raises:
    ConfigError: another name.
  """
  check_choice('augment', name, NAMES)
  if name == 'none':
    return None
  if name in GEOMETRY:
    return each(GEOMETRY[name])
  return mixing(MIXES[name], num_classes)
