"""Pictures of sentences: their predictions, and how far back answers depend on them.

As dlx/figures/images.py: NumPy arrays in, a matplotlib Figure out; host only.
"""

import textwrap
from typing import TYPE_CHECKING, Any, Mapping, Sequence

import numpy as np

from dlx.figures import GREY, INK, RED, RULE

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_COLOURS = ('#2563a8', '#c62f2f', '#2f8f4e', '#8a5fb0', '#c77f1a')


def sentence_predictions(
  texts: Sequence[str],
  label_B: Any,
  probs_BK: Any,
  class_names: Sequence[str],
  *,
  max_shown: int = 10,
  max_wrong: int = 10,
) -> 'Figure':
  """The first sentences, then the wrong ones, the surest first; wrong ones in red.

  Args:
    texts: one a row.
    label_B: true classes.
    probs_BK: rows sum to 1.
    class_names: K names.
    max_shown: of the first part.
    max_wrong: of the second.
  """
  probs_BK, label_B = np.asarray(probs_BK, np.float64), np.asarray(label_B)
  predicted_B, sure_B = probs_BK.argmax(1), probs_BK.max(1)
  wrong = np.flatnonzero(predicted_B != label_B)
  wrong = wrong[np.argsort(-sure_B[wrong], kind='stable')]
  parts = [
    (f'The first of {len(texts)} sentences', np.arange(len(texts))[:max_shown]),
    (f'The surest of {len(wrong)} wrong predictions', wrong[:max_wrong]),
  ]
  lines: list[tuple[str, str, str]] = []  # Left column, sentence, colour.
  for title, rows in parts:
    if len(rows):
      lines += [(title, '', 'title')]
    for i in rows:
      name = class_names[predicted_B[i]]
      colour = INK if predicted_B[i] == label_B[i] else RED
      wrapped = textwrap.wrap(str(texts[i]), 118) or ['']
      lines.append((f'{name} {100 * sure_B[i]:.0f} %', wrapped[0], colour))
      lines += [('', more, colour) for more in wrapped[1:3]]
  titles = sum(colour == 'title' for _, _, colour in lines)
  height = 0.19 * (len(lines) - titles) + 0.4 * titles + 0.25
  figure = _new_figure(8.6, height)
  ax = figure.add_axes((0, 0, 1, 1))
  ax.axis('off')
  ax.set(xlim=(0, 1), ylim=(-height, 0))
  y = 0.0
  for left, sentence, colour in lines:
    title = colour == 'title'
    y -= 0.36 if title else 0.19
    style = dict(fontsize=9.5, fontweight='bold') if title else dict(fontsize=8)
    colour = INK if title else colour
    # A dollar sign would begin mathematics.
    ax.text(0.015, y, left, color=colour, va='bottom', **style)  # pyright: ignore
    sentence = sentence.replace('$', r'\$')
    ax.text(0.16, y, sentence, color=colour, va='bottom', fontsize=8)
    if title:
      ax.plot((0.015, 0.985), (y - 0.02,) * 2, color=RULE, linewidth=0.8)
      y -= 0.04
  return figure


def gradient_flow(shares: Mapping[str, Any]) -> 'Figure':
  """How much the answer depends on the state some tokens before the end.

  Args:
    shares: of each cell, `layers.recurrence.gradient_by_distance`; the first is drawn
      thickest. What is not finite or not above 0 is left out.
  """
  figure = _new_figure(5.6, 3.6)
  figure.set_layout_engine('constrained')
  ax = figure.add_subplot()
  for i, (name, values) in enumerate(shares.items()):
    y = np.asarray(values, np.float64)
    shown = np.flatnonzero(np.isfinite(y) & (y > 0))
    width, colour = (2.2 if i == 0 else 1.4), _COLOURS[i % len(_COLOURS)]
    ax.plot(shown, y[shown], color=colour, linewidth=width, label=name)
  ax.set_yscale('log')
  ax.set_xlabel('Tokens before the end of the sentence', color=INK, fontsize=9)
  ax.set_ylabel('Norm of the gradient over that at the end', color=INK, fontsize=9)
  title = 'How far back the answer depends on the state'
  ax.set_title(title, fontsize=10, color=INK, fontweight='bold', loc='left', pad=8)
  ax.tick_params(labelsize=8, colors=GREY, color=RULE)
  ax.grid(color=RULE, linewidth=0.6)
  ax.spines[['top', 'right']].set_visible(False)
  ax.legend(frameon=False, fontsize=8.5)
  return figure


def _new_figure(width: float, height: float) -> 'Figure':
  from matplotlib.figure import Figure

  return Figure((width, height), dpi=160, facecolor='white')
