"""Sizes of the residual networks, and what a block computes."""

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.models.resnet import cifar_resnet, imagenet_resnet


def num_params(model, shape):
  variables = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, *shape)), train=False)
  )
  return sum(np.prod(x.shape) for x in jax.tree.leaves(variables['params']))


def conv_weights(n, width=16, outputs=10):
  """By hand: 3x3 kernels, two numbers a channel of batch norm, and the last layer."""
  w1, w2, w3 = width, 2 * width, 4 * width
  count = 27 * w1 + 2 * w1  # The stem.
  for inputs, w in ((w1, w1), (w1, w2), (w2, w3)):
    count += 9 * inputs * w + 9 * w * w * (2 * n - 1) + 2 * w * 2 * n
  return count + w3 * outputs + outputs


class ResNetTest(parameterized.TestCase):
  @parameterized.parameters(
    (20, '0.27'), (32, '0.46'), (44, '0.66'), (56, '0.85'), (110, '1.73')
  )
  def test_cifar_counts_are_those_of_the_paper(self, depth, millions):
    found = num_params(cifar_resnet(depth), (32, 32, 3))
    self.assertEqual(f'{found / 1e6:.2f}', millions)
    self.assertEqual(found, conv_weights(depth // 6))

  # Known from the libraries that publish weights of these nets.
  @parameterized.parameters(
    (18, 11689512), (34, 21797672), (50, 25557032), (101, 44549160), (152, 60192808)
  )
  def test_imagenet_counts(self, depth, expected):
    model = imagenet_resnet(depth, num_outputs=1000)
    self.assertEqual(num_params(model, (224, 224, 3)), expected)

  @parameterized.parameters(
    (lambda: cifar_resnet(20), (32, 32, 3), (8, 8, 64)),
    (lambda: imagenet_resnet(18), (224, 224, 3), (7, 7, 512)),
    (lambda: imagenet_resnet(50), (224, 224, 3), (7, 7, 2048)),
    (lambda: imagenet_resnet(18, stem='cifar'), (32, 32, 3), (4, 4, 512)),
  )
  def test_shape_before_the_pool(self, make, image, expected):
    def run():
      x = jnp.zeros((2, *image))
      variables = make().init(jax.random.key(0), x, train=False)
      out = make().apply(
        variables, x, train=False, capture_intermediates=True, mutable=['intermediates']
      )
      return out[1]['intermediates']

    seen = jax.eval_shape(run)
    last = sorted(name for name in seen if name.startswith('stage'))[-1]
    self.assertEqual(seen[last]['__call__'][0].shape, (2, *expected))

  def test_a_block_that_starts_at_zero_is_the_identity_of_what_is_positive(self):
    model = cifar_resnet(8, width=4, zero_init=True)
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = model.init(jax.random.key(1), x, train=False)
    _, seen = model.apply(
      variables, x, train=False, capture_intermediates=True, mutable=['intermediates']
    )
    seen = seen['intermediates']
    stem = jax.nn.relu(seen['stem_norm']['__call__'][0])
    np.testing.assert_array_equal(seen['stage1_block1']['__call__'][0], stem)
    # The shortcut of the second stage: every second pixel, channels of 0 around.
    second = seen['stage2_block1']['__call__'][0]
    np.testing.assert_array_equal(second[..., 2:6], stem[:, ::2, ::2])
    np.testing.assert_array_equal(second[..., :2], 0)
    np.testing.assert_array_equal(second[..., 6:], 0)

  def test_without_shortcuts_nothing_passes_a_dead_block(self):
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    for skip in (True, False):
      model = cifar_resnet(8, width=4, skip=skip)
      variables = model.init(jax.random.key(1), x, train=False)
      params = dict(variables['params'])
      params['stage2_block1'] = jax.tree.map(jnp.zeros_like, params['stage2_block1'])

      def loss(params, model=model, variables=variables):
        out = model.apply({**variables, 'params': params}, x, train=False)
        return (out * jnp.arange(10.0)[None]).sum()

      stem = jax.grad(loss)(params)['stem']['kernel']
      self.assertEqual(bool(jnp.abs(stem).max() > 0), skip)

  def test_a_basic_block_equals_torch(self):
    torch = __import__('pytest').importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    functional = torch.nn.functional
    model = imagenet_resnet(18, width=4, stem='cifar')
    x = jax.random.normal(jax.random.key(0), (2, 9, 9, 3))
    variables = model.init(jax.random.key(1), x, train=False)
    # Batch norm with scale 1 everywhere, so that both branches count.
    params = jax.tree.map(
      lambda p: p + 0.1 * jax.random.normal(jax.random.key(2), p.shape),
      variables['params'],
    )
    found, new = model.apply(
      {**variables, 'params': params}, x, train=True, mutable=['batch_stats']
    )
    self.assertEqual(found.shape, (2, 10))

    def tensor(a):
      return torch.tensor(np.array(a))

    def conv(h, p, stride, pad):
      w = tensor(p['kernel']).permute(3, 2, 0, 1)
      return functional.conv2d(h, w, stride=stride, padding=pad)

    def norm(h, p):
      return functional.batch_norm(
        h, None, None, tensor(p['scale']), tensor(p['bias']), training=True, eps=1e-5
      )

    h = tensor(x).permute(0, 3, 1, 2)
    h = norm(conv(h, params['stem'], 1, 1), params['stem_norm']).relu()
    for i in range(1, 5):
      for j in range(1, 3):
        p, stride = params[f'stage{i}_block{j}'], 2 if i > 1 and j == 1 else 1
        y = norm(conv(h, p['conv1'], stride, 1), p['norm1']).relu()
        y = norm(conv(y, p['conv2'], 1, 1), p['norm2'])
        if 'skip' in p:
          h = norm(conv(h, p['skip'], stride, 0), p['skip_norm'])
        h = (h + y).relu()
    out = functional.linear(
      h.mean((2, 3)), tensor(params['head']['kernel']).T, tensor(params['head']['bias'])
    )
    # 18 batch norms of 2 to 162 values each divide by deviations: 1e-3 is 1e4 ulp.
    np.testing.assert_allclose(found, out.numpy(), rtol=1e-3, atol=1e-3)
    chex.assert_tree_all_finite(new)

  def test_refuses_other_depths(self):
    with self.assertRaisesRegex(ConfigError, 'depth=21 is not allowed'):
      cifar_resnet(21)
    with self.assertRaisesRegex(ConfigError, 'depth=20 is not allowed'):
      imagenet_resnet(20)


if __name__ == '__main__':
  absltest.main()
