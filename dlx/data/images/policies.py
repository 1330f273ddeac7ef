"""Augmentation by name: what a flag of an experiment chooses.

Each is (key, batch) -> batch for the argument `augment` of `image_classifier`. Those of
geometry change the image alone; those that mix examples give the field `target`, soft
labels [B, K], and keep `label` as it was. Images may be normalised: none depends on
their range.
"""

import functools
from typing import Any, Callable, Mapping

import jax

from dlx.data.images import augment, mixup
from dlx.errors import ConfigError

Policy = Callable[[jax.Array, Mapping[str, Any]], dict[str, Any]]

GEOMETRY: Mapping[str, augment.Augment] = {
  'flip': augment.random_flip,
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
  move = augment.per_example(augment.compose(*moves))
  return lambda key, batch: {**batch, 'image': move(key, batch['image'])}


def by_name(name: str, num_classes: int) -> Policy | None:
  """One of NAMES; None of 'none'.

  flip: left to right, half of the images. shift: up to a fifth of height and width, by
  whole pixels. rotation: up to 20 degrees either way. zoom: by a factor of 0.8 to 1.2.
  affine: rotation, zoom and shift in one. mixup and cutmix: with weights drawn from
  Beta(1, 1).

  Args:
    name: of the policy.
    num_classes: K, of the soft labels.

  Raises:
    ConfigError: another name.
  """
  if name == 'none':
    return None
  if name in GEOMETRY:
    warp = augment.per_example(GEOMETRY[name])
    return lambda key, batch: {**batch, 'image': warp(key, batch['image'])}
  if name not in MIXES:
    raise ConfigError(
      f'augment={name} is not allowed: must be one of {", ".join(NAMES)}.'
    )
  mix = MIXES[name]

  def mixed(key, batch):
    target_BK = jax.nn.one_hot(batch['label'], num_classes)
    image, target_BK = mix(key, batch['image'], target_BK)
    return {**batch, 'image': image, 'target': target_BK}

  return mixed


def in_turn(*policies: Policy | None) -> Policy | None:
  """One after the other, each with a random key of its own; None: nothing to do."""
  chosen = [policy for policy in policies if policy is not None]
  if not chosen:
    return None

  def all_of(key, batch):
    for each, policy in zip(jax.random.split(key, len(chosen)), chosen, strict=True):
      batch = policy(each, batch)
    return batch

  return all_of
