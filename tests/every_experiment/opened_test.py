"""What every trained model can do from its workdir alone, moved, without data."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dlx
from dlx import runs
from dlx.config_json import config_to_json
from dlx.data.dataset import Source
from dlx.errors import DataError
from dlx.experiment import example_shapes
from dlx.run import sharding
from dlx.run.checkpoint.checkpointer import Checkpointer
from dlx.run.dispatch import make_dispatch
from dlx.run.of_set import of_set
from launch import checks
from tests.every_experiment import tiers
from tests.every_experiment.small import load, small

ROWS = 3


@pytest.fixture
def no_data(monkeypatch):
  """Nothing can be read, neither what is embedded nor what is generated."""
  made = Source.__init__

  def lost(data_dir):
    raise DataError('no data is there')

  def without(self, *args, **kwargs):
    made(self, *args, **kwargs)
    object.__setattr__(self, 'read', lost)

  monkeypatch.setattr(Source, '__init__', without)


def moved(name, built, config, rng, folder, window=None):
  """The run of a moved workdir, and its state; to draw weights compiles nothing."""
  shapes = jax.eval_shape(lambda: built.init(jax.random.key(0)))
  state = jax.tree.map(lambda x: checks.some_weights(rng, x), shapes)
  there = folder / 'there'
  saved = Checkpointer(there / 'checkpoints')
  saved.save(3, jax.device_put(state), window or {}, {})
  saved.close()
  told = {'experiment': name, 'config': config_to_json(config)}
  (there / 'config.json').write_text(json.dumps(told))
  return dlx.open(there.rename(folder / 'here')), state


@pytest.mark.parametrize('name', tiers.every(expensive=True, newest=True, thirds=True))
def test_functions_of_an_opened_run_are_those_of_its_state(name, tmp_path, no_data):
  config = small(name)
  built, rng = load(name).build(config), np.random.default_rng(1)
  run, state = moved(name, built, config, rng, tmp_path)
  assert list(run.functions) == list(built.functions)
  for what, function in built.functions.items():
    chosen = checks.options(function)
    if function.of_graph:
      shapes = example_shapes(function.inputs, (), checks.SIZES)
      inputs = {k: np.zeros(x.shape, x.dtype) for k, x in shapes.items()}
    else:
      inputs = {
        k: np.stack([checks.example(rng, field) for _ in range(ROWS)])
        for k, field in function.inputs.items()
      }
    found = run.call(what, **inputs, **chosen)
    call = jax.jit(lambda s, x, f=function, c=chosen: f.call(s, x, **c))
    wanted = call(state._replace(opt_state=()), inputs)
    if len(wanted) == 1:
      found = {next(iter(wanted)): found}
    assert set(found) == set(function.outputs)
    for output, value in wanted.items():
      value = np.asarray(value)
      assert (found[output].shape, found[output].dtype) == (value.shape, value.dtype)
      # See checks: roundings of the largest number.
      bound = 64 * np.finfo(np.float32).eps * np.abs(value).max()
      np.testing.assert_allclose(found[output], value, rtol=0, atol=bound)


def follows(answers, fields):
  """The metric that follows from predictions of a test split: its name and value."""
  found = answers.found
  if 'true_target' in found:
    error = np.asarray(found['target'], np.float64) - found['true_target']
    return 'rmse', np.sqrt((error**2).mean())
  odds, true = found['probabilities'], found['true_label']
  names = fields['probabilities'].names
  if names and answers.fields['true_label'].names:  # Some of the classes of the set.
    known = answers.fields['true_label'].names
    kept = np.array([known[k] in names for k in true])
    odds, true = odds[kept], np.array([names.index(known[k]) for k in true[kept]])
  return 'accuracy', (odds.argmax(-1) == true).mean()


@pytest.mark.parametrize('name', tiers.every(expensive=True, newest=True, thirds=True))
def test_predictions_of_the_test_split_are_those_of_the_evaluation(name, tmp_path):
  config = small(name)
  built = load(name).build(config)
  predict = built.functions.get('predict')
  if predict is None or not hasattr(config, 'dataset') or 'test' not in built.evals:
    pytest.skip('nothing of a test split is predicted')
  if not {'probabilities', 'target'} & set(predict.outputs):
    pytest.skip('no metric follows from what is predicted')
  shapes = make_dispatch(built, sharding.make_mesh(None)).window
  window = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  run, _ = moved(name, built, config, np.random.default_rng(1), tmp_path, window)
  metric, found = follows(of_set(run, 'predict', ':test', {}), predict.outputs)
  wanted = runs.evaluate(built, config, run.workdir)[f'test/{metric}']
  assert 0 < wanted  # Weights that are drawn guess right now and then.
  # Equal but for one row, of 360 at most, that lies between two classes.
  assert found == pytest.approx(
    wanted, abs=1 / 250 if metric == 'accuracy' else 1e-4 * wanted
  )
