"""The judge of samples: distances by hand, and that it stays what it is."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg

from dlx.data.sets import images
from dlx.metrics.generation import frechet_distance
from dlx.state import add
from dlx.tasks.judge import Judge
from tests.same_bytes import same_bytes

DATA = images.images('digits')
SMALL = {'features': (4,), 'dense': 8}


def batch(n=64, split='train'):
  found = getattr(DATA, split).read(None).data
  image = jnp.asarray(found['image'][:n], jnp.float32) / DATA.max_value
  return image, jnp.asarray(found['label'][:n])


class FrechetTest(parameterized.TestCase):
  def test_equals_the_formula_with_a_matrix_root(self):
    rng = np.random.default_rng(0)
    make = lambda: np.cov(rng.normal(size=(4, 50)))
    a, b = make(), make()
    m, n = rng.normal(size=(2, 4))
    expected = ((m - n) ** 2).sum() + np.trace(a + b - 2 * scipy.linalg.sqrtm(a @ b))
    found = frechet_distance(*map(jnp.float32, (m, a, n, b)))
    # Roots of eigenvalues near 1 in float32, summed over 4: 1e-5.
    np.testing.assert_allclose(found, expected.real, rtol=1e-5)

  def test_of_equal_gaussians_is_zero_and_of_shifted_ones_the_square(self):
    eye = jnp.eye(3)
    zero = jnp.zeros(3)
    self.assertAlmostEqual(float(frechet_distance(zero, eye, zero, eye)), 0, places=5)
    shifted = frechet_distance(zero, eye, zero + 2, eye)
    self.assertAlmostEqual(float(shifted), 12, places=4)
    # Of variances 1 and 4: 3 (1 + 4 - 2 * 2).
    wider = frechet_distance(zero, eye, zero, 4 * eye)
    self.assertAlmostEqual(float(wider), 3, places=4)

  def test_of_a_singular_covariance_is_finite(self):
    dead = jnp.diag(jnp.array([1.0, 0.0, 0.0]))
    self.assertAlmostEqual(
      float(frechet_distance(jnp.zeros(3), dead, jnp.zeros(3), jnp.eye(3))), 2, places=4
    )


class JudgeTest(parameterized.TestCase):
  def test_fewer_samples_than_features_have_no_distance(self):
    """Their covariance is singular, and the distance far too low."""
    judge = Judge(DATA, Judge.Config(**SMALL))
    moments = lambda n: {
      'n': jnp.float32(n), 'sum': jnp.zeros(8), 'outer': 9 * jnp.eye(8)
    }  # fmt: skip
    found = lambda n: judge.summarize(
      {'fake': moments(n), 'real': moments(9), 'classes': jnp.ones(10)}
    )['frechet']
    self.assertTrue(np.isnan(found(8)))
    self.assertTrue(np.isfinite(found(9)))

  def test_learns_by_its_own_steps_and_then_keeps_every_byte(self):
    judge = Judge(DATA, Judge.Config(num_steps=120, lr=1e-2, **SMALL))
    image, label = batch(256)
    state = judge.init(jax.random.key(0))
    train = jax.jit(judge.train)
    for step in range(120):
      state = train(state, jnp.int32(step), jax.random.key(step), image, label)
    probs, features = judge.verdict(state, image)
    # Chance is 0.1; with 4 channels and 8 units 0.68 was seen.
    self.assertGreater(float((probs.argmax(1) == label).mean()), 0.5)
    self.assertEqual(features.shape, (256, 8))
    self.assertGreaterEqual(float(features.min()), 0)
    after = train(state, jnp.int32(120), jax.random.key(9), image, label)
    self.assertTrue(same_bytes(after, state))

  def test_sums_add_up_and_say_what_they_say(self):
    judge = Judge(DATA, Judge.Config(**SMALL))
    state = judge.init(jax.random.key(0))
    image, label = batch(32)
    fake, asked = image[::-1], label[::-1]

    def of(rows):
      return judge.sums(
        state, fake[rows], image[rows], label[rows], jnp.ones(len(rows)), asked[rows]
      )

    whole = judge.summarize(of(np.arange(32)))
    parts = judge.summarize(add(of(np.arange(20)), of(np.arange(20, 32))))
    for name, value in whole.items():
      # Sums of 32 features of size 1 in another order: 1e-4.
      np.testing.assert_allclose(parts[name], value, rtol=1e-4, atol=1e-4)
    # The same images in another order: the same figures, no distance.
    np.testing.assert_allclose(whole['confident'], whole['confident_real'])
    np.testing.assert_allclose(whole['frechet'], 0, atol=1e-3)
    np.testing.assert_allclose(whole['asked_class'], whole['judge_accuracy'])
    self.assertEqual(float(whole['classes'].sum()), 32)

  def test_padding_rows_count_nothing(self):
    judge = Judge(DATA, Judge.Config(**SMALL))
    state = judge.init(jax.random.key(0))
    image, label = batch(16)
    weight = jnp.arange(16) < 10
    some = judge.sums(state, image, image, label, weight.astype(jnp.float32))
    few = judge.sums(state, image[:10], image[:10], label[:10], jnp.ones(10))
    found, expected = judge.summarize(some), judge.summarize(few)
    for name in expected:
      np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, atol=1e-4)

  def test_entropy_of_one_class_is_zero_and_of_all_is_log_k(self):
    judge = Judge(DATA, Judge.Config(**SMALL))
    state = judge.init(jax.random.key(0))
    image, label = batch(16)
    found = dict(judge.sums(state, image, image, label, jnp.ones(16)))
    for counts, expected in ((np.eye(10)[3] * 7, 0.0), (np.full(10, 5.0), np.log(10))):
      found['classes'] = jnp.asarray(counts, jnp.float32)
      entropy = judge.summarize(found)['class_entropy']
      np.testing.assert_allclose(entropy, expected, atol=1e-6)


if __name__ == '__main__':
  absltest.main()
