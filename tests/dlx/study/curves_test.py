"""Curves of a run and steps to a level, by hand."""

import math

import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.study.curves import of_lines, steps_to
from dlx.study.declaration import Run
from dlx.study.results import Finished, Results

UP = [(0, 0.1), (10, 0.5), (20, math.nan), (30, 0.4), (40, 0.9)]


@pytest.mark.parametrize(
  ('level', 'better', 'step'),
  [
    (0.1, 'higher', 0),
    (0.5, 'higher', 10),  # What is equal has reached it.
    (0.50001, 'higher', 40),
    (0.91, 'higher', math.inf),
    (0.4, 'lower', 0),
    (0.05, 'lower', math.inf),
  ],
)
def test_the_first_step_at_a_level(level, better, step):
  assert steps_to(UP, level, better=better) == step


def test_no_curve_and_no_such_word():
  assert steps_to([], 0.0) == math.inf
  assert steps_to([(5, math.nan)], 0.0) == math.inf
  with pytest.raises(ValueError, match="better='best' is not allowed"):
    steps_to(UP, 0.5, better='best')


def test_curves_of_lines():
  line = lambda step, split, **metrics: {
    'step': step,
    'split': split,
    'metrics': metrics,
  }
  lines = [
    line(2, 'train', loss=3),
    line(4, 'train', loss=1.5, members=[1.0, 2.0]),
    line(4, 'test', loss=2.5, lost=None, known=True),
    line(0, 'test', loss=4.0),
    line(4, 'test', loss=2.0),
  ]
  assert of_lines(lines) == {
    'train/loss': [(2, 3.0), (4, 1.5)],
    'test/loss': [(0, 4.0), (4, 2.0)],
  }


def test_a_group_leaves_out_what_diverged():
  run = lambda seed, curve, lost=False: Finished(
    Run('mlp', group='a'), {'seed': seed}, {}, 1.0, lost, curve
  )
  curve = {'test/accuracy': UP}
  late = {'test/accuracy': [(0, 0.0), (40, 0.3)]}
  found = Results({'1': run(1, curve), '2': run(2, {}, True), '3': run(3, late)})
  assert found.curves('test/accuracy', 'a') == [UP, late['test/accuracy']]
  steps = found.steps_to('test/accuracy', 'a', 0.5)
  assert steps.dtype == np.float64 and steps.tolist() == [10, math.inf]
  with pytest.raises(ConfigError, match='test/loss is no metric of the runs of a'):
    found.steps_to('test/loss', 'a', 0.5)
