"""Series cut in time without a leak, baselines and bands by hand."""

from typing import Any

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.sets import series as sets
from dlx.errors import ConfigError, DataError
from dlx.models.forecaster import MODELS, Forecaster
from dlx.tasks import forecasting


def a_series(n=40, period=4):
  rng = np.random.default_rng(0)
  return sets.Series('toy', rng.normal(2.0, 3.0, n), 'metres', 'day', period)


class SeriesTest(parameterized.TestCase):
  @parameterized.parameters(('sea_temperature', 732, 12), ('sunspots', 309, 11))
  def test_embedded(self, name, size, period):
    found = sets.series(name)
    self.assertEqual((len(found.value_N), found.period), (size, period))
    cut = sets.windows(found, 2 * period, period)
    for part, source in cut.sources.items():
      arrays = source.read(None).data
      self.assertEqual(arrays['past'].shape, (source.size, 2 * period))
      self.assertEqual(source.split, part)

  def test_published_numbers(self):
    temperature, spots = sets.series('sea_temperature'), sets.series('sunspots')
    self.assertEqual(temperature.value_N[[0, 12]].tolist(), [23.11, 24.19])
    self.assertEqual(spots.value_N[[0, 27]].tolist(), [5.0, 122.0])  # 1700 and 1727.
    self.assertEqual((spots.value_N.max(), spots.value_N[257]), (190.2, 190.2))  # 1957.

  def test_other_numbers_are_refused_when_they_are_read(self):
    spots = sets.series('sunspots')
    other = spots._replace(value_N=spots.value_N + 0.1)
    with self.assertRaisesRegex(DataError, 'sunspots: sha256'):
      sets.windows(other, 11, 11).sources['train'].read(None)

  def test_parts_lie_one_after_the_other(self):
    # 40 numbers: 24 to train on, 8 to validate, 8 to test; 5 seen, 3 asked for.
    of = a_series()
    of = of._replace(value_N=np.arange(40.0))
    cut = sets.windows(of, 5, 3)
    asked = {part: np.unique(x) for part, x in cut.future_NH.items()}
    np.testing.assert_array_equal(asked['train'], np.arange(5, 24))
    np.testing.assert_array_equal(asked['validation'], np.arange(24, 32))
    np.testing.assert_array_equal(asked['test'], np.arange(32, 40))
    for part, past_NW in cut.past_NW.items():
      np.testing.assert_array_equal(past_NW[:, -1] + 1, cut.future_NH[part][:, 0])
    self.assertEqual(cut.mean, np.arange(24).mean())

  def test_nothing_of_later_parts_reaches_what_is_trained_on(self):
    of = a_series()
    later = of._replace(value_N=np.where(np.arange(40) < 24, of.value_N, 1e6))
    one, two = (sets.windows(x, 5, 3) for x in (of, later))
    self.assertEqual((one.mean, one.std), (two.mean, two.std))
    np.testing.assert_array_equal(one.past_NW['train'], two.past_NW['train'])
    np.testing.assert_array_equal(one.future_NH['train'], two.future_NH['train'])

  def test_no_room(self):
    with self.assertRaisesRegex(ConfigError, 'horizon=9 .* part validation has 8'):
      sets.windows(a_series(), 5, 9)


class BaselinesTest(absltest.TestCase):
  def test_by_hand(self):
    past = np.array([[1.0, 2, 3, 4, 5]])
    np.testing.assert_array_equal(forecasting.persistence(past, 3), [[5, 5, 5]])
    found = forecasting.seasonal_naive(past, 6, 4)
    np.testing.assert_array_equal(found, [[2, 3, 4, 5, 2, 3]])

  def test_least_squares_finds_a_recurrence(self):
    x = [1.0, 0.5]
    for _ in range(60):
      x.append(0.3 + 1.2 * x[-1] - 0.7 * x[-2])
    of = sets.Series('toy', np.array(x), '', 'step', 2)
    cut = sets.windows(of, 2, 4)
    fitted = forecasting.linear_autoregression(
      cut.past_NW['train'], cut.future_NH['train']
    )
    found = fitted(cut.past_NW['test'])
    np.testing.assert_allclose(found, cut.future_NH['test'], atol=1e-9)


class ForecastsTest(parameterized.TestCase):
  def test_sums_by_hand(self):
    of = a_series()
    cut = sets.windows(of, 5, 2)._replace(mean=10.0, std=2.0)
    task = forecasting.Forecasts(of, cut, (0.1, 0.5, 0.9))
    # One stretch that counts: errors of 2 and -4 metres, the second outside the band.
    outputs = jnp.array([[[0.0, 1, 2], [1.0, 1, 1]], [[9.0, 9, 9]] * 2])
    batch = {'future': jnp.array([[0.0, 3.0], [0.0, 0.0]])}
    found = task.sums(outputs, batch, jnp.array([1.0, 0.0]))
    told = task.summary('test')(found)
    wanted = {'mae': 3.0, 'coverage': 0.5, 'width': 2.0, 'rmse': np.sqrt(10)}
    for name, value in wanted.items():
      np.testing.assert_allclose(told[name], value, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(told['rmse_by_step'], [2, 4], rtol=1e-6)
    naive = forecasting.persistence(cut.past_NW['test'], 2) - cut.future_NH['test']
    np.testing.assert_allclose(
      told['persistence_rmse'], np.sqrt(np.square(naive).mean()), rtol=1e-6
    )

  @parameterized.parameters(*(x for x in MODELS if x in ('linear', 'mlp', 'gru')))
  def test_quantiles_never_cross_and_see_all_that_was_given(self, name):
    model = Forecaster(name, (4,), 3, 5)
    past = jnp.asarray(np.random.default_rng(1).normal(size=(6, 7)), jnp.float32)
    params: Any = jax.jit(lambda: model.init(jax.random.key(0), past, train=False))()
    out = lambda x: jnp.asarray(model.apply(params, x, train=False))
    slopes = jax.jit(jax.grad(lambda x: jnp.square(out(x)).sum()))(past)
    self.assertEqual(out(past).shape, (6, 3, 5))
    self.assertTrue((jnp.diff(out(past)) > 0).all())
    self.assertTrue((slopes != 0).any(0).all())


if __name__ == '__main__':
  absltest.main()
