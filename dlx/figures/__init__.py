"""Figures by subject: NumPy arrays in, a matplotlib Figure out. Host only."""

from dlx.figures.classification import (
  calibration_diagram,
  class_shares,
  confusion_matrix,
)
from dlx.figures.curves import (
  gradient_flow,
  learning_curves,
  mistakes,
  players,
  rate_finder,
  scatter,
)
from dlx.figures.detection import detections, precision_by_class, precision_over_recall
from dlx.figures.diffusion import denoising, noising, signal_to_noise, spread
from dlx.figures.features import class_map, codes, similarity_histogram
from dlx.figures.functions import fitted_function
from dlx.figures.images import image_grid, mosaic, predictions, weights_grid
from dlx.figures.plane import decision_boundaries
from dlx.figures.segmentation import class_colours, iou_by_class, segmentations
from dlx.figures.style import (
  BLUE,
  GREY,
  INK,
  RED,
  RULE,
  names_of_classes,
  new_figure,
  ramp,
  style_axes,
)
from dlx.figures.text import (
  BAR,
  LINE,
  attention_maps,
  sentence_predictions,
  text_samples,
  translations,
)

__all__ = [
  'BAR',
  'BLUE',
  'GREY',
  'INK',
  'LINE',
  'RED',
  'RULE',
  'attention_maps',
  'calibration_diagram',
  'class_colours',
  'class_map',
  'class_shares',
  'codes',
  'confusion_matrix',
  'decision_boundaries',
  'denoising',
  'detections',
  'fitted_function',
  'gradient_flow',
  'image_grid',
  'iou_by_class',
  'mosaic',
  'learning_curves',
  'mistakes',
  'names_of_classes',
  'new_figure',
  'noising',
  'players',
  'precision_by_class',
  'precision_over_recall',
  'predictions',
  'rate_finder',
  'ramp',
  'scatter',
  'segmentations',
  'sentence_predictions',
  'signal_to_noise',
  'similarity_histogram',
  'spread',
  'style_axes',
  'text_samples',
  'translations',
  'weights_grid',
]
