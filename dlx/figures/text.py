"""Pictures of text: samples, attention maps, predictions of sentences. Host only.

Plain matplotlib Figures, made without pyplot, as in dlx/figures/images.py.
"""

import textwrap
from typing import TYPE_CHECKING, Any, Sequence

import numpy as np

from dlx.figures.style import BLUE, GREY, INK, RED, RULE, new_figure, ramp

if TYPE_CHECKING:
  from matplotlib.figure import Figure

BAR, LINE = '\u2503', '\u2500'  # Between prompt and sample; between samples.
_VISIBLE = {'\n': '\u23ce', ' ': '\u2423'}


def text_samples(
  prompts: Sequence[str], samples: Sequence[str], *, columns: int = 80
) -> 'Figure':
  """Each prompt, a bar, and what was written after it, in lines of one width.

  Args:
    prompts: one a sample.
    samples: with newlines where the model wrote them.
    columns: characters in a line; longer ones are wrapped.
  """
  from matplotlib.figure import Figure

  if not samples or len(prompts) != len(samples):
    raise ValueError(
      f'{len(prompts)} prompts for {len(samples)} samples: must be as many, and at '
      'least 1.'
    )
  lines = []
  for prompt, sample in zip(prompts, samples):
    if lines:
      lines.append(LINE * columns)
    for line in f'{prompt}{BAR}{sample}'.split('\n'):
      lines += textwrap.wrap(line, columns, drop_whitespace=False) or ['']
  size = (0.078 * columns + 0.3, 0.14 * len(lines) + 0.2)
  figure = Figure(size, dpi=160, facecolor='white')
  shown = _plain('\n'.join(lines))
  figure.text(0.02, 0.98, shown, family='monospace', fontsize=8, va='top')
  return figure


def attention_maps(
  weights_NHLM: Any, tokens: Sequence[str], keys: Sequence[str] | None = None
) -> 'Figure':
  """A row of maps for each layer, one a head: token (row) looks at token (column).

  Colour is the root of the weight, so that small ones are seen.

  Args:
    weights_NHLM: N layers, H heads, rows sum to 1.
    tokens: L names; space and newline are drawn as marks.
    keys: M names, of what is looked at; None: the same tokens.
  """
  from matplotlib.colors import PowerNorm
  from matplotlib.figure import Figure

  weights = np.asarray(weights_NHLM, np.float64)
  keys = tokens if keys is None else keys
  if weights.ndim != 4 or weights.shape[2:] != (len(tokens), len(keys)):
    raise ValueError(
      f'Weights of shape {weights.shape} for {len(tokens)} tokens that look at '
      f'{len(keys)}: must be [layers, heads, tokens, tokens].'
    )
  names, columns_of = (
    [_plain(_VISIBLE.get(token, token)) for token in part] for part in (tokens, keys)
  )
  rows, columns = weights.shape[:2]
  size = (2.3 * columns, 2.4 * rows)
  figure = Figure(size, dpi=160, facecolor='white', layout='constrained')
  for i in range(rows):
    for j in range(columns):
      ax = figure.add_subplot(rows, columns, i * columns + j + 1)
      ax.imshow(weights[i, j], cmap='Blues', norm=PowerNorm(0.5, 0, 1))
      ax.set_title(f'layer {i + 1}, head {j + 1}', fontsize=8)
      ax.set_xticks(range(len(columns_of)), columns_of, fontsize=5)
      ax.set_yticks(range(len(names)), names, fontsize=5)
      ax.tick_params(length=0, pad=1)
  return figure


def attended_words(
  weights_ST: Any, sentences: Sequence[Sequence[str]], place_S: Any
) -> 'Figure':
  """Sentences, a row each: a word is the darker, the more one of them looks at it.

  The word that looks is framed; weights of 0.05 and more stand below their words.

  Args:
    weights_ST: rows sum to 1; what lies past the end of a sentence is not shown.
    sentences: words of each.
    place_S: of the word that looks, from 0.
  """
  from matplotlib.patches import Rectangle

  weights, place = np.asarray(weights_ST, np.float64), np.asarray(place_S)
  longest = max(map(len, sentences), default=0)
  if not (weights.ndim == 2 and len(weights) == len(sentences) == len(place)) or (
    not 0 < longest <= weights.shape[1]
  ):
    raise ValueError(
      f'Weights of shape {weights.shape} and {len(place)} places for {len(sentences)} '
      f'sentences of up to {longest} words: must be a row and a place each, as long.'
    )
  figure = new_figure(0.72 * longest + 0.4, 0.75 * len(sentences) + 0.2)
  ax, shade = figure.add_subplot(), ramp('white', BLUE)
  for i, words in enumerate(sentences):
    for j, word in enumerate(words):
      weight, asks = weights[i, j], j == place[i]
      edge = RED if asks else RULE
      box = dict(facecolor=shade(weight), edgecolor=edge, linewidth=2 if asks else 0.6)
      ax.add_patch(Rectangle((j + 0.02, i + 0.1), 0.96, 0.55, zorder=1 + asks, **box))
      ink = 'white' if weight > 0.6 else INK
      ax.text(j + 0.5, i + 0.375, _plain(word), ha='center', va='center', fontsize=8,
              color=ink, zorder=3)  # fmt: skip
      if weight >= 0.05:
        ax.text(j + 0.5, i + 0.8, f'{weight:.2f}', ha='center', va='center',
                fontsize=7, color=GREY)  # fmt: skip
  ax.set(xlim=(0, longest), ylim=(len(sentences), 0))
  ax.axis('off')
  return figure


def translations(
  sources: Sequence[str],
  written: Sequence[str],
  targets: Sequence[str],
  *,
  columns: int = 80,
) -> 'Figure':
  """Each source and what was written for it; the target in grey where it is another.

  Args:
    sources: one a row.
    written: by the model; red where it is not the target.
    targets: what is right.
    columns: characters in a line; longer ones are wrapped.
  """
  from matplotlib.figure import Figure

  if not sources or not len(sources) == len(written) == len(targets):
    raise ValueError(
      f'{len(sources)} sources, {len(written)} texts and {len(targets)} targets: must '
      'be as many, and at least 1.'
    )
  lines: list[tuple[str, str]] = []
  wrap = lambda mark, text: [
    f'{mark} {part}' for part in textwrap.wrap(text, columns - 2) or ['']
  ]
  for source, found, target in zip(sources, written, targets):
    lines += [('', INK)] if lines else []
    lines += [(line, INK) for line in wrap(' ', source)]
    right = found == target
    lines += [(line, INK if right else RED) for line in wrap('\u2192', found)]
    if not right:
      lines += [(line, GREY) for line in wrap('=', target)]
  height = 0.14 * len(lines) + 0.2
  figure = Figure((0.078 * columns + 0.3, height), dpi=160, facecolor='white')
  for i, (line, colour) in enumerate(lines):
    y = 1 - (0.1 + 0.14 * i) / height
    style = {'family': 'monospace', 'fontsize': 8, 'va': 'top', 'color': colour}
    figure.text(0.02, y, _plain(line), **style)
  return figure


def _plain(text: str) -> str:
  """Without what matplotlib takes for mathematics."""
  return text.replace('$', r'\$')


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
  from matplotlib.figure import Figure

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
  figure = Figure((8.6, height), dpi=160, facecolor='white')
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
