"""Encoder, head and probe: counts by hand, positions, dtypes, what is trained."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.models.conv_encoder import (
  ConvEncoder,
  LinearProbe,
  ProjectedEncoder,
  ProjectionHead,
)


def size(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def shapes(model, *shape, **kwargs):
  return jax.eval_shape(
    lambda: model.init_with_output(jax.random.key(0), jnp.zeros(shape), **kwargs)
  )


class ConvEncoderTest(parameterized.TestCase):
  @parameterized.parameters(
    (28, 1, (2, 2, 2, 1), 4), (8, 1, (1, 2, 2, 1), 2), (32, 3, (2, 2, 2, 1), 4)
  )
  def test_counts_and_shapes(self, side, channels, strides, last):
    out, variables = shapes(ConvEncoder(strides=strides), 2, side, side, channels)
    self.assertEqual(out.pooled_BF.shape, (2, 128))
    self.assertEqual(out.map_BHWF.shape, (2, last, last, 128))
    kernels = 9 * (channels * 32 + 32 * 64 + 64 * 128 + 128 * 128)
    # Scale and shift of each norm; no bias of a convolution.
    self.assertEqual(size(variables), kernels + 2 * (32 + 64 + 128 + 128))

  def test_a_row_does_not_depend_on_its_batch_and_pooling_is_the_mean(self):
    model = ConvEncoder((8, 16), (2, 1))
    x = jax.random.normal(jax.random.key(1), (5, 6, 6, 1))
    weights = jax.jit(model.init)(jax.random.key(0), x)
    apply = jax.jit(model.apply)
    out = apply(weights, x)
    # Sums of at most 72 products of size 1, in another blocking: 72 eps = 9e-6.
    np.testing.assert_allclose(
      apply(weights, x[2:3]).pooled_BF, out.pooled_BF[2:3], atol=1e-5
    )
    np.testing.assert_allclose(
      out.pooled_BF, np.asarray(out.map_BHWF).mean((1, 2)), rtol=1e-5, atol=1e-6
    )

  def test_narrow_arithmetic_gives_wide_features(self):
    out, variables = shapes(ConvEncoder((8,), (1,), dtype=jnp.bfloat16), 1, 4, 4, 1)
    dtypes = {x.dtype for x in jax.tree.leaves((out, variables))}
    self.assertEqual(dtypes, {np.dtype('float32')})
    out, _ = shapes(ProjectionHead(4, 2, dtype=jnp.bfloat16), 1, 8)
    self.assertEqual(out.dtype, np.dtype('float32'))

  @parameterized.parameters(
    (dict(features=(8, 8), strides=(1,)), 'must be 2 numbers'),
    (dict(features=(12,), strides=(1,)), 'must be multiples of groups=8'),
  )
  def test_refused(self, fields, message):
    with self.assertRaisesRegex(ConfigError, message):
      shapes(ConvEncoder(**fields), 1, 4, 4, 1)

  def test_names_of_an_encoder_with_its_head(self):
    model = ProjectedEncoder(ConvEncoder((8,), (1,)), ProjectionHead(4, 3))
    out, variables = shapes(model, 2, 4, 4, 1)
    self.assertEqual(out.shape, (2, 3))
    self.assertEqual(set(variables['params']), {'encoder', 'head'})
    alone, inner = shapes(ConvEncoder((8,), (1,)), 2, 4, 4, 1)
    del alone
    same = jax.tree.structure(inner['params'])
    self.assertEqual(jax.tree.structure(variables['params']['encoder']), same)


class LinearProbeTest(absltest.TestCase):
  def test_only_the_linear_layer_is_trained(self):
    encoder = ConvEncoder((8,), (2,))
    model = LinearProbe(encoder, 3)
    x = jax.random.normal(jax.random.key(1), (6, 4, 4, 1))
    variables = jax.jit(lambda: model.init(jax.random.key(0), x, train=False))()
    self.assertEqual(set(variables), {'params', 'encoder', 'batch_stats'})
    self.assertEqual(size(variables['params']), 8 * 3 + 3)
    logits = jax.jit(lambda v: model.apply(v, x, train=False))(variables)
    np.testing.assert_array_equal(logits, 0)

    def total(variables):
      # Not zeros, so that a gradient would reach the features.
      kernel = jax.tree.map(jnp.ones_like, variables['params'])
      logits, _ = model.apply(
        {**variables, 'params': kernel}, x, train=True, mutable=['batch_stats']
      )
      return jnp.square(logits).sum()

    for leaf in jax.tree.leaves(jax.jit(jax.grad(total))(variables)['encoder']):
      np.testing.assert_array_equal(leaf, 0)

  def test_features_are_normalised_by_the_batch_and_the_encoder_stays(self):
    encoder = ConvEncoder((8,), (2,))
    model = LinearProbe(encoder, 8)
    x = jax.random.normal(jax.random.key(1), (6, 4, 4, 1))
    variables = jax.jit(lambda: model.init(jax.random.key(0), x, train=False))()
    params = {'head': {'kernel': jnp.eye(8), 'bias': jnp.zeros(8)}}
    out, new = jax.jit(
      lambda v: model.apply(v, x, train=True, mutable=['batch_stats', 'encoder'])
    )({**variables, 'params': params})
    weights = {'params': variables['encoder']['params']}
    pooled = jax.jit(encoder.apply)(weights, x).pooled_BF
    pooled = np.asarray(pooled, np.float64)
    # 1e-5 is the epsilon of batch norm.
    variance = pooled.var(0) + 1e-5
    wanted = (pooled - pooled.mean(0)) / np.sqrt(variance)
    # The variance is E[x^2] - E[x]^2 in float32: a relative error of some eps times
    # E[x^2] / variance, of which the root takes half.
    eps = np.finfo(np.float32).eps
    error = eps * ((pooled**2).mean(0) / variance).max()
    self.assertLess(error, 1e-3)
    np.testing.assert_allclose(out, wanted, atol=2 * error * np.abs(wanted).max())
    for a, b in zip(
      jax.tree.leaves(new['encoder']), jax.tree.leaves(variables['encoder'])
    ):
      np.testing.assert_array_equal(a, b)


if __name__ == '__main__':
  absltest.main()
