"""Tests for dlx/report/marks.py: what a reader has to look at first."""

import math
import re

import pytest

from dlx.report import chart, marks, page
from dlx.report.markup import Run

ACCURACY = {'title': 'Accuracy', 'better': 'higher', 'unit': '%', 'chance': 0.1}
LOSS = {'title': 'Loss', 'better': 'lower'}
GUESSED = {**LOSS, 'chance': math.log(10)}
NORM = {'title': 'Gradient norm', 'better': None, 'group': 'gradient norm'}


def run(declared, values, name='loss', split='train', headline=()):
  points = [(10.0 * (i + 1), y) for i, y in enumerate(values)]
  return Run(
    name='run',
    config={'metrics': {name: declared}, 'headline': list(headline)},
    result={},
    curves={name: [chart.Series(split, points)]},
    splits=[split],
    last={f'{split}/{name}': values[-1]},
    step=10 * len(values),
    seconds=None,
    figures=[],
  )


def told(declared, values, name='loss', **more):
  return [
    (m.step, m.sentence) for m in marks.marks(run(declared, values, name, **more))
  ]


@pytest.mark.parametrize(
  ('values', 'at'),
  [
    ([1, 1, 1, 99, 100], 50),  # The median before is 1.
    ([1, 2, 3, 250], 40),  # 2.
    ([2, 199], None),
    ([2, 200], 20),
    ([50, 1, 1, 1, 100], 50),  # The first is not what is typical.
    ([500, 1, 1, 60], None),  # One outlier moves no median.
    ([0, 0, 5], None),  # From nothing there is no factor.
    ([1, math.nan, 100], 30),
  ],
)
def test_a_gradient_norm_that_grows_a_hundredfold(values, at):
  found = told(NORM, values, 'norm')
  assert [step for step, _ in found] == ([] if at is None else [at])
  if found:
    assert re.fullmatch(
      r'Gradient norm, train: [\d.]+ times the median before, at step .*', found[0][1]
    )


@pytest.mark.parametrize(
  ('declared', 'values', 'at', 'words'),
  [
    # 2 % of the way from 10 % to 100 % is 11.8 %.
    (ACCURACY, [0.5, 0.9, 0.117, 0.1], 30, 'fell back to chance, 10.00 %, at step 30'),
    (ACCURACY, [0.5, 0.9, 0.119, 0.12], None, ''),
    (ACCURACY, [0.1, 0.09, 0.11], 10, 'has not left chance, 10.00 %.'),
    (ACCURACY, [0.5, 0.1, 0.5], None, ''),  # Back from chance.
    (ACCURACY, [0.1, 0.1], None, ''),  # Too early to say.
    # 2 % of the way from ln 10 to 0: above 2.257.
    (GUESSED, [1.0, 0.5, 2.26, 2.3], 30, 'fell back to chance, 2.303'),
    (GUESSED, [40.0, 0.5, 2.25], None, ''),
    (GUESSED, [9e5, 2.31, 2.31], 10, 'has not left chance'),
    # Unknown: back where it began, 3, within a tenth of the gain of 2.
    (LOSS, [3.0, 1.0, 2.85, 2.9], 30, 'back where it began, 3, from step 30'),
    (LOSS, [3.0, 1.0, 2.79, 2.79], None, ''),
    (LOSS, [3.0, 1.0, 1.0, 2.9], None, ''),  # A single bad window.
    (LOSS, [1.0, 2.0, 3.0], None, ''),  # Nothing was ever gained.
  ],
)
def test_a_run_at_chance(declared, values, at, words):
  found = told(declared, values)
  assert [step for step, _ in found] == ([] if at is None else [at])
  assert all(words in sentence for _, sentence in found)


def test_without_a_declared_chance_only_what_leads_is_looked_at():
  fallen = [3.0, 1.0, 3.0, 3.0]
  assert told(LOSS, fallen, 'other') == []
  assert told(LOSS, fallen, 'other', split='test') == []
  assert len(told(LOSS, fallen, 'other', split='test', headline=['test/other'])) == 1
  assert told({'title': 'Loss', 'better': None}, fallen) == []


@pytest.mark.parametrize('chance', ['0.1', math.nan, True, None, [1]])
def test_what_is_no_number_is_no_chance(chance):
  assert told({**ACCURACY, 'chance': chance}, [0.1, 0.1, 0.1], 'x') == []


def test_the_page_names_it_and_draws_a_line():
  fallen = run({**ACCURACY, 'title': '<b>'}, [0.5, 0.9, 0.1, 0.1], 'accuracy')
  html = page.page(fallen)
  assert '&lt;b&gt;, train: fell back to chance, 10.00 %, at step 30.' in html
  assert 'class="phase"' in html and '>chance</text>' in html
  sound = page.page(run(ACCURACY, [0.5, 0.9, 0.95, 0.97], 'accuracy'))
  assert 'Look at this first' not in sound and 'class="phase"' not in sound
