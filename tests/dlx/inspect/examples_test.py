"""Tests for dlx/inspect/examples.py: copies, leaks, labels, constants."""

import numpy as np
import pytest

from dlx.experiment import Experiment, Field, Function
from dlx.inspect import examples, subject
from tests.dlx.run import kinds

RNG = np.random.default_rng(0)


def test_rows_that_differ_in_one_byte_have_other_numbers():
  rows = np.zeros((200, 30), np.uint8)
  for i in range(200):
    rows[i, i % 30] = 1 + i // 30
  found = examples.digests({'x': rows}, ['x'])
  assert len(np.unique(found)) == 200
  # Places count: the same bytes in another order are another row.
  pair = {'x': np.array([[1, 2, 3], [3, 2, 1]], np.float32)}
  assert examples.copies(examples.digests(pair, ['x'])) == 0


def test_copies_and_shared_rows_are_counted():
  a = RNG.normal(size=(50, 300)).astype(np.float32)  # More than one part of bytes.
  train = np.concatenate([a, a[:7]])
  test = np.concatenate([a[:3], a[:5] + 1])
  of = lambda x: examples.digests({'x': x, 'y': np.arange(len(x))}, ['x'])
  assert examples.copies(of(train)) == 7
  assert examples.shared(of(test), of(train)) == 3


def test_runs_of_tokens_are_found_wherever_they_stand():
  text = RNG.integers(0, 50, 4000)
  windows = np.stack([text[i : i + 40] for i in range(0, 3900, 16)])
  every = examples.grams(windows, True)
  inside = np.stack([text[i : i + 40] for i in (5, 21, 100)])
  assert examples.shared(examples.grams(inside, False), every) == 3
  assert examples.shared(examples.grams(inside[:, ::-1], False), every) == 0


def classifier(arrays, test=None, classes=3):
  """An experiment of which the data alone is asked."""
  row = {'x': Field('row', (arrays['x'].shape[1],), 'float32')}
  out = {'probabilities': Field('probabilities', (classes,), 'float32')}
  evals = {}
  if test is not None:
    from dlx.experiment import Eval

    evals = {'test': Eval(lambda s, b: {}, kinds.Rolling(test, 8, passes=True))}

  def build(config):
    del config
    return Experiment(
      init=lambda key: None,
      train_step=lambda state, batch: (state, {}),
      train_data=kinds.Rolling(arrays, 8),
      evals=evals,
      functions={'predict': Function(lambda s, x: {}, row, out)},
    )

  return subject.Subject(build, kinds.Small())


def data(n=40, **changes):
  found = {
    'x': RNG.normal(size=(n, 4)).astype(np.float32),
    'label': (np.arange(n) % 3).astype(np.int32),
  }
  return {**found, **changes}


def names(subject):
  report = examples.report(subject)
  assert report.skipped is None
  return [f.name for f in report.findings]


def test_clean_data_gives_nothing():
  assert names(classifier(data(), data())) == []


@pytest.mark.parametrize(
  ('changes', 'name'),
  [
    ({'label': np.full(40, 3, np.int32)}, 'label_out_of_range'),
    ({'label': np.full(40, -1, np.int32)}, 'label_out_of_range'),
    ({'label': np.full(40, 1, np.int32)}, 'one_class'),
    ({'label': np.array([0] * 38 + [1, 2], np.int32)}, 'classes_unbalanced'),
    ({'x': np.ones((40, 4), np.float32)}, 'constant_inputs'),
    ({'x': np.full((40, 4), np.nan, np.float32)}, 'data_not_finite'),
    ({'x': np.repeat(np.eye(4, dtype=np.float32), 10, 0)}, 'duplicates'),
  ],
)
def test_each_fault_of_the_data_is_named(changes, name):
  assert name in names(classifier(data(**changes)))


def test_a_leak_is_named_with_its_share():
  train = data()
  test = data(20)
  test['x'][:10] = train['x'][5:15]
  report = examples.report(classifier(train, test))
  (found,) = report.findings
  assert (found.name, found.severity) == ('leak', 'error')
  assert '10 of 20 rows of test (50.0%)' in found.evidence
