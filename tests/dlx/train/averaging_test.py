"""Even averages of weights: by hand, statistics of batch norm, runs that go on."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import optim
from dlx.errors import ConfigError
from dlx.run.loop import fit
from dlx.train.averaging import Averaging
from experiments.vision import cnn

SIZE = {'features': (4,), 'dense': 8, 'num_steps': 8}


def test_averages_by_hand():
  averaging, average, found = Averaging(start=0.4), {'w': jnp.zeros(())}, []
  for step, weight in enumerate([3.0, 1.0, 2.0, 6.0, 1.0]):
    at = {'w': jnp.asarray(weight)}
    average = averaging.updated(average, at, jnp.asarray(step), 5)
    found.append(float(average['w']))
  assert found == [3, 1, 2, 4, 3]  # Of steps 2, 3 and 4; before them the weights.


def test_an_average_stays_float32():
  narrow = {'w': jnp.zeros((), jnp.bfloat16)}
  averaging, step = Averaging(start=0.0), jnp.asarray(0)
  with pytest.raises(ConfigError, match='would stand still'):
    averaging.updated(narrow, narrow, step, 5)
  wide = averaging.updated({'w': jnp.zeros(())}, narrow, step, 5)
  assert wide['w'].dtype == jnp.float32


def test_the_rate_stays_where_the_average_begins():
  rate = optim.one_cycle(1.0, 100)
  held = Averaging(start=0.75).held(rate, 100)
  for count in (0, 30, 74, 75):
    assert float(held(count)) == float(rate(count))
  assert float(held(99)) == float(rate(75)) > float(rate(99))
  assert Averaging().held(rate, 100) is rate


def test_steps_average_weights_and_statistics():
  """A step of the plain run from the averaged weights leaves their statistics."""
  config = cnn.Config.small(**SIZE, dropout=0.0, averaging=Averaging(start=0.5))
  averaged = cnn.build(config)
  plain = cnn.build(cnn.Config.small(**SIZE, dropout=0.0))
  step, usual = jax.jit(averaged.train_step), jax.jit(plain.train_step)
  state = jax.jit(averaged.init)(jax.random.key(0))
  rng, weights = np.random.default_rng(0), []
  for i in range(config.num_steps):
    batch = {
      'image': jnp.asarray(rng.integers(0, 17, (16, 8, 8, 1)), jnp.uint8),
      'label': jnp.asarray(rng.integers(0, 10, 16), jnp.int32),
    }
    old, (state, _) = state, step(state, batch)
    of = old.ema if i >= 4 else old.params
    wanted, _ = usual(old._replace(params=of, ema=()), batch)
    equal(state.model_state, wanted.model_state)
    weights = [*weights, state.params] if i > 4 else [state.params]
    mean = jax.tree.map(lambda *x: np.mean(x, axis=0), *weights)
    equal(state.ema, mean)
    if i < 4:
      equal(state.params, wanted.params)
  assert state.averaged is state.ema


def equal(found, wanted):
  compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
  jax.tree.map(compare, found, wanted)


def test_a_run_that_was_stopped_in_the_average_goes_on_bit_for_bit(tmp_path):
  config = cnn.Config.small(**SIZE, averaging=Averaging(start=0.5))
  prints = []
  for name, stops in (('straight', [None]), ('broken', [3, 6, None])):
    for stop in stops:
      fit(cnn.build(config), config, tmp_path / name, stop_at=stop)
    result = json.loads(pathlib.Path(tmp_path / name / 'result.json').read_text())
    prints.append(result['fingerprint'])
  assert prints[0] == prints[1]


def test_one_average_a_run():
  config = cnn.Config.small(ema_decay=0.9, averaging=Averaging(start=0.5))
  with pytest.raises(ConfigError, match='--config.averaging.start=0.5 is not allowed'):
    cnn.build(config)
  with pytest.raises(ConfigError, match='start=1.0 is not allowed'):
    Averaging(start=1.0)
