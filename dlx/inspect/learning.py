"""Short runs: whether values stay finite, labels matter, and the test is as good."""

import re
from typing import Any, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from dlx.inspect.beginning import chance
from dlx.inspect.examples import TARGETS
from dlx.inspect.findings import Finding, Report, skipped
from dlx.inspect.subject import Run, Subject, num_classes
from dlx.run import nonfinite
from dlx.state import Batch, TrainState

LEARNT = 0.95  # Of the first loss: above it nothing was learnt.
GAP = 0.25  # Of the loss of guessing: by so much more on the test is overfitting.
# By which a run on true labels is better than on shuffled ones: of the accuracy, and of
# the loss as a share of that of guessing.
MORE_ACCURATE, LESS_LOSS = 0.05, 0.02
EVAL_BATCHES = 8


def finite(subject: Subject, run: Run) -> Report:
  """Which tensor, operation and line first made a NaN or inf, where one did."""
  steps = len(run.metrics)
  if run.finite:
    return Report((), f'{steps} steps stayed finite')
  before = state = run.first
  batch: Any = None
  for batch in subject.batches(stop=steps):
    before, state = state, subject.step(state, batch).state
  step = subject.experiment.train_step
  told = nonfinite.explain(steps - 1, batch, step, before, state)
  told = told or f'Step {steps - 1}: a metric is NaN or inf, no tensor of the step is.'
  line = re.search(r', at (\S+:\d+) in ', told)
  finding = Finding(
    'not_finite',
    'error',
    told,
    'Keep the argument of that operation in its range (log and sqrt above 0, a divisor '
    'away from 0), or lower the learning rate where the loss grew before.',
    'train_step loss model',
    line[1] if line else '',
  )
  return Report([finding], f'not finite at step {steps - 1}')


def labels_matter(subject: Subject, run: Run, learns: bool) -> Report:
  """A run on the labels as they are against one on labels shuffled in each batch.

  Args:
    subject: the experiment.
    run: on the labels as they are.
    learns: whether one batch was learnt: else nothing follows from this.
  """
  experiment = subject.experiment
  field = next((t for t in TARGETS if t in experiment.train_data.shapes[0]), None)
  if field is None or not subject.by_example:
    return skipped('a batch has no field label or target of each example')
  if field == 'label' and num_classes(experiment) is None:
    return skipped('no function predicts the label')
  name = next(iter(experiment.evals), None)
  if name is None:
    return skipped('it has no evaluation')
  if not learns:
    return skipped('one batch is not learnt, so that nothing follows from it')

  @jax.jit
  def shuffled(batch: Batch, i: jax.Array) -> Batch:
    key = jax.random.fold_in(jax.random.key(0), i)
    return {**batch, field: jax.random.permutation(key, batch[field])}

  first = subject.batch()
  change = lambda batch, i: shuffled(batch, jnp.int32(i))
  same = [
    jax.device_get(subject.step(run.first, b).sums) for b in (first, change(first, 0))
  ]
  if all(map(np.array_equal, *map(jax.tree.leaves, same))):
    return skipped(f'training does not read {field}')
  other = subject.run(len(run.metrics), change)
  true = subject.evaluate(run.last, name, EVAL_BATCHES)
  permuted = subject.evaluate(other.last, name, EVAL_BATCHES)
  both = [m for m in ('accuracy', 'loss') if m in true and m in permuted]
  if not both:
    return skipped(f'{name} reports neither accuracy nor loss')
  metric = both[0]
  ours, others = true[metric], permuted[metric]
  said = f'{name}/{metric} {ours:.3g} with true, {others:.3g} with shuffled'
  if metric == 'accuracy':
    learnt = ours - others > MORE_ACCURATE
  else:
    learnt = others - ours > LESS_LOSS * (chance(subject) or abs(others))
  if learnt:
    return Report((), said)
  finding = Finding(
    'labels_shuffled',
    'error',
    f'{len(run.metrics)} steps on the labels as they are give {name}/{metric} '
    f'{ours:.4g}, on shuffled labels {others:.4g}: labels say nothing of the inputs.',
    'Look at how inputs and labels are put together: both must be sorted, shuffled and '
    'split alike.',
    'data train_data dataset',
  )
  return Report([finding], said)


def generalisation(subject: Subject, run: Run) -> Report:
  """The training loss against its beginning, and the test loss against it."""
  experiment = subject.experiment
  if isinstance(experiment.overfit, str):
    return skipped(f'one loss does not tell: {experiment.overfit}')
  losses = run.losses
  if not losses:
    return skipped("the train step reports no 'loss'")
  tail = max(1, len(losses) // 10)
  begin, end = float(np.mean(losses[:3])), float(np.mean(losses[-tail:]))
  said, findings = f'training loss {begin:.4g} to {end:.4g}', []
  if end > LEARNT * begin > 0:
    findings.append(
      Finding(
        'underfitting',
        'warning',
        f'The training loss went from {begin:.4g} to {end:.4g} in {len(losses)} steps.',
        'Mend what stands above; else train longer, or take a larger model and less '
        'regularisation.',
        'num_steps lr',
      )
    )
    return Report(findings, said)
  name = next(iter(experiment.evals), None)
  if name is None:
    return Report(findings, said)
  test = subject.evaluate(run.last, name, EVAL_BATCHES)
  if 'loss' not in test:
    return Report(findings, f'{said}; {name} reports no loss')
  train = _of_training(subject, run.last, name)
  alike, train = ('evaluated alike: ' if train else ''), train or {'loss': end}
  said += f'; {alike}train {train["loss"]:.4g}, {name} {test["loss"]:.4g}'
  guess = chance(subject) or abs(begin)
  if test['loss'] - train['loss'] > GAP * guess and test['loss'] > 1.5 * train['loss']:
    findings.append(
      Finding(
        'overfitting',
        'warning',
        f'After {len(losses)} steps the loss is {train["loss"]:.4g} on the training '
        f'data and {test["loss"]:.4g} on {name}.',
        'More data or augmentation, dropout or weight decay, a smaller model, or early '
        'stopping (--config.early_stop_metric).',
        'dropout weight_decay model',
      )
    )
  return Report(findings, said)


def _of_training(
  subject: Subject, state: TrainState, name: str
) -> Mapping[str, float] | None:
  """What an evaluation reports of training batches; None where they lack a field that
  it reads."""
  wanted = set(subject.experiment.evals[name].data.shapes[0]) - {'weight'}
  fields = subject.experiment.train_data.shapes[0]
  if not wanted <= set(fields) or not subject.by_example:
    return None

  def batches():
    for batch in subject.batches(stop=EVAL_BATCHES):
      rows = next(iter(batch.values())).shape[0]
      yield {**{k: batch[k] for k in wanted}, 'weight': jnp.ones((rows,), jnp.float32)}

  return subject.evaluate(state, name, EVAL_BATCHES, batches())
