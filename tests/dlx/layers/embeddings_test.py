"""Embeddings: sines by hand, the null class, labels that are dropped."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.layers.embeddings import LabelEmbedding, TimeEmbedding, drop_labels, sinusoidal


class SinusoidalTest(parameterized.TestCase):
  def test_by_hand(self):
    # Rates 1, 1e-2, 1e-4: sines, then cosines.
    found = sinusoidal(jnp.array([0, 3]), 6)
    self.assertEqual((found.shape, found.dtype), ((2, 6), jnp.float32))
    angle = np.array([3.0, 0.03, 3e-4])
    expected = [[0, 0, 0, 1, 1, 1], [*np.sin(angle), *np.cos(angle)]]
    # A power and a product, each rounded, before sines of at most 3.
    np.testing.assert_allclose(found, expected, atol=10 * np.finfo(np.float32).eps)

  def test_a_shift_in_time_is_a_rotation(self):
    sin, cos = np.split(np.asarray(sinusoidal(jnp.array([5.0, 12.0]), 8)), 2, axis=1)
    turn = 7.0 * 1e4 ** -np.linspace(0, 1, 4)
    # Angles up to 12 are rounded to 12 eps.
    np.testing.assert_allclose(
      sin[1], sin[0] * np.cos(turn) + cos[0] * np.sin(turn), atol=1e-5
    )

  def test_steps_of_a_schedule_are_far_apart(self):
    rows = np.asarray(sinusoidal(jnp.arange(1000), 64))
    steps = np.linalg.norm(np.diff(rows, axis=0), axis=1)
    self.assertGreater(steps.min(), 1.0)

  @parameterized.parameters(2, 7)
  def test_other_sizes_are_refused(self, features):
    with self.assertRaisesRegex(ConfigError, f'features={features} '):
      sinusoidal(jnp.arange(3), features)


class ModulesTest(parameterized.TestCase):
  @parameterized.parameters(jnp.float32, jnp.bfloat16)
  def test_dtypes_and_shapes(self, dtype):
    for module, x in (
      (TimeEmbedding(12, 8, dtype=dtype), jnp.array([0.0, 500.0])),
      (LabelEmbedding(10, 12, dtype=dtype), jnp.array([0, 10])),
    ):
      found, variables = module.init_with_output(jax.random.key(0), x)
      self.assertEqual((found.shape, found.dtype), ((2, 12), dtype))
      self.assertEqual(
        {p.dtype for p in jax.tree.leaves(variables)}, {jnp.dtype(jnp.float32)}
      )
      self.assertFalse(np.allclose(found[0], found[1]))

  def test_the_null_class_has_a_row_of_its_own(self):
    module = LabelEmbedding(3, 4)
    labels = jnp.array([0, 1, 2, 3])
    found, variables = module.init_with_output(jax.random.key(0), labels)
    self.assertLen(np.unique(np.asarray(found), axis=0), 4)
    self.assertEqual(jax.tree.leaves(variables)[0].shape, (4, 4))
    wrong = module.apply(variables, jnp.array([-1, 4, 3]))
    np.testing.assert_array_equal(np.isnan(wrong).all(1), [True, True, False])


class DropLabelsTest(parameterized.TestCase):
  @parameterized.parameters(0.0, 0.1, 0.9)
  def test_share_and_the_rest_unchanged(self, rate):
    n = 10000
    label_B = jnp.arange(n, dtype=jnp.int32) % 5
    found = drop_labels(jax.random.key(0), label_B, rate, null=5)
    self.assertEqual(found.dtype, label_B.dtype)
    dropped = np.asarray(found) == 5
    deviation = (rate * (1 - rate) / n) ** 0.5
    np.testing.assert_allclose(dropped.mean(), rate, atol=5 * deviation)
    np.testing.assert_array_equal(found[~dropped], label_B[~dropped])


if __name__ == '__main__':
  absltest.main()
