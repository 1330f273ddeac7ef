"""Whether a probability of 0.8 is right 8 times in 10 (arXiv 1706.04599)."""

from typing import Any, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from dlx.state import Array


def sums(
  probs_BK: Array, label_B: Array, weight_B: Array | None = None, num_bins: int = 15
) -> dict[str, Array]:
  """Sums over the examples of each bin of confidence: additive over batches.

  Bin i holds confidences in (i / n, (i + 1) / n], the largest probability of a row.

  Returns:
    `count`, `confidence` and `correct`, each [num_bins].
  """
  weight_B = jnp.ones(label_B.shape) if weight_B is None else weight_B
  confidence_B = probs_BK.max(1)
  bin_B = jnp.clip(jnp.ceil(confidence_B * num_bins).astype(int) - 1, 0, num_bins - 1)
  hot_BN = jax.nn.one_hot(bin_B, num_bins) * weight_B[:, None]
  correct_B = (probs_BK.argmax(1) == label_B).astype(jnp.float32)
  return {
    'count': hot_BN.sum(0),
    'confidence': confidence_B @ hot_BN,
    'correct': correct_B @ hot_BN,
  }


def error(found: Mapping[str, Array]) -> Array:
  """Expected calibration error: mean |accuracy - confidence| over the bins, in [0, 1].

  Weighted by the examples of a bin.
  """
  gap_N = jnp.abs(found['correct'] - found['confidence'])
  return gap_N.sum(-1) / found['count'].sum(-1)


def diagram(curves: Mapping[str, Mapping[str, Any]]) -> Any:
  """Reliability diagram: accuracy against confidence, a line each. Host only.

  Args:
    curves: name -> the sums of `sums`, as NumPy arrays.
  """
  from matplotlib.figure import Figure

  from dlx.figures import BLUE, GREY, RED, RULE

  figure = Figure(figsize=(5.2, 5.4), layout='constrained')
  top, bottom = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
  top.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle='--')
  for (name, found), colour in zip(
    curves.items(), (BLUE, RED, '#3c8d40', '#8a5fb0') * len(curves), strict=False
  ):
    count = np.asarray(found['count'])
    some = count > 0
    confidence = np.asarray(found['confidence'])[some] / count[some]
    accuracy = np.asarray(found['correct'])[some] / count[some]
    gap = np.abs(np.asarray(found['correct']) - np.asarray(found['confidence']))
    ece = gap.sum() / max(count.sum(), 1)
    top.plot(
      confidence, accuracy, 'o-', ms=4, color=colour, label=f'{name}, ECE {ece:.3f}'
    )
    bottom.step(confidence, count[some], where='mid', color=colour)
  top.set(ylabel='Accuracy', xlim=(0, 1.02), ylim=(0, 1.02), title='Reliability')
  bottom.set(ylabel='Examples', xlabel='Confidence', yscale='log')
  top.legend(frameon=False, fontsize=8)
  for ax in (top, bottom):
    ax.title.set_fontsize(9.5)
    ax.tick_params(labelsize=8)
    ax.grid(color=RULE, linewidth=0.6)
    for side in ax.spines.values():
      side.set_color(RULE)
  return figure
