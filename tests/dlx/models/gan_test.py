"""Dense GAN: parameter counts by hand, labels, dropout, dtypes."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.models import gan


def size(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


class GanTest(parameterized.TestCase):
  @parameterized.parameters((None, 0), (10, 10))
  def test_parameter_counts(self, num_classes, extra):
    label = None if num_classes is None else jnp.zeros(2, jnp.int32)
    z, x = jnp.zeros((2, 100)), jnp.zeros((2, 28, 28, 1))
    g, d = (
      gan.Generator(num_classes=num_classes),
      gan.Discriminator(num_classes=num_classes),
    )
    shapes = lambda m, x: jax.eval_shape(
      lambda: m.init(jax.random.key(0), x, label, train=False)
    )
    # 100 -> 256 -> 512 -> 784 with biases; K inputs more with classes.
    wanted = (101 + extra) * 256 + 257 * 512 + 513 * 784
    self.assertEqual(size(shapes(g, z)), wanted)
    # 784 -> 512 -> 256 -> 1; K outputs more with classes.
    wanted = 785 * 512 + 513 * 256 + 257 * (1 + extra)
    self.assertEqual(size(shapes(d, x)), wanted)

  def test_generator_by_hand(self):
    model = gan.Generator(shape=(1, 2, 1), features=(2,))
    params = {
      'hidden_0': {'kernel': jnp.array([[1.0, -1.0]]), 'bias': jnp.zeros(2)},
      'pixels': {'kernel': jnp.eye(2), 'bias': jnp.array([0.0, 1.0])},
    }
    image = model.apply({'params': params}, jnp.array([[2.0]]), train=True)
    # The hidden units are 2 and 0.2 * -2.
    wanted = np.tanh([2.0, 0.6]).reshape(1, 1, 2, 1)
    np.testing.assert_allclose(image, wanted, rtol=1e-6)

  def test_label_changes_both_players(self):
    key = jax.random.key(0)
    z, x = jax.random.normal(key, (1, 4)), jnp.ones((1, 2, 2, 1))
    g = gan.Generator(shape=(2, 2, 1), features=(8,), num_classes=3)
    d = gan.Discriminator(features=(8,), num_classes=3)
    for model, inputs in ((g, z), (d, x)):
      variables = model.init(key, inputs, jnp.zeros(1, jnp.int32), train=False)
      out = [
        np.asarray(model.apply(variables, inputs, jnp.array([k]), train=False))
        for k in range(3)
      ]
      self.assertGreater(np.abs(out[0] - out[1]).max(), 1e-3)
      self.assertGreater(np.abs(out[1] - out[2]).max(), 1e-3)
      with self.assertRaisesRegex(ConfigError, 'label_B=None'):
        model.apply(variables, inputs, train=False)

  def test_logit_of_label_by_hand(self):
    out = jnp.array([[1.0, 10.0, 20.0], [2.0, 30.0, 40.0]])
    found = gan.logit_of_label(out, jnp.array([1, 0]), 2)
    np.testing.assert_array_equal(found, [21, 32])
    np.testing.assert_array_equal(gan.logit_of_label(out, None, None), [1, 2])

  def test_dropout_in_training_only(self):
    d = gan.Discriminator(features=(64,), dropout=0.5)
    x = jnp.ones((2, 2, 2, 1))
    variables = d.init(jax.random.key(0), x, train=False)
    train = lambda s: d.apply(
      variables, x, train=True, rngs={'dropout': jax.random.key(s)}
    )
    self.assertFalse(np.array_equal(train(0), train(1)))
    still = d.apply(variables, x, train=False)
    self.assertEqual(still[0], still[1])

  def test_narrow_compute_gives_float32(self):
    g = gan.Generator(shape=(2, 2, 1), features=(4,), dtype=jnp.bfloat16)
    d = gan.Discriminator(features=(4,), dtype=jnp.bfloat16)
    key, z = jax.random.key(0), jnp.ones((1, 3))
    image, variables = g.init_with_output(key, z, train=False)
    logit, _ = d.init_with_output(key, image, train=False)
    self.assertEqual((image.dtype, logit.dtype), (jnp.float32, jnp.float32))
    self.assertEqual({x.dtype for x in jax.tree.leaves(variables)}, {jnp.dtype('f4')})


if __name__ == '__main__':
  absltest.main()
