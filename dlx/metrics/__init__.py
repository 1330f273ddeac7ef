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
from dlx.metrics.distributions import (
  DISTRIBUTIONS,
  gaussian_kernel,
  inception_score,
  inception_sums,
  median_distance,
  mmd,
  polynomial_kernel,
)
from dlx.metrics.generation import (
  DIVERSITY,
  diversity,
  feature_moments,
  frechet_distance,
  frechet_of,
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
from dlx.metrics.pictures import PICTURES, psnr, ssim
from dlx.metrics.ranking import (
  RANKING,
  average_precision,
  one_vs_rest,
  place_scores,
  ranking_of_bins,
  roc_auc,
  score_sums,
)
from dlx.metrics.regression import (
  regression_metrics,
  regression_summary,
  regression_sums,
)
from dlx.metrics.representation import alignment, principal_components, uniformity
from dlx.metrics.translation import BLEU, bleu, bleu_counts, bleu_tokens, corpus_bleu
from dlx.state import mean

__all__ = [
  'BANK',
  'BLEU',
  'CALIBRATION',
  'CLASSIFICATION',
  'CROSS_ENTROPY',
  'DISTRIBUTIONS',
  'DIVERSITY',
  'Linear',
  'Neighbours',
  'PICTURES',
  'RANKING',
  'accuracy',
  'alignment',
  'average_precision',
  'bleu',
  'bleu_counts',
  'bleu_tokens',
  'calibration_error',
  'calibration_sums',
  'classification_summary',
  'classification_sums',
  'confusion',
  'corpus_bleu',
  'diversity',
  'draw_labels',
  'feature_moments',
  'fit_linear',
  'frechet_distance',
  'frechet_of',
  'gaussian_kernel',
  'in_chunks',
  'inception_score',
  'inception_sums',
  'mean',
  'median_distance',
  'mmd',
  'nearest',
  'nearest_distance',
  'nearest_rows',
  'one_vs_rest',
  'place_rows',
  'place_scores',
  'polynomial_kernel',
  'precision_recall_f1',
  'principal_components',
  'psnr',
  'ranking_of_bins',
  'regression_metrics',
  'regression_summary',
  'regression_sums',
  'roc_auc',
  'score_sums',
  'ssim',
  'standardiser',
  'top_k',
  'uniformity',
  'vote',
]
