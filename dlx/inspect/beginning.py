"""Before training: the scale of the inputs, the first loss, a sum for a mean."""

import math

import jax

from dlx.inspect import operations
from dlx.inspect.findings import Finding, Report, skipped
from dlx.inspect.subject import Run, Subject, num_classes, shortened, values

HIGH, LOW = 2.0, 0.5  # Times the loss of guessing.
SUMMED = 0.8  # Of the losses of two halves added: 1 of a sum, 0.5 of a mean.
LARGEST_RMS, LEAST_RMS = 4.0, 0.03  # Of what the first layer reads.


def chance(subject: Subject) -> float | None:
  """The loss of guessing all classes alike, as declared, or ln C of their number."""
  metrics = subject.experiment.metrics
  for name in ('train/loss', 'loss'):
    if name in metrics and metrics[name].chance is not None:
      return metrics[name].chance
  classes = num_classes(subject.experiment)
  return None if classes is None else math.log(classes)


def report(subject: Subject, run: Run) -> Report:
  """The first loss against that of guessing, and against that of half a batch."""
  if not run.losses:
    return skipped("the train step reports no 'loss'")
  first = run.losses[0]
  said, findings = f'loss {first:.4g}', []
  summed = _summed(subject, first)
  findings += summed
  guess = chance(subject)
  if guess is None:
    return Report(findings, f'{said}; what guessing gives is not declared')
  said += f', guessing gives {guess:.4g}'
  if first > HIGH * guess and not summed:
    findings.append(
      Finding(
        'first_loss_high',
        'error',
        f'The first loss is {first:.4g}, {first / guess:.1f} times that of guessing, '
        f'{guess:.4g}.',
        'Start the last layer from smaller weights, scale the inputs, and mean the '
        'loss over all that is predicted.',
        'loss init model',
      )
    )
  if first < LOW * guess:
    findings.append(
      Finding(
        'first_loss_low',
        'error',
        f'The first loss is {first:.4g}, below that of guessing, {guess:.4g}, before '
        'anything was learnt.',
        'Look for the label among the inputs, and for weights that mask the loss.',
        'loss',
      )
    )
  return Report(findings, said)


def _summed(subject: Subject, first: float) -> list[Finding]:
  """Of a sum the loss of a batch is those of its halves added; of a mean their mean."""
  rows, config = subject.batch_rows, subject.config
  half = getattr(config, 'batch_size', 0) // 2
  if half < 1 or config.batch_size % 2 or first <= 0 or not subject.by_example:
    return []
  small = Subject(
    subject.build, shortened(config, batch_size=half, micro_batches=1), subject.data_dir
  )
  if small.batch_rows * 2 != rows:
    return []  # A sampler of its own.
  # The loss alone: the way back is not compiled.
  loss = jax.jit(lambda s, b: {'loss': small.experiment.train_step(s, b)[1]['loss']})
  state, batch, middle = subject.init(), subject.batch(), rows // 2
  halves = (
    {k: x[part] for k, x in batch.items()}
    for part in (slice(middle), slice(middle, None))
  )
  parts = [values(loss(state, one)).get('loss', 0.0) for one in halves]
  if not first > SUMMED * sum(parts) > 0:
    return []
  return [
    Finding(
      'sum_in_place_of_mean',
      'error',
      f'The first loss is {first:.4g} of {rows} examples, {parts[0]:.4g} and '
      f'{parts[1]:.4g} of its halves: it grows with the batch.',
      'Mean the loss over the examples, do not sum it: the learning rate would depend '
      'on the batch size.',
      'loss',
    )
  ]


def inputs(subject: Subject) -> Report:
  """The scale of what the first layer reads of the data."""
  if not subject.by_example:
    return skipped('a batch is no set of examples')
  step, batch = subject.evaluated()
  state = subject.init()
  taps = operations.Taps('input', step, state, batch)
  found = taps.values(state, batch)
  if not found:
    return skipped('no layer reads the data without a look-up before it')
  tap, (mean, square, largest) = taps.places[0], map(float, found[0])
  rms, layer = math.sqrt(square), tap.layer or tap.where
  said = f'{layer} reads mean {mean:.3g}, root mean square {rms:.3g}'
  if LEAST_RMS <= rms <= LARGEST_RMS:
    return Report((), said)
  finding = Finding(
    'inputs_not_scaled',
    'error',
    f'The first layer, {layer}, reads values with mean {mean:.3g}, root mean square '
    f'{rms:.3g} and largest {largest:.3g}.',
    'Bring inputs to mean 0 and deviation 1 by the numbers of the training set.',
    'prepare mean std data',
  )
  return Report([finding], said)
