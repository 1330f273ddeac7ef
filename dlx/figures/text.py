"""Pictures of text for reports: what a model wrote, what its heads look at. Host only.

Plain matplotlib Figures, made without pyplot, as in dlx/figures/images.py.
"""

import textwrap
from typing import TYPE_CHECKING, Any, Sequence

import numpy as np

if TYPE_CHECKING:
  from matplotlib.figure import Figure

BAR, RULE = '\u2503', '\u2500'  # Between prompt and sample; between samples.
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
      lines.append(RULE * columns)
    for line in f'{prompt}{BAR}{sample}'.split('\n'):
      lines += textwrap.wrap(line, columns, drop_whitespace=False) or ['']
  size = (0.078 * columns + 0.3, 0.14 * len(lines) + 0.2)
  figure = Figure(size, dpi=160, facecolor='white')
  shown = _plain('\n'.join(lines))
  figure.text(0.02, 0.98, shown, family='monospace', fontsize=8, va='top')
  return figure


def attention_maps(weights_NHLM: Any, tokens: Sequence[str]) -> 'Figure':
  """A row of maps for each layer, one a head: token (row) looks at token (column).

  Colour is the root of the weight, so that small ones are seen.

  Args:
    weights_NHLM: N layers, H heads, rows sum to 1.
    tokens: L = M names; space and newline are drawn as marks.
  """
  from matplotlib.colors import PowerNorm
  from matplotlib.figure import Figure

  weights = np.asarray(weights_NHLM, np.float64)
  if weights.ndim != 4 or weights.shape[2:] != (len(tokens), len(tokens)):
    raise ValueError(
      f'Weights of shape {weights.shape} for {len(tokens)} tokens: must be '
      '[layers, heads, tokens, tokens].'
    )
  names = [_plain(_VISIBLE.get(token, token)) for token in tokens]
  rows, columns = weights.shape[:2]
  size = (2.3 * columns, 2.4 * rows)
  figure = Figure(size, dpi=160, facecolor='white', layout='constrained')
  for i in range(rows):
    for j in range(columns):
      ax = figure.add_subplot(rows, columns, i * columns + j + 1)
      ax.imshow(weights[i, j], cmap='Blues', norm=PowerNorm(0.5, 0, 1))
      ax.set_title(f'layer {i + 1}, head {j + 1}', fontsize=8)
      ax.set_xticks(range(len(names)), names, fontsize=5)
      ax.set_yticks(range(len(names)), names, fontsize=5)
      ax.tick_params(length=0, pad=1)
  return figure


def _plain(text: str) -> str:
  """Without what matplotlib takes for mathematics."""
  return text.replace('$', r'\$')
