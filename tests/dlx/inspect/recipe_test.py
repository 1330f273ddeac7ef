"""Tests for dlx/inspect/recipe.py: what is taken, when to stop, what chooses."""

from dlx.experiment import Config, Eval, Experiment
from dlx.inspect import recipe
from dlx.inspect.recipe import Point, Trial
from tests.dlx.run import kinds

NAN = float('nan')


def test_a_change_is_taken_where_it_gains_two_percent():
  config = Trial({}, 1.0, 0.1)
  little, much = Trial({'lr': 1.0}, 0.985, 0.1), Trial({'lr': 2.0}, 0.97, 0.1)
  assert recipe.best_of([config, little]) is config
  assert recipe.best_of([config, little, much]) is much
  assert recipe.best_of([config, Trial({'lr': 3.0}, NAN, 0.1)]) is config
  broken = Trial({}, NAN, 0.1)
  assert recipe.best_of([broken, little]) is little
  # Losses below 0, as of likelihoods of densities.
  low = Trial({}, -1.0, 0.1)
  assert recipe.best_of([low, Trial({'lr': 1.0}, -1.01, 0.1)]) is low
  lower = Trial({'lr': 1.0}, -1.1, 0.1)
  assert recipe.best_of([low, lower]) is lower


def experiment(*splits):
  data = kinds.Rolling(kinds.IMAGES, 8, passes=True)
  evals = {name: Eval(lambda s, b: {}, data) for name in splits}
  return Experiment(lambda key: None, lambda s, b: (s, {}), data, evals)


def test_a_run_that_gets_worse_is_stopped_by_held_out_examples():
  rising = [Point(10, 2.0, 2.0), Point(20, 1.0, 1.5), Point(30, 0.5, 1.8)]
  found = recipe.early_stop(Config(), experiment('test'), rising)
  assert 'least at step 20 of 30' in found.said
  wanted = {'validation': 0.1, 'early_stop_metric': 'validation/loss'}
  assert found.settings == wanted
  own = recipe.early_stop(Config(), experiment('validation', 'test'), rising)
  assert own.settings == {'early_stop_metric': 'validation/loss'}
  falling = [*rising[:2], Point(30, 0.5, 1.49)]
  assert not recipe.early_stop(Config(), experiment('test'), falling).settings
  flat = [*rising[:2], Point(30, 0.5, 1.51)]
  assert not recipe.early_stop(Config(), experiment('test'), flat).settings


def test_validation_chooses_where_there_is_one():
  assert recipe.split(experiment('test', 'validation')) == 'validation'
  assert recipe.split(experiment('test')) == 'test'
  assert recipe.split(experiment()) is None
  assert recipe.scored(experiment()) == 'it has no evaluation'
