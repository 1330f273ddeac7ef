"""The net of airbench94: its size, its first weights, and how tests are shown."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.models.whitened_cnn import WhitenedCNN, identity_first, views

IMAGE = (32, 32, 3)


def init(model, image=IMAGE):
  return lambda: model.init(jax.random.key(0), jnp.zeros((1, *image)), train=False)


class WhitenedCnnTest(parameterized.TestCase):
  def test_parameters_are_those_of_airbench94(self):
    params = jax.eval_shape(init(WhitenedCNN()))['params']
    total = sum(np.prod(x.shape) for x in jax.tree.leaves(params))
    kernels = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256) + 256 * 10
    biases = 24 + 2 * (64 + 256 + 256)
    self.assertEqual(total, kernels + biases)
    self.assertEqual(total, 1971352)

  def test_maps_of_airbench94(self):
    def run():
      x = jnp.zeros((1, *IMAGE))
      model = WhitenedCNN()
      variables = model.init(jax.random.key(0), x, train=False)
      kept = {'capture_intermediates': True, 'mutable': ['intermediates']}
      return model.apply(variables, x, train=False, **kept)[1]['intermediates']

    seen = jax.eval_shape(run)
    sizes = {k: v['__call__'][0].shape[1:] for k, v in seen.items() if 'conv2' in k}
    self.assertEqual(
      sizes,
      {
        'block1_conv2': (15, 15, 64),
        'block2_conv2': (7, 7, 256),
        'block3_conv2': (3, 3, 256),
      },
    )

  @parameterized.parameters((2, 5), (5, 2))
  def test_first_outputs_of_a_kernel_are_its_inputs(self, inputs, outputs):
    kernel = identity_first(jax.random.key(0), (3, 3, inputs, outputs), jnp.float32)
    x = jax.random.normal(jax.random.key(1), (1, 6, 6, inputs))
    y = jax.lax.conv_general_dilated(
      x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    same = min(inputs, outputs)
    np.testing.assert_allclose(y[..., :same], x[..., :same], rtol=1e-6)
    rest = kernel[..., same:]
    if rest.size:
      self.assertLess(float(jnp.abs(rest).max()), 1 / np.sqrt(9 * inputs))
      self.assertGreater(float(jnp.abs(rest).min()), 0)

  def test_views_by_hand(self):
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    found, shares = views(x, True, 1)
    self.assertEqual(shares, [0.25, 0.125, 0.125, 0.25, 0.125, 0.125])
    grid = lambda i: found[i][0, :, :, 0]
    # Down and right by one, with a reflected edge; up and left by one.
    np.testing.assert_array_equal(grid(1), [[4, 3, 4], [1, 0, 1], [4, 3, 4]])
    np.testing.assert_array_equal(grid(2), [[4, 5, 4], [7, 8, 7], [4, 5, 4]])
    np.testing.assert_array_equal(grid(4), grid(1)[:, ::-1])
    self.assertEqual(views(x, False, 0)[1], [1.0])

  def test_logits_of_a_test_image_are_the_mean_over_its_views(self):
    x = jax.random.normal(jax.random.key(1), (3, 8, 8, 1))
    shown = WhitenedCNN((4,), test_flip=True, test_shift=1)
    plain = WhitenedCNN((4,))

    @jax.jit
    def run(x):
      variables = shown.init(jax.random.key(0), x, train=False)
      one = lambda x: plain.apply(variables, x, train=False)
      found, shares = views(x, True, 1)
      wanted = sum(jnp.asarray(one(v)) * share for v, share in zip(found, shares))
      return shown.apply(variables, x, train=False), wanted

    found, wanted = run(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    # The views differ, or this would say nothing.
    self.assertGreater(float(jnp.abs(found - run(x + 0.1)[0]).max()), 1e-4)

  def test_refuses_images_that_are_too_small(self):
    with self.assertRaisesRegex(ConfigError, 'use fewer pooling layers'):
      jax.eval_shape(init(WhitenedCNN(), (8, 8, 1)))


if __name__ == '__main__':
  absltest.main()
