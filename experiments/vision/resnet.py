"""Residual networks (He et al., arXiv 1512.03385) on small images.

  python -m launch.train --exp=resnet
  python -m launch.train --exp=resnet --config.dataset=cifar10 --config.depth=20 \
      --config.width=16 --config.num_steps=64000 --config.schedule=steps \
      --config.lr=0.1 --config.flip=True --config.pad=4 --data_dir=DATA

The second line is the published recipe: 64000 steps of batch 128, SGD with momentum,
the rate divided by 10 after half and three quarters of them, weight decay 1e-4, padding
by 4, random crop, flip. (The paper decays batch norm's scales too; `decay_all`.)
`skip`=False is the plain network of its Figure 1. On two cores one cycle of a few
thousand steps goes further; `imagenet`=True gives ResNet-18 to 152, with a 3x3 stem on
images below 64 pixels. digits (embedded) is the default.

The flags --config.form give what came after: `preactivation` (arXiv 1603.05027),
`bottleneck` nets of 164 layers, `wide` nets (arXiv 1605.07146: depth 28, width 16,
form.wide 10, form.dropout 0.3, lr 0.1, nesterov, weight decay 5e-4), and of the
ImageNet family the forms a to d (arXiv 1812.01187).

Measured: CIFAR-10, 20 layers, 91.38 % (1 seed), 3735 s on two cores.
"""

import dataclasses
import functools

from dlx import experiment, losses, optim
from dlx.config import Group
from dlx.data.images import policies
from dlx.data.sets import images
from dlx.models.resnet import FORMS, cifar_resnet, imagenet_resnet, wide_resnet
from dlx.tasks.classification import image_classifier


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form(Group):
  """Which residual network it is, where it is not that of 2015."""

  preactivation: bool = False  # Batch norm and ReLU before each convolution, not after.
  bottleneck: bool = False  # CIFAR blocks of 1x1, 3x3, 1x1; depth 9 n + 2.
  # Widening factor k of a wide net, whose depth is 6 n + 4; None: not wide.
  wide: int | None = None
  dropout: float = 0.0  # Share of units dropped within blocks of pre-activation.
  # ImageNet nets: a, as published; b, v1.5; c, deep stem; d, and mean shortcut.
  imagenet: str = 'b'

  def __post_init__(self):
    super().__post_init__()
    self.bounds('wide', least=1)
    self.bounds('dropout', least=0, below=1)
    self.choice('imagenet', of=FORMS)
    before = self.preactivation or self.wide is not None
    self.require(
      'dropout', before or not self.dropout, '0 without pre-activation: set form.wide'
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 600  # Optimiser steps of the whole run.
  batch_size: int = 128  # Examples of one global batch.
  eval_every_steps: int | None = 200  # Steps between evaluations; None: at the end.
  save_every_steps: int | None = 600  # Steps between checkpoints; None: at the end.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  imagenet: bool = False  # The ImageNet family instead of the CIFAR family.
  depth: int = 8  # Layers: 6 n + 2, or 18, 34, 50, 101, 152 with imagenet.
  width: int = 8  # Channels of the first stage; 16 (CIFAR) and 64 in the paper.
  shortcut: str = 'auto'  # pad, projection, average, or auto: as in the paper.
  skip: bool = True  # Whether blocks have shortcuts; False: a plain network.
  zero_init: bool = False  # Whether blocks start as the identity.
  form: Form = Form()
  pad: int = 1  # Pixels of padding before a random crop; 0: no crop.
  flip: bool = False  # Random flips from left to right.
  lr: float = 0.2  # Largest learning rate.
  schedule: str = 'one_cycle'  # one_cycle, cosine, or steps: as published.
  momentum: float = 0.9  # Momentum of SGD.
  nesterov: bool = False  # Whether SGD's momentum is Nesterov's.
  weight_decay: float = 1e-4  # Factor of the parameters that is added to the gradient.
  decay_all: bool = False  # Whether batch norm and biases decay, too.
  label_smoothing: float = 0.0  # Share of a target spread over all classes.

  def __post_init__(self):
    super().__post_init__()
    self.choice('shortcut', of=('auto', 'pad', 'projection', 'average'))
    self.choice('schedule', of=('one_cycle', 'cosine', 'steps'))
    self.bounds('width', least=1)
    self.bounds('pad', 'weight_decay', least=0)
    self.bounds('lr', above=0)
    self.bounds('momentum', 'label_smoothing', least=0, below=1)
    form = self.form
    kinds = self.imagenet + form.bottleneck + (form.wide is not None)
    self.require(
      'imagenet', kinds < 2 or not self.imagenet, 'False with form.wide or bottleneck'
    )
    self.require(
      'form.bottleneck', kinds < 2, 'False with form.wide, whose blocks are 3x3, 3x3'
    )
    self.require(
      'form.imagenet', self.imagenet or form.imagenet == 'b', 'b without imagenet'
    )
    each, rest = (6, 4) if form.wide else (9, 2) if form.bottleneck else (6, 2)
    known = self.imagenet or (self.depth > rest and self.depth % each == rest)
    several = ', '.join(str(each * n + rest) for n in (1, 3, 5))
    self.require('depth', known, f'{each} n + {rest}: {several}, ...')


# Fields that are used by arithmetic alone: runs that differ in them share a program.
SWEPT = ('lr', 'weight_decay')
# The least run that still has every part.
SMALL = Config.small(width=4)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  form, choices = config.form, {}
  if config.imagenet:
    family, choices['form'] = imagenet_resnet, form.imagenet
  elif form.wide:
    family = functools.partial(wide_resnet, widen=form.wide)
  else:
    family, choices['bottleneck'] = cifar_resnet, form.bottleneck
  if form.preactivation or form.wide:
    choices |= {'preactivation': True, 'dropout': form.dropout}
  if config.shortcut != 'auto':
    choices['shortcut'] = config.shortcut
  if config.imagenet and min(data.shape[:2]) < 64:
    choices['stem'] = 'cifar'
  model = family(
    config.depth,
    width=config.width,
    num_outputs=data.num_classes,
    skip=config.skip,
    zero_init=config.zero_init,
    **config.dtypes,
    **choices,
  )
  masks = {'mask': lambda params: True} if config.decay_all else {}
  return image_classifier(
    config,
    data,
    model=model,
    loss=lambda logits, batch: losses.softmax_cross_entropy(
      logits, batch['label'], label_smoothing=config.label_smoothing
    ),
    tx=optim.sgd(
      optim.named_schedule(config.schedule, config.lr, config.num_steps),
      momentum=config.momentum,
      nesterov=config.nesterov,
      weight_decay=config.weight_decay,
      **masks,
    ),
    augment=policies.crop_and_flip(config.pad, config.flip),
  )
