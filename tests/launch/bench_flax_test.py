"""Plain Flax and Keras learn as dlx in the bench, from the same weights and noise."""

import jax
import numpy as np
import pytest

from launch.benchmarks import rows, workloads
from launch.benchmarks.flax_peer import side as flax_side
from tests.launch.parity import QUICK, SMALL, run_dlx


@pytest.fixture(autouse=True)
def textbook():
  """Textbook code adds a vector to a matrix."""
  with jax.numpy_rank_promotion('allow'):
    yield


def statistics(name, run):
  state = dict(run.first.model_state or {})
  if name == 'dcgan':
    return {player: state[player] for player in ('g', 'd')}
  return state.get('batch_stats', {})


def sizes(name):
  """Fields of the small workload, without the dtypes: Flax's side is float32."""
  return {'num_steps': 20, 'batch_size': 8, **SMALL[name]}


# The others are slow: nets of the sizes that are measured, compiled twice.
FAST = ('mlp', 'cnn', 'gcn')
EVERY = [
  pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST))
  for name in workloads.FLAX
]


@pytest.mark.parametrize('name', EVERY)
def test_flax_learns_as_dlx(name):
  run = run_dlx(name, 'float32')
  side = flax_side.build(name, rates=run.rates, **QUICK, **sizes(name))
  side.load(run.first.params, statistics(name, run))
  # Five steps; the worst seen was 7e-7.
  np.testing.assert_allclose(side.losses(run.batches, run.draws), run.losses, rtol=1e-5)


@pytest.mark.parametrize(
  'name',
  [
    pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST))
    for name in rows.BFLOAT16
  ],
)
def test_flax_in_bfloat16_learns_as_dlx(name):
  run = run_dlx(name, 'bfloat16')
  losses = {}
  for dtype in ('bfloat16', 'float32'):
    fields = {**sizes(name), 'compute_dtype': dtype}
    side = flax_side.build(name, rates=run.rates, **QUICK, **fields)
    side.load(run.first.params, statistics(name, run))
    losses[dtype] = side.losses(run.batches, run.draws)
    if dtype == 'bfloat16':
      assert all(x.dtype == 'float32' for x in jax.tree.leaves(side.params))
  # A rounding is 2^-9 of a number; see bench_torch_test.py.
  tolerance = 2**-7 if name == 'resnet18' else 2**-9
  np.testing.assert_allclose(losses['bfloat16'], run.losses, rtol=tolerance)
  assert losses['bfloat16'] != losses['float32']


@pytest.mark.parametrize('name', ['mlp', 'vae'])
def test_flax_steps_on_its_own(name):
  side = flax_side.build(name, **QUICK, **sizes(name))
  before = jax.tree.map(np.asarray, side.params)
  assert np.isfinite(side.step(2))
  moved = jax.tree.map(lambda a, b: bool((a != b).any()), before, side.params)
  assert all(jax.tree.leaves(moved))


def test_flax_names_what_does_not_fit():
  side = flax_side.build('mlp', **sizes('mlp'))
  with pytest.raises(ValueError, match='mlp: '):
    side.load({'hidden_0': {'kernel': np.ones((2, 2))}}, {})


@pytest.mark.parametrize('name', ['mlp', 'cnn'])
def test_keras_learns_as_dlx(name, monkeypatch):
  monkeypatch.setenv('KERAS_BACKEND', 'jax')
  pytest.importorskip('keras', reason='keras is not installed: pip install .[bench]')
  from launch.benchmarks.keras_peer import side as keras_side

  run = run_dlx(name, 'float32')
  side = keras_side.build(name, **sizes(name))
  side.load(run.first.params, {})
  # Its Adam adds epsilon before the bias of the second moment is corrected.
  np.testing.assert_allclose(side.losses(run.batches, run.rates), run.losses, rtol=1e-4)
