"""Losses by subject: one value an example, natural units, at least float32."""

from dlx.losses.adversarial import (
  KINDS,
  discriminator_loss,
  generator_loss,
  gradient_penalty,
  threshold,
)
from dlx.losses.classification import (
  binary_cross_entropy,
  sigmoid_binary_cross_entropy,
  softmax_cross_entropy,
)
from dlx.losses.contrastive import (
  CONTRASTIVE,
  InfoNCE,
  in_batch_info_nce,
  info_nce,
  nt_xent,
)
from dlx.losses.divergence import distillation, gaussian_kl, gaussian_kl_terms
from dlx.losses.penalties import L2, l1, l2
from dlx.losses.regression import absolute_error, huber, squared_error

__all__ = [
  'CONTRASTIVE',
  'InfoNCE',
  'KINDS',
  'L2',
  'absolute_error',
  'binary_cross_entropy',
  'discriminator_loss',
  'distillation',
  'gaussian_kl',
  'gaussian_kl_terms',
  'generator_loss',
  'gradient_penalty',
  'huber',
  'in_batch_info_nce',
  'info_nce',
  'l1',
  'l2',
  'nt_xent',
  'sigmoid_binary_cross_entropy',
  'softmax_cross_entropy',
  'squared_error',
  'threshold',
]
