"""Optimisers and learning-rate schedules; every number may be a tracer of a sweep."""

from dlx.optim.copies import in_float32
from dlx.optim.optimizers import (
  Mask,
  adam,
  adamw,
  by_path,
  clip,
  decay_mask,
  freeze,
  global_norm,
  learning_rate,
  sgd,
)
from dlx.optim.schedules import (
  Number,
  Schedule,
  constant,
  cosine,
  one_cycle,
  step_decay,
  warmup_cosine,
)

__all__ = [
  'Mask',
  'Number',
  'Schedule',
  'adam',
  'adamw',
  'by_path',
  'clip',
  'constant',
  'cosine',
  'decay_mask',
  'freeze',
  'global_norm',
  'in_float32',
  'learning_rate',
  'one_cycle',
  'sgd',
  'step_decay',
  'warmup_cosine',
]
