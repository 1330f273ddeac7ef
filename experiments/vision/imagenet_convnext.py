"""ConvNeXt on ImageNet (Liu et al., arXiv 2201.03545), by the recipe of the paper.

  python -m launch.train --exp=imagenet_convnext
  python -m launch.data images ILSVRC --keep=files --name=imagenet --data_dir=DATA
  python -m launch.train --exp=imagenet_convnext --config.dataset=imagenet \
      --config.size=tiny --config.batch_size=4096 --config.num_steps=93836 \
      --config.lr=4e-3 --config.ema_decay=0.9999 --config.min_area=0.08 \
      --config.flip=True --config.augment.magnitude=9 --config.augment.erase=0.25 \
      --config.augment.mixup=0.8 --config.augment.switch=0.5 \
      --config.compute_dtype=bfloat16 --config.eval_every_steps=1564 \
      --config.save_every_steps=782 --config.stream_workers=32 --data_dir=DATA

The second line makes a set of the folders train and val of ILSVRC 2012: a list, no
pixels are copied. The third is 300 epochs of ConvNeXt-T: AdamW, a rate of 4e-3 after 20
epochs of rise, then a cosine; decay 0.05 of kernels alone, label smoothing 0.1, drop
path 0.1, LayerScale 1e-6, an average of 0.9999; random crops of 8 to 100 % of a
picture, and flips; RandAugment (timm's rand-m9-mstd0.5-inc1), erasing in a quarter of
the pictures, mixup 0.8 or CutMix 1.0; in the test the middle 224 pixels of 256, bicubic
as in training. Published: 82.1 % top-1. Sizes small and base take a drop path of 0.4
and 0.5.

Each example has its own weight of mixup and CutMix, where the authors' code has one for
a batch. Pictures that are read from their files are cropped and flipped as they are
read, those of a set of arrays on the device, where all else is done. digits (embedded)
is the default, with three stages and weaker augmentation.

Measured: digits 97.78 % (1 seed), 48 s of CPU; ImageNet not run, nor its plan.
"""

import dataclasses
import functools
from typing import Callable

import jax.numpy as jnp

from dlx import experiment, losses, metrics, optim
from dlx.config import Group
from dlx.data.images import augment, erasing, mixup, policies, randaugment
from dlx.data.pictures.crops import Crop
from dlx.data.sets import images
from dlx.models.convnext import SIZES, ConvNeXt
from dlx.tasks.classification import image_classifier


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augment(Group):
  """What is done on the device to the images of a batch, and to their labels."""

  magnitude: float = 3.0  # Mean level of RandAugment, of 10; 0: no RandAugment.
  spread: float = 0.5  # Standard deviation of RandAugment's level.
  erase: float = 0.0  # Share of the images of which a rectangle is erased.
  # Both parameters of the beta distribution of mixup's weights; 0: no mixup.
  mixup: float = 0.2
  # Both parameters of the beta distribution of CutMix's weights; 0: no CutMix.
  cutmix: float = 1.0
  switch: float = 0.25  # Share of the batches that CutMix takes, mixup the others.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('magnitude', least=0, most=10)
    self.bounds('spread', 'mixup', 'cutmix', least=0)
    self.bounds('erase', 'switch', least=0, most=1)
    if not (self.mixup and self.cutmix):
      self.unused('switch', why='without mixup or CutMix there is nothing to switch')

  @property
  def mix(self) -> Callable | None:
    """(key, images, labels [B, K]) -> the same mixed; None: nothing is."""
    if self.mixup and self.cutmix:
      return functools.partial(
        mixup.mixup_or_cutmix,
        mixup_alpha=self.mixup,
        cutmix_alpha=self.cutmix,
        switch=self.switch,
      )
    if self.mixup:
      return functools.partial(mixup.mixup, alpha=self.mixup)
    return functools.partial(mixup.cutmix, alpha=self.cutmix) if self.cutmix else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 600  # Optimiser steps of the whole run.
  eval_every_steps: int | None = 200  # Steps between evaluations; None: at the end.
  save_every_steps: int | None = 600  # Steps between checkpoints; None: at the end.
  ema_decay: float | None = 0.98  # Decay of averaged parameters, for evaluation.
  # digits, mnist, cifar10, or a set of `python -m launch.data`.
  dataset: str = 'digits'
  size: str | None = None  # tiny, small or base, as published; None: as below.
  blocks: tuple[int, ...] = (1, 2, 1)  # Blocks of each stage, without a size.
  features: tuple[int, ...] = (32, 64, 128)  # Channels of each stage, without a size.
  layer_scale: float = 1e-6  # First factor of a branch.
  drop_path: float = 0.1  # Share of examples that skip the last block, in training.
  min_area: float = 0.7  # Least part of a picture that a random crop has.
  flip: bool = False  # Random flips from left to right.
  augment: Augment = Augment()
  lr: float = 8e-3  # Largest learning rate.
  warmup: float = 1 / 15  # Share of the steps in which the rate rises from 0.
  weight_decay: float = 0.05  # Decoupled decay of the kernels.
  label_smoothing: float = 0.1  # Share of a target spread over all classes.

  def __post_init__(self):
    super().__post_init__()
    sized = f'{", ".join(SIZES)}, or None'
    self.require('size', self.size is None or self.size in SIZES, sized)
    self.bounds('blocks', 'features', least=1, some=True)
    self.require(
      'features',
      len(self.features) == len(self.blocks),
      f'as many numbers as blocks has, {len(self.blocks)}',
    )
    self.bounds('layer_scale', 'weight_decay', least=0)
    self.bounds('drop_path', 'label_smoothing', least=0, below=1)
    self.bounds('min_area', above=0, most=1)
    self.bounds('lr', above=0)
    self.bounds('warmup', least=0, most=1)


# The least run that still has every part.
SMALL = Config.small(blocks=(1, 1), features=(4, 8))


def build(config: Config) -> experiment.Experiment:
  crop = Crop(min_area=config.min_area, flip=config.flip, method='bicubic')
  data = images.with_crop(images.images(config.dataset), crop)
  height, width = data.shape[:2]
  shape = config.blocks, config.features
  if config.size is not None:
    shape = SIZES[config.size].blocks, SIZES[config.size].channels
  side = min(height, width)
  model = ConvNeXt(
    *shape,
    num_outputs=data.num_classes,
    patch=1 if side < 16 else 2 if side < 64 else 4,
    layer_scale=config.layer_scale,
    drop_path=config.drop_path,
    **config.dtypes,
  )
  moves = []
  if data.crop is None:  # Picture files are cropped and flipped as they are read.
    moves.append(
      functools.partial(
        augment.random_resized_crop,
        height=height,
        width=width,
        scale=(config.min_area, 1.0),
        method='bicubic',
      )
    )
    moves += [augment.random_flip] * config.flip
  how = config.augment
  if how.magnitude:
    chosen = randaugment.increasing(how.magnitude, how.spread)
    moves.append(functools.partial(randaugment.randaugment, **chosen))
  erase = functools.partial(erasing.random_erasing, probability=how.erase)
  return image_classifier(
    config,
    data,
    model=model,
    loss=lambda logits, batch: losses.softmax_cross_entropy(
      logits,
      batch.get('target', batch['label']),  # Soft where examples are mixed.
      label_smoothing=config.label_smoothing,
    ),
    tx=optim.adamw(
      optim.warmup_cosine(
        config.lr, config.num_steps, config.warmup * config.num_steps
      ),
      weight_decay=config.weight_decay,
    ),
    augment=policies.chain(
      policies.in_unit(data.mean, data.std, *moves) if moves else None,
      policies.each(erase) if how.erase else None,
      policies.mixing(how.mix, data.num_classes) if how.mix else None,
    ),
    metrics=lambda logits, batch, weight: {
      'top_5': metrics.top_k(logits, batch['label'], weight, k=min(5, data.num_classes))
    },
    declared={'top_5': metrics.TOP_5},
    # Mixing draws other labels at every step; crops and RandAugment cost time alone.
    overfit=experiment.Overfit(
      least=lambda batch: jnp.asarray(
        losses.smoothed_entropy(config.label_smoothing, data.num_classes)
      ),
      fields={
        'min_area': 1.0,
        'augment': {'magnitude': 0.0, 'mixup': 0.0, 'cutmix': 0.0},
      },
    ),
  )
