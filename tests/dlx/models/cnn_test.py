"""CNN: parameter counts by hand, odd sizes, modes, dtypes, biases."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.models.cnn import CNN


def init(model, *shape):
  return jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False)
  )


def size(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


class CNNTest(parameterized.TestCase):
  @parameterized.parameters(
    # 3*3*c*32 + 2*32, 3*3*32*64 + 2*64, side^2*64*128 + 128, 128*10 + 10
    (8, 1, False, 288 + 64 + 18432 + 128 + 2 * 2 * 8192 + 128 + 1290),
    (28, 1, False, 288 + 64 + 18432 + 128 + 7 * 7 * 8192 + 128 + 1290),
    (32, 3, False, 864 + 64 + 18432 + 128 + 8 * 8 * 8192 + 128 + 1290),
    # 2*128 for scale and shift in place of 128 biases.
    (28, 1, True, 288 + 64 + 18432 + 128 + 7 * 7 * 8192 + 256 + 1290),
    # Odd sizes are rounded down: 15 -> 7 -> 3.
    (15, 1, False, 288 + 64 + 18432 + 128 + 3 * 3 * 8192 + 128 + 1290),
  )
  def test_parameter_counts(self, side, channels, dense_batch_norm, count):
    model = CNN(dense_batch_norm=dense_batch_norm)
    variables = init(model, 2, side, side, channels)
    self.assertEqual(size(variables['params']), count)
    stats = 2 * (32 + 64 + 128 * dense_batch_norm)
    self.assertEqual(size(variables['batch_stats']), stats)

  def test_without_batch_norm_convolutions_have_biases(self):
    variables = init(CNN(batch_norm=False), 2, 8, 8, 1)
    self.assertNotIn('batch_stats', variables)
    count = 288 + 32 + 18432 + 64 + 2 * 2 * 8192 + 128 + 1290
    self.assertEqual(size(variables['params']), count)

  def test_no_bias_before_batch_norm(self):
    params = init(CNN((4, 4), dense_batch_norm=True), 1, 8, 8, 1)['params']
    with_bias = {name for name, layer in params.items() if 'bias' in layer}
    self.assertEqual(with_bias, {'norm_0', 'norm_1', 'hidden_norm', 'head'})

  def test_train_and_eval(self):
    model = CNN((3,), dense=8, num_outputs=5, dropout=0.5)
    x = jax.random.normal(jax.random.key(1), (4, 6, 6, 2))
    variables = jax.jit(lambda k: model.init(k, x, train=False))(jax.random.key(0))

    @jax.jit
    def train(seed):
      return model.apply(
        variables,
        x,
        train=True,
        rngs={'dropout': jax.random.key(seed)},
        mutable=['batch_stats'],
      )

    y, new = train(0)
    self.assertEqual(y.shape, (4, 5))
    self.assertFalse(np.array_equal(y, train(1)[0]))
    # From mean 0: a tenth of the way to that of the batch.
    kernel = variables['params']['conv_0']['kernel']
    maps = jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    # Means of 144 numbers of size 1.
    mean = new['batch_stats']['norm_0']['mean']
    np.testing.assert_allclose(mean, 0.1 * maps.mean((0, 1, 2)), atol=1e-6)
    # Evaluation treats every row alone: row 0 is the same in another batch.
    evaluate = jax.jit(lambda x: model.apply(variables, x, train=False))
    # Sums of 27 and 8 products of size 1 in another blocking.
    np.testing.assert_allclose(evaluate(x)[:1], evaluate(x[:1]), atol=1e-5)

  @parameterized.parameters(jnp.bfloat16, jnp.float16)
  def test_narrow_compute_keeps_float32_parameters(self, dtype):
    model = CNN((4,), dense=8, dtype=dtype)
    variables = init(model, 2, 8, 8, 1)
    out, state = jax.eval_shape(
      lambda v: model.apply(
        v,
        jnp.zeros((2, 8, 8, 1)),
        train=True,
        rngs={'dropout': jax.random.key(0)},
        mutable=['batch_stats'],
      ),
      variables,
    )
    self.assertEqual(out.dtype, jnp.float32)
    dtypes = {x.dtype for x in jax.tree.leaves((variables, state))}
    self.assertEqual(dtypes, {np.dtype('float32')})

  def test_images_too_small(self):
    with self.assertRaisesRegex(ConfigError, '1 x 1 inputs: .* fewer pooling layers'):
      init(CNN((4, 4, 4, 4)), 1, 8, 8, 1)


if __name__ == '__main__':
  absltest.main()
