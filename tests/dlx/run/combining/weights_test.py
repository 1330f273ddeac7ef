"""Means of weights by hand, which checkpoints are meant, greedy soups by a script."""

import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.experiment import Config, Experiment
from dlx.run.combining import weights
from dlx.run.combining.classifiers import Member


def test_mean_by_hand():
  trees = [
    {'w': np.float32([1, 2]), 'n': np.int32(7), 'half': np.float16(2048)},
    {'w': np.float32([3, 2]), 'n': np.int32(8), 'half': np.float16(2050)},
    {'w': np.float32([5, 8]), 'n': np.int32(9), 'half': np.float16(2052)},
  ]
  found = weights.mean_of(iter(trees))
  np.testing.assert_array_equal(found['w'], np.float32([3, 4]))
  assert found['n'] == 7 and found['n'].dtype == np.int32
  assert found['half'] == 2050 and found['half'].dtype == np.float16


def test_added_up_in_float64():
  """2**24 and 1, 1, 1, 1: in float32 the ones would be lost."""
  found = weights.mean_of([np.float32(2**24)] + [np.float32(1)] * 4)
  assert found == np.float32((2**24 + 4) / 5)


@pytest.fixture
def member(monkeypatch):
  monkeypatch.setattr(weights, 'saved_steps', lambda config, workdir: [10, 20, 30, 40])
  return Member('runs/a', Experiment(None, None, None), Config())  # type: ignore


@pytest.mark.parametrize(
  'asked, wanted',
  [
    ('last:2', [30, 40]),
    ('last:4', [10, 20, 30, 40]),
    ('from:20', [20, 30, 40]),
    ('steps:40,10', [10, 40]),
  ],
)
def test_which_checkpoints(member, asked, wanted):
  assert weights.steps_of(asked, member) == wanted


@pytest.mark.parametrize(
  'asked', ['last:5', 'last:1', 'last:0', 'from:40', 'steps:10,15', 'steps:10']
)
def test_checkpoints_that_are_not_there(member, asked):
  said = (
    rf'--average={asked}: runs/a has checkpoints of the steps 10, 20, 30, 40, .*'
    r'--config.keep_checkpoints=N \(now 2\)'
  )
  with pytest.raises(ConfigError, match=said):
    weights.steps_of(asked, member)


@pytest.mark.parametrize('asked', ['5', 'last', 'last:', 'last:x', 'swa:2', 'from:1,2'])
def test_what_is_no_average(member, asked):
  with pytest.raises(ConfigError, match=f'--average={asked} is not allowed: must be'):
    weights.steps_of(asked, member)


def test_a_greedy_soup():
  """Best first; 8 makes it worse and is left out, 1 as good and is kept."""
  candidates = [np.float64(x) for x in (1, 2, 4, 8)]
  scores = {1: 0.5, 2: 0.7, 4: 0.9, 8: 0.8}
  scores |= {(4 + 8) / 2: 0.85, (4 + 2) / 2: 0.9, (4 + 2 + 1) / 3: 0.95}
  tried = []

  def score(soup):
    tried.append(soup)
    return scores[float(soup)]

  kept, soup = weights.greedy_soup(candidates, score)
  assert kept == [2, 1, 0] and soup == 7 / 3
  assert tried == [1, 2, 4, 8, 6, 3, 7 / 3]


def test_a_greedy_soup_is_never_worse_than_the_best():
  scores = {1: 0.6, 5: 0.9, 3: 0.89}
  candidates = [np.float64(1), np.float64(5)]
  kept, soup = weights.greedy_soup(candidates, lambda x: scores[float(x)])
  assert kept == [1] and soup == 5
