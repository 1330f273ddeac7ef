"""Pictures of a classifier: confusion matrix, calibration, shares of classes."""

from typing import TYPE_CHECKING, Any, Mapping, Sequence

import numpy as np

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

if TYPE_CHECKING:
  from matplotlib.figure import Figure
if TYPE_CHECKING:
  from matplotlib.figure import Figure

_MAX_NUMBERED = 20  # Classes up to which the cells of a confusion matrix hold counts.


def confusion_matrix(
  confusion_KK: Any, class_names: Sequence[str] | None = None, title: str | None = None
) -> 'Figure':
  """Counts of true class (row) against predicted class (column).

  Colour is the share of the row, so that rare classes are as readable as common ones;
  the numbers are counts and stand in the cells up to 20 classes. Cells of 0 are left
  empty. Hits are blue, errors red.

  Args:
    confusion_KK: non-negative, rows true.
    class_names: K names; None: 0 to K - 1.
    title: None: the accuracy.
  """
  counts = np.asarray(confusion_KK, np.float64)
  num_classes = counts.shape[0]
  if counts.shape != (num_classes, num_classes):
    raise ValueError(f'A confusion matrix is square; this one is {counts.shape}.')
  names = names_of_classes(class_names, num_classes)
  share = counts / np.maximum(counts.sum(1, keepdims=True), 1e-12)
  diagonal = np.eye(num_classes, dtype=bool)

  numbered = num_classes <= _MAX_NUMBERED
  side = float(np.clip(1.6 + 0.42 * num_classes, 3.6, 9.0))
  figure = new_figure(side + 0.4, side + 0.3)
  ax = figure.add_subplot()
  hits, errors = (
    ramp('#e3edf8', BLUE),
    ramp('#fbe3e1' if numbered else '#ffffff', RED),
  )
  rgba = np.ones((num_classes, num_classes, 4))
  rgba[diagonal] = hits(share[diagonal])
  # Errors are few: full colour at half of the row.
  rgba[~diagonal] = errors(np.minimum(2 * share[~diagonal], 1))
  rgba[counts == 0] = 1.0
  ax.imshow(rgba, interpolation='nearest')
  if numbered:
    size = float(np.clip(9.5 - 0.14 * num_classes, 6.5, 9))
    for i, j in np.argwhere(counts > 0):
      dark = share[i, j] * (1 if i == j else 2) > 0.55
      ax.text(
        j,
        i,
        f'{counts[i, j]:.10g}',
        ha='center',
        va='center',
        fontsize=size,
        color='white' if dark else INK,
      )
    ax.set_xticks(np.arange(num_classes + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(num_classes + 1) - 0.5, minor=True)
    ax.grid(which='minor', color=RULE, linewidth=0.6)
  every = max(1, -(-num_classes // 25))
  ticks = np.arange(0, num_classes, every)
  # A character is about 0.08 inches wide.
  long = 0.08 * max(len(n) for n in names) > 0.85 * every * (side - 1.2) / num_classes
  ax.set_xticks(
    ticks,
    [names[t] for t in ticks],
    rotation=45 if long else 0,
    ha='right' if long else 'center',
    rotation_mode='anchor' if long else 'default',
  )
  ax.set_yticks(ticks, [names[t] for t in ticks])
  ax.set_xlabel('Predicted class')
  ax.set_ylabel('True class')
  total, right = counts.sum(), counts[diagonal].sum()
  if title is None:
    title = f'{right:.10g} of {total:.10g} right ({100 * right / max(total, 1):.2f} %)'
  style_axes(ax, title)
  ax.tick_params(which='both', length=0)
  return figure


def calibration_diagram(curves: Mapping[str, Mapping[str, Any]]) -> Any:
  """Reliability diagram: accuracy against confidence, a line each. Host only.

  Below it the share of the answers in each bin, which compares one net with many.

  Args:
    curves: name -> what `metrics.calibration_sums` gives, as NumPy arrays, [bins]; with
      a leading axis of members, [M, bins], the line is that of their answers together,
      and the error the mean of theirs.
  """
  from matplotlib.figure import Figure

  figure = Figure(figsize=(5.2, 5.4), layout='constrained')
  top, bottom = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
  top.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle='--')
  for (name, found), colour in zip(
    curves.items(), (BLUE, RED, '#3c8d40', '#8a5fb0') * len(curves), strict=False
  ):
    shown = ('count', 'confidence', 'correct')
    of_MN = {k: np.atleast_2d(np.asarray(found[k], np.float64)) for k in shown}
    gap_MN = np.abs(of_MN['correct'] - of_MN['confidence'])
    ece = (gap_MN.sum(1) / np.maximum(of_MN['count'].sum(1), 1)).mean()
    count, confidence, accuracy = (of_MN[k].sum(0) for k in shown)
    some = count > 0
    confidence, accuracy = (x[some] / count[some] for x in (confidence, accuracy))
    said = 'ECE' if len(gap_MN) == 1 else 'mean ECE'
    top.plot(
      confidence, accuracy, 'o-', ms=4, color=colour, label=f'{name}, {said} {ece:.3f}'
    )
    bottom.step(confidence, count[some] / count.sum(), where='mid', color=colour)
  top.set(ylabel='Accuracy', xlim=(0, 1.02), ylim=(0, 1.02), title='Reliability')
  bottom.set(ylabel='Share of answers', xlabel='Confidence', yscale='log')
  top.legend(frameon=False, fontsize=8)
  for ax in (top, bottom):
    ax.title.set_fontsize(9.5)
    ax.tick_params(labelsize=8)
    ax.grid(color=RULE, linewidth=0.6)
    for side in ax.spines.values():
      side.set_color(RULE)
  return figure


def class_shares(counts_K: Any, class_names: Sequence[str], entropy: float) -> 'Figure':
  """Share of the samples that the judge puts into each class.

  A class without a bar is a mode that the generator does not make.

  Args:
    counts_K: samples by class.
    class_names: K names.
    entropy: of these shares, in nats, for the title.
  """
  from matplotlib.figure import Figure

  counts = np.asarray(counts_K, np.float64)
  share = counts / max(counts.sum(), 1e-12)
  figure = Figure((6.2, 2.8), dpi=160, facecolor='white', layout='constrained')
  ax = figure.add_subplot()
  ax.bar(np.arange(len(share)), 100 * share, color=BLUE, width=0.7)
  ax.axhline(100 / len(share), color=GREY, linewidth=1, linestyle='--')
  long = max(map(len, class_names)) > 5
  ax.set_xticks(np.arange(len(share)), class_names, rotation=30 if long else 0)
  ax.set_ylabel('Samples, %', fontsize=9, color=INK)
  ax.tick_params(labelsize=8, colors=GREY, length=0)
  ax.grid(axis='y', color=RULE, linewidth=0.6)
  ax.set_axisbelow(True)
  ax.spines[['top', 'right', 'left']].set_visible(False)
  title = f'Classes of the samples: {entropy:.2f} of {np.log(len(share)):.2f} nats'
  ax.set_title(title, fontsize=10, color=INK, fontweight='bold', loc='left', pad=8)
  return figure
