"""Sizes of the densely connected networks, and what their layers compute."""

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.models.densenet import BLOCKS, DenseNet, cifar_densenet, imagenet_densenet
from tests.dlx.models.by_shape import layers


def by_hand(model, inputs=3):
  """Parameters: kernels, two numbers a channel of each batch norm, the last layer."""
  k, channels = model.growth, model.stem_channels
  count = (49 * inputs + 2 if model.stem == 'imagenet' else 9 * inputs) * channels
  for i, n in enumerate(model.blocks):
    for _ in range(n):
      if model.bottleneck:
        count += (2 + 4 * k) * channels + (2 + 9 * k) * 4 * k
      else:
        count += (2 + 9 * k) * channels
      channels += k
    if i < len(model.blocks) - 1:
      after = int(channels * model.compression)
      count += (2 + after) * channels
      channels = after
  return count + 2 * channels + (channels + 1) * model.num_outputs


def cifar(depth, growth, bottleneck=False):
  return cifar_densenet(depth, growth=growth, bottleneck=bottleneck)


def imagenet(depth):
  return imagenet_densenet(depth, num_outputs=1000)


class SizesTest(parameterized.TestCase):
  # Table 2 of the paper, in millions.
  @parameterized.parameters(
    (40, 12, False, 1.0),
    (100, 12, False, 7.0),
    (100, 24, False, 27.2),
    (100, 12, True, 0.8),
    (250, 24, True, 15.3),
    (190, 40, True, 25.6),
  )
  def test_cifar_counts_are_those_of_the_paper(self, depth, growth, bc, millions):
    self.assertEqual(round(by_hand(cifar(depth, growth, bc)) / 1e6, 1), millions)

  # Of the libraries that publish weights of these nets; 264 of the paper's figure 3.
  @parameterized.parameters(
    (121, 7978856), (161, 28681000), (169, 14149480), (201, 20013928), (264, 33337704)
  )
  def test_imagenet_counts(self, depth, expected):
    self.assertEqual(by_hand(imagenet(depth)), expected)

  def check(self, model, image, giga):
    found = layers(model, image)['']
    self.assertEqual(found.params, by_hand(model))
    self.assertEqual(round(found.multiply_adds / 1e9, 2), giga)

  # Multiply-adds of ImageNet nets: those that torchvision states.
  @parameterized.parameters(
    (lambda: cifar(40, 12), 32, 0.26),
    (lambda: cifar(100, 12, True), 32, 0.29),
    (lambda: imagenet(121), 224, 2.83),
  )
  def test_models_have_these_sizes(self, make, side, giga):
    self.check(make(), (side, side, 3), giga)

  @parameterized.parameters(
    (lambda: cifar(250, 24, True), 32, 5.42),
    (lambda: imagenet(161), 224, 7.73),
    (lambda: imagenet(169), 224, 3.36),
    (lambda: imagenet(201), 224, 4.29),
    (lambda: imagenet(264), 224, 5.75),
  )
  @pytest.mark.slow
  def test_large_models_have_these_sizes(self, make, side, giga):
    self.check(make(), (side, side, 3), giga)

  def test_multiply_adds_by_hand(self):
    # Two blocks of one layer at 4 x 4 and 2 x 2: 3x3 to 5, 3x3 to 2, 1x1, 3x3, Dense.
    model = DenseNet((1, 1), growth=2, stem_channels=5, num_outputs=3)
    count = 16 * (27 * 5 + 9 * 5 * 2 + 7 * 7) + 4 * 9 * 7 * 2 + 9 * 3
    self.assertEqual(layers(model, (4, 4, 3))[''].multiply_adds, count)

  @parameterized.parameters(
    # Inputs of the first and what the last layer of each block sees, then the features.
    (lambda: cifar(22, 12), 32, ((32, 16, 76), (16, 88, 148), (8, 160, 220)), 232),
    (lambda: cifar(22, 12, True), 32, ((32, 24, 48), (16, 30, 54), (8, 33, 57)), 69),
    (
      lambda: imagenet_densenet(121, growth=4),
      224,
      ((56, 8, 28), (28, 16, 60), (14, 32, 124), (7, 64, 124)),
      128,
    ),
  )
  def test_shapes(self, make, side, expected, features):
    model = make()
    found = layers(model, (side, side, 3))
    for i, (size, first, last) in enumerate(expected, 1):
      for j, channels in ((1, first), (model.blocks[i - 1], last)):
        name = f'block{i}_layer{j}'
        self.assertEqual(found[f'{name}/norm1'].output, (size, size, channels), name)
        self.assertEqual(found[name].output, (size, size, model.growth))
    self.assertEqual(found['norm'].output[-1], features)
    self.assertNotIn(f'transition{len(model.blocks)}', found)

  def test_refuses_other_depths(self):
    with self.assertRaisesRegex(ConfigError, 'depth=41 is not allowed .*: must be 3 n'):
      cifar(41, 12)
    with self.assertRaisesRegex(ConfigError, 'DenseNet-BC: must be 6 n'):
      cifar(25, 12, True)
    with self.assertRaisesRegex(
      ConfigError, 'depth=120 is not allowed .*: must be one'
    ):
      imagenet(120)
    self.assertEqual([*BLOCKS], sorted(BLOCKS))


class ValuesTest(parameterized.TestCase):
  def test_every_layer_reads_every_layer_before_it(self):
    model = DenseNet((4,), growth=2, stem_channels=3, num_outputs=3)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))

    @jax.jit
    def slopes(key):
      variables = model.init(key, x, train=False)

      def outputs(params):
        _, seen = model.apply(
          {**variables, 'params': params},
          x,
          train=False,
          capture_intermediates=True,
          mutable=['intermediates'],
        )
        names = [f'block1_layer{j}' for j in range(1, 5)]
        return [
          jnp.square(seen['intermediates'][n]['__call__'][0]).sum() for n in names
        ]

      kernels = jax.jacrev(outputs)(variables['params'])
      return [
        [jnp.abs(row[f'block1_layer{j}']['conv1']['kernel']).max() for j in range(1, 5)]
        for row in kernels
      ]

    found = np.array(slopes(jax.random.key(1)))
    np.testing.assert_array_equal(found > 0, np.tri(4, dtype=bool))

  @parameterized.parameters(False, True)
  def test_remat_changes_no_number(self, dropout):
    x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
    found = []
    for remat in (False, True):
      model = DenseNet(
        (2, 2), 4, bottleneck=True, dropout=0.3 * dropout, remat=remat, num_outputs=3
      )
      variables = model.init(jax.random.key(1), x, train=False)

      def loss(params, model=model, variables=variables):
        outputs, new = model.apply(
          {**variables, 'params': params},
          x,
          train=True,
          rngs={'dropout': jax.random.key(2)},
          mutable=['batch_stats'],
        )
        return jnp.square(outputs).sum(), new

      step = jax.jit(jax.value_and_grad(loss, has_aux=True))
      found.append(step(variables['params']))
    # What is computed again is rounded as XLA fuses it.
    chex.assert_trees_all_close(*found, rtol=1e-4, atol=1e-5)

  def test_remat_needs_less_memory(self):
    x = jax.ShapeDtypeStruct((8, 16, 16, 3), jnp.float32)

    def needed(layers, remat):
      model = DenseNet((layers,), 4, bottleneck=True, remat=remat)
      shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros(x.shape), train=False)
      )

      def loss(params, x):
        outputs, _ = model.apply(
          {**shapes, 'params': params, 'batch_stats': zeros(shapes['batch_stats'])},
          x,
          train=True,
          mutable=['batch_stats'],
        )
        return jnp.square(outputs).sum()

      zeros = lambda tree: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), tree)
      compiled = jax.jit(jax.grad(loss)).lower(shapes['params'], x).compile()
      return compiled.memory_analysis().temp_size_in_bytes

    if tuple(map(int, jax.__version__.split('.')[:2])) < (0, 11):
      self.skipTest('XLA:CPU of jax 0.10 merges what is computed again: 12.2 MB twice.')
    # 33.4 and 7.7 MB of 24 layers; 12.2 and 4.1 of these.
    self.assertLess(needed(12, remat=True), 0.4 * needed(12, remat=False))

  @parameterized.parameters('plain', 'bc', 'imagenet')
  def test_equals_torch(self, form):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    functional = torch.nn.functional
    fields = {'blocks': (2, 3), 'growth': 4, 'num_outputs': 3}
    fields |= {'stem_channels': 5} | ({} if form == 'plain' else {'bottleneck': True})
    fields |= {'compression': 0.5} if form != 'plain' else {}
    stem = 'imagenet' if form == 'imagenet' else 'cifar'
    model = DenseNet(stem=stem, **fields)
    x = jax.random.normal(jax.random.key(0), (3, 33 if form == 'imagenet' else 8, 8, 3))

    @jax.jit
    def run(x):
      variables = model.init(jax.random.key(1), x, train=False)
      # Scales and biases other than 1 and 0.
      params = jax.tree.map(
        lambda p: p + 0.1 * jax.random.normal(jax.random.key(2), p.shape),
        variables['params'],
      )
      return params, model.apply(
        {**variables, 'params': params}, x, train=True, mutable=['batch_stats']
      )[0]

    params, found = run(x)

    def tensor(a):
      return torch.tensor(np.array(a))

    def conv(h, p, stride=1):
      w = tensor(p['kernel']).permute(3, 2, 0, 1)
      return functional.conv2d(h, w, stride=stride, padding=w.shape[-1] // 2)

    def norm(h, p):
      scale, bias = tensor(p['scale']), tensor(p['bias'])
      return functional.batch_norm(h, None, None, scale, bias, True, eps=1e-5).relu()

    h = tensor(x).permute(0, 3, 1, 2)
    if stem == 'imagenet':
      h = norm(conv(h, params['stem'], 2), params['stem_norm'])
      h = functional.max_pool2d(h, 3, 2, 1)
    else:
      h = conv(h, params['stem'])
    for i, count in enumerate(model.blocks, 1):
      for j in range(1, count + 1):
        p = params[f'block{i}_layer{j}']
        y = conv(norm(h, p['norm1']), p['conv1'])
        if model.bottleneck:
          y = conv(norm(y, p['norm2']), p['conv2'])
        h = torch.cat([h, y], 1)
      if i < len(model.blocks):
        p = params[f'transition{i}']
        h = functional.avg_pool2d(conv(norm(h, p['norm']), p['conv']), 2)
    h = norm(h, params['norm']).mean((2, 3))
    head = params['head']
    wanted = functional.linear(h, tensor(head['kernel']).T, tensor(head['bias']))
    # Up to 12 batch norms, each dividing by deviations of 6 values and more.
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-3)


if __name__ == '__main__':
  absltest.main()
