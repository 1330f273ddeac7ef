"""Losses."""

from dlx.losses.classification import (
  absolute_error,
  binary_cross_entropy,
  distillation,
  gaussian_kl,
  gaussian_kl_terms,
  huber,
  sigmoid_binary_cross_entropy,
  softmax_cross_entropy,
  squared_error,
  weighted_mean,
)

__all__ = [
  'absolute_error',
  'binary_cross_entropy',
  'distillation',
  'gaussian_kl',
  'gaussian_kl_terms',
  'huber',
  'sigmoid_binary_cross_entropy',
  'softmax_cross_entropy',
  'squared_error',
  'weighted_mean',
]
