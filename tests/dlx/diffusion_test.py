"""Diffusion: schedules by hand, forward statistics, samplers with exact denoisers."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx import diffusion, sampling
from dlx.errors import ConfigError

COSINE, LINEAR = diffusion.cosine_schedule, diffusion.linear_schedule
EPS32 = float(jnp.finfo(jnp.float32).eps)


def keys(n, seed=0):
  return jax.random.split(jax.random.key(seed), n)


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


class ScheduleTest(parameterized.TestCase):
  @parameterized.product(make=(COSINE, LINEAR), steps=(25, 100, 1000))
  def test_signal_falls_and_variance_is_preserved(self, make, steps):
    found = make(steps)
    self.assertEqual(found.num_steps, steps)
    for x in found:
      self.assertEqual((x.shape, x.dtype), ((steps,), np.float64))
      self.assertTrue(np.all((x > 0) & (x < 1)))
    self.assertTrue(np.all(np.diff(found.signal_T) < 0))
    self.assertTrue(np.all(np.diff(found.noise_T) > 0))
    self.assertTrue(np.all(np.diff(diffusion.snr(found)) < 0))
    np.testing.assert_allclose(found.signal_T**2 + found.noise_T**2, 1, rtol=1e-14)
    # The variance of a chain of steps, v <- (1 - beta) v + beta from 0.
    variance = 0.0
    for beta, noise in zip(found.beta_T, found.noise_T):
      variance = (1 - beta) * variance + beta
      np.testing.assert_allclose(variance, noise**2, rtol=1e-12)

  def test_linear_ends_as_in_the_paper(self):
    found = LINEAR(1000)
    np.testing.assert_allclose(found.beta_T[[0, -1]], [1e-4, 0.02], rtol=1e-12)
    # "approximately 4e-5" of the data's scale is left (section 4: 1e-5 bits of KL).
    np.testing.assert_allclose(found.signal_T[-1] ** 2, 4.0358e-5, rtol=1e-4)
    # Fewer steps: the integral of beta is the same, and the rest second order of it.
    few = LINEAR(250)
    np.testing.assert_allclose(few.beta_T.sum(), found.beta_T.sum(), rtol=1e-12)

  def test_cosine_is_the_formula_up_to_the_bound(self):
    found = COSINE(1000)
    u = np.arange(1001) / 1000
    bar = np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2
    expected = bar[1:] / bar[0]
    np.testing.assert_allclose(found.signal_T[:-1] ** 2, expected[:-1], rtol=1e-9)
    self.assertEqual(found.beta_T[-1], 0.999)  # The formula has 1 here.
    self.assertLess(found.beta_T[-2], 0.999)

  def test_too_few_steps_are_refused(self):
    for make in (COSINE, LINEAR):
      with self.assertRaisesRegex(ConfigError, 'num_steps=1 '):
        make(1)


class ForwardTest(parameterized.TestCase):
  @parameterized.parameters(COSINE, LINEAR)
  def test_closed_form_is_the_chain(self, make):
    schedule = make(30)
    x_0 = normal(0, 4, 3)
    for last in (0, 7, 29):
      x = x_0
      for t in range(last + 1):
        x = diffusion.q_step(schedule, x, jnp.zeros_like(x), jnp.full((4,), t))
      t_B = jnp.full((4,), last)
      closed = diffusion.q_sample(schedule, x_0, jnp.zeros_like(x_0), t_B)
      # 30 products of rounded roots; each factor is off by a few eps, and sqrt(1-beta)
      # by eps / (1 - beta), where beta is at most 0.999.
      np.testing.assert_allclose(x, closed, rtol=30 * 4 * EPS32 + 1000 * EPS32)

  @parameterized.parameters((COSINE, 10), (COSINE, 500), (LINEAR, 500), (LINEAR, 999))
  def test_statistics(self, make, t):
    schedule, n, at = make(1000), 40000, 0.7
    x_0, t_B = jnp.full((n, 1), at), jnp.full((n,), t)
    x = np.asarray(diffusion.q_sample(schedule, x_0, normal(1, n, 1), t_B))
    noise = schedule.noise_T[t]
    # Standard errors: noise / sqrt(n) of a mean, variance * sqrt(2 / n) of a variance.
    mean, variance = schedule.signal_T[t] * at, noise**2
    np.testing.assert_allclose(x.mean(), mean, atol=5 * noise / n**0.5)
    np.testing.assert_allclose(x.var(), variance, rtol=5 * (2 / n) ** 0.5)

  def test_a_chain_with_noise_has_the_closed_variance(self):
    schedule, n = COSINE(25), 40000
    x = jnp.full((n, 1), 0.7)
    for t in range(20):
      x = diffusion.q_step(schedule, x, normal(t, n, 1), jnp.full((n,), t))
    noise = schedule.noise_T[19]
    mean = 0.7 * schedule.signal_T[19]
    np.testing.assert_allclose(np.mean(x), mean, atol=5 * noise / n**0.5)
    np.testing.assert_allclose(np.var(x), noise**2, rtol=5 * (2 / n) ** 0.5)

  def test_each_row_has_its_own_step(self):
    schedule = COSINE(100)
    x_0, eps, t_B = normal(0, 3, 2, 2, 1), normal(1, 3, 2, 2, 1), jnp.array([0, 50, 99])
    whole = diffusion.q_sample(schedule, x_0, eps, t_B)
    for i in range(3):
      one = diffusion.q_sample(schedule, x_0[i:][:1], eps[i:][:1], t_B[i:][:1])
      np.testing.assert_array_equal(whole[i], one[0])


class PredictionTest(parameterized.TestCase):
  @parameterized.product(name=sorted(diffusion.PREDICTIONS), t=(0, 300, 900))
  def test_the_right_answer_means_the_data(self, name, t):
    schedule, found = COSINE(1000), diffusion.PREDICTIONS[name]
    x_0, eps, t_B = normal(0, 5, 4), normal(1, 5, 4), jnp.full((5,), t)
    x_t = diffusion.q_sample(schedule, x_0, eps, t_B)
    answer = found.target(schedule, x_0, eps, t_B)
    # Errors of eps are multiplied by noise / signal, 6.4 at 900; entries are below 4.
    tolerance = 20 * EPS32 * max(1, schedule.noise_T[t] / schedule.signal_T[t])
    clean = found.to_x0(schedule, x_t, answer, t_B)
    np.testing.assert_allclose(clean, x_0, atol=tolerance)
    grown = 20 * EPS32 / schedule.noise_T[t]
    back = diffusion.eps_from_x0(schedule, x_t, clean, t_B)
    np.testing.assert_allclose(back, eps, atol=grown + tolerance)

  def test_v_by_hand(self):
    schedule = diffusion.Schedule(*(np.array([x]) for x in (0.36, 0.8, 0.6)))
    one = jnp.ones((1, 1))
    v = diffusion.PREDICTIONS['v'].target(schedule, one, 2 * one, jnp.array([0]))
    np.testing.assert_allclose(v, [[0.8 * 2 - 0.6]], rtol=1e-6)

  @parameterized.parameters(None, 5.0)
  def test_bounded_weights_do_not_depend_on_the_prediction(self, bound):
    schedule, t_B = COSINE(1000), jnp.array([20, 300, 600, 900])
    x_0, eps = normal(0, 4, 6), normal(1, 4, 6)
    wrong = x_0 + 0.1 * normal(2, 4, 6)
    x_t = diffusion.q_sample(schedule, x_0, eps, t_B)
    means = diffusion.eps_from_x0(schedule, x_t, wrong, t_B)
    weighted = {}
    for name, found in diffusion.PREDICTIONS.items():
      # What a network that takes `wrong` for the data would answer.
      answer = found.target(schedule, wrong, means, t_B)
      error = jnp.square(answer - found.target(schedule, x_0, eps, t_B)).mean(1)
      weight = diffusion.loss_weight(schedule, found, bound)
      self.assertEqual(weight.shape, (1000,))
      weighted[name] = error * diffusion.at(weight, t_B)
    ratio = diffusion.snr(schedule)[np.asarray(t_B)]
    plain = np.asarray(jnp.square(wrong - x_0).mean(1))
    # Differences of 0.1 of numbers near 1, in eps at step 20 multiplied by 27.
    for name, power in {'x0': 1.0, 'eps': ratio, 'v': 1 + ratio}.items():
      share = power if bound is None else np.minimum(ratio, bound)
      np.testing.assert_allclose(weighted[name], plain * share, rtol=2e-3)

  def test_stratified_times_are_even_and_uniform(self):
    draw = jax.jit(jax.vmap(lambda k: diffusion.stratified_times(k, 10, 1000)))
    t_NB = np.asarray(draw(keys(2000)))
    self.assertEqual(t_NB.dtype, np.int32)
    self.assertTrue(np.all((t_NB >= 0) & (t_NB < 1000)))
    gaps = np.diff(np.sort(t_NB, 1), axis=1)
    self.assertTrue(np.all(np.abs(gaps - 100) <= 1))
    # Uniform on 1000 numbers: deviation 288.7, of a mean of 2000 rows 6.5.
    np.testing.assert_allclose(t_NB.mean(0), 499.5, atol=5 * 6.5)


class StepsTest(parameterized.TestCase):
  @parameterized.product(make=(COSINE, LINEAR), num_steps=(1, 7, 50, 100))
  def test_from_the_noisiest_step_to_the_data(self, make, num_steps):
    for steps in (sampling.ddpm(make(100), num_steps), sampling.ddim(make(100), 7)):
      self.assertEqual(steps.t_S[0], 99)
      self.assertTrue(np.all(np.diff(steps.t_S) < 0))
      # The last step returns the estimate of the data alone.
      np.testing.assert_allclose(
        [steps.data_S[-1], steps.carry_S[-1], steps.sigma_S[-1]], [1, 0, 0], atol=1e-12
      )
    self.assertLen(sampling.ddim(make(100), num_steps).t_S, num_steps)

  @parameterized.parameters(3, 50, 100)
  def test_ddim_with_all_noise_is_ancestral_sampling(self, num_steps):
    ancestral, implicit = (
      sampling.ddpm(COSINE(100), num_steps),
      sampling.ddim(COSINE(100), num_steps, 1.0),
    )
    for a, b in zip(ancestral, implicit):
      np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-12)

  def test_ancestral_coefficients_are_those_of_the_paper(self):
    schedule = LINEAR(1000)
    steps = sampling.ddpm(schedule, 1000)
    np.testing.assert_array_equal(steps.t_S, np.arange(999, -1, -1))
    beta, bar = schedule.beta_T[1:], schedule.signal_T**2
    bar, before = bar[1:], bar[:-1]
    data, carry = steps.data_S[:-1][::-1], steps.carry_S[:-1][::-1]
    # Equations 6 and 7 of arXiv:2006.11239.
    np.testing.assert_allclose(data, np.sqrt(before) * beta / (1 - bar), rtol=1e-9)
    expected = np.sqrt(1 - beta) * (1 - before) / (1 - bar)
    np.testing.assert_allclose(carry, expected, rtol=1e-9)
    small, large = (
      sampling.ddpm(schedule, 1000, variance).sigma_S[:-1][::-1]
      for variance in ('small', 'large')
    )
    np.testing.assert_allclose(small**2, (1 - before) / (1 - bar) * beta, rtol=1e-9)
    np.testing.assert_allclose(large**2, beta, rtol=1e-9)

  def test_ddim_keeps_data_and_noise(self):
    schedule = COSINE(1000)
    steps = sampling.ddim(schedule, 20)
    x_0, eps = 0.3, -1.2
    for i, (t, after) in enumerate(zip(steps.t_S, steps.t_S[1:])):
      x_t = schedule.signal_T[t] * x_0 + schedule.noise_T[t] * eps
      expected = schedule.signal_T[after] * x_0 + schedule.noise_T[after] * eps
      found = steps.data_S[i] * x_0 + steps.carry_S[i] * x_t
      np.testing.assert_allclose(found, expected, rtol=1e-9)

  def test_impossible_values_are_refused(self):
    schedule = COSINE(100)
    for call, message in (
      (lambda: sampling.ddim(schedule, 0), 'num_steps=0 '),
      (lambda: sampling.ddpm(schedule, 101), 'num_steps=101 '),
      (lambda: sampling.ddim(schedule, 5, 1.5), 'eta=1.5 '),
      (lambda: sampling.ddpm(schedule, 5, 'no'), "variance='no' "),
    ):
      with self.assertRaisesRegex(ConfigError, message):
        call()


def gaussian_denoiser(schedule, mean, std):
  """E[x_0 | x_t] where x_0 is normal: exact."""

  def denoise(x_t, t_B):
    signal = diffusion.at(schedule.signal_T, t_B)[:, None]
    noise = diffusion.at(schedule.noise_T, t_B)[:, None]
    gain = signal * std**2 / (signal**2 * std**2 + noise**2)
    return mean + gain * (x_t - signal * mean)

  return denoise


def gaussian_moments(schedule, steps, mean, std):
  """Mean and variance of an exact sampler's output, by its own linear recursion."""
  m, v = 0.0, 1.0
  for t, data, carry, sigma in zip(*steps):
    signal, noise = schedule.signal_T[t], schedule.noise_T[t]
    gain = signal * std**2 / (signal**2 * std**2 + noise**2)
    slope = data * gain + carry
    m = data * (mean - gain * signal * mean) + slope * m
    v = slope**2 * v + sigma**2
  return m, v


class SamplerTest(parameterized.TestCase):
  @parameterized.parameters(
    ('ddpm', 'small'), ('ddpm', 'large'), ('ddim', 0.0), ('ddim', 0.5)
  )
  def test_exact_denoiser_of_a_gaussian_gives_that_gaussian(self, kind, option):
    schedule, mean, std, n = COSINE(1000), 0.4, 0.3, 20000
    make = getattr(sampling, kind)
    # A sampler's own error is of first order in the step: of the variance at most 4 %
    # with 300 steps (small; 1 to 2 % the others) and 1.3 % with all 1000.
    moments = {
      count: gaussian_moments(schedule, make(schedule, count, option), mean, std)
      for count in (300, 1000)
    }
    for count, allowed in ((300, 0.04), (1000, 0.013)):
      np.testing.assert_allclose(moments[count][0], mean, atol=1e-3)
      np.testing.assert_allclose(moments[count][1], std**2, rtol=allowed)
    steps, rows = make(schedule, 300, option), keys(n)
    denoise = gaussian_denoiser(schedule, mean, std)
    x_T = sampling.row_noise(rows, 0, (1,))
    x = np.asarray(jax.jit(lambda: sampling.sample(denoise, steps, x_T, rows))())
    # Standard errors of a mean and of a variance of n normal draws.
    np.testing.assert_allclose(x.mean(), moments[300][0], atol=5 * std / n**0.5)
    np.testing.assert_allclose(x.var(), moments[300][1], rtol=5 * (2 / n) ** 0.5)

  @parameterized.parameters(0.0, 1.0)
  def test_two_points(self, eta):
    schedule, n = COSINE(1000), 4000

    def denoise(x_t, t_B):  # E[x_0 | x_t] of -1 and 1, equally likely.
      signal = diffusion.at(schedule.signal_T, t_B)[:, None]
      return jnp.tanh(signal * x_t / diffusion.at(schedule.noise_T, t_B)[:, None] ** 2)

    steps, rows = sampling.ddim(schedule, 50, eta), keys(n, 1)
    x_T = sampling.row_noise(rows, 0, (1,))
    x = np.asarray(jax.jit(lambda: sampling.sample(denoise, steps, x_T, rows))())
    self.assertGreater((np.abs(x) > 0.99).mean(), 0.98)
    np.testing.assert_allclose((x > 0).mean(), 0.5, atol=5 * 0.5 / n**0.5)

  def test_without_noise_keys_do_not_matter_and_with_noise_they_do(self):
    schedule = COSINE(100)
    denoise, x_T = gaussian_denoiser(schedule, 0.4, 0.3), normal(0, 6, 2)
    for eta, equal in ((0.0, True), (0.7, False)):
      steps = sampling.ddim(schedule, 10, eta)
      make = jax.jit(lambda k, s=steps: sampling.sample(denoise, s, x_T, k))
      first, second = make(keys(6, 0)), make(keys(6, 1))
      np.testing.assert_array_equal(first, make(keys(6, 0)))
      self.assertEqual(bool(np.all(first == second)), equal)

  def test_a_row_does_not_depend_on_its_batch(self):
    schedule = COSINE(100)
    denoise, steps = gaussian_denoiser(schedule, 0.4, 0.3), sampling.ddpm(schedule, 9)
    rows = keys(6)
    draw = lambda k: sampling.sample(denoise, steps, sampling.row_noise(k, 0, (2,)), k)
    whole, part = draw(rows), draw(rows[3:5])
    # The same draws; fused programs of two shapes may round each of 9 steps apart.
    np.testing.assert_allclose(whole[3:5], part, atol=9 * 4 * EPS32)

  def test_path_ends_in_the_sample(self):
    schedule = COSINE(100)
    denoise, rows = gaussian_denoiser(schedule, 0.4, 0.3), keys(6)
    steps, x_T = sampling.ddim(schedule, 9), normal(0, 6, 2)
    x_S, x0_S = sampling.sample_path(denoise, steps, x_T, rows)
    self.assertEqual((x_S.shape, x0_S.shape), ((9, 6, 2), (9, 6, 2)))
    np.testing.assert_array_equal(x_S[0], x_T)
    sampled = sampling.sample(denoise, steps, x_T, rows)
    np.testing.assert_allclose(x0_S[-1], sampled, atol=4 * EPS32)

  def test_guidance_moves_away_from_the_unconditional_answer(self):
    def network(x_t, t_B, label_B):
      calls.append(len(label_B))
      return (label_B[:, None] + t_B[:, None]) * x_t

    x, t_B, label_B = jnp.ones((2, 1)), jnp.array([10, 20]), jnp.array([1, 2])
    for scale, expected, sizes in (
      (0.0, [[11.0], [22.0]], [2]),
      (2.0, [[11 + 2 * (1 - 7)], [22 + 2 * (2 - 7)]], [4]),  # 7 stands for none.
    ):
      calls = []
      output = sampling.guided(network, label_B, 7, scale)
      np.testing.assert_allclose(output(x, t_B), expected)
      self.assertEqual(calls, sizes)

  def test_the_estimate_is_cut_at_the_range_of_the_data(self):
    schedule, x, t_B = COSINE(100), jnp.array([[-3.0, 0.5, 3.0]]), jnp.array([50])
    answer = lambda x_t, t_B: x_t
    found = diffusion.PREDICTIONS['x0']
    for clip, expected in ((1.0, [[-1, 0.5, 1]]), (None, [[-3, 0.5, 3]])):
      denoise = sampling.denoiser(schedule, found, answer, clip)
      np.testing.assert_array_equal(denoise(x, t_B), expected)


if __name__ == '__main__':
  absltest.main()
