"""Samples of a generator: alike, copied from the training data, of which classes.

By distances of pixels alone, as they are between real examples: no judge is needed.
"""

from typing import Mapping, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlx import figures as draw
from dlx.experiment import Experiment, Function
from dlx.inspect.findings import Finding, Report, skipped
from dlx.inspect.subject import Subject
from dlx.metrics.generation import nearest_distance, nearest_rows
from dlx.state import TrainState

BANK = 20_000  # Training examples that are looked at.
LEAST, MOST, PER_CLASS = 500, 2000, 30  # Samples.
BATCH = 100  # Samples of one call.
# Of the distance to the nearest other that all but 1 % of the real examples exceed:
# below it two samples are one picture.
NEAR, QUANTILE = 0.5, 0.01
ALIKE = 0.2  # Share of samples that are near another one.
COPIED = 0.05  # Share of samples that are near a training example.
SAME = 1e-4  # Of the spread of real examples: the samples are one.
SURE = 0.8  # Share of real examples whose nearest other one has their class.
MISSING = 0.1  # Of the samples that the training data make expect of a class.
EXPECTED = 10  # Samples of a class that are expected, for a rarer one nothing follows.
ASKED = 0.5  # Share of samples of the class that was asked for.
SHOWN = 10


class Source(NamedTuple):
  """What makes samples.

  Attributes:
    call: a function of the experiment.
    output: name of what it gives, which is a field of a training batch, too.
    label: name of the input that asks for a class; None: there is none.
  """

  call: Function
  output: str
  label: str | None


class Seen(NamedTuple):
  """Distances of N samples and N real examples, root mean square over entries.

  Attributes:
    limit: below it two examples are one picture.
    alike_N: of each sample to the nearest other sample.
    copied_N: of each sample to the nearest training example.
    nearest_N: that training example, a row of the bank.
    spread: deviation of samples of one seed from those of another, of the same class,
      over that of real examples.
  """

  limit: float
  alike_N: np.ndarray
  copied_N: np.ndarray
  nearest_N: np.ndarray
  spread: float


def source(experiment: Experiment) -> Source | None:
  """The function that gives an example of a seed; None: there is none."""
  fields = experiment.train_data.shapes[0]
  for function in experiment.functions.values():
    kinds = {field.kind: name for name, field in function.inputs.items()}
    outputs = [
      name
      for name, field in function.outputs.items()
      if name in fields and field.dtype.startswith('float')
    ]
    if 'seed' in kinds and kinds.keys() <= {'seed', 'label'} and outputs:
      return Source(function, outputs[0], kinds.get('label'))
  return None


def report(subject: Subject, state: TrainState) -> Report:
  """Diversity, copies and classes of samples.

  Args:
    subject: the experiment.
    state: after a short run.
  """
  made = source(subject.experiment)
  if made is None:
    return skipped('no function gives an example of training for a seed')
  rows = subject.rows(subject.experiment.train_data, BANK)
  bank_NF, unit = _flat(rows[made.output])
  if len(bank_NF) < LEAST:
    return skipped(f'needed are {LEAST} training examples, not {len(bank_NF)}')
  label_N = _labels(rows)
  classes = 0 if label_N is None else int(label_N.max()) + 1
  count = min(MOST, max(LEAST, PER_CLASS * classes), len(bank_NF))
  asked_N = np.arange(count) % classes if classes and made.label else None
  fake = draws(made, state, count, asked_N)
  fake_NF = fake.reshape(count, -1).astype(np.float32)
  if not np.isfinite(fake_NF).all():
    return skipped('a sample is not finite')
  found = distances(fake_NF, bank_NF, asked_N)
  alike = float((found.alike_N < found.limit).mean())
  copied = float((found.copied_N < found.limit).mean())
  said = f'{count} samples: {alike:.1%} near another one, {copied:.1%} copies'
  findings, tables = _diversity(found, count, alike) + _copies(count, copied), {}
  if label_N is not None and classes > 1:
    judged = _classes(found, bank_NF, label_N, asked_N)
    findings, said = [*findings, *judged.findings], f'{said}; {judged.said}'
    tables = judged.tables
  shown, image = {}, rows[made.output]
  if image.ndim == 4 and image.shape[-1] in (1, 3):
    pair = np.stack([fake[:SHOWN], image[found.nearest_N[:SHOWN]] / unit])
    names = ['samples', 'nearest in training']
    shown['samples'] = draw.mosaic(np.clip(pair, 0, 1), names, title='Samples')
  return Report(findings, said, figures=shown, tables=tables)


def _classes(
  found: Seen, bank_NF: np.ndarray, label_N: np.ndarray, asked_N: np.ndarray | None
) -> Report:
  """By the label of the nearest training example, where that tells classes."""
  count, classes = len(found.nearest_N), int(label_N.max()) + 1
  own_N = _own_classes(bank_NF, label_N, count)
  sure = float((own_N == label_N[:count]).mean())
  if sure < SURE:
    told = f'classes not judged: by the nearest example {sure:.0%} are right'
    return Report((), told)
  got_N = label_N[found.nearest_N]
  got_K = np.bincount(got_N, minlength=classes)
  # Asked for are all classes alike.
  wanted_K = np.bincount(label_N if asked_N is None else asked_N, minlength=classes)
  wanted_K = wanted_K * (count / wanted_K.sum())
  findings = _modes(got_K, wanted_K)
  said = f'{int((got_K > 0).sum())} of {classes} classes'
  if asked_N is not None:
    right = float((got_N == asked_N).mean())
    findings += _asked(right, classes)
    said += f', {right:.0%} of the class asked for'
  table = {'Samples by class': _by_class(got_K, wanted_K)} if classes <= 100 else {}
  return Report(findings, said, tables=table)


def draws(
  made: Source, state: TrainState, count: int, asked_N: np.ndarray | None
) -> np.ndarray:
  """Samples of the seeds 0, 1, ... as `Source.output` names them, [count, ...].

  Args:
    made: what makes them.
    state: of the generator.
    count: how many.
    asked_N: class of each, where the source takes one.
  """
  seed = next(n for n, field in made.call.inputs.items() if field.kind == 'seed')
  call = jax.jit(lambda state, inputs: made.call.call(state, inputs)[made.output])
  found = []
  for start in range(0, count, BATCH):
    part = np.minimum(np.arange(start, start + BATCH), count - 1)  # One shape.
    inputs: dict[str, np.ndarray] = {seed: part.astype(np.uint32)}
    if made.label:
      label_N = np.zeros(count) if asked_N is None else asked_N
      inputs[made.label] = label_N[part].astype(np.int32)
    found.append(np.asarray(call(state, inputs)))
  return np.concatenate(found)[:count]


def distances(
  fake_NF: np.ndarray, bank_MF: np.ndarray, asked_N: np.ndarray | None = None
) -> Seen:
  """How near samples lie to each other and to real examples, see `Seen`.

  Args:
    fake_NF: samples.
    bank_MF: real examples, at least as many, in no order.
    asked_N: class that each sample was asked for; None: none.
  """
  count = len(fake_NF)
  fake, bank = jnp.asarray(fake_NF), jnp.asarray(bank_MF)
  real_N = np.asarray(nearest_distance(bank[:count], count))
  copied_N, nearest_N = map(np.asarray, nearest_rows(fake, bank))
  same_N = np.zeros(count, int) if asked_N is None else asked_N
  parts = [fake_NF[same_N == k] for k in np.unique(same_N)]
  spread = max(float(part.std(0, dtype=np.float64).mean()) for part in parts)
  return Seen(
    NEAR * float(np.quantile(real_N, QUANTILE)),
    np.asarray(nearest_distance(fake, count)),
    copied_N,
    nearest_N,
    spread / max(float(bank_MF.std(0).mean()), 1e-30),
  )


def _flat(rows: np.ndarray) -> tuple[np.ndarray, float]:
  """Rows [N, F] in float32, and what stands for 1: the largest of whole numbers."""
  whole = np.issubdtype(rows.dtype, np.integer)
  unit = float(max(rows.max(), 1)) if whole else 1.0
  return rows.reshape(len(rows), -1).astype(np.float32) / unit, unit


def _labels(rows: Mapping[str, np.ndarray]) -> np.ndarray | None:
  """Classes of the rows, whole numbers from 0 on; None: they have none."""
  label = rows.get('label')
  if label is None or label.ndim != 1 or not np.issubdtype(label.dtype, np.integer):
    return None
  return label if (label >= 0).all() else None


def _own_classes(bank_MF: np.ndarray, label_M: np.ndarray, count: int) -> np.ndarray:
  """Class of the nearest other example of each of the first ones."""
  bank = jnp.asarray(bank_MF)
  _, row_N = nearest_rows(bank[:count], bank, jnp.arange(count, dtype=jnp.int32))
  return label_M[np.asarray(row_N)]


def _diversity(found: Seen, count: int, alike: float) -> list[Finding]:
  if found.spread < SAME:
    return [
      Finding(
        'noise_ignored',
        'error',
        f'{count} samples of as many seeds differ by {found.spread:.1g} of what real '
        'examples differ: the generator does not read its noise.',
        'Look for noise that is multiplied by 0, made of one key at every call, or '
        'not given to the generator.',
        'generate sample make train_step',
      )
    ]
  if alike <= ALIKE:
    return []
  middle = float(np.median(found.alike_N))
  return [
    Finding(
      'mode_collapse',
      'error',
      f'{alike:.0%} of {count} samples are near-duplicates of another one; the middle '
      f'distance to the nearest is {middle:.2g}, and of real examples all but 1 % are '
      f'{found.limit / NEAR:.2g} apart.',
      'A stronger or slower discriminator (width, spectral norm, gradient penalty), a '
      'lower rate, or classes that are asked for; look at the balance of the players.',
      'discriminator discriminator_features lr',
    )
  ]


def _copies(count: int, copied: float) -> list[Finding]:
  if copied <= COPIED:
    return []
  return [
    Finding(
      'copies_of_training_examples',
      'error',
      f'{copied:.0%} of {count} samples are copies of training examples.',
      'More data or augmentation, a smaller generator, fewer steps; look for training '
      'images that reach the generator.',
      'sample generator train_data',
    )
  ]


def _modes(got_K: np.ndarray, wanted_K: np.ndarray) -> list[Finding]:
  known_K = wanted_K >= EXPECTED
  lost = np.flatnonzero(known_K & (got_K < MISSING * wanted_K))
  if not lost.size:
    return []
  told = ', '.join(f'class {k} {got_K[k]} of {wanted_K[k]:.0f}' for k in lost[:4])
  more = f' and {lost.size - 4} more' if lost.size > 4 else ''
  return [
    Finding(
      'missing_modes',
      'error' if 2 * lost.size >= known_K.sum() else 'warning',
      f'{lost.size} of {int(known_K.sum())} classes are missing among the samples, by '
      f'the class of the nearest training example: {told}{more}.',
      'Ask for classes (conditional), see that every label reaches the generator, or '
      'mend the balance of the players.',
      'conditional generate make discriminator',
    )
  ]


def _asked(right: float, classes: int) -> list[Finding]:
  if right >= ASKED:
    return []
  return [
    Finding(
      'asked_class_ignored',
      'error' if right < 2 / classes else 'warning',
      f'{right:.0%} of the samples are of the class that was asked for; by chance '
      f'{1 / classes:.0%} are.',
      'Give generator and discriminator the same label of each row.',
      'known make generate train_step',
    )
  ]


def _by_class(got_K: np.ndarray, wanted_K: np.ndarray) -> Sequence[tuple[str, ...]]:
  rows = [('class', 'samples', 'expected')]
  rows += [(str(k), str(n), f'{wanted_K[k]:.0f}') for k, n in enumerate(got_K)]
  return rows
