"""ResNet-50 on ImageNet (He et al., arXiv 1512.03385), by the recipe of large batches.

  python -m launch.train --exp=imagenet_resnet50
  python -m launch.data images ILSVRC --keep=files --name=imagenet --data_dir=DATA
  python -m launch.train --exp=imagenet_resnet50 --config.dataset=imagenet \
      --config.width=64 --config.batch_size=1024 --config.num_steps=125114 \
      --config.lr=0.4 --config.min_area=0.08 --config.flip=True \
      --config.compute_dtype=bfloat16 --config.eval_every_steps=2502 \
      --config.save_every_steps=1251 --config.stream_workers=16 --data_dir=DATA

The second line makes a set of the folders train and val of ILSVRC 2012: a list, no
pixels are copied. The third is 100 epochs: SGD with Nesterov's momentum, a rate of 0.1
for each 256 examples after 5 % of the steps (arXiv 1706.02677), then a cosine; decay
1e-4 of kernels alone, label smoothing 0.1, blocks that begin as the identity; random
crops of 8 to 100 % of a picture, and flips; in the test the middle 224 pixels of 256.
The net is v1.5: strides lie in the 3x3 convolutions. Without smoothing it is the recipe
of Flax's example: 76.54 % top-1. A batch of 8192 takes a rate of 3.2.

Batch norm is over the batch of all devices, `micro_batches`=k takes each k-th part by
itself, which is what the published runs do with a device's part. Pictures that are read
from their files are cropped and flipped as they are read; those of a set of arrays on
the device. Below 64 pixels a 3x3 convolution takes the place of the stem. digits
(embedded) is the default, at an eighth of the width.

Planned for 16 TPUs (`python -m launch.plan` with the flags of the third line and
--topology=v5e:4x4 --mesh=data=16): 3.10 GiB of 15.75 on each, a step of 16.7 ms at
least, by the bandwidth of the memory.

Measured: digits 98.80 % (3 seeds), 87 s of CPU; ImageNet not run.
"""

import dataclasses
import functools

import jax.numpy as jnp

from dlx import experiment, losses, metrics, optim
from dlx.data.images import augment, policies
from dlx.data.pictures.crops import Crop
from dlx.data.sets import images
from dlx.models.resnet import ResNet
from dlx.tasks.classification import image_classifier


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 600  # Optimiser steps of the whole run.
  eval_every_steps: int | None = 200  # Steps between evaluations; None: at the end.
  save_every_steps: int | None = 600  # Steps between checkpoints; None: at the end.
  # digits, mnist, cifar10, or a set of `python -m launch.data`.
  dataset: str = 'digits'
  blocks: tuple[int, ...] = (3, 4, 6, 3)  # Bottlenecks of each stage: 50 layers.
  width: int = 8  # Channels of the first stage; 64 in the paper.
  min_area: float = 0.5  # Least part of a picture that a random crop has.
  flip: bool = False  # Random flips from left to right.
  lr: float = 0.2  # Largest learning rate.
  warmup: float = 0.05  # Share of the steps in which the rate rises from 0.
  momentum: float = 0.9  # Nesterov's momentum.
  weight_decay: float = 1e-4  # Factor of the kernels that is added to the gradient.
  label_smoothing: float = 0.1  # Share of a target spread over all classes.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('blocks', least=1, some=True)
    self.bounds('width', least=1)
    self.bounds('min_area', above=0, most=1)
    self.bounds('lr', above=0)
    self.bounds('warmup', least=0, most=1)
    self.bounds('momentum', 'label_smoothing', least=0, below=1)
    self.bounds('weight_decay', least=0)


# Fields that are used by arithmetic alone: runs that differ in them share a program.
SWEPT = ('lr', 'weight_decay')
# The least run that still has every part.
SMALL = Config.small(blocks=(1, 1), width=2)


def build(config: Config) -> experiment.Experiment:
  crop = Crop(min_area=config.min_area, flip=config.flip)
  data = images.with_crop(images.images(config.dataset), crop)
  height, width = data.shape[:2]
  model = ResNet(
    blocks=config.blocks,
    channels=tuple(config.width * 2**i for i in range(len(config.blocks))),
    bottleneck=True,
    stem='imagenet' if min(height, width) >= 64 else 'cifar',
    num_outputs=data.num_classes,
    **config.dtypes,
  )
  moves = [
    functools.partial(
      augment.random_resized_crop,
      height=height,
      width=width,
      scale=(config.min_area, 1.0),
    )
  ] + [augment.random_flip] * config.flip
  return image_classifier(
    config,
    data,
    model=model,
    loss=lambda logits, batch: losses.softmax_cross_entropy(
      logits, batch['label'], label_smoothing=config.label_smoothing
    ),
    tx=optim.sgd(
      optim.warmup_cosine(
        config.lr, config.num_steps, config.warmup * config.num_steps
      ),
      momentum=config.momentum,
      nesterov=True,
      weight_decay=config.weight_decay,
    ),
    # Picture files are cropped and flipped as they are read.
    augment=policies.each(augment.compose(*moves)) if data.crop is None else None,
    metrics=lambda logits, batch, weight: {
      'top_5': metrics.top_k(logits, batch['label'], weight, k=min(5, data.num_classes))
    },
    declared={'top_5': metrics.TOP_5},
    overfit=experiment.Overfit(
      least=lambda batch: jnp.asarray(
        losses.smoothed_entropy(config.label_smoothing, data.num_classes)
      )
    ),
  )
