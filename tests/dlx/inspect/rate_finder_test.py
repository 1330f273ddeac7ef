"""Tests for dlx/inspect/rate_finder.py: exact updates, and a rate known by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import optim
from dlx.experiment import Config, Experiment
from dlx.inspect import rate_finder, subject
from dlx.state import Mean, create
from dlx.train import curves, steps
from tests.dlx.run import kinds

CURVATURE = 4.0
DATA = {'x': np.ones((8, 1), np.float32)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quadratic(Config):
  """Gradient descent on 0.5 c w^2 by a schedule: diverges from a rate of 2 / c on."""

  lr: float = 0.25


def build(config):
  tx = optim.sgd(optim.cosine(config.lr, config.num_steps))

  def init(key):
    params = {'w': jnp.ones((1,))}
    return create(params, tx.init(params), key)

  def train_step(state, batch):
    def loss_fn(params, model_state, batch, rng):
      loss = 0.5 * CURVATURE * jnp.square(params['w']).sum() * batch['x'].mean()
      return Mean(loss, jnp.ones(())), (model_state, {})

    grads, _, sums = steps.gradients(loss_fn, state.params, (), batch, state.rng)
    new = steps.apply(tx, state, grads)
    return new, {**sums, **curves.of(config, tx, state, new, grads)}

  return Experiment(init, train_step, kinds.Rolling(DATA, 8))


def made(**fields):
  return subject.Subject(build, Quadratic(num_steps=100, curves=True, **fields))


def test_the_update_has_the_rate_of_the_test_whatever_the_schedule():
  curve = rate_finder.range_test(made(lr=0.01))
  w, expected = 1.0, []
  for rate in curve.rates:
    expected.append(0.5 * CURVATURE * w * w)
    w -= rate * CURVATURE * w
  # Float32 roundings of each step; the scale, and a subtraction of neighbours.
  np.testing.assert_allclose(curve.losses, expected[: len(curve.losses)], rtol=1e-4)


def test_the_suggestion_is_within_a_decade_of_the_best_rate():
  found = rate_finder.suggested(rate_finder.range_test(made()))
  best = 1 / CURVATURE  # One step to the minimum.
  assert found is not None and best / 10 <= found <= best * 10


def report(subject, steps=30):
  return rate_finder.report(subject, subject.run(steps))


def test_a_rate_far_from_the_suggestion_that_learns_less_is_named():
  named = lambda lr: [f.name for f in report(made(lr=lr)).findings]
  assert named(25.0) == ['rate_too_high']
  assert named(2.5e-4) == ['rate_too_low']
  found = report(made(lr=0.1))
  assert not found.findings and set(found.figures) == {'rate_finder'}


def test_the_share_of_the_fall_by_hand():
  curve = rate_finder.Curve(np.ones(4), np.array([4.0, 4.0, 4.0, 0.0]), 12)
  made_of = lambda *losses: subject.Run(
    None, None, [{'loss': x} for x in losses], [], {}
  )
  assert rate_finder.reached(made_of(4.0, 1.0), curve) == pytest.approx(0.75)
  assert rate_finder.reached(made_of(4.0, 8.0), curve) == pytest.approx(-1)


def test_what_reports_no_rate_is_skipped_with_its_reason():
  silent = subject.Subject(build, Quadratic(num_steps=10))
  assert 'learning_rate' in str(report(silent, 1).skipped)
  players = lambda config: build(config)._replace(overfit='two players')
  players = subject.Subject(players, Quadratic(num_steps=10))
  assert 'two players' in str(report(players, 1).skipped)


def test_smoothing_by_hand():
  curve = rate_finder.Curve(np.ones(2), np.array([1.0, 3.0]), 120)
  # (0.9 * 0.1 * 1 + 0.1 * 3) / (0.9 * 0.1 + 0.1)
  np.testing.assert_allclose(curve.smooth, [1.0, 0.39 / 0.19])
  flat = rate_finder.Curve(np.geomspace(1e-6, 10, 50), np.ones(50), 50)
  assert rate_finder.suggested(flat) is None


def test_the_gradient_of_each_tensor_is_seen():
  run = made().run(2)
  # c w of w = 1; then of w = 1 - 0.25 * 4.
  np.testing.assert_allclose(
    [n['gradients/w'] for n in run.norms], [4.0, 0.0], atol=1e-6
  )
  assert run.finite and jax.tree.leaves(run.first.params)[0] == 1
