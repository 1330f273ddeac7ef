"""Statistics of a few runs: by hand, and against SciPy."""

import itertools
import math

from absl.testing import absltest, parameterized
import numpy as np
from scipy import stats

from dlx.study import statistics

A, B = [1.0, 2.0, 3.0], [2.0, 4.0]


class SummaryTest(parameterized.TestCase):
  def test_by_hand(self):
    found = statistics.summary(A)
    self.assertEqual(found[:3], (3, 2.0, 1.0))
    self.assertAlmostEqual(found.error, 1 / math.sqrt(3), places=15)
    self.assertEqual(found[4:], (1.0, 3.0))

  def test_one_run_has_no_spread(self):
    self.assertEqual(statistics.summary([7]), (1, 7.0, None, None, 7.0, 7.0))

  @parameterized.parameters([[]], [[1.0, math.nan]], [[[1.0, 2.0]]])
  def test_what_is_no_list_of_numbers_is_refused(self, values):
    with self.assertRaisesRegex(ValueError, 'values of shape'):
      statistics.summary(values)


class MeanIntervalTest(parameterized.TestCase):
  def test_by_hand(self):
    # t of two degrees of freedom at 0.975 is 4.302653; sd 1 of three values.
    found = statistics.mean_interval(A)
    reach = 4.302653 / math.sqrt(3)
    self.assertEqual((found.mean, found.confidence), (2.0, 0.95))
    self.assertAlmostEqual(found.low, 2 - reach, places=5)
    self.assertAlmostEqual(found.high, 2 + reach, places=5)

  @parameterized.parameters(0.5, 0.99)
  def test_equals_scipy(self, confidence):
    x = np.random.default_rng(3).normal(1.0, 2.0, 7)
    found = statistics.mean_interval(x, confidence=confidence)
    theirs = stats.ttest_1samp(x, 0).confidence_interval(confidence)
    np.testing.assert_allclose((found.low, found.high), theirs, rtol=1e-10)

  def test_refuses(self):
    for values, confidence in (([1.0], 0.95), (A, 1.0)):
      with self.assertRaisesRegex(ValueError, 'not allowed'):
        statistics.mean_interval(values, confidence=confidence)


class WelchTest(parameterized.TestCase):
  def test_by_hand(self):
    # Variances 1 and 2: 1/3 and 1 of the means; 4/3 together. Degrees of freedom:
    # (4/3)^2 / ((1/3)^2 / 2 + 1^2 / 1) = 1.6842.
    found = statistics.welch_interval(A, B, confidence=0.9)
    self.assertAlmostEqual(found.difference, -1.0, places=14)
    self.assertAlmostEqual(found.error, math.sqrt(4 / 3), places=14)
    reach = stats.t.ppf(0.95, 16 / 9 / (1 / 18 + 1)) * math.sqrt(4 / 3)
    self.assertAlmostEqual(found.low, -1 - reach, places=10)
    self.assertAlmostEqual(found.high, -1 + reach, places=10)
    self.assertEqual(found.method, "Welch's t interval")

  @parameterized.product(sizes=[(2, 2), (3, 8), (12, 5)], confidence=[0.5, 0.95, 0.99])
  def test_equals_scipy(self, sizes, confidence):
    random = np.random.default_rng(sum(sizes))
    a, b = (random.normal(i, 1 + 4 * i, n) for i, n in enumerate(sizes))
    found = statistics.welch_interval(a, b, confidence=confidence)
    theirs = stats.ttest_ind(a, b, equal_var=False).confidence_interval(confidence)
    np.testing.assert_allclose((found.low, found.high), theirs, rtol=1e-10)
    self.assertAlmostEqual(found.error, statistics.standard_error(a, b), places=14)

  def test_it_covers_as_often_as_it_says(self):
    random = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
      a, b = random.normal(1.0, 1.0, 4), random.normal(0.0, 3.0, 6)
      found = statistics.welch_interval(a, b, confidence=0.8)
      held += found.low <= 1.0 <= found.high
    self.assertBetween(held, 750, 850)  # Four standard deviations of 1000 trials.

  def test_a_shift_shifts_and_a_swap_mirrors(self):
    found = statistics.welch_interval(A, B)
    moved = statistics.welch_interval(np.array(A) + 5, B)
    self.assertAlmostEqual(moved.low, found.low + 5, places=12)
    swapped = statistics.welch_interval(B, A)
    self.assertAlmostEqual(swapped.low, -found.high, places=12)

  def test_without_any_spread_it_is_a_point(self):
    found = statistics.welch_interval([2.0, 2.0], [1.0, 1.0, 1.0])
    self.assertEqual(found[:4], (1.0, 0.0, 1.0, 1.0))

  def test_tiny_variances_do_not_underflow(self):
    a, b = 1e-120 * np.array(A), 1e-120 * np.array(B)
    found, plain = statistics.welch_interval(a, b), statistics.welch_interval(A, B)
    self.assertAlmostEqual(found.low / (1e-120 * plain.low), 1.0, places=6)

  @parameterized.parameters(0.0, 1.0, 95, math.nan)
  def test_confidence_is_a_share(self, confidence):
    for method in (
      statistics.welch_interval,
      statistics.paired_interval,
      statistics.bootstrap_interval,
    ):
      with self.assertRaisesRegex(ValueError, 'between 0 and 1'):
        method(A, B, confidence=confidence)

  def test_one_run_is_not_enough(self):
    for method in (statistics.welch_interval, statistics.bootstrap_interval):
      with self.assertRaisesRegex(ValueError, 'at least 2'):
        method(A, [1.0])


class PairedTest(parameterized.TestCase):
  def test_by_hand(self):
    # Differences 1, 2, 3: mean 2, sd 1, error 1 / sqrt 3; t of 2 degrees of freedom.
    found = statistics.paired_interval([2.0, 4.0, 6.0], A, confidence=0.9)
    reach = stats.t.ppf(0.95, 2) / math.sqrt(3)
    self.assertAlmostEqual(found.difference, 2.0, places=14)
    self.assertAlmostEqual(found.error, 1 / math.sqrt(3), places=14)
    self.assertAlmostEqual(found.low, 2 - reach, places=10)
    self.assertAlmostEqual(found.high, 2 + reach, places=10)
    self.assertEqual(found.method, 'paired t interval')

  @parameterized.product(size=[2, 5, 30], confidence=[0.5, 0.95, 0.99])
  def test_equals_scipy(self, size, confidence):
    random = np.random.default_rng(size)
    shared = random.normal(0, 3, size)
    a, b = (shared + random.normal(i, 1, size) for i in range(2))
    found = statistics.paired_interval(a, b, confidence=confidence)
    theirs = stats.ttest_rel(a, b)
    interval = theirs.confidence_interval(confidence)
    np.testing.assert_allclose((found.low, found.high), interval, rtol=1e-10)
    self.assertAlmostEqual(found.difference / found.error, theirs.statistic, places=10)

  def test_it_covers_as_often_as_it_says_and_is_narrower_than_welchs(self):
    random = np.random.default_rng(0)
    held, narrower = 0, 0
    for _ in range(1000):
      shared = random.normal(0, 3, 5)
      a, b = shared + random.normal(1, 1, 5), shared + random.normal(0, 1, 5)
      found = statistics.paired_interval(a, b, confidence=0.8)
      wide = statistics.welch_interval(a, b, confidence=0.8)
      held += found.low <= 1.0 <= found.high
      narrower += found.high - found.low < wide.high - wide.low
    self.assertBetween(held, 750, 850)  # Four standard deviations of 1000 trials.
    self.assertGreater(narrower, 900)

  def test_equal_differences_are_a_point(self):
    found = statistics.paired_interval([2.0, 5.0], [1.0, 4.0])
    self.assertEqual(found[:4], (1.0, 0.0, 1.0, 1.0))

  def test_what_is_no_pair_is_refused(self):
    with self.assertRaisesRegex(ValueError, '3 values and 2 are no pairs'):
      statistics.paired_interval(A, B)
    with self.assertRaisesRegex(ValueError, 'at least 2'):
      statistics.paired_interval([1.0], [2.0])


class BootstrapTest(absltest.TestCase):
  def test_equals_all_resamples(self):
    # All 27 x 4 resamples, each as likely as the others.
    means = lambda x: [np.mean(r) for r in itertools.product(x, repeat=len(x))]
    every = [a - b for a in means(A) for b in means(B)]
    found = statistics.bootstrap_interval(A, B, confidence=0.75, resamples=100_000)
    low, high = np.quantile(every, (0.125, 0.875))
    # Values of resamples lie 1/3 apart: the quantile is at most one of them away.
    self.assertAlmostEqual(found.low, low, delta=0.34)
    self.assertAlmostEqual(found.high, high, delta=0.34)

  def test_equals_scipy(self):
    random = np.random.default_rng(3)
    a, b = random.normal(0, 1, 20), random.exponential(2, 30)
    found = statistics.bootstrap_interval(a, b, resamples=40_000)
    theirs = stats.bootstrap(
      (a, b),
      lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
      method='percentile',
      n_resamples=40_000,
      vectorized=True,
      rng=np.random.default_rng(1),
    ).confidence_interval
    # An end of the tail has a standard error of about 2.7 / sqrt(resamples) of the sd.
    np.testing.assert_allclose(
      (found.low, found.high), theirs, atol=4 * 2**0.5 * 2.7 / 200 * found.error
    )

  def test_the_seed_decides_and_is_named(self):
    first, second = (statistics.bootstrap_interval(A, B, seed=1) for _ in range(2))
    self.assertEqual(first, second)
    self.assertIn('10000 resamples, seed 1', first.method)
    a, b = np.random.default_rng(0).normal(size=(2, 9))
    other = [statistics.bootstrap_interval(a, b, seed=s).low for s in (1, 2)]
    self.assertNotEqual(*other)


class BandTest(absltest.TestCase):
  def test_by_hand_at_the_steps_that_all_have(self):
    curves = [[(1, 1.0), (2, 5.0), (3, 9.0)], [(1, 3.0), (3, 5.0), (4, 0.0)]]
    found = statistics.band(curves)
    self.assertEqual([*found.step], [1, 3])
    self.assertEqual([*found.mean], [2.0, 7.0])
    sd = [math.sqrt(2), math.sqrt(8)]
    np.testing.assert_allclose(found.low, found.mean - sd, rtol=1e-15)
    np.testing.assert_allclose(found.high, found.mean + sd, rtol=1e-15)
    wide = statistics.band(curves, spread='range')
    self.assertEqual(([*wide.low], [*wide.high]), ([1.0, 5.0], [3.0, 9.0]))
    self.assertEqual(wide.count, 2)

  def test_what_is_not_finite_counts_for_no_run(self):
    found = statistics.band([[(1, 1.0), (2, math.nan)], [(1, 2.0), (2, 3.0)]])
    self.assertEqual([*found.step], [1])

  def test_a_single_run_has_a_band_of_no_width(self):
    found = statistics.band([[(1, 1.0), (2, 4.0)]])
    self.assertEqual([*found.low], [1.0, 4.0])


class ParetoTest(parameterized.TestCase):
  @parameterized.parameters(
    ('higher', [True, True, False, True, False]),
    ('lower', [True, False, False, False, True]),
  )
  def test_by_hand(self, better, expected):
    cost, quality = [1, 2, 2, 4, 3], [5, 7, 6, 9, 1]
    found = statistics.pareto(cost, quality, better=better)
    self.assertEqual(found.tolist(), expected)

  def test_equal_points_stay_both(self):
    found = statistics.pareto([1, 1, 2], [3, 3, 3], better='higher')
    self.assertEqual(found.tolist(), [True, True, False])

  def test_nothing_left_out_is_better(self):
    random = np.random.default_rng(0)
    cost, quality = random.random((2, 60))
    kept = statistics.pareto(cost, quality, better='higher')
    for i in np.flatnonzero(~kept):
      self.assertTrue(((cost[kept] <= cost[i]) & (quality[kept] >= quality[i])).any())
    order = np.argsort(cost[kept])
    self.assertTrue((np.diff(quality[kept][order]) > 0).all())


if __name__ == '__main__':
  absltest.main()
