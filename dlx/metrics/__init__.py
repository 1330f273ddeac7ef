"""Metrics."""

from dlx.metrics.classification import (
  accuracy,
  classification,
  classification_summary,
  confusion,
  mean,
  precision_recall_f1,
  regression,
  regression_summary,
  top_k,
)

__all__ = [
  'accuracy',
  'classification',
  'classification_summary',
  'confusion',
  'mean',
  'precision_recall_f1',
  'regression',
  'regression_summary',
  'top_k',
]
