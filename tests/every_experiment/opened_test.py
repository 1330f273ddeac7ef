"""What every trained model can do from its workdir alone, moved, without data."""

import json

import jax
import numpy as np
import pytest

import dlx
from dlx.config_json import config_to_json
from dlx.data.dataset import Source
from dlx.errors import DataError
from dlx.experiment import example_shapes
from dlx.run.checkpoint.checkpointer import Checkpointer
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


@pytest.mark.parametrize('name', tiers.every(expensive=True, newest=True, thirds=True))
def test_functions_of_an_opened_run_are_those_of_its_state(name, tmp_path, no_data):
  config = small(name)
  built, rng = load(name).build(config), np.random.default_rng(1)
  shapes = jax.eval_shape(lambda: built.init(jax.random.key(0)))
  # No run: weights that are drawn compile nothing.
  state = jax.tree.map(lambda x: checks.some_weights(rng, x), shapes)
  there = tmp_path / 'there'
  saved = Checkpointer(there / 'checkpoints')
  saved.save(3, jax.device_put(state), {}, {})
  saved.close()
  told = {'experiment': name, 'config': config_to_json(config)}
  (there / 'config.json').write_text(json.dumps(told))
  run = dlx.open(there.rename(tmp_path / 'here'))
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
