"""A fork outside experiments/: batch norm, dropout, EMA, micro-batches; tiny."""

import dataclasses

from dlx import experiment, losses, optim
from dlx.data.sets import images
from dlx.models.cnn import CNN
from dlx.tasks.classification import image_classifier


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 600
  batch_size: int = 32
  log_every_steps: int = 7
  eval_every_steps: int | None = 90
  save_every_steps: int | None = 10
  ema_decay: float | None = 0.99
  micro_batches: int = 2
  stream_workers: int = 2
  dataset: str = 'digits'


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  model = CNN(channels=(4,), dense=16, num_outputs=data.num_classes)
  return image_classifier(
    config,
    data,
    model=model,
    tx=optim.adamw(1e-3),
    loss=lambda logits, batch: losses.softmax_cross_entropy(logits, batch['label']),
  )
