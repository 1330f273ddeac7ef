"""The data: labels out of range, copies, leaks between splits, balance, constants."""

from typing import Any, Mapping, Sequence

import numpy as np

from dlx.experiment import Experiment, Field
from dlx.inspect.findings import Finding, Report, skipped
from dlx.inspect.subject import Subject, num_classes

MOST = 20_000  # Examples of a split that are looked at.
LEAK, SOME = 0.05, 0.005  # Shares of a split that another split holds, too.
REPEATED = 0.2  # Share of the training examples that are copies.
CONSTANT = 0.9  # Share of the inputs that never change.
UNBALANCED = 20.0  # Most examples of a class over fewest.
GRAM = 24  # Tokens in a row that are compared between two texts.
TEXT_LEAK = 0.5  # Of runs of GRAM tokens: texts repeat themselves, too.
# Fields of a batch that say what is wanted, or about a row, and are no input.
TARGETS = ('label', 'target')
_BESIDE = (*TARGETS, 'weight', 'index', 'counts')

Rows = Mapping[str, np.ndarray]


def input_names(experiment: Experiment, fields: Sequence[str]) -> list[str]:
  """The fields of a batch that are inputs, as its functions name them."""
  asked = {n for f in experiment.functions.values() for n in f.inputs}
  named = [name for name in fields if name in asked and name not in TARGETS]
  return named or [name for name in fields if name not in _BESIDE]


def digests(rows: Rows, names: Sequence[str]) -> np.ndarray:
  """One number a row, the same for the same bytes in all these fields: uint64 [N].

  Two weighted sums of the bytes modulo 2^64: of rows that differ few have one number.
  """
  parts = [np.ascontiguousarray(rows[n]).reshape(len(rows[n]), -1) for n in names]
  raw = np.concatenate([p.view(np.uint8).reshape(len(p), -1) for p in parts], 1)
  weights = np.random.default_rng(0).integers(
    1, 2**63, raw.shape[1], dtype=np.uint64, endpoint=False
  )
  # Odd weights: a byte that differs always changes the sum.
  return _dot(raw, weights | np.uint64(1))


def _dot(raw: np.ndarray, weights: np.ndarray) -> np.ndarray:
  total = np.zeros(len(raw), np.uint64)
  for i in range(0, raw.shape[1], 256):  # In parts: uint64 takes 8 times the bytes.
    part = raw[:, i : i + 256].astype(np.uint64)
    part = (part + np.uint64(1)) * weights[i : i + 256]
    total += (part ^ (part >> np.uint64(29))).sum(1, dtype=np.uint64)
  return total


def copies(digest: np.ndarray) -> int:
  """Rows that repeat an earlier one."""
  return len(digest) - len(np.unique(digest))


def shared(test: np.ndarray, train: np.ndarray) -> int:
  """Rows of `test` that are in `train`, too."""
  return int(np.isin(test, train).sum())


def grams(token_NT: np.ndarray, every: bool) -> np.ndarray:
  """Numbers of runs of GRAM tokens: of every place, or of the first of each row."""
  token = token_NT.astype(np.uint64) + np.uint64(1)
  places = token.shape[1] - GRAM + 1 if every else 1
  total = np.zeros((len(token), places), np.uint64)
  for j in range(GRAM):
    total = total * np.uint64(0x9E3779B97F4A7C15) + token[:, j : j + places]
  return np.unique(total)


def report(subject: Subject) -> Report:
  """Training data against itself and against every evaluation's."""
  experiment = subject.experiment
  if not subject.by_example:
    return skipped('a batch is no set of examples')
  train = subject.rows(experiment.train_data, MOST)
  names = input_names(experiment, list(train))
  if not names:
    return skipped('a batch has no field that is an input')
  splits = {'train': train}
  for name, evaluation in experiment.evals.items():
    fields = evaluation.data.shapes[0]
    if all(n in fields for n in names):
      splits[name] = subject.rows(evaluation.data, MOST)
  kinds = {k: f for fn in experiment.functions.values() for k, f in fn.inputs.items()}
  findings = _labels(experiment, splits)
  findings += _not_finite(train, names, kinds)
  findings += _constant(train, names, kinds)
  repeated, told = _repeated(splits, names)
  findings += repeated
  counts = ', '.join(f'{len(rows[names[0]]):,} of {k}' for k, rows in splits.items())
  return Report(findings, f'{counts}{told}', tables=_balance(splits))


def _labels(experiment: Experiment, splits: Mapping[str, Rows]) -> list[Finding]:
  classes, found = num_classes(experiment), []
  for split, rows in splits.items():
    label = rows.get('label')
    if label is None or classes is None or label.ndim != 1:
      continue
    wrong = (label < 0) | (label >= classes)
    if wrong.any():
      found.append(
        Finding(
          'label_out_of_range',
          'error',
          f'{int(wrong.sum())} of {len(label)} labels of {split} are outside '
          f'[0, {classes}): {int(label[wrong][0])} is the first.',
          f'Number the classes from 0 to {classes - 1}, or set the number of classes.',
          'data dataset',
        )
      )
  label = splits['train'].get('label')
  if found or label is None or classes is None or label.ndim != 1:
    return found
  counts = np.bincount(label, minlength=classes)
  present = counts[counts > 0]
  if len(present) < 2:
    found.append(
      Finding(
        'one_class',
        'error',
        f'All {len(label)} training labels are {int(label[0])}.',
        'Shuffle the data before it is split, and look at how labels are read.',
        'data dataset',
      )
    )
  elif present.max() > UNBALANCED * present.min() or len(present) < classes:
    least = int(counts.argmin())
    found.append(
      Finding(
        'classes_unbalanced',
        'warning',
        f'Class {int(counts.argmax())} has {counts.max()} training examples, class '
        f'{least} {counts[least]}.',
        'Report balanced accuracy or F1 beside accuracy, and weight the loss or sample '
        'by class.',
        'loss data',
      )
    )
  return found


def _balance(splits: Mapping[str, Rows]) -> dict[str, list[tuple[str, ...]]]:
  labels = {k: r['label'] for k, r in splits.items() if _is_label(r.get('label'))}
  if not labels or max(map(np.max, labels.values())) > 100:
    return {}
  classes = sorted({int(k) for label in labels.values() for k in np.unique(label)})
  rows = [('class', *labels)]
  for k in classes:
    rows.append((str(k), *(f'{int((x == k).sum())}' for x in labels.values())))
  return {'Examples by class': rows}


def _is_label(x: Any) -> bool:
  return x is not None and x.ndim == 1 and np.issubdtype(x.dtype, np.integer)


def _not_finite(
  rows: Rows, names: Sequence[str], kinds: Mapping[str, Field]
) -> list[Finding]:
  found = []
  for name in [*names, *(n for n in TARGETS if n in rows)]:
    x = rows[name]
    missing = name in kinds and kinds[name].kind == 'column'  # NaN: missing.
    if not np.issubdtype(x.dtype, np.floating) or missing:
      continue
    bad = int((~np.isfinite(x)).sum())
    if bad:
      found.append(
        Finding(
          'data_not_finite',
          'error',
          f'{bad} of {x.size} values of {name} are NaN or inf.',
          'Leave such rows out, or fill them in and mark them.',
          'data dataset',
        )
      )
  return found


def _constant(
  rows: Rows, names: Sequence[str], kinds: Mapping[str, Field]
) -> list[Finding]:
  columns = [n for n in names if n in kinds and kinds[n].kind == 'column']
  still = [n for n in columns if _still(rows[n].reshape(len(rows[n]), -1)).all()]
  if still:
    return [
      Finding(
        'constant_column',
        'warning',
        f'{len(still)} of {len(columns)} columns have one value: '
        f'{", ".join(still[:4])}.',
        'Leave them out: they cannot tell examples apart.',
        'dataset',
      )
    ]
  flat = [rows[n].reshape(len(rows[n]), -1) for n in names if n not in columns]
  if not flat:
    return []
  constant = np.concatenate([_still(x) for x in flat])
  if constant.mean() < CONSTANT or constant.size < 2:
    return []
  return [
    Finding(
      'constant_inputs',
      'error',
      f'{int(constant.sum())} of {constant.size} inputs have the same value in all '
      f'{len(flat[0])} training examples.',
      'Look at how the data is read and scaled: integers that are divided become 0.',
      'data dataset prepare',
    )
  ]


def _still(x_ND: np.ndarray) -> np.ndarray:
  """Whether each column has one value, NaN equal to NaN; of one row: none."""
  first = x_ND[:1]
  same = (x_ND == first) | ((x_ND != x_ND) & (first != first))
  return same.all(0) & (len(x_ND) > 1)


def _repeated(
  splits: Mapping[str, Rows], names: Sequence[str]
) -> tuple[list[Finding], str]:
  train, found, told = splits['train'], [], ''
  text = _text(train, names)
  seen = digests(train, names)
  twice = copies(seen)
  if twice > REPEATED * len(seen) and not text:
    found.append(
      Finding(
        'duplicates',
        'warning',
        f'{twice} of {len(seen)} training examples repeat another one.',
        'Leave them out, above all before a split is held out.',
        'dataset data',
      )
    )
  every = grams(train[names[0]], True) if text else None
  for split, rows in splits.items():
    if split == 'train':
      continue
    if every is not None and rows[names[0]].shape[1] >= GRAM:
      ours = grams(rows[names[0]], False)
      both, total, what = shared(ours, every), len(ours), f'runs of {GRAM} tokens'
      bounds = TEXT_LEAK, 1.0
    else:
      both, total, what = (
        shared(digests(rows, names), seen),
        len(rows[names[0]]),
        'rows',
      )
      bounds = LEAK, SOME
    share = both / max(total, 1)
    told += f'; {both} of {total:,} {what} of {split} are in train'
    if share > bounds[1] or share > bounds[0]:
      found.append(
        Finding(
          'leak',
          'error' if share > bounds[0] else 'warning',
          f'{both} of {total:,} {what} of {split} ({share:.1%}) are training '
          'examples, too.',
          'Remove them from the training data: the score would be of what was learnt '
          'by heart.',
          'data train_data dataset',
        )
      )
  return found, told


def _text(rows: Rows, names: Sequence[str]) -> bool:
  """Whether the only input is a row of tokens, long enough for runs of GRAM."""
  x = rows[names[0]]
  tokens = len(names) == 1 and x.ndim == 2 and np.issubdtype(x.dtype, np.integer)
  return tokens and x.shape[1] >= GRAM and x.dtype.itemsize > 1
