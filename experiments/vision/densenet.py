"""Densely connected networks (Huang et al., arXiv 1608.06993) on small images.

  python -m launch.train --exp=densenet
  python -m launch.train --exp=densenet --config.dataset=cifar10 --config.depth=40 \
      --config.bottleneck=False --config.num_steps=234375 --config.schedule=steps \
      --config.lr=0.1 --config.decay_all --config.pad=4 --config.flip=True \
      --config.eval_every_steps=3906 --data_dir=DATA

The second line is the published recipe of L=40, k=12: 300 epochs of batch 64, SGD with
Nesterov momentum, the rate divided by 10 after half and three quarters of them, weight
decay 1e-4 of all parameters, padding by 4, random crop, flip. Without augmentation the
paper drops 0.2 of what each convolution gives. `bottleneck` gives DenseNet-BC:
`depth`=100 has 0.8 M parameters, `depth`=250 with `growth`=24 15.3 M. `remat` needs
less memory and more time.

Small images: the CIFAR family has three blocks, at the whole, half and a quarter of the
image. `imagenet`=True gives DenseNet-121 to 264, with a 3x3 stem on images below 64
pixels. digits (embedded) is the default.

Published: CIFAR-10, error 5.24 % (L=40, k=12) and 4.51 % (BC, L=100, k=12).

Measured: digits 99.54 % (3 seeds), 48 s of CPU.
"""

import dataclasses
from typing import Any

from dlx import experiment, losses, optim
from dlx.data.images import policies
from dlx.data.sets import images
from dlx.models.densenet import cifar_densenet, imagenet_densenet
from dlx.tasks.classification import image_classifier


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 400  # Optimiser steps of the whole run.
  batch_size: int = 64  # Examples of one global batch.
  eval_every_steps: int | None = 200  # Steps between evaluations; None: at the end.
  save_every_steps: int | None = 400  # Steps between checkpoints; None: at the end.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  imagenet: bool = False  # The ImageNet family instead of the CIFAR family.
  # Layers: 3 n + 4, with bottleneck 6 n + 4, or 121, 161, 169, 201, 264 with imagenet.
  depth: int = 22
  growth: int = 12  # Channels that a layer adds; 32 in the paper's ImageNet family.
  bottleneck: bool = True  # DenseNet-BC instead of the plain form.
  dropout: float = 0.0  # Share of what convolutions give that is dropped in training.
  remat: bool = False  # Whether joined features are computed again to save memory.
  pad: int = 1  # Pixels of padding before a random crop; 0: no crop.
  flip: bool = False  # Random flips from left to right.
  lr: float = 0.1  # Largest learning rate.
  schedule: str = 'one_cycle'  # one_cycle, cosine, or steps: as published.
  momentum: float = 0.9  # Momentum of SGD, Nesterov's.
  weight_decay: float = 1e-4  # Factor of the parameters that is added to the gradient.
  decay_all: bool = False  # Whether batch norm and biases decay, too.

  def __post_init__(self):
    super().__post_init__()
    self.choice('schedule', of=('one_cycle', 'cosine', 'steps'))
    self.bounds('growth', least=1)
    self.bounds('pad', 'weight_decay', least=0)
    self.bounds('lr', above=0)
    self.bounds('momentum', above=0, below=1)
    self.bounds('dropout', least=0, below=1)
    self.require('bottleneck', self.bottleneck or not self.imagenet, 'True of imagenet')


SWEPT = ()  # Runs that differ in their seed alone share a program.
# The least run that still has every part.
SMALL = Config.small(depth=10, growth=2)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  family: Any = imagenet_densenet
  choices: dict[str, Any] = {}
  if not config.imagenet:
    family, choices = cifar_densenet, {'bottleneck': config.bottleneck}
  elif min(data.shape[:2]) < 64:
    choices = {'stem': 'cifar'}
  model = family(
    config.depth,
    growth=config.growth,
    num_outputs=data.num_classes,
    dropout=config.dropout,
    remat=config.remat,
    **config.dtypes,
    **choices,
  )
  masks = {'mask': lambda params: True} if config.decay_all else {}
  return image_classifier(
    config,
    data,
    model=model,
    loss=lambda logits, batch: losses.softmax_cross_entropy(logits, batch['label']),
    tx=optim.sgd(
      optim.named_schedule(config.schedule, config.lr, config.num_steps),
      momentum=config.momentum,
      nesterov=True,
      weight_decay=config.weight_decay,
      **masks,
    ),
    augment=policies.crop_and_flip(config.pad, config.flip),
  )
