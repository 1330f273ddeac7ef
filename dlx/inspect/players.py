"""Two players over a short run: who stands still, who wins, whose gradient is gone.

What it reads are the metrics that `dlx.tasks.image_generation.GAME` names, `d` the
discriminator and `g` the generator, and the parameters `params['d']`, `params['g']`.
"""

import math
from typing import Mapping, Sequence

import numpy as np

from dlx import figures as draw
from dlx.experiment import Experiment
from dlx.inspect.findings import Finding, Report, skipped
from dlx.inspect.gradients import unmoved
from dlx.inspect.subject import Run, Subject
from dlx.state import leaves_by_path

NAMES = {'d': 'discriminator', 'g': 'generator'}
FIRST = 10  # Steps with which the later half is compared.
APART = 10.0  # Of two Adams with one rate the moves are within a factor of 2.
WRONG = 0.25  # Share told right by a discriminator that has learnt the contrary.
ALL = 0.99  # Share told right that leaves the generator nothing to learn from.
# Of its first norm: what is left of the gradient of a generator whose loss saturates,
# where the discriminator tells all. That of the non-saturating loss stays.
GONE = 0.05
EVAL_BATCHES = 8


READ = ('loss', 'g_loss', 'real_accuracy', 'fake_accuracy')  # Of every step.


def plays(experiment: Experiment) -> bool:
  """Whether an experiment has two players, by the metrics that it declares."""
  return {*READ} <= experiment.metrics.keys()


def report(subject: Subject, run: Run) -> Report:
  """The balance of the players; what explains the others is the only finding.

  Args:
    subject: the experiment.
    run: a short run that stayed finite.
  """
  first = _medians(run.metrics[:FIRST])
  late = _medians(run.metrics[len(run.metrics) // 2 :])
  if not plays(subject.experiment) or not {*READ} <= late.keys():
    return skipped(f'a train step must report {", ".join(READ)}')
  shares = _evaluated(subject, run)
  told = f'told right: real {late["real_accuracy"]:.0%}, '
  told += f'samples {late["fake_accuracy"]:.0%}'
  said = f'{told}; loss {late["loss"]:.3g} against {late["g_loss"]:.3g}'
  ratio = _ratio(late, 'grad_norm')
  said += '' if ratio is None else f', gradients {ratio:.2g} to 1'
  rules = (
    _frozen(run),
    _swapped(late, shares),
    _apart(first, late),
    _vanishing(first, late),
    _won(late),
  )
  found = next((one for one in rules if one is not None), None)
  picture = {'players': draw.players(_series(run))}
  table = {'Two players': _table(first, late, shares)}
  return Report([found] if found else [], said, figures=picture, tables=table)


def _medians(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
  """By metric, without those that a step left out."""
  names = set(steps[0]).intersection(*steps)
  return {name: float(np.median([one[name] for one in steps])) for name in names}


def _evaluated(subject: Subject, run: Run) -> Mapping[str, float]:
  """What the first evaluation reports of the discriminator; {}: none does."""
  for name in subject.experiment.evals:
    found = subject.evaluate(run.last, name, EVAL_BATCHES)
    if {'real_accuracy', 'fake_accuracy'} <= found.keys():
      return found
  return {}


def _ratio(late: Mapping[str, float], what: str) -> float | None:
  """Of the discriminator's to the generator's; None: not reported, or 0."""
  d, g = (late.get(f'{player}_{what}', 0.0) for player in NAMES)
  return d / g if d > 0 and g > 0 else None


def _frozen(run: Run) -> Finding | None:
  params = run.first.params
  if not isinstance(params, Mapping) or not NAMES.keys() <= params.keys():
    return None
  still = set(unmoved(run.first, run.last)['params'])
  for player, name in NAMES.items():
    own = leaves_by_path({player: params[player]})
    if own and own.keys() <= still:
      return Finding(
        'player_frozen',
        'error',
        f'All {len(own)} tensors of the {name} kept every bit in {len(run.metrics)} '
        f'steps; the other player learns against one that stands still.',
        f'Apply the update of the {name} and put its new parameters into the state: '
        f"look for params['{player}'] that is not written, a rate of 0, a "
        'stop_gradient between its loss and its parameters.',
        'update train_step',
      )
  return None


def _swapped(late: Mapping[str, float], shares: Mapping[str, float]) -> Finding | None:
  for where, found in (('in training', late), ('in the evaluation', shares)):
    if not found:
      continue
    real, fake = found['real_accuracy'], found['fake_accuracy']
    if max(real, fake) < WRONG:
      return Finding(
        'real_and_fake_swapped',
        'error',
        f'The discriminator tells {real:.1%} of the real images and {fake:.1%} of the '
        f'samples {where}, where guessing tells half: it has learnt the contrary.',
        'Give the loss of the discriminator the logits of real images first and those '
        'of samples second, with target 1 for real images and 0 for samples.',
        'critic_loss train_step',
      )
  return None


def _apart(first: Mapping[str, float], late: Mapping[str, float]) -> Finding | None:
  """By the first steps, too: weights that have grown move by less of their norm."""
  parts = {f'of the first {FIRST}': first, 'of the later half': late}
  ratios = {when: _ratio(found, 'update_ratio') or 1.0 for when, found in parts.items()}
  when, ratio = max(ratios.items(), key=lambda item: abs(math.log(item[1])))
  if 1 / APART <= ratio <= APART:
    return None
  found = parts[when]
  fast, slow = NAMES.values() if ratio > 1 else reversed(NAMES.values())
  d, g = (found[f'{player}_update_ratio'] for player in NAMES)
  return Finding(
    'players_rates_apart',
    'error',
    f'A step {when} moves the parameters of the discriminator by {d:.2g} of their '
    f'norm, of the generator by {g:.2g}: the {fast} is {max(ratio, 1 / ratio):.0f} '
    'times as fast.',
    'Bring the learning rates of both players within a factor of 4 of each other: '
    f'lower that of the {fast}, or give the {slow} more steps.',
    'tx lr train_step',
  )


def _vanishing(first: Mapping[str, float], late: Mapping[str, float]) -> Finding | None:
  if 'g_grad_norm' not in late or 'g_grad_norm' not in first:
    return None
  begin, now = first['g_grad_norm'], late['g_grad_norm']
  if now > GONE * begin or not _tells_all(late):
    return None
  return Finding(
    'generator_gradient_vanishing',
    'error',
    f'The norm of the gradient of the generator fell from {begin:.2g} to {now:.2g}, '
    f'with a loss of {late["g_loss"]:.3g}; the discriminator tells '
    f'{late["real_accuracy"]:.1%} of the real images and {late["fake_accuracy"]:.1%} '
    'of the samples: the loss of the generator is saturated.',
    '--config.game.loss=non_saturating (or least_squares, hinge), and a weaker '
    'discriminator: a lower rate, fewer steps, dropout, or a gradient penalty.',
    'game fooled loss train_step',
  )


def _tells_all(late: Mapping[str, float]) -> bool:
  return min(late['real_accuracy'], late['fake_accuracy']) > ALL


def _won(late: Mapping[str, float]) -> Finding | None:
  if not _tells_all(late):
    return None
  return Finding(
    'discriminator_wins',
    'warning',
    f'The discriminator tells {late["real_accuracy"]:.1%} of the real images and '
    f'{late["fake_accuracy"]:.1%} of the samples; its loss is {late["loss"]:.3g}, that '
    f'of the generator {late["g_loss"]:.3g}.',
    'Weaken it: a lower rate, fewer steps, dropout, smoothed labels '
    '(--config.game.real_label=0.9) or a gradient penalty; or a larger generator.',
    'game lr train_step',
  )


def _series(run: Run) -> dict[str, dict[str, list[float]]]:
  """Curves by panel and by line, of every step."""
  both = lambda d, g: dict(zip(NAMES.values(), (d, g)))
  panels = {
    'Loss': both('loss', 'g_loss'),
    'Told right': {'real images': 'real_accuracy', 'samples': 'fake_accuracy'},
    'Gradient norm': both('d_grad_norm', 'g_grad_norm'),
    'Move of a step': both('d_update_ratio', 'g_update_ratio'),
  }
  return {
    title: {line: [one.get(k, np.nan) for one in run.metrics] for line, k in of.items()}
    for title, of in panels.items()
    if all(k in run.metrics[0] for k in of.values())
  }


def _table(
  first: Mapping[str, float], late: Mapping[str, float], shares: Mapping[str, float]
) -> list[tuple[str, ...]]:
  cell = lambda found, name: f'{found[name]:.3g}' if name in found else ''
  rows = [('metric', f'first {FIRST} steps', 'later half', 'evaluated')]
  rows += [(x, *(cell(of, x) for of in (first, late, shares))) for x in sorted(late)]
  return rows
