"""Numbers by group and claims on them, by hand."""

import math

import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.run.tables import markdown
from dlx.study import apart
from dlx.study.declaration import Run, StudyConfig, over_seeds
from dlx.study.results import Finished, Results, mean_and_sd
from dlx.study.table import as_table

LOSS = 'test/loss'


def results(**groups):
  """By group the losses of its runs; None: it diverged."""
  made = {}
  for group, losses in groups.items():
    for i, loss in enumerate(losses):
      lost = loss is None
      made[f'{group}-{i}'] = Finished(
        Run('mlp', {'lr': 0.1}, group),
        {'lr': 0.1, 'seed': i, 'judge': {'steps': 3}},
        {} if lost else {LOSS: loss},
        1.0,
        lost,
      )
  return Results(made)


def test_numbers_of_a_group_leave_out_what_diverged():
  found = results(a=[1.0, 3.0, None], b=[None], c=[2.0])
  assert found.groups == {'a': ['a-0', 'a-1', 'a-2'], 'b': ['b-0'], 'c': ['c-0']}
  np.testing.assert_array_equal(found.values(LOSS, 'a'), [1, 3])
  assert (found.mean(LOSS, 'a'), found.sd(LOSS, 'a')) == (2, math.sqrt(2))
  assert math.isnan(found.mean(LOSS, 'b')) and math.isnan(found.sd(LOSS, 'c'))
  assert [found.num_diverged(g) for g in 'abc'] == [1, 1, 0]
  assert found.told(LOSS, 'a') == 'a: 2 (sd 1.4, n=2, 1 diverged)'
  assert found.row('a', [LOSS]) == {'runs': 3, 'diverged': 1, LOSS: '2.0 ± 1.4'}
  assert found.field('judge.steps', 'a') == 3
  with pytest.raises(ConfigError, match='config.seed differs among the runs of a'):
    found.field('seed', 'a')
  with pytest.raises(
    ConfigError, match="'d' is no group of this study: must be one of"
  ):
    found.mean(LOSS, 'd')
  with pytest.raises(ConfigError, match='test/los is no metric of the runs of c: must'):
    found.mean('test/los', 'c')


def test_the_best_of_groups_is_one_without_a_run_that_diverged():
  found = results(a=[3.0, 5.0], b=[1.0, None], c=[4.0, 2.0], d=[4.0, 4.0], e=[None])
  assert found.best(LOSS, 'abcd') == 'c'
  assert found.best(LOSS, iter('abcd'), better='higher') == 'a'  # The first of equals.
  assert found.best(LOSS, ['d', 'a'], better='higher') == 'd'
  assert found.best(LOSS, 'b') == 'b'
  assert found.best(LOSS, ['e', 'b']) == 'b'  # All diverged once: of what is left.
  with pytest.raises(ConfigError, match='The best of no groups by test/loss'):
    found.best(LOSS, [])
  with pytest.raises(ConfigError, match='better=more is not allowed'):
    found.best(LOSS, 'ab', better='more')
  with pytest.raises(ConfigError, match="'f' is no group of this study"):
    found.best(LOSS, 'af')


def test_curves_of_a_group_leave_out_what_diverged():
  run, config = Run('mlp', {}, 'a'), {'seed': 0}
  curve = [(2, 0.5), (4, 0.25)]
  found = Results(
    {
      'a-0': Finished(run, config, {LOSS: 0.25}, 1.0, curves={LOSS: curve}),
      'a-1': Finished(run, config, {}, 1.0, diverged=True),
    }
  )
  assert found.curves(LOSS, 'a') == [curve]
  with pytest.raises(ConfigError, match='train/x is no metric of the runs of a: must'):
    found.curves('train/x', 'a')


def test_costs_of_a_group_are_means():
  run = lambda seconds, **costs: Finished(
    Run('mlp', {}, 'a'), {}, {}, seconds, costs=costs
  )
  found = Results(
    {'a-0': run(2.0, train_seconds=1.0), 'a-1': run(4.0, train_seconds=2.0)}
  )
  assert found.cost('seconds', 'a') == 3 and found.cost('train_seconds', 'a') == 1.5
  assert math.isnan(found.cost('parameters', 'a'))
  result = {'seconds': {'train': 3.0, 'total': 9.0}, 'parameters': 30}
  assert apart.costs(result, 3) == {'train_seconds': 1.0, 'parameters': 10.0}
  steps = {**result, 'step': 5, 'flops_per_step': 60}
  told = {'step_seconds': 3.0 / 5 / 3, 'step_flops': 20.0}
  assert apart.costs(steps, 3) == {**apart.costs(result, 3), **told}
  assert apart.costs({}, 3) == {}


def test_claims_count_standard_errors():
  # Means 2 and 5, variances 1 and 4 of three runs each: error sqrt(1/3 + 4/3) = 1.291.
  found = results(a=[1.0, 2.0, 3.0], b=[3.0, 5.0, 7.0], one=[9.0], lost=[None, None])
  assert found.lower(LOSS, 'a', than='b', errors=2.3).holds  # 3 / 1.291 = 2.324.
  assert not found.lower(LOSS, 'a', than='b', errors=2.4).holds
  assert found.higher(LOSS, 'b', than='a').holds
  assert not found.higher(LOSS, 'a', than='b').holds
  assert not found.lower(LOSS, 'a', than='a').holds
  said = found.lower(LOSS, 'a', than='b').numbers
  assert said == (
    'test/loss of a: 2 (sd 1, n=3), of b: 5 (sd 2, n=3); difference -3, standard error '
    '1.3 (2.3 of them); asked below -2 standard errors.'
  )
  # Of one run, or none that is left, nothing is known.
  assert not found.lower(LOSS, 'a', than='one').holds
  assert not found.higher(LOSS, 'lost', than='a').holds


def test_an_interval_of_a_difference():
  # Equal variances: df 4, t 2.776; 2 sqrt(1/3 + 1/3) of it.
  found = results(a=[1.0, 2.0, 3.0], b=[3.0, 4.0, 5.0], one=[9.0])
  of = found.interval(LOSS, 'a', 'b')
  assert (of.difference, of.confidence) == (-2, 0.95)
  assert of.high - of.low == pytest.approx(2 * 2.7764 * math.sqrt(2 / 3), rel=1e-4)
  narrower = found.interval(LOSS, 'a', 'b', confidence=0.5)
  assert of.low < narrower.low < narrower.high < of.high
  assert found.interval(LOSS, 'a', 'one') is None


def test_claims_on_pairs_of_seeds():
  # Differences -1, -2, -3: mean -2, error 1 / sqrt 3 = 0.577; 3.46 of them. Of the
  # means the error is sqrt((100 + 121) / 3) = 8.6.
  found = results(a=[0.0, 10.0, 20.0], b=[1.0, 12.0, 23.0], lost=[0.5, None, 1.5])
  assert found.lower(LOSS, 'a', than='b', errors=3.4, paired=True).holds
  assert not found.lower(LOSS, 'a', than='b', errors=3.5, paired=True).holds
  assert not found.lower(LOSS, 'a', than='b').holds
  assert found.higher(LOSS, 'b', than='a', paired=True).holds
  assert found.lower(LOSS, 'a', than='b', paired=True).numbers == (
    'test/loss of a: 10 (sd 10, n=3), of b: 12 (sd 11, n=3); difference of 3 pairs -2, '
    'standard error 0.58 (3.5 of them); asked below -2 standard errors.'
  )
  # Seed 1 diverged in one of them: two pairs are left.
  a, b = found.pairs(LOSS, 'lost', 'b')
  assert (a.tolist(), b.tolist()) == ([0.5, 1.5], [1.0, 23.0])
  few = results(a=[1.0, None], b=[2.0, 3.0])
  assert 'two pairs' in few.lower(LOSS, 'a', than='b', paired=True).numbers


def test_groups_of_other_seeds_are_no_pairs():
  found = results(a=[1.0, 2.0], b=[1.0, 2.0, 3.0])
  with pytest.raises(ConfigError, match='a and b are not paired: both must have the'):
    found.lower(LOSS, 'a', than='b', paired=True)
  again = found.runs['a-1']._replace(run=found.runs['a-0'].run)
  with pytest.raises(ConfigError, match='each once'):
    Results({**found.runs, 'a-2': again}).pairs(LOSS, 'a', 'b')


@pytest.mark.parametrize(
  ('mean', 'sd', 'told'),
  [
    (0.12345, 0.00123, '0.1235 ± 0.0012'),
    (12.345, 1.5, '12.3 ± 1.5'),
    (1234.5, 67.8, '1234 ± 68'),
    (0.5, math.nan, '0.5'),
    (0.5, 0.0, '0.5'),
    (math.nan, math.nan, '–'),
    (2.3, 7.8e-6, '2.3 ± 7.8e-06'),
  ],
)
def test_digits_follow_the_spread(mean, sd, told):
  assert mean_and_sd(mean, sd) == told


def test_the_table_has_a_column_for_every_name():
  rows = [{'group': 'a|b', 'runs': 3}, {'group': 'c', 'runs': 2, 'more': 'x'}]
  found = as_table(rows)
  assert found.columns == ['group', 'runs', 'more']
  assert found.rows == [['a|b', '3', ''], ['c', '2', 'x']]
  assert '| a\\|b | 3 |  |' in markdown(found)
  assert as_table([]).rows == []


def test_runs_over_seeds():
  config = StudyConfig(seeds=2, first_seed=5)
  found = over_seeds(config, {'a': Run('mlp', {'lr': 0.1}), 'b': Run('cnn', group='g')})
  assert list(found) == ['a-5', 'a-6', 'b-5', 'b-6']
  assert found['a-6'] == Run('mlp', {'lr': 0.1, 'seed': 6}, 'a')
  assert found['b-5'].group == 'g'
  with pytest.raises(ConfigError, match='first_seed=2147483647 is not allowed'):
    StudyConfig(first_seed=2**31 - 1)
