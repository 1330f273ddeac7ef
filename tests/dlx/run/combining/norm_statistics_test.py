"""Statistics of batch norm found anew: those of a loop over the same batches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import state as states
from dlx.experiment import Experiment
from dlx.models.mlp import MLP
from dlx.run import reopen
from dlx.run.combining import norm_statistics
from dlx.run.dispatch import make_dispatch
from dlx.run.feed import load
from dlx.run.sharding import make_mesh
from experiments.foundations import mlp

NUM = 3
CONFIG = dataclasses.replace(
  mlp.SMALL, features=(6, 4), dropout=0.0, input_dropout=0.0, ema_decay=0.5
)


def ready(experiment: Experiment) -> reopen.Opened:
  """As `reopen.opened`, of a state before the first step."""
  dispatch = make_dispatch(experiment, make_mesh(None))
  data = load(experiment, None, dispatch.mesh)
  state = dispatch.init(jax.random.key(3))
  return reopen.Opened(experiment, dispatch, state, data, None, None)  # type: ignore


@pytest.mark.parametrize('changed', [{}, {'stream': True}, {'micro_batches': 2}])
def test_are_the_means_over_batches(changed):
  """A layer whose momentum is 0 keeps the statistics of the batch."""
  config = dataclasses.replace(CONFIG, **changed)
  experiment = mlp.build(config)
  opened = ready(experiment)
  # Weights that are evaluated, other than those that are trained; statistics of them.
  average = jax.tree.map(lambda x: 2 * x, opened.state.ema)
  state = opened.state._replace(ema=average)
  found = norm_statistics.recomputed(opened, state, NUM)

  model = MLP(
    widths=(6, 4), num_outputs=10, batch_norm=True, momentum=0.0, **config.dtypes
  )

  @jax.jit
  def of_batch(image):
    x = (image / 16.0 - mean) / std
    variables = {'params': average, **state.model_state}
    return model.apply(variables, x, train=True, mutable=['batch_stats'])[1]

  data = mlp.images.images('digits')
  mean, std = np.float32(data.mean).item(), np.float32(data.std).item()
  stream = mlp.build(CONFIG).train_data
  arrays = stream.load().data
  batches = [jax.jit(stream.get)(arrays, i)['image'] for i in range(NUM)]
  if config.micro_batches == 2:  # The second follows from 0.9 of the first.
    parts = [[of_batch(x[m::2]) for m in range(2)] for x in batches]
    mix = lambda a, b: (0.9 * a + b) / 1.9
    each = [jax.tree.map(mix, *part) for part in parts]
  else:
    each = [of_batch(x) for x in batches]
  wanted = jax.tree.map(lambda *x: sum(x) / NUM, *each)
  for path, x in states.leaves_by_path(wanted).items():
    y = states.leaves_by_path(found.model_state)[path]
    # Sums of 16 in float32, divided by 0.1 that is known to 1e-6.
    np.testing.assert_allclose(y, x, rtol=2e-5, atol=2e-5, err_msg=path)
    assert not np.allclose(y, states.leaves_by_path(state.model_state)[path])
  same = found._replace(model_state=state.model_state)
  jax.tree.map(np.testing.assert_array_equal, data_of(same), data_of(state))


def data_of(state):
  return jax.tree.map(
    lambda x: jax.random.key_data(x) if states.is_key(x) else x, state
  )


def test_frozen_statistics_stay_and_others_follow_from_them():
  """`a` is of a frozen net, `b` sees a batch times `a`, `c` has momentum 0.8."""
  stream = mlp.build(CONFIG).train_data

  def init(key):
    kept = {
      'batch_stats': {'b': jnp.float32(9), 'c': jnp.float32(0)},
      'n': jnp.ones(()),
    }
    frozen = {'batch_stats': {'a': jnp.float32(2)}}
    params = {'w': jnp.float32(3)}
    return states.create(params, (), key, model_state={'frozen': frozen, 'own': kept})

  def train_step(state, batch):
    own, a = state.model_state['own'], state.model_state['frozen']['batch_stats']['a']
    x = jnp.mean(batch['label'].astype(jnp.float32))
    b = 0.5 * own['batch_stats']['b'] + 0.5 * a * state.params['w'] * x
    c = 0.8 * own['batch_stats']['c'] + 0.2 * x * x
    new = {'batch_stats': {'b': b, 'c': c}, 'n': own['n'] + 1}
    model_state = {**state.model_state, 'own': new}
    params = {'w': state.params['w'] + 1}
    metrics = {'loss': states.mean(jnp.ones(2))}
    new = state._replace(step=state.step + 1, params=params, model_state=model_state)
    return new, metrics

  opened = ready(Experiment(init, train_step, stream))
  found = norm_statistics.recomputed(opened, opened.state, 4)
  arrays = stream.load().data
  labels = [np.mean(jax.jit(stream.get)(arrays, i)['label']) for i in range(4)]
  own = found.model_state['own']
  assert found.model_state['frozen']['batch_stats']['a'] == 2
  np.testing.assert_allclose(own['batch_stats']['b'], 6 * np.mean(labels), rtol=1e-5)
  squares = np.mean(np.square(labels))
  np.testing.assert_allclose(own['batch_stats']['c'], squares, rtol=1e-5)
  assert (own['n'], found.params['w'], found.step) == (1, 3, 0)


def test_without_statistics_nothing_is_read():
  plain = mlp.build(dataclasses.replace(CONFIG, batch_norm=False))
  assert not norm_statistics.has_statistics(plain)
  assert norm_statistics.has_statistics(mlp.build(CONFIG))
  state = jax.eval_shape(lambda: plain.init(jax.random.key(0)))
  assert norm_statistics.recomputed(None, state, 3) is state  # type: ignore
