"""MobileNet v2 (Sandler et al., arXiv 1801.04381): inverted residuals, few products.

  python -m launch.train --exp=mobilenet
  python -m launch.train --exp=mobilenet --config.dataset=cifar10 --config.width=1 \
      --config.depth=1 --config.num_steps=78200 --config.batch_size=128 \
      --config.schedule=cosine --config.optimizer=sgd --config.lr=0.1 \
      --config.weight_decay=5e-4 --config.flip=True --config.pad=4 --data_dir=DATA

`width`=1 and `depth`=1 is the net of the paper, at `width`=1.4 its largest. Its recipe
for ImageNet is RMSProp (decay and momentum 0.9), rate 0.045 times 0.98 after each epoch
(`optimizer`=rmsprop, `schedule`=steps, `decay_every_steps`), weight decay 4e-5, 16 GPUs
of 96 images; published, at 224 pixels: 72.0 and 74.7 % of ImageNet. The second line is
SGD for CIFAR-10, of which the paper says nothing; 94.43 % by 200 epochs
(github.com/kuangliu/pytorch-cifar).

The paper halves the image five times. Of these the first are left out, as many as leave
4 pixels each way or more at the end: none of 128 pixels, two of 32, four of 8. digits
(embedded) is the default.

Measured: digits 98.80 % (3 seeds), 80 s of CPU.
"""

import dataclasses

from dlx import experiment, losses, optim
from dlx.data.images import policies
from dlx.data.sets import images
from dlx.models.inverted_residual import strides_for
from dlx.models.mobilenet import STRIDES, mobilenet_v2
from dlx.tasks.classification import image_classifier


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 600  # Optimiser steps of the whole run.
  eval_every_steps: int | None = 200  # Steps between evaluations; None: at the end.
  save_every_steps: int | None = 600  # Steps between checkpoints; None: at the end.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  width: float = 0.35  # Factor of the paper's channels, rounded to multiples of 8.
  depth: float = 0.3  # Factor of the paper's blocks of each stage, rounded up.
  dropout: float = 0.2  # Share of units dropped before the last layer.
  pad: int = 1  # Pixels of padding before a random crop; 0: no crop.
  flip: bool = False  # Random flips from left to right.
  optimizer: str = 'adamw'  # adamw, sgd, or rmsprop: as published.
  lr: float = 4e-3  # Largest learning rate.
  schedule: str = 'one_cycle'  # one_cycle, cosine, or steps: as published.
  decay_every_steps: int = 1000  # Steps between drops of the schedule steps.
  decay_factor: float = 0.98  # Factor of the rate at each drop of the schedule steps.
  weight_decay: float = 0.01  # Decay of kernels; adamw's is decoupled.
  label_smoothing: float = 0.0  # Share of a target spread over all classes.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('width', 'depth', 'lr', 'decay_factor', above=0)
    self.bounds('pad', 'weight_decay', least=0)
    self.bounds('dropout', 'label_smoothing', least=0, below=1)
    self.bounds('decay_every_steps', least=1)
    self.choice('optimizer', of=OPTIMIZERS)
    self.choice('schedule', of=('one_cycle', 'cosine', 'steps'))

  @property
  def rate(self) -> optim.Schedule:
    """The learning rate by step."""
    if self.schedule == 'steps':
      return optim.step_decay(self.lr, self.decay_every_steps, self.decay_factor)
    return optim.named_schedule(self.schedule, self.lr, self.num_steps)


OPTIMIZERS = {
  'adamw': {},
  'sgd': {'momentum': 0.9, 'nesterov': True},
  'rmsprop': {'decay': 0.9, 'momentum': 0.9, 'eps': 1e-3},
}
SWEPT = ()  # Runs that differ in their seed alone share a program.
# The least run that still has every part.
SMALL = Config.small(width=0.1, depth=0.1)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  model = mobilenet_v2(
    config.width,
    depth=config.depth,
    strides=strides_for(min(data.shape[:2]), STRIDES),
    num_outputs=data.num_classes,
    dropout=config.dropout,
    **config.dtypes,
  )
  return image_classifier(
    config,
    data,
    model=model,
    loss=lambda logits, batch: losses.softmax_cross_entropy(
      logits, batch['label'], label_smoothing=config.label_smoothing
    ),
    tx=optim.named_optimizer(
      config.optimizer,
      config.rate,
      weight_decay=config.weight_decay,
      **OPTIMIZERS[config.optimizer],
    ),
    # The batch norms that follow take these out: their gradient is rounding noise.
    frozen=optim.by_path('.*/project_norm/bias'),
    augment=policies.crop_and_flip(config.pad, config.flip),
  )
