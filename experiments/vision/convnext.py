"""ConvNeXt (Liu et al., arXiv 2201.03545): a convolutional net for the 2020s.

  python -m launch.train --exp=convnext
  python -m launch.train --exp=convnext --config.dataset=cifar10 --config.size=tiny \
      --config.num_steps=30000 --config.batch_size=128 --config.schedule=cosine \
      --config.lr=1e-3 --config.layer_scale=1e-6 --config.drop_path=0.1 \
      --config.label_smoothing=0.1 --config.mix=cutmix --config.flip=True \
      --config.pad=4 --config.ema_decay=0.999 --data_dir=DATA

`size`=tiny, small and base are the nets of the paper, and the second line its recipe
for small images. On ImageNet it is 300 epochs of batch 4096: AdamW, rate 4e-3 after 20
epochs of warm-up, then a cosine; weight decay 0.05, label smoothing 0.1, RandAugment,
mixup, cutmix, erasing, drop_path 0.1, 0.4 and 0.5, an average of 0.9999. Published, at
224 pixels: 82.1, 83.1 and 83.8 % of ImageNet.

The stem cuts the image into squares of 4 pixels; `patch` says otherwise, and unless it
is given they are of 1 pixel below 16, of 2 below 64. digits (embedded) is the default,
with three stages.

Measured: digits 98.33 % (3 seeds), 46 s of CPU.
"""

import dataclasses

from dlx import experiment, losses, optim
from dlx.data.images import policies
from dlx.data.sets import images
from dlx.models.convnext import SIZES, ConvNeXt
from dlx.tasks.classification import image_classifier


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 600  # Optimiser steps of the whole run.
  eval_every_steps: int | None = 200  # Steps between evaluations; None: at the end.
  save_every_steps: int | None = 600  # Steps between checkpoints; None: at the end.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  size: str | None = None  # tiny, small or base, as published; None: as below.
  blocks: tuple[int, ...] = (1, 2, 1)  # Blocks of each stage, without a size.
  features: tuple[int, ...] = (32, 64, 128)  # Channels of each stage, without a size.
  patch: int | None = None  # Side of the stem's squares; None: by the image's.
  layer_scale: float | None = None  # First factor of a branch, 1e-6 as published.
  drop_path: float = 0.0  # Share of examples that skip the last block, in training.
  pad: int = 1  # Pixels of padding before a random crop; 0: no crop.
  flip: bool = False  # Random flips from left to right.
  mix: str = 'none'  # Mixed examples: none, mixup or cutmix.
  lr: float = 8e-3  # Largest learning rate.
  schedule: str = 'one_cycle'  # one_cycle, or cosine: as published.
  weight_decay: float = 0.05  # Decoupled decay of the kernels.
  label_smoothing: float = 0.0  # Share of a target spread over all classes.

  def __post_init__(self):
    super().__post_init__()
    self.require('size', self.size is None or self.size in SIZES, f'{SIZED}, or None')
    self.bounds('blocks', 'features', least=1, some=True)
    self.require(
      'features',
      len(self.features) == len(self.blocks),
      f'as many numbers as blocks has, {len(self.blocks)}',
    )
    self.bounds('patch', least=1)
    self.bounds('layer_scale', 'pad', 'weight_decay', least=0)
    self.bounds('drop_path', 'label_smoothing', least=0, below=1)
    self.choice('mix', of=('none', *policies.MIXES))
    self.choice('schedule', of=SCHEDULES)
    self.bounds('lr', above=0)


SIZED = ', '.join(SIZES)
SCHEDULES = {
  'one_cycle': optim.one_cycle,
  # Of 300 epochs 20 are warm-up.
  'cosine': lambda peak, steps: optim.warmup_cosine(peak, steps, steps / 15),
}
SWEPT = ()  # Runs that differ in their seed alone share a program.
# The least run that still has every part.
SMALL = Config.small(blocks=(1, 1), features=(4, 8), drop_path=0.1)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  shape = config.blocks, config.features
  if config.size is not None:
    shape = SIZES[config.size].blocks, SIZES[config.size].channels
  model = ConvNeXt(
    *shape,
    num_outputs=data.num_classes,
    patch=config.patch or patch_of(min(data.shape[:2])),
    layer_scale=config.layer_scale,
    drop_path=config.drop_path,
    **config.dtypes,
  )
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
      SCHEDULES[config.schedule](config.lr, config.num_steps),
      weight_decay=config.weight_decay,
    ),
    augment=policies.chain(
      policies.crop_and_flip(config.pad, config.flip),
      policies.by_name(config.mix, data.num_classes),
    ),
  )


def patch_of(side: int) -> int:
  """Side of the stem's squares for images of so many pixels."""
  return 1 if side < 16 else 2 if side < 64 else 4
