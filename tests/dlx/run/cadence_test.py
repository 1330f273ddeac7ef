"""Tests for dlx/run/cadence.py and clock.py: when, and how long."""

import time

from absl.testing import absltest, parameterized
from hypothesis import given
from hypothesis import strategies as st

from dlx.experiment import Eval
from dlx.run import cadence
from dlx.run.timing import KINDS, Clock
from tests.dlx.run import kinds

DATA = kinds.Rolling(kinds.IMAGES, 16, passes=True)
EVALS = {'val': Eval(None, DATA), 'rare': Eval(None, DATA, every=10)}


class CadenceTest(parameterized.TestCase):
  def test_by_hand(self):
    config = kinds.Small(num_steps=24)  # Log 5, eval 6, save 8.
    step, stops = 0, []
    while step < 24:
      step = cadence.next_boundary(step, 3, 24, config, EVALS)
      stops.append(step)
    self.assertEqual(stops, [3, 5, 6, 8, 10, 12, 15, 16, 18, 20, 23, 24])
    self.assertEqual(cadence.next_boundary(8, 3, 9, config, EVALS), 9)
    self.assertEqual(cadence.next_boundary(8, 9, 24, config, EVALS, cuts=(3, 9)), 9)

  @given(
    st.integers(1, 60),
    st.integers(1, 9),
    st.one_of(st.none(), st.integers(1, 12)),
    st.integers(1, 59),
  )
  def test_what_is_due_ends_a_dispatch_wherever_a_run_began(self, last, k, save, start):
    config = kinds.Small(num_steps=last, save_every_steps=save)
    stops, step = [start], start
    while step < last:
      step = cadence.next_boundary(step, k, last, config, EVALS)
      stops.append(step)
    lengths = [b - a for a, b in zip(stops, stops[1:])]
    self.assertTrue(all(1 <= n <= k for n in lengths), lengths)
    for step in range(start + 1, last + 1):
      if cadence.due(step, save, last) or cadence.evals_due(step, EVALS, config):
        self.assertIn(step, stops)

  def test_evaluations_have_intervals_of_their_own(self):
    config = kinds.Small(num_steps=24)
    self.assertEqual(cadence.evals_due(6, EVALS, config), ['val'])
    self.assertEqual(cadence.evals_due(10, EVALS, config), ['rare'])
    self.assertEqual(cadence.evals_due(24, EVALS, config), ['val', 'rare'])
    self.assertEqual(cadence.evals_due(0, EVALS, config), [])
    start = kinds.Small(num_steps=24, eval_at_start=True)
    self.assertEqual(cadence.evals_due(0, EVALS, start), ['val', 'rare'])

  @parameterized.parameters((None, [8, 16, 24]), ('rare/loss', [8, 10, 16, 20, 24]))
  def test_saves_follow_the_evaluation_that_decides_the_best(self, metric, wanted):
    config = kinds.Small(num_steps=24, best_metric=metric)
    found = [s for s in range(25) if cadence.save_due(s, EVALS, config)]
    self.assertEqual(found, wanted)


class ClockTest(absltest.TestCase):
  def test_kinds_add_up_and_inner_spans_are_taken_out_of_outer_ones(self):
    start, clock = time.perf_counter(), Clock()
    with clock.span('train'):
      with clock.span('input'):
        time.sleep(0.05)
    found = clock.seconds()
    elapsed = time.perf_counter() - start
    self.assertAlmostEqual(found['total'], sum(found[k] for k in KINDS), places=9)
    self.assertLessEqual(found['total'], elapsed)
    self.assertGreaterEqual(found['input'], 0.05)
    self.assertLessEqual(found['train'], elapsed - 0.05)

  def test_former_sessions_are_added(self):
    clock = Clock()
    clock.add({'train': 100.0, 'total': 500.0})
    self.assertGreaterEqual(clock.seconds()['train'], 100.0)
    self.assertLess(clock.seconds()['total'], 500.0)


if __name__ == '__main__':
  absltest.main()
