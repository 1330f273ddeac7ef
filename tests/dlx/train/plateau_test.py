"""ReduceOnPlateau: scripted curves by hand and by torch, members, rates, refusals.

That a run which is stopped and started again has the bits of one that was not is shown
by tests/dlx/run/contract_test.py, whose `plateau_and_stop` is of this part.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlx import optim
from dlx.errors import ConfigError
from dlx.state import Mean
from dlx.train.members import vectorize
from dlx.train.plateau import Lowered, Plateau
from tests.dlx.run import kinds

INF = float('inf')


def scales(plateau, curve):
  """Factor of the rate after each evaluation, jitted."""
  state = plateau.wrap(optim.sgd(1.0)).init({'w': jnp.zeros(1)})
  seen, found = jax.jit(plateau.seen), []
  for value in curve:
    state = seen(state, jnp.float32(value))
    found.append(float(state.lowered))
  return found


@pytest.mark.parametrize(
  ('options', 'curve', 'wanted'),
  [
    # Two that are no better are borne, the third lowers; then counting begins anew.
    (
      {'patience': 2},
      [5, 4, 4, 4, 4, 4, 4, 4],
      [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01],
    ),
    ({'patience': 0, 'factor': 0.5}, [3, 3, 2, 2], [1, 0.5, 0.5, 0.25]),
    # The evaluation after a fall is not counted.
    (
      {'patience': 0, 'factor': 0.5, 'cooldown': 1},
      [3, 3, 3, 3, 3],
      [1, 0.5, 0.5, 0.25, 0.25],
    ),
    ({'patience': 0, 'mode': 'max'}, [1, 2, 2, 3], [1, 1, 0.1, 0.1]),
    ({'patience': 0, 'threshold': 0.1}, [10, 9.5, 8.9], [1, 0.1, 0.1]),
    # Of a negative best the margin lies below it.
    ({'patience': 0, 'threshold': 0.1}, [-10, -10.5, -11.5], [1, 0.1, 0.1]),
    ({'patience': 0, 'least': 0.05}, [1, 1, 1, 1], [1, 0.1, 0.05, 0.05]),
    ({'patience': 0}, [float('nan'), INF, 1, -INF], [0.1, 0.01, 0.01, 1e-3]),
  ],
)  # fmt: skip
def test_by_hand(options, curve, wanted):
  got = scales(Plateau(metric='test/loss', **options), curve)
  np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize('mode', ['min', 'max'])
@pytest.mark.parametrize(
  ('factor', 'patience', 'cooldown', 'threshold', 'least'),
  [
    (0.3, 3, 2, 1e-2, 0.0),
    (0.5, 0, 0, 0.0, 0.0),
    (0.9, 1, 5, 0.1, 0.0),
    (0.1, 2, 0, 1e-4, 0.05),
  ],
)
def test_is_torch(mode, factor, patience, cooldown, threshold, least):
  torch = pytest.importorskip(
    'torch', reason='torch is not installed: pip install .[reference]'
  )
  options = {'factor': factor, 'patience': patience}
  options |= {'cooldown': cooldown, 'threshold': threshold}
  tx = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
  scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
    tx, mode, eps=0, min_lr=least, **options
  )
  curve = 5 + np.random.default_rng(0).normal(size=120) * np.linspace(2, 0, 120)
  wanted = []
  for value in curve:
    scheduler.step(float(np.float32(value)))
    wanted.append(tx.param_groups[0]['lr'])
  got = scales(Plateau(metric='test/loss', mode=mode, least=least, **options), curve)
  assert len(set(wanted)) >= (3 if least else 5)
  np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize(
  'tx', [optim.sgd(0.1, 0.9), optim.adamw(0.1, 0.1), optim.rmsprop(0.1, momentum=0.9)]
)
def test_a_lowered_rate_is_a_lower_learning_rate(tx):
  """Decay and momentum included; the rate that curves report, too."""
  plateau, params = Plateau(metric='test/loss'), {'w': jnp.ones((2, 2))}
  wrapped = plateau.wrap(tx)
  state = wrapped.init(params)._replace(lowered=jnp.float32(0.25))
  for i in range(2):
    grads = {'w': jnp.full((2, 2), i + 1.0)}
    plain, _ = tx.update(grads, state.inner, params)
    moves, new = wrapped.update(grads, state, params)
    np.testing.assert_allclose(moves['w'], 0.25 * plain['w'], rtol=1e-6)
    rate = optim.learning_rate(optim.clip(wrapped, norm=9.0), state, new, jnp.int32(0))
    np.testing.assert_allclose(rate, 0.025, rtol=1e-6)
    state = new


def test_of_a_narrow_parameter_the_copy_moves():
  plateau = Plateau(metric='test/loss')
  tx, params = plateau.wrap(optim.sgd(0.01)), {'w': jnp.ones((), jnp.bfloat16)}
  state = tx.init(params)
  state = state._replace(inner=state.inner._replace(lowered=jnp.float32(0.01)))
  for _ in range(3):
    moves, state = tx.update({'w': jnp.ones((), jnp.bfloat16)}, state, params)
    params = optax.apply_updates(params, moves)
  assert float(params['w']) == 1  # The next number below is 0.996.
  np.testing.assert_allclose(state.params['w'], 0.9997, rtol=1e-6)


def test_off_changes_nothing():
  tx, experiment = optim.sgd(0.1), kinds.classifier(kinds.Small())
  assert Plateau().wrap(tx) is tx
  assert Plateau().watching(experiment) is experiment


def test_members_fall_each_by_its_own_figure_and_frozen_parts_stay():
  plateau = Plateau(metric='val/loss', patience=0)
  tx = optim.freeze(
    plateau.wrap(optim.adam(0.1)), lambda p: {'Dense_0': True, 'Dense_1': False}
  )
  experiment = vectorize(plateau.watching(kinds.classifier(kinds.Small(), tx)), 2)
  state = jax.jit(experiment.init)(jax.random.key(0))
  after_eval = jax.jit(experiment.after_eval)
  for values in ([2.0, 2.0], [1.0, 3.0]):
    state = after_eval(state, {'val/loss': jnp.array(values), 'val/accuracy': 0.0})
  kept = [
    x
    for x in jax.tree.leaves(state.opt_state, is_leaf=lambda x: isinstance(x, Lowered))
    if isinstance(x, Lowered)
  ]
  (found,) = kept
  np.testing.assert_allclose(found.lowered, [1.0, 0.1])
  np.testing.assert_allclose(found.best, [1.0, 2.0])


def test_an_evaluation_of_another_interval_is_waited_for():
  plateau = Plateau(metric='val/loss')
  experiment = plateau.watching(
    kinds.classifier(kinds.Small(), plateau.wrap(optim.sgd(0.1)))
  )
  state = experiment.init(jax.random.key(0))
  assert experiment.after_eval(state, {'other/loss': jnp.float32(1)}) is state
  with pytest.raises(ConfigError, match='must be one of val/los, val/x'):
    experiment.after_eval(state, {'val/x': jnp.float32(1), 'val/los': Mean})


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'metric': 'loss'}, 'metric=loss is not allowed: must be SPLIT/NAME'),
    ({'mode': 'up'}, 'mode=up is not allowed: must be min or max'),
    ({'factor': 1.0}, r'factor=1.0 is not allowed: must be in \(0, 1\)'),
    ({'patience': -1}, 'patience=-1 is not allowed: must be at least 0'),
    ({'least': 2.0}, r'least=2.0 is not allowed: must be in \[0, 1\]'),
  ],
)
def test_impossible_values_are_named(fields, message):
  with pytest.raises(ConfigError, match=message):
    Plateau(**fields)


def test_what_would_have_no_effect_is_refused():
  experiment = kinds.classifier(kinds.Small())
  with pytest.raises(ConfigError, match='plateau.metric=test/loss .* SPLIT one of val'):
    Plateau(metric='test/loss').watching(experiment)
  watched = Plateau(metric='val/loss').watching(experiment)
  with pytest.raises(ConfigError, match='no effect: no optimiser .* plateau.wrap'):
    watched.after_eval(watched.init(jax.random.key(0)), {'val/loss': jnp.float32(1)})
