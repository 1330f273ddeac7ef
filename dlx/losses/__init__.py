"""Losses by subject: one value an example, natural units, at least float32."""

from dlx.losses.adversarial import (
  KINDS,
  discriminator_loss,
  generator_loss,
  gradient_penalty,
  threshold,
)
from dlx.losses.alignment import ctc
from dlx.losses.classification import (
  binary_cross_entropy,
  example_weight,
  sigmoid_binary_cross_entropy,
  smoothed_entropy,
  softmax_cross_entropy,
)
from dlx.losses.contrastive import (
  CONTRASTIVE,
  InfoNCE,
  in_batch_info_nce,
  info_nce,
  nt_xent,
  symmetric_info_nce,
)
from dlx.losses.detection import box_giou, heat_focal
from dlx.losses.divergence import distillation, gaussian_kl, gaussian_kl_terms
from dlx.losses.domains import coral
from dlx.losses.focal import sigmoid_focal, softmax_focal
from dlx.losses.margins import hinge, multiclass_hinge, pair_contrastive, triplet
from dlx.losses.penalties import L2, l1, l2
from dlx.losses.regression import (
  absolute_error,
  huber,
  pinball,
  smooth_l1,
  squared_error,
)
from dlx.losses.segmentation import dice, pixel_cross_entropy
from dlx.losses.wasserstein import (
  wasserstein_critic,
  wasserstein_generator,
  wasserstein_penalty,
)

__all__ = [
  'CONTRASTIVE',
  'InfoNCE',
  'KINDS',
  'L2',
  'absolute_error',
  'binary_cross_entropy',
  'box_giou',
  'coral',
  'ctc',
  'dice',
  'discriminator_loss',
  'distillation',
  'example_weight',
  'gaussian_kl',
  'gaussian_kl_terms',
  'generator_loss',
  'gradient_penalty',
  'heat_focal',
  'hinge',
  'huber',
  'in_batch_info_nce',
  'info_nce',
  'l1',
  'l2',
  'multiclass_hinge',
  'nt_xent',
  'pair_contrastive',
  'pinball',
  'pixel_cross_entropy',
  'sigmoid_binary_cross_entropy',
  'sigmoid_focal',
  'smooth_l1',
  'smoothed_entropy',
  'softmax_cross_entropy',
  'softmax_focal',
  'squared_error',
  'symmetric_info_nce',
  'threshold',
  'triplet',
  'wasserstein_critic',
  'wasserstein_generator',
  'wasserstein_penalty',
]
