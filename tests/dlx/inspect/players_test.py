"""Tests for dlx/inspect/players.py on runs that are written down, not trained."""

import types

import numpy as np
import pytest

from dlx.inspect import players
from dlx.inspect.subject import Run
from dlx.state import TrainState

STEPS = 40
# A game in which nobody wins.
EVEN = {
  'loss': 1.3,
  'g_loss': 0.8,
  'real_accuracy': 0.7,
  'fake_accuracy': 0.6,
  'd_grad_norm': 1.0,
  'g_grad_norm': 2.0,
  'd_update_ratio': 0.02,
  'g_update_ratio': 0.01,
}
TOLD = {'real_accuracy': 1.0, 'fake_accuracy': 1.0}


def state(d, g):
  params = {'d': {'kernel': np.full(2, d)}, 'g': {'kernel': np.full(2, g)}}
  return TrainState(np.int32(0), params, (), {}, (), (), np.int32(0), np.bool_(False))


def played(late=None, first=None, moved=('d', 'g')):
  """A run whose first ten steps and whose others have other metrics than EVEN."""
  begin, end = {**EVEN, **(first or {})}, {**EVEN, **(late or {})}
  metrics = [begin] * 10 + [end] * (STEPS - 10)
  last = state(*(float(name in moved) for name in ('d', 'g')))
  return Run(state(0.0, 0.0), last, metrics, [{}] * STEPS, {'input': 0.0, 'step': 1.0})


def report(run, evaluated=None, declared=tuple(EVEN)):
  experiment = types.SimpleNamespace(
    metrics=dict.fromkeys(declared), evals={'samples': None}
  )
  asked = types.SimpleNamespace(
    experiment=experiment, evaluate=lambda state, name, most: evaluated or {}
  )
  return players.report(asked, run)  # pyright: ignore


@pytest.mark.parametrize(
  ('late', 'first', 'moved', 'evaluated', 'name', 'evidence'),
  [
    ({}, {}, 'd', {}, 'player_frozen', 'All 1 tensors of the generator kept every bit'),
    ({}, {}, 'g', {}, 'player_frozen', 'of the discriminator kept every bit in 40'),
    # It stands still, so that the discriminator wins: the cause alone is named.
    (TOLD, {}, 'd', {}, 'player_frozen', 'generator'),
    ({'real_accuracy': 0.1, 'fake_accuracy': 0.2}, {}, 'dg', {})
    + ('real_and_fake_swapped', 'tells 10.0% of the real images and 20.0% of the'),
    (TOLD, {}, 'dg', {'real_accuracy': 0.0, 'fake_accuracy': 0.1})
    + ('real_and_fake_swapped', 'in the evaluation'),
    ({'d_update_ratio': 0.3}, {}, 'dg', {})
    + ('players_rates_apart', 'the discriminator is 30 times as fast'),
    ({}, {'g_update_ratio': 0.5}, 'dg', {})
    + ('players_rates_apart', 'of the first 10 moves the parameters of the'),
    ({**TOLD, 'g_grad_norm': 0.05}, {}, 'dg', {})
    + ('generator_gradient_vanishing', 'fell from 2 to 0.05'),
    (TOLD, {}, 'dg', {}, 'discriminator_wins', '100.0% of the real images and 100.0%'),
  ],
)
def test_what_is_wrong_is_the_only_finding(
  late, first, moved, evaluated, name, evidence
):
  found = report(played(late, first, moved), evaluated)
  assert [one.name for one in found.findings] == [name]
  assert evidence in found.findings[0].evidence and found.findings[0].fix


@pytest.mark.parametrize(
  'late',
  [
    {},
    {'g_grad_norm': 0.05},  # Small, and the discriminator does not win.
    {'real_accuracy': 1.0, 'fake_accuracy': 0.1},  # Calls all of them real.
    {'d_update_ratio': 0.09},
  ],
)
def test_an_even_game_has_no_finding(late):
  found = report(played(late), {'real_accuracy': 0.5, 'fake_accuracy': 0.5})
  assert not found.findings and not found.skipped
  assert found.said.startswith('told right: real ')
  rows = {row[0]: row[1:] for row in found.tables['Two players']}
  assert rows['g_loss'] == ('0.8', '0.8', '')
  assert rows['fake_accuracy'][2] == '0.5'  # Evaluated.
  assert len(found.figures['players'].axes) == 4


def test_without_curves_rates_are_not_compared():
  run = played()
  bare = [
    {k: v for k, v in one.items() if not k.endswith('_update_ratio')}
    for one in run.metrics
  ]
  found = report(run._replace(metrics=bare))
  assert not found.findings and len(found.figures['players'].axes) == 3


def test_one_player_is_skipped():
  assert 'g_loss' in (report(played(), declared=('loss',)).skipped or '')
  bare = [{'loss': 1.0}] * STEPS
  assert 'g_loss' in (report(played()._replace(metrics=bare)).skipped or '')
