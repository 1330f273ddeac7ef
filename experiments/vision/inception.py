"""Inception networks (arXiv 1409.4842, 1502.03167) on small images.

  python -m launch.train --exp=inception
  python -m launch.train --exp=inception --config.dataset=cifar10 --config.width=1 \
      --config.auxiliary_weight=0 --config.num_steps=78200 --config.schedule=cosine \
      --config.lr=0.1 --config.weight_decay=5e-4 --config.pad=4 --config.flip=True \
      --config.eval_every_steps=3910 --data_dir=DATA

The second line is what is usual for GoogLeNet's blocks on CIFAR-10: 200 epochs of batch
128, padding by 4, random crop, flip. `form` chooses the net: `cifar` (batch norm, two
3x3 for each 5x5), `googlenet` as published (no norm, 5x5) or `bn_inception`.
`schedule`=published takes 4 % off the rate every 8 epochs of CIFAR-10, as GoogLeNet's
did. The auxiliary heads at 4a and 4d count with `auxiliary_weight` in training alone.

Small images: below 64 pixels the stem is one 3x3 convolution of stride 1 whatever the
form, so that the stages have the whole, half and a quarter of the image; auxiliary
heads pool 5x5, or the whole map where that is smaller. digits (embedded) is the
default.

Published: ImageNet, top-5 error 6.67 % (GoogLeNet, 7 nets, 144 crops) and 4.8 %
(BN-Inception, 6 nets).

Measured: digits 99.26 % (3 seeds), 144 s of CPU.
"""

import dataclasses
from typing import Any

from dlx import experiment, losses, metrics, optim
from dlx.data.images import policies
from dlx.data.sets import images
from dlx.models import inception, inception_tables
from dlx.state import Array, Metric
from dlx.tasks.classification import image_classifier
from dlx.train.objective import Terms


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 300  # Optimiser steps of the whole run.
  batch_size: int = 128  # Examples of one global batch.
  eval_every_steps: int | None = 100  # Steps between evaluations; None: at the end.
  save_every_steps: int | None = 300  # Steps between checkpoints; None: at the end.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  form: str = 'cifar'  # The net: cifar, googlenet or bn_inception.
  blocks: tuple[int, ...] = ()  # Blocks kept of each of three stages; none: all.
  width: float = 0.25  # Factor of all channels; 1 in the papers.
  auxiliary_weight: float = 0.3  # Factor of the auxiliary losses; 0: no such heads.
  dropout: float = 0.0  # Share of features dropped before the head; 0.4 in GoogLeNet.
  pad: int = 1  # Pixels of padding before a random crop; 0: no crop.
  flip: bool = False  # Random flips from left to right.
  lr: float = 0.05  # Largest learning rate.
  schedule: str = 'one_cycle'  # one_cycle, cosine, steps, or published.
  momentum: float = 0.9  # Momentum of SGD.
  weight_decay: float = 1e-4  # Factor of the kernels that is added to the gradient.
  label_smoothing: float = 0.0  # Share of a target spread over all classes.

  def __post_init__(self):
    super().__post_init__()
    self.choice('form', of=FORMS)
    self.choice('schedule', of=('one_cycle', 'cosine', 'steps', 'published'))
    self.bounds('width', 'lr', above=0)
    self.bounds('pad', 'weight_decay', 'auxiliary_weight', least=0)
    self.bounds('dropout', 'momentum', 'label_smoothing', least=0, below=1)
    _ = self.stages  # Refuses counts of blocks that there are not.

  @property
  def stages(self) -> inception_tables.Stages:
    """The blocks of each stage."""
    stages = FORMS[self.form][1]
    return inception_tables.kept(stages, self.blocks) if self.blocks else stages


FORMS = {
  'cifar': (inception.cifar_googlenet, inception_tables.GOOGLENET),
  'googlenet': (inception.googlenet, inception_tables.GOOGLENET),
  'bn_inception': (inception.bn_inception, inception_tables.BN_INCEPTION),
}


def rate(config: Config) -> optim.Schedule:
  """The learning rate by step."""
  if config.schedule == 'published':
    # 4 % less every 8 epochs, of 50000 images and batches of 128.
    return optim.step_decay(config.lr, 8 * 50000 // 128, 0.96)
  return optim.named_schedule(config.schedule, config.lr, config.num_steps)


SWEPT = ()  # Runs that differ in their seed alone share a program.
# The least run that still has every part.
SMALL = Config.small(width=1 / 32, blocks=(1, 2, 1))


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  side = min(data.shape[:2])
  choices: dict[str, Any] = {}
  if side < 64:
    side = -(-side // 2)  # Of the maps of the second stage.
    choices = {'stem': 'cifar', 'auxiliary_pool': (min(5, side), 3)}
  make, _ = FORMS[config.form]
  model = make(
    stages=config.stages,
    width=config.width,
    auxiliary=inception_tables.AUXILIARY if config.auxiliary_weight else (),
    dropout=config.dropout,
    num_outputs=data.num_classes,
    **config.dtypes,
    **choices,
  )

  return image_classifier(
    config,
    data,
    model=model,
    loss=lambda outputs, batch: terms(outputs, batch['label'], config),
    logits=lambda outputs: outputs.logits,
    tx=optim.sgd(
      rate(config), momentum=config.momentum, weight_decay=config.weight_decay
    ),
    augment=policies.crop_and_flip(config.pad, config.flip),
    declared={
      'final': of_head('the head'),
      **{
        f'auxiliary_{name}': of_head(f'the auxiliary head at {name}')
        for name in inception_tables.AUXILIARY
      },
    },
  )


def terms(outputs: inception.Outputs, label_B: Array, config: Config) -> Terms:
  """Losses of training [B]: of the head, and by their weight of the auxiliary heads."""
  of = lambda logits_BK: losses.softmax_cross_entropy(
    logits_BK, label_B, label_smoothing=config.label_smoothing
  )
  auxiliary = {
    f'auxiliary_{name}': (config.auxiliary_weight, of(logits_BK))
    for name, logits_BK in outputs.auxiliary.items()
  }
  return {'final': of(outputs.logits), **auxiliary}


def of_head(name: str) -> Metric:
  """What one of the losses of training is."""
  meaning = f'Mean cross-entropy of {name} with the labels, smoothed as for training.'
  return metrics.CROSS_ENTROPY._replace(title=f'Loss of {name}', meaning=meaning)
