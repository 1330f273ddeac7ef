"""Parameters, operations and shapes of the net of 64, 128 and 256 channels."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.models.modern_cnn import ModernCNN
from dlx.run import flops


def shapes(model, image, batch=1):
  return jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((batch, *image)), train=False)
  )


class ModernCnnTest(parameterized.TestCase):
  @parameterized.parameters((1, 3, 373834), (2, 3, 1148874), (1, 1, 372682))
  def test_parameters_by_hand(self, convs, inputs, expected):
    found = shapes(ModernCNN(convs=convs), (32, 32, inputs))['params']
    total = sum(np.prod(x.shape) for x in jax.tree.leaves(found))
    # Kernels, scale and shift of batch norm, the last layer.
    by_hand, before = 256 * 10 + 10, inputs
    for width in (64, 128, 256):
      by_hand += 9 * before * width + 2 * width
      by_hand += (convs - 1) * (9 * width * width + 2 * width)
      before = width
    self.assertEqual(total, by_hand)
    self.assertEqual(total, expected)

  def test_names_and_widths_are_those_of_the_three_blocks(self):
    found = shapes(ModernCNN(), (32, 32, 3))['params']
    kernels = {k: v['kernel'].shape for k, v in found.items() if 'kernel' in v}
    self.assertEqual(
      kernels,
      {
        'block1_conv1': (3, 3, 3, 64),
        'block2_conv1': (3, 3, 64, 128),
        'block3_conv1': (3, 3, 128, 256),
        'head': (256, 10),
      },
    )

  def test_operations_by_hand(self):
    model = ModernCNN()
    variables = shapes(model, (32, 32, 3))
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), 'float32')
    jaxpr = jax.make_jaxpr(lambda v, x: model.apply(v, x, train=False))(variables, x)
    # Of a 3x3 window at n positions in a row 3 n - 2 taps meet a pixel.
    taps = lambda n: (3 * n - 2) ** 2
    by_hand = taps(32) * 3 * 64 + taps(16) * 64 * 128 + taps(8) * 128 * 256 + 2560
    self.assertEqual(flops.count(jaxpr).total, 2 * by_hand)

  def test_a_mean_over_positions_forgets_where_what_is_seen_lies(self):
    # A shift by as much as the pools halve, away from the edges, changes nothing.
    model = ModernCNN(channels=(3, 4, 5))
    x = (
      jnp.zeros((1, 32, 32, 1))
      .at[:, 12:17, 12:16]
      .set(jax.random.normal(jax.random.key(0), (1, 5, 4, 1)))
    )
    variables = jax.jit(lambda x: model.init(jax.random.key(1), x, train=False))(x)
    features = jax.jit(lambda x: model.apply(variables, x, method='features'))
    moved = features(jnp.roll(x, (4, -4), (1, 2)))
    np.testing.assert_allclose(features(x), moved, rtol=1e-5, atol=1e-6)
    other = features(jnp.roll(x, (1, 0), (1, 2)))
    self.assertGreater(float(jnp.abs(features(x) - other).max()), 1e-4)

  def test_refuses_what_is_no_net(self):
    with self.assertRaisesRegex(ConfigError, r'channels=\(\) .* one block or more'):
      shapes(ModernCNN(channels=()), (8, 8, 1))
    with self.assertRaisesRegex(ConfigError, 'convs=0 is not allowed'):
      shapes(ModernCNN(convs=0), (8, 8, 1))
    with self.assertRaisesRegex(ConfigError, 'use fewer pooling layers'):
      shapes(ModernCNN(), (3, 3, 1))


if __name__ == '__main__':
  absltest.main()
