"""Gradients and movement of every tensor, over the steps of a short run.

The labels of a norm: exactly 0 is 'zero', above 100 'exploding', below 1e-7
'vanishing'.
"""

from typing import Mapping, NamedTuple, Sequence

import jax
import numpy as np

from dlx.inspect.findings import Finding, Report, skipped
from dlx.inspect.subject import Run, Subject
from dlx.run.processes import to_host
from dlx.state import TrainState, is_key, leaves_by_path

EXPLODING, VANISHING = 100.0, 1e-7
FIRST = 10  # Steps whose median says whether gradients explode.
PREFIX = 'gradients/'  # Of `dlx.train.steps.gradients`.
_SHOWN = 4  # Tensors that a sentence names.


def label(norm: float) -> str:
  """'zero', 'exploding', 'vanishing', or '' of a norm between; 'not finite'."""
  if not np.isfinite(norm):
    return 'not finite'
  if norm == 0:
    return 'zero'
  if norm > EXPLODING:
    return 'exploding'
  return 'vanishing' if norm < VANISHING else ''


class Tensor(NamedTuple):
  """The gradient of one tensor over a run.

  Attributes:
    name: path in the parameters.
    first: norm at the first step where it was not 0; 0: at none.
    median: of the first FIRST steps.
    largest: of all steps.
    label: see `of_steps`.
  """

  name: str
  first: float
  median: float
  largest: float
  label: str


def of_steps(name: str, norms: Sequence[float]) -> Tensor:
  """One tensor: 'zero' at every step; 'exploding' in the median of the first steps;
  'vanishing' at the first step where it is not 0, as a residual branch that begins at 0
  gives none at step 0."""
  values = np.asarray(norms, np.float64)
  nonzero = values[values != 0]
  first = float(nonzero[0]) if nonzero.size else 0.0
  median, largest = float(np.median(values[:FIRST])), float(values.max())
  said = label(first) if label(first) in ('zero', 'vanishing') else label(median)
  return Tensor(
    name, first, median, largest, said if said != 'zero' or not first else ''
  )


def tensors(norms: Sequence[Mapping[str, float]]) -> list[Tensor]:
  """Every tensor of which a step watches the gradient."""
  names = [name for name in norms[0] if name.startswith(PREFIX)]
  return [
    of_steps(name.removeprefix(PREFIX), [one[name] for one in norms]) for name in names
  ]


def unmoved(first: TrainState, last: TrainState) -> dict[str, list[str]]:
  """Leaves of `params` and of `model_state` with the same bytes before and after."""
  found = {}
  for part in ('params', 'model_state'):
    before = leaves_by_path(getattr(first, part))
    after = leaves_by_path(getattr(last, part))
    found[part] = [
      name
      for name, x in before.items()
      if not is_key(x) and to_host(x).tobytes() == to_host(after[name]).tobytes()
    ]
  return found


def report(subject: Subject, run: Run) -> Report:
  """Labels of all gradients, and what stands still although it should be trained."""
  rows = tensors(run.norms)
  findings = _by_label(rows) + _still(subject, run, rows)
  table = [('tensor', 'first', 'median', 'largest', 'label')]
  table += [
    (t.name, f'{t.first:.2e}', f'{t.median:.2e}', f'{t.largest:.2e}', t.label)
    for t in rows
  ]
  if not rows and not findings:
    return skipped(
      'the train step names no gradients (steps.gradients does, or '
      "steps.watch(grads, 'gradients'))"
    )
  norms = [t.first for t in rows if t.first]
  said = f'{len(rows)} tensors'
  if norms:
    said += f', gradient norms {min(norms):.1e} to {max(t.largest for t in rows):.1e}'
  return Report(findings, said, tables={'Gradients by tensor': table} if rows else {})


def _by_label(rows: Sequence[Tensor]) -> list[Finding]:
  found = []
  for which, name, about, fix in (
    (
      'zero',
      'gradient_zero',
      'model loss train_step',
      'Let the loss depend on it: look for stop_gradient, an output that is not used, '
      'a unit that is never on.',
    ),
    (
      'exploding',
      'gradient_exploding',
      'model init loss',
      'Start from smaller weights (He or Glorot initialisation, init_scale), or mean '
      'and not sum the loss; --config.clip_norm=1 bounds what is left.',
    ),
    (
      'vanishing',
      'gradient_vanishing',
      'model init',
      'Start from larger weights (He or Glorot initialisation, init_scale), or add '
      'normalisation or residual branches.',
    ),
  ):
    hit = [t for t in rows if t.label == which]
    biases = all(t.name.rpartition('/')[2] == 'bias' for t in hit)
    if hit:
      value = hit[0].median if which == 'exploding' else hit[0].first
      severity = 'warning' if biases and which == 'vanishing' else 'error'
      told = f'{len(hit)} of {len(rows)} gradients are {which}: {_named(hit)}'
      told += '.' if which == 'zero' else f'; norm {value:.2g} of {hit[0].name}.'
      found.append(Finding(name, severity, told, fix, about))
  return found


def _named(rows: Sequence[Tensor]) -> str:
  return listed([t.name for t in rows])


def listed(names: Sequence[str]) -> str:
  """The first few names of many, in words."""
  more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
  return ', '.join(names[:_SHOWN]) + more


def _still(subject: Subject, run: Run, rows: Sequence[Tensor]) -> list[Finding]:
  """Parameters and statistics of batches that no step has changed."""
  found, steps = [], len(run.metrics)
  same = unmoved(run.first, run.last)
  zero = {t.name for t in rows if t.label == 'zero'}
  still = [name for name in same['params'] if name not in zero]
  total = len(jax.tree.leaves(run.first.params))
  if still:
    # What optim.freeze holds is held on purpose, or was when it was written.
    declared = "'frozen'" in str(jax.tree.structure(run.first.opt_state))
    meant = declared or len(subject.experiment.phases) > 1
    found.append(
      Finding(
        'frozen_layer',
        'warning' if meant else 'error',
        f'{len(still)} of {total} tensors kept every bit in {steps} steps'
        f'{", by optim.freeze" if declared else ""}: {listed(still)}.',
        'Take them out of the mask of what is frozen, or out of what sets their update '
        'to 0, unless that is meant.',
        'frozen tx train_step',
      )
    )
  moved = set(leaves_by_path(run.first.params)) - set(same['params'])
  folder = lambda name: name.rpartition('/')[0]
  trained = {folder(name) for name in moved}
  statistics = [
    name
    for name in same['model_state']
    if 'batch_stats' in name and folder(name.partition('batch_stats/')[2]) in trained
  ]
  if statistics:
    found.append(
      Finding(
        'batch_norm_in_evaluation_mode',
        'error',
        f'{len(statistics)} running statistics kept every bit in {steps} training '
        f'steps: {listed(statistics)}.',
        'Call the model with train=True in the train step and keep the new batch_stats '
        '(mutable): batch norm runs in evaluation mode.',
        'model train_step __call__',
      )
    )
  return found
