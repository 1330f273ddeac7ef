"""DCGAN: grids and parameter counts by hand, initialisation, statistics, norms."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.models import dcgan


def size(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


def shapes(model, *inputs):
  return jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs, train=False))


class ShapeTest(parameterized.TestCase):
  @parameterized.parameters(
    # Side, coarsest grid, channels of the layers of G and of D for widths 8 and 4.
    (8, 4, (8,), (4,)),
    (28, 7, (16, 8), (4, 8)),
    (32, 4, (32, 16, 8), (4, 8, 16)),
  )
  def test_parameter_counts(self, side, base, g, d):
    for channels, num_classes in ((1, None), (3, 10)):
      label = None if num_classes is None else jnp.zeros(2, jnp.int32)
      extra = num_classes or 0
      model = dcgan.Generator((side, side, channels), width=8, num_classes=num_classes)
      variables = shapes(model, jnp.zeros((2, 5)), label)
      # Each layer but the last: kernel without bias, scale and shift.
      count = (5 + extra) * base * base * g[0] + 2 * g[0]
      for i, o in zip(g, g[1:]):
        count += 16 * i * o + 2 * o
      count += 16 * g[-1] * channels + channels
      self.assertEqual(size(variables['params']), count)
      self.assertEqual(size(variables['batch_stats']), 2 * sum(g))

      model = dcgan.Discriminator(width=4, num_classes=num_classes)
      variables = shapes(model, jnp.zeros((2, side, side, channels)), label)
      # The first layer has a bias, the others scale and shift.
      count = 16 * channels * d[0] + d[0]
      for i, o in zip(d, d[1:]):
        count += 16 * i * o + 2 * o
      count += (base * base * d[-1] + 1) * (1 + extra)
      self.assertEqual(size(variables['params']), count)
      self.assertEqual(size(variables.get('batch_stats', {})), 2 * sum(d[1:]))

  @parameterized.parameters(3, 4, 9, 11, 36)
  def test_other_sides_are_refused(self, side):
    with self.assertRaisesRegex(ConfigError, f'side {side} are not allowed'):
      shapes(dcgan.Generator((side, side, 1)), jnp.zeros((1, 5)))
    with self.assertRaisesRegex(ConfigError, f'side {side} are not allowed'):
      shapes(dcgan.Discriminator(), jnp.zeros((1, side, side, 1)))

  def test_other_shapes_and_norms_are_refused(self):
    with self.assertRaisesRegex(ConfigError, '8 x 16 .* square'):
      shapes(dcgan.Discriminator(), jnp.zeros((1, 8, 16, 1)))
    with self.assertRaisesRegex(ConfigError, 'norm=layer .* spectral'):
      shapes(dcgan.Discriminator(norm='layer'), jnp.zeros((1, 8, 8, 1)))


class ModelTest(parameterized.TestCase):
  def test_initial_weights(self):
    g = dcgan.Generator((28, 28, 1), width=32)
    variables = jax.jit(lambda k: g.init(k, jnp.zeros((1, 64)), train=False))(
      jax.random.key(0)
    )
    for path, x in jax.tree_util.tree_leaves_with_path(variables['params']):
      name = jax.tree_util.keystr(path, simple=True, separator='/')
      if name.endswith('bias'):
        np.testing.assert_array_equal(x, np.zeros(x.shape))
        continue
      # Standard errors of mean and deviation of n draws of N(., 0.02); 5 of them.
      mean = 1 if name.endswith('scale') else 0
      self.assertLess(abs(x.mean() - mean), 5 * 0.02 / x.size**0.5, name)
      self.assertLess(abs(x.std() - 0.02), 5 * 0.02 / (2 * x.size) ** 0.5, name)

  def test_generator_statistics(self):
    g = dcgan.Generator((8, 8, 1), width=4)
    z = jax.random.normal(jax.random.key(1), (16, 6))
    variables = g.init(jax.random.key(0), z, train=False)
    image, new = g.apply(variables, z, train=True, mutable=['batch_stats'])
    self.assertEqual(image.shape, (16, 8, 8, 1))
    self.assertLessEqual(np.abs(image).max(), 1)
    # From variance 1: a tenth of the way to that of the batch, near 6 * 0.02^2.
    var = new['batch_stats']['norm_0']['var']
    kernel = jnp.asarray(variables['params']['dense']['kernel'])
    maps = (z @ kernel).reshape(-1, 4)
    # Means of 256 numbers of size 0.1 and their squares.
    np.testing.assert_allclose(var, 0.9 + 0.1 * maps.var(0), atol=1e-6)
    # With running statistics every row is alone; with those of the batch it is not.
    evaluate = jax.jit(lambda z: g.apply(variables, z, train=False))
    np.testing.assert_allclose(evaluate(z)[:3], evaluate(z[:3]), atol=1e-6)
    train = lambda z: g.apply(variables, z, train=True, mutable=['batch_stats'])[0]
    self.assertGreater(np.abs(train(z)[:3] - train(z[:3])).max(), 1e-3)

  @parameterized.parameters(*dcgan.NORMS)
  def test_label_changes_the_logit(self, norm):
    d = dcgan.Discriminator(width=4, norm=norm, num_classes=3)
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    variables = d.init(jax.random.key(0), x, jnp.zeros(2, jnp.int32), train=False)
    logits = [
      np.asarray(d.apply(variables, x, jnp.full(2, k, jnp.int32), train=False))
      for k in range(3)
    ]
    self.assertGreater(np.abs(logits[0] - logits[1]).min(), 0)
    self.assertGreater(np.abs(logits[1] - logits[2]).min(), 0)

  def test_spectral_norm_bounds_every_kernel(self):
    d = dcgan.Discriminator(width=4, norm='spectral')
    x = 100 * jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    variables = dict(d.init(jax.random.key(0), x, train=True))
    run = jax.jit(lambda v: d.apply(v, x, train=True, mutable=['batch_stats']))
    for _ in range(30):  # The power iteration, one turn a step.
      logits, variables['batch_stats'] = (
        run(variables)[0],
        run(variables)[1]['batch_stats'],
      )
    # Divided by its largest singular value, a kernel does not change when doubled.
    doubled = jax.tree.map(lambda p: 2 * p if p.ndim > 1 else p, variables['params'])
    again, _ = run({**variables, 'params': doubled})
    np.testing.assert_allclose(again, logits, rtol=1e-4, atol=1e-4)
    # Evaluation leaves the vectors alone, and training moves them.
    _, new = d.apply(variables, x, train=False, mutable=['batch_stats'])
    jax.tree.map(
      np.testing.assert_array_equal, new['batch_stats'], variables['batch_stats']
    )

  def test_narrow_compute_gives_float32(self):
    g = dcgan.Generator((8, 8, 1), width=4, dtype=jnp.bfloat16)
    d = dcgan.Discriminator(width=4, dtype=jnp.bfloat16)
    image, variables = g.init_with_output(
      jax.random.key(0), jnp.ones((2, 3)), train=False
    )
    logits, _ = d.init_with_output(jax.random.key(0), image, train=False)
    self.assertEqual((image.dtype, logits.dtype), (jnp.float32, jnp.float32))
    self.assertEqual({x.dtype for x in jax.tree.leaves(variables)}, {jnp.dtype('f4')})


if __name__ == '__main__':
  absltest.main()
