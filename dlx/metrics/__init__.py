"""Metrics by subject: sums that add up over batches, steps and devices."""

from dlx.metrics.calibration import CALIBRATION, calibration_error, calibration_sums
from dlx.metrics.classification import (
  CLASSIFICATION,
  CROSS_ENTROPY,
  accuracy,
  classification_summary,
  classification_sums,
  confusion,
  precision_recall_f1,
  top_k,
)
from dlx.metrics.generation import (
  DIVERSITY,
  diversity,
  feature_moments,
  frechet_distance,
  nearest_distance,
  nearest_rows,
  place_rows,
)
from dlx.metrics.linear_probe import (
  Linear,
  draw_labels,
  fit_linear,
  in_chunks,
  standardiser,
)
from dlx.metrics.neighbours import BANK, Neighbours, nearest, vote
from dlx.metrics.regression import (
  regression_metrics,
  regression_summary,
  regression_sums,
)
from dlx.metrics.representation import alignment, principal_components, uniformity
from dlx.state import mean

__all__ = [
  'BANK',
  'CALIBRATION',
  'CLASSIFICATION',
  'CROSS_ENTROPY',
  'DIVERSITY',
  'Linear',
  'Neighbours',
  'accuracy',
  'alignment',
  'calibration_error',
  'calibration_sums',
  'classification_summary',
  'classification_sums',
  'confusion',
  'diversity',
  'draw_labels',
  'feature_moments',
  'fit_linear',
  'frechet_distance',
  'in_chunks',
  'mean',
  'nearest',
  'nearest_distance',
  'nearest_rows',
  'place_rows',
  'precision_recall_f1',
  'principal_components',
  'regression_metrics',
  'regression_summary',
  'regression_sums',
  'standardiser',
  'top_k',
  'uniformity',
  'vote',
]
