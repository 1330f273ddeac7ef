"""Pictures of features and of latent codes: NumPy in, a Figure out. Host only."""

from typing import TYPE_CHECKING, Any, Sequence

import numpy as np

from dlx.figures.style import BLUE, GREY, INK, RED, RULE, new_figure, style_axes

if TYPE_CHECKING:
  from matplotlib.figure import Figure


def class_map(
  points_N2: Any,
  label_N: Any,
  class_names: Sequence[str] | None = None,
  *,
  title: str = 'First two principal components',
) -> 'Figure':
  """Points in the plane, coloured by class, each class named at its median.

  Args:
    points_N2: where the examples lie.
    label_N: int, from 0; up to 20 classes have colours of their own.
    class_names: one a class; None: its number.
    title: of the figure.
  """
  import matplotlib

  points, label = np.asarray(points_N2, np.float64), np.asarray(label_N)
  found = sorted(set(label.tolist()))
  names = [str(k) for k in range(found[-1] + 1)] if class_names is None else class_names
  colours = matplotlib.colormaps['tab10' if found[-1] < 10 else 'tab20']
  figure = new_figure(5.2, 4.6)
  ax = figure.add_subplot()
  for k in found:
    mine = points[label == k]
    colour = colours(k % colours.N)
    ax.scatter(*mine.T, s=7, alpha=0.5, color=colour, linewidths=0)
    ax.annotate(
      str(names[k]),
      tuple(np.median(mine, 0)),
      ha='center',
      va='center',
      fontsize=9,
      fontweight='bold',
      color=INK,
      bbox={'boxstyle': 'round,pad=0.2', 'fc': 'white', 'ec': colour, 'alpha': 0.8},
    )
  ax.set_xlabel('Component 1')
  ax.set_ylabel('Component 2')
  ax.set_aspect('equal', adjustable='datalim')
  style_axes(ax, title)
  return figure


def similarity_histogram(
  pair_B: Any, other_N: Any, *, title: str | None = None
) -> 'Figure':
  """Cosine similarity of two views of one image against that of different images.

  Args:
    pair_B: in [-1, 1].
    other_N: likewise.
    title: None: how often a pair is more similar than a random other.
  """
  pair, other = np.asarray(pair_B, np.float64), np.asarray(other_N, np.float64)
  if title is None:
    below = np.searchsorted(np.sort(other), pair) / other.size
    title = f'Two views are more similar than {100 * below.mean():.1f} % of others'
  figure = new_figure(5.2, 3.4)
  ax = figure.add_subplot()
  bins = np.linspace(-1, 1, 61).tolist()
  for values, colour, name in (
    (other, RED, 'different images'),
    (pair, BLUE, 'two views of one image'),
  ):
    ax.hist(values, bins, density=True, color=colour, alpha=0.55, label=name)
  ax.set_xlabel('Cosine similarity of projections')
  ax.set_ylabel('Density')
  ax.legend(frameon=False, fontsize=8)
  style_axes(ax, title)
  return figure


def codes(
  points_B2: Any, kl_L: Any, label_B: Any, class_names: Sequence[str], title: str = ''
) -> Any:
  """Codes in the plane of their two principal components, and the KL of each latent.

  Args:
    points_B2: the components of each code.
    kl_L: nats of each latent, averaged over images; those near 0 carry nothing.
    label_B: class of each, the colour.
    class_names: one a class.
  """
  import matplotlib
  from matplotlib.figure import Figure

  xy = np.asarray(points_B2)
  label, kl = np.asarray(label_B), np.sort(np.asarray(kl_L, np.float64))[::-1]
  figure = Figure(figsize=(9.4, 4.6), layout='constrained')
  left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
  colours = matplotlib.colormaps['tab10']
  for k, name in enumerate(class_names):
    of_class = label == k
    left.scatter(*xy[of_class].T, s=8, color=colours(k % 10), label=name, linewidths=0)
  left.set(title=title or 'Codes, first two principal components', xticks=[], yticks=[])
  left.legend(fontsize=7, markerscale=2, frameon=False, ncols=2)
  right.bar(np.arange(len(kl)), kl, color=BLUE)
  used = int((kl > 0.01).sum())
  right.set(
    title=f'{used} of {len(kl)} latents in use',
    xlabel='Latent, sorted',
    ylabel='KL, nats',
  )
  for ax in (left, right):
    ax.title.set_fontsize(9.5)
    ax.tick_params(labelsize=8, colors=GREY)
    for side in ax.spines.values():
      side.set_color(RULE)
  return figure
