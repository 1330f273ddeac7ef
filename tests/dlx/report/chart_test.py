"""Tests for dlx/report/chart.py."""

import math
import re

from absl.testing import absltest, parameterized
import numpy as np

from dlx.report import chart, page


class ChartTest(parameterized.TestCase):
  @parameterized.parameters(
    (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
    (0, 1200, [0, 500, 1000]),
    (-1, 1, [-1, -0.5, 0, 0.5, 1]),
    (0.31, 0.32, [0.31, 0.312, 0.314, 0.316, 0.318, 0.32]),
    (5, 5, [5]),
  )
  def test_ticks(self, low, high, want):
    self.assertEqual(chart.ticks(low, high), want)

  def test_ticks_are_round_and_inside(self):
    rng = np.random.default_rng(0)
    for _ in range(500):
      low = rng.normal() * 10.0 ** rng.integers(-6, 7)
      high = low + 10.0 ** rng.uniform(-6, 7)
      got = chart.ticks(low, high)
      slack = 1e-6 * (high - low)
      self.assertBetween(len(got), 2, 6)
      self.assertBetween(min(got), low - slack, high)
      self.assertBetween(max(got), low, high + slack)

  @parameterized.parameters(
    (0.005, 3.0, [0.01, 0.1, 1.0]),
    (0.3, 4.0, [0.5, 1.0, 2.0]),
    (1e-8, 1.0, [1e-8, 1e-6, 1e-4, 1e-2, 1.0]),
  )
  def test_log_ticks(self, low, high, want):
    np.testing.assert_allclose(chart.log_ticks(low, high), want, rtol=1e-12)

  def test_thin_keeps_ends_and_extremes(self):
    rng = np.random.default_rng(0)
    points = [(i, float(v)) for i, v in enumerate(rng.normal(size=10_000))]
    got = chart.thin(points, 100)
    self.assertLessEqual(len(got), 100)
    self.assertEqual((got[0], got[-1]), (points[0], points[-1]))
    value = lambda p: p[1]
    self.assertIn(min(points, key=value), got)
    self.assertIn(max(points, key=value), got)
    self.assertEqual(got, sorted(got))
    self.assertEqual(chart.thin(points[:50], 100), points[:50])

  def test_smooth_does_not_move_a_straight_line(self):
    line = [(i, 3.0 * i - 7) for i in range(200)]
    np.testing.assert_allclose(chart.smooth(line), line, atol=1e-9)
    curve = [(i, math.exp(-i / 50)) for i in range(200)]
    np.testing.assert_allclose(chart.smooth(curve, log=True), curve, rtol=1e-9)

  def test_noise(self):
    rng = np.random.default_rng(0)
    self.assertTrue(chart.is_noisy([(i, rng.normal()) for i in range(100)]))
    self.assertFalse(chart.is_noisy([(i, math.cos(i / 30)) for i in range(100)]))
    self.assertFalse(chart.is_noisy([(i, rng.normal()) for i in range(20)]))

  def test_axes(self):
    """Corners by hand: a linear axis from 0, a log axis of one decade."""
    axes = chart.Axes([chart.Series('train', [(0, 0.0), (100, 10.0)])], log=False)
    self.assertEqual((axes.x0, axes.x1, axes.y0, axes.y1), (0, 100, 0, 10.5))
    self.assertEqual(axes.x(100), chart.WIDTH - chart.RIGHT)
    self.assertEqual(axes.y(0), chart.HEIGHT - chart.BOTTOM)
    axes = chart.Axes([chart.Series('train', [(0, 1.0), (100, 10.0)])], log=True)
    middle = (axes.y(1.0) + axes.y(10.0)) / 2
    self.assertAlmostEqual(axes.y(10**0.5), middle, places=9)

  def test_a_line_is_broken_where_it_cannot_be_drawn(self):
    points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, 4.0), (4, 5.0)]
    axes = chart.Axes([chart.Series('train', points)], log=False)
    self.assertEqual(re.findall('[ML]', axes.path(points)), ['M', 'L', 'M', 'L'])

  @parameterized.parameters(([1.0, 0.01], '1'), ([1.0, 0.5], '0'))
  def test_the_first_scale_is_the_one_that_suits(self, values, log):
    source = chart.chart('loss', [chart.Series('train', list(enumerate(values)))], [0])
    shown = [s for s in re.findall(r'<svg[^>]*>', source) if 'hidden' not in s]
    self.assertLen(shown, 1)
    self.assertIn(f'data-log="{log}"', shown[0])

  def test_no_log_scale_for_what_is_not_positive(self):
    source = chart.chart('x', [chart.Series('train', [(0, 0.0), (1, 100.0)])], [0])
    self.assertEqual(source.count('<svg'), 1)
    self.assertNotIn('button', source)
    self.assertEqual(
      chart.chart('x', [chart.Series('train', [(0, math.nan)])], [0]), ''
    )

  @parameterized.parameters(
    (0.98765, '0.9877'),
    (1234.5678, '1235'),
    (12345.6, '12,346'),
    (3.0, '3'),
    (1.5e-7, '1.5e−7'),
    (2.5e9, '2.5e9'),
    (-0.25, '−0.25'),
    (0, '0'),
    (math.nan, 'nan'),
    (math.inf, '∞'),
  )
  def test_compact(self, value, want):
    self.assertEqual(chart.compact(value), want)

  @parameterized.parameters(
    (8.314, ('8.31', 's')), (245, ('4:05', 'min')), (12005, ('3:20', 'h'))
  )
  def test_duration(self, seconds, want):
    self.assertEqual(page.duration(seconds), want)


if __name__ == '__main__':
  absltest.main()
