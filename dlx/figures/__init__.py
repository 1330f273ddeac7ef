"""Figures."""

from dlx.figures.images import (
  BLUE,
  GREY,
  INK,
  RED,
  RULE,
  confusion_matrix,
  image_grid,
  predictions,
  scatter,
  weights_grid,
)

__all__ = [
  'BLUE',
  'GREY',
  'INK',
  'RED',
  'RULE',
  'confusion_matrix',
  'image_grid',
  'predictions',
  'scatter',
  'weights_grid',
]
