"""Optimisers and learning-rate schedules; every number may be a tracer of a sweep."""

from dlx.optim.copies import in_float32
from dlx.optim.names import OPTIMIZERS, RATES, Rates, named_optimizer
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
  SCHEDULES,
  Number,
  Schedule,
  constant,
  cosine,
  exponential,
  named_schedule,
  one_cycle,
  step_decay,
  warmup,
  warmup_cosine,
)
from dlx.optim.sparsity import ZERO_WEIGHTS, proximal_l1, zero_weights
from dlx.optim.variants import adagrad, lamb, lion, matrices, muon, rmsprop

__all__ = [
  'Mask',
  'Number',
  'OPTIMIZERS',
  'RATES',
  'Rates',
  'SCHEDULES',
  'Schedule',
  'ZERO_WEIGHTS',
  'adagrad',
  'adam',
  'adamw',
  'by_path',
  'clip',
  'constant',
  'cosine',
  'decay_mask',
  'exponential',
  'freeze',
  'global_norm',
  'in_float32',
  'lamb',
  'learning_rate',
  'lion',
  'matrices',
  'muon',
  'named_optimizer',
  'named_schedule',
  'one_cycle',
  'proximal_l1',
  'rmsprop',
  'sgd',
  'step_decay',
  'warmup',
  'warmup_cosine',
  'zero_weights',
]
