"""Curves and scatter plots: NumPy arrays in, a matplotlib Figure out. Host only."""

from typing import TYPE_CHECKING, Any, Mapping

import numpy as np

from dlx.figures.style import BLUE, GREY, INK, RED, RULE, new_figure, style_axes

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_COLOURS = ('#2563a8', '#c62f2f', '#2f8f4e', '#8a5fb0', '#c77f1a')


def scatter(
  prediction_B: Any,
  target_B: Any,
  *,
  unit: str | None = None,
  title: str | None = None,
  max_points: int = 5000,
) -> 'Figure':
  """Predicted against true values, with the line on which they are equal.

  Args:
    prediction_B: one an example.
    target_B: the same.
    unit: of both, for the labels of the axes.
    title: None: root mean squared error and r2 of all these examples, and their number:
      often a batch, whose error is not that of the whole set.
    max_points: evenly spaced ones are drawn where there are more.
  """
  prediction = np.asarray(prediction_B, np.float64).reshape(-1)
  target = np.asarray(target_B, np.float64).reshape(-1)
  if prediction.shape != target.shape or not target.size:
    raise ValueError(
      f'{prediction.size} predictions for {target.size} targets: must be as many, '
      'and at least 1.'
    )
  if title is None:
    mse, varied = np.mean((prediction - target) ** 2), target.min() < target.max()
    r2 = f', r2 {1 - mse / target.var():.3f}' if varied else ''
    title = f'{target.size:,} examples: root mean squared error {np.sqrt(mse):.4g}{r2}'
  picked = np.unique(np.linspace(0, target.size - 1, max_points).round().astype(int))
  shown = picked if target.size > max_points else slice(None)
  low = min(prediction.min(), target.min())
  high = max(prediction.max(), target.max())
  margin = 0.04 * (high - low) or 1.0
  ends = (low - margin, high + margin)
  figure = new_figure(4.6, 4.5)
  ax = figure.add_subplot()
  ax.plot(ends, ends, color=GREY, linewidth=1, zorder=1)
  ax.annotate(
    'predicted = true',
    (ends[1], ends[1]),
    xytext=(-5, -2),
    textcoords='offset points',
    ha='right',
    va='bottom',
    rotation=45,
    rotation_mode='anchor',
    color=GREY,
    fontsize=8,
  )
  # Many points: small and transparent, so that density shows.
  dense = target.size > 500
  ax.scatter(
    target[shown],
    prediction[shown],
    s=9 if dense else 18,
    alpha=0.3 if dense else 0.6,
    color=BLUE,
    linewidths=0,
    zorder=2,
  )
  ax.set(xlim=ends, ylim=ends, aspect='equal')
  suffix = f' ({unit})' if unit else ''
  ax.set_xlabel('True' + suffix)
  ax.set_ylabel('Predicted' + suffix)
  ax.grid(color=RULE, linewidth=0.6)
  ax.set_axisbelow(True)
  style_axes(ax, title)
  return figure


def gradient_flow(shares: Mapping[str, Any]) -> 'Figure':
  """How much the answer depends on the state some tokens before the end.

  Args:
    shares: of each cell, `layers.recurrent.unroll.mean_by_distance`; the first is
      drawn thickest. What is not finite or not above 0 is left out.
  """
  from matplotlib.figure import Figure

  figure = Figure((5.6, 3.6), dpi=160, facecolor='white', layout='constrained')
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


def rate_finder(
  rates: Any, losses: Any, smooth: Any, suggested: float | None, given: float | None
) -> 'Figure':
  """The loss against a learning rate that grows from step to step.

  Args:
    rates: of each step, above 0.
    losses: of each step.
    smooth: the losses, smoothed.
    suggested: the rate that is marked as such; None: none.
    given: the rate of the config; None: none.
  """
  rates, losses, smooth = (np.asarray(x, np.float64) for x in (rates, losses, smooth))
  figure = new_figure(5.6, 3.6)
  ax = figure.add_subplot()
  ax.plot(rates, losses, color=GREY, linewidth=0.7, alpha=0.6, label='loss of a batch')
  ax.plot(rates, smooth, color=BLUE, linewidth=1.8, label='smoothed')
  if suggested is not None:
    ax.axvline(suggested, color=_COLOURS[2], label=f'suggested {suggested:.1e}')
  if given is not None:
    ax.axvline(given, color=RED, linestyle='--', label=f'config {given:.1e}')
  top = 2 * smooth[0] if smooth.size else 1.0  # What blows up leaves the axes.
  low = min(smooth.min(), losses.min()) if smooth.size else 0.0
  ax.set(xscale='log', ylim=(low - 0.05 * abs(top - low), top + 1e-12))
  ax.set_xlabel('Learning rate')
  ax.set_ylabel('Loss')
  ax.grid(color=RULE, linewidth=0.6)
  ax.legend(frameon=False, fontsize=8)
  style_axes(ax, 'Learning-rate range test')
  return figure


def learning_curves(steps: Any, train: Any, test: Any) -> 'Figure':
  """The training loss and an evaluated loss against the steps done.

  Args:
    steps: of each point.
    train: mean training loss since the point before.
    test: evaluated loss at the point.
  """
  figure = new_figure(5.6, 3.6)
  ax = figure.add_subplot()
  ax.plot(steps, train, color=GREY, linewidth=1.4, label='training')
  ax.plot(steps, test, color=BLUE, linewidth=1.8, label='evaluated')
  ax.set_xlabel('Steps')
  ax.set_ylabel('Loss')
  ax.grid(color=RULE, linewidth=0.6)
  ax.legend(frameon=False, fontsize=8)
  style_axes(ax, 'Learning curves')
  return figure


def players(panels: Mapping[str, Mapping[str, Any]]) -> 'Figure':
  """Curves of two players over the steps, a panel above the other.

  Args:
    panels: by title, by line: a value a step.
  """
  figure = new_figure(5.6, 0.6 + 1.7 * max(1, len(panels)))
  for i, (title, lines) in enumerate(panels.items()):
    ax = figure.add_subplot(len(panels), 1, i + 1)
    for (line, values), colour in zip(lines.items(), _COLOURS):
      ax.plot(np.asarray(values, np.float64), color=colour, linewidth=0.9, label=line)
    ax.set_ylabel(title)
    ax.grid(color=RULE, linewidth=0.6)
    ax.legend(frameon=False, fontsize=8)
    style_axes(ax, 'Two players' if i == 0 else '')
    if i == len(panels) - 1:
      ax.set_xlabel('Step')
  return figure


def mistakes(
  seen: Mapping[str, Any], *, examples: int, bound: int, title: str
) -> 'Figure':
  """How many mistakes a learner had made after so many examples, and a bound on them.

  Args:
    seen: by name of the stream, the number of examples after which each mistake came,
      rising. A stream of as many mistakes as the bound is drawn up to there, as it may
      have made more.
    examples: of each stream in all.
    bound: on the mistakes.
    title: of the figure.
  """
  figure = new_figure(5.6, 3.6)
  ax = figure.add_subplot()
  for i, (name, count) in enumerate(seen.items()):
    made = np.arange(1, len(count) + 1)
    x, y = np.append(0, count), np.append(0, made)
    if len(count) < bound:
      x, y = np.append(x, examples), np.append(y, len(count))
    ax.step(x, y, where='post', color=_COLOURS[i % len(_COLOURS)], label=name)
  ax.axhline(bound, color=GREY, linestyle='--', label=f'bound: {bound}')
  ax.set(xlim=(0, examples), ylim=(0, 1.1 * bound))
  ax.set_xlabel('Examples')
  ax.set_ylabel('Mistakes')
  ax.grid(color=RULE, linewidth=0.6)
  ax.legend(frameon=False, fontsize=8)
  style_axes(ax, title)
  return figure
