"""What goes on inside a net: activations, dead units, gradient norms. Host only."""

import re
from typing import TYPE_CHECKING, Any, Mapping

import numpy as np

from dlx.figures.style import BLUE, GREY, INK, RED, RULE, new_figure, ramp, style_axes

if TYPE_CHECKING:
  from matplotlib.figure import Figure

MOST = 24  # Layers, or tensors, of one figure; the first of them are shown.


def activations(layers: Mapping[str, Any]) -> 'Figure':
  """A histogram of the values of each layer, with mean, deviation and share of zeros.

  Args:
    layers: by name, each with `counts` of even bins from `low` to `high`, `mean`,
      `deviation` and `zero`; the first 24 are shown of those that ran, whose `zero` is
      not nan.
  """
  layers = {name: x for name, x in layers.items() if not np.isnan(x.zero)}
  shown = dict(list(layers.items())[:MOST])
  columns = min(4, max(len(shown), 1))
  lines = -(-max(len(shown), 1) // columns)
  figure = new_figure(2.7 * columns, 0.4 + 1.9 * lines)
  grid = figure.subplots(lines, columns, squeeze=False)
  for ax, (name, layer) in zip(grid.flat, shown.items()):
    counts = np.asarray(layer.counts, np.float64)
    low, high = float(layer.low), float(layer.high)
    high = high if high > low else low + 1
    edges = np.linspace(low, high, counts.size + 1)
    ax.bar(edges[:-1], counts, np.diff(edges), align='edge', color=BLUE, alpha=0.8)
    if counts.any():  # Zeros of ReLUs would hide all else.
      ax.set_yscale('symlog', linthresh=max(1.0, float(np.median(counts))))
    ax.set_yticks([])
    told = f'mean {float(layer.mean):.2g}, deviation {float(layer.deviation):.2g}'
    if float(layer.zero) > 0:
      told += f', {float(layer.zero):.0%} zero'
    style_axes(ax, name)
    ax.title.set_fontsize(8.5)
    ax.set_xlabel(told, fontsize=7, color=GREY)
    ax.spines['left'].set_visible(False)
  for ax in grid.flat[len(shown) :]:
    ax.set_axis_off()
  if len(layers) > len(shown):
    figure.supxlabel(f'{len(shown)} of {len(layers)} layers', fontsize=8, color=GREY)
  return figure


def dead_units(layers: Mapping[str, Any], title: str) -> 'Figure':
  """A bar a layer: the share of its ReLUs that were never on.

  Args:
    layers: by name (dead, units); the first 24 are shown.
    title: of the figure, which names the data.
  """
  shown = dict(list(layers.items())[:MOST])
  figure = new_figure(5.6, 1.1 + 0.28 * max(len(shown), 1))
  ax = figure.add_subplot()
  for row, (dead, units) in enumerate(shown.values()):
    share = dead / units
    ax.barh(row, 100 * share, color=RED if share >= 0.5 else BLUE, height=0.6)
    ax.annotate(
      f'{int(dead)} of {int(units)}',
      (100 * share, row),
      xytext=(4, 0),
      textcoords='offset points',
      va='center',
      fontsize=8,
      color=GREY,
    )
  ax.set_yticks(range(len(shown)), list(shown))
  ax.set(xlim=(0, 118), ylim=(max(len(shown), 1) - 0.5, -0.5), xticks=range(0, 101, 20))
  ax.set_xlabel('Units that are 0 for every example (%)')
  style_axes(ax, title if shown else 'No ReLU whose values a later layer reads')
  return figure


def gradient_norms(
  norms: Mapping[str, float],
  labels: Mapping[str, str],
  vanishing: float,
  exploding: float,
  title: str,
) -> 'Figure':
  """A bar a tensor: the Euclidean norm of its gradient, on a logarithmic axis.

  Args:
    norms: by path of the tensor.
    labels: by path 'zero', 'vanishing', 'exploding', 'not finite', or ''. Where there
      are more than 24 tensors those with a label come first, then the first of the
      others, in the order of the net.
    vanishing, exploding: bounds of the labels, drawn as lines.
    title: of the figure.
  """
  ranked = sorted(norms, key=lambda name: not labels[name])[:MOST]  # Stable.
  shown = [name for name in norms if name in set(ranked)]
  figure = new_figure(6.4, 1.2 + 0.26 * max(len(shown), 1))
  ax = figure.add_subplot()
  floor = 0.01 * vanishing  # Where what has no logarithm is drawn.
  for row, name in enumerate(shown):
    norm = norms[name]
    width = norm if np.isfinite(norm) and norm > floor else floor
    ax.barh(row, width, left=0, color=RED if labels[name] else BLUE, height=0.6)
    ax.annotate(
      labels[name] or f'{norm:.1e}',
      (width, row),
      xytext=(4, 0),
      textcoords='offset points',
      va='center',
      fontsize=7.5,
      color=RED if labels[name] else GREY,
    )
  for bound in (vanishing, exploding):
    ax.axvline(bound, color=INK, linewidth=0.8, linestyle='--', zorder=0)
  finite = [norms[name] for name in shown if np.isfinite(norms[name])]
  ax.set(xscale='log', ylim=(max(len(shown), 1) - 0.5, -0.5))
  ax.set_xlim(floor / 2, 30 * max([exploding, *finite]))
  ax.set_yticks(range(len(shown)), shown)
  ax.set_xlabel('Norm of the gradient of the mean loss of one batch')
  ax.grid(axis='x', color=RULE, linewidth=0.6)
  ax.set_axisbelow(True)
  ax.tick_params(axis='y', labelsize=7)
  style_axes(ax, title)
  if len(norms) > len(shown):
    figure.supxlabel(f'{len(shown)} of {len(norms)} tensors', fontsize=8, color=GREY)
  return figure


def norms_by_step(
  steps: Any, layers: Mapping[str, Any], vanishing: float, exploding: float
) -> 'Figure':
  """A row a layer, a column a log window: the norm of the gradient as a colour.

  Colours are logarithmic, between the least and the largest norm of all that lie within
  the bounds; what lies beyond is grey or red, what is not known stays white.

  Args:
    steps: int [N], the last step of each window, rising.
    layers: by path the norms [N], at least 0 or NaN; in the figure numbers in names
      count as numbers. Of more than 24 layers those between are left out evenly.
    vanishing, exploding: bounds of the colours.
  """
  from matplotlib.colors import LogNorm

  names = sorted(layers, key=_by_number)
  if len(names) > MOST:
    names = [names[i] for i in np.linspace(0, len(names) - 1, MOST).round().astype(int)]
  figure = new_figure(6.4, 1.5 + 0.2 * max(len(names), 1))
  ax = figure.add_subplot()
  if not names:
    style_axes(ax, 'The train step names no gradients: steps.watch does')
    ax.set_axis_off()
    return figure
  norms = np.stack([np.asarray(layers[name], np.float64) for name in names])
  usual = norms[(norms >= vanishing) & (norms <= exploding)]
  low, high = (usual.min(), usual.max()) if usual.size else (vanishing, exploding)
  colours = ramp('#e8f0f9', '#12355b').with_extremes(under=GREY, over=RED, bad='white')
  edges = np.concatenate([[0], np.asarray(steps)])
  scale = LogNorm(low, high if high > low else 10 * low)
  # What is 0 has no logarithm: it is drawn as what is too small.
  drawn = np.where(norms == 0, low * 1e-9, norms)
  mesh = ax.pcolormesh(
    edges, np.arange(len(names) + 1), drawn, cmap=colours, norm=scale
  )
  ax.set_yticks(np.arange(len(names)) + 0.5, names)
  ax.invert_yaxis()
  ax.set_xlabel('Step')
  small, large = (norms < vanishing).sum(), (norms > exploding).sum()
  extend = ('neither', 'min', 'max', 'both')[bool(small) + 2 * bool(large)]
  bar = figure.colorbar(mesh, ax=ax, extend=extend, pad=0.02)
  bar.ax.tick_params(labelsize=7, colors=GREY)
  bar.outline.set_visible(False)  # pyright: ignore
  style_axes(ax, 'Norm of the gradient by layer, mean of each log window')
  ax.tick_params(axis='y', labelsize=7)
  told = [
    f'{len(names)} of {len(layers)} layers' * (len(layers) > len(names)),
    f'grey: below {vanishing:g}, {small / norms.size:.0%}' * bool(small),
    f'red: above {exploding:g}, {large / norms.size:.0%}' * bool(large),
  ]
  figure.supxlabel('; '.join(filter(None, told)), fontsize=8, color=GREY)
  return figure


def _by_number(name: str) -> list[tuple[int, str]]:
  """Sorts hidden_2 before hidden_10."""
  parts = re.split(r'(\d+)', name)
  return [(int(x), '') if x.isdigit() else (-1, x) for x in parts]
