"""AlexNet: published counts and sizes, values as torch's layers, what begins where."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.models.alexnet import cifar_alexnet, imagenet_alexnet
from tests.dlx.models import by_shape

IMAGENET, CIFAR = (224, 224, 3), (32, 32, 3)


class AlexNetTest(parameterized.TestCase):
  # Of libraries that publish weights; of the paper by hand, known as 61 M and 724 M.
  @parameterized.parameters(
    (1, 61100840, 714188480, (64, 192, 384, 256, 256)),
    (2, 60965224, 724406816, (96, 256, 384, 384, 256)),
  )
  def test_imagenet_form(self, groups, parameters, multiply_adds, channels):
    model = imagenet_alexnet(groups=groups, num_outputs=1000)
    self.assertEqual(by_shape.parameters(model, IMAGENET), parameters)
    self.assertEqual(by_shape.multiply_adds(model, IMAGENET), multiply_adds)
    maps = by_shape.maps(model, IMAGENET)
    sides = (55, 27, 13, 13, 13)
    for i, (side, count) in enumerate(zip(sides, channels, strict=True), 1):
      self.assertEqual(maps[f'conv{i}'], (side, side, count))
    self.assertEqual((maps['fc6'], maps['fc7']), ((4096,), (4096,)))
    self.assertEqual(maps['head'], (1000,))

  def test_cifar_form(self):
    # By hand: each kernel with its biases.
    sizes = ((363, 64), (1600, 192), (1728, 384), (3456, 256), (2304, 256), (256, 10))
    model = cifar_alexnet()
    found = by_shape.parameters(model, CIFAR)
    self.assertEqual(found, sum(inputs * n + n for inputs, n in sizes))
    self.assertEqual(f'{found / 1e6:.2f}', '2.47')
    maps = by_shape.maps(model, CIFAR)
    sides = [maps[f'conv{i}'][0] for i in range(1, 6)]
    self.assertEqual(sides, [8, 4, 2, 2, 2])
    # Of 8 x 8 pixels as many are left.
    small = by_shape.maps(cifar_alexnet(stride=1), (8, 8, 1))
    self.assertEqual([small[f'conv{i}'][0] for i in range(1, 6)], sides)

  def test_width_is_rounded_to_whole_groups(self):
    maps = by_shape.maps(imagenet_alexnet(groups=2, width=0.02), IMAGENET)
    self.assertEqual([maps[f'conv{i}'][-1] for i in range(1, 6)], [2, 6, 8, 8, 6])
    self.assertEqual(maps['fc7'], (82,))

  @parameterized.parameters((1, False), (2, True))
  def test_equals_torch(self, groups, norm):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    functional = torch.nn.functional
    # 97 pixels leave 2 x 2 of the last map, which are averaged to 6 x 6.
    model = imagenet_alexnet(groups=groups, norm=norm, width=0.05, num_outputs=3)
    x = jax.random.normal(jax.random.key(0), (2, 97, 97, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(1), x, train=False))
    rng = np.random.default_rng(2)
    draw = lambda s: jnp.asarray(0.2 * rng.normal(size=s.shape), s.dtype)
    variables = jax.tree.map(draw, shapes)
    found = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)

    tensor = lambda a: torch.tensor(np.array(a))
    p = jax.tree.map(tensor, variables['params'])
    # Stride, padding and groups as in the paper.
    settings = ((4, 2, 1), (1, 2, groups), (1, 1, 1), (1, 1, groups), (1, 1, groups))
    h = tensor(x).permute(0, 3, 1, 2)
    for i, (stride, padding, parts) in enumerate(settings, 1):
      layer = p[f'conv{i}']
      kernel = layer['kernel'].permute(3, 2, 0, 1)
      h = functional.conv2d(h, kernel, layer['bias'], stride, padding, 1, parts).relu()
      if norm and i < 3:
        h = functional.local_response_norm(h, 5, alpha=1e-4, beta=0.75, k=2.0)
      if i in (1, 2, 5):
        h = functional.max_pool2d(h, 3, 2)
    h = functional.adaptive_avg_pool2d(h, 6).permute(0, 2, 3, 1).flatten(1)
    for name in ('fc6', 'fc7', 'head'):
      h = functional.linear(h, p[name]['kernel'].T, p[name]['bias'])
      h = h if name == 'head' else h.relu()
    # Eight layers of sums of up to 700 products.
    scale = float(h.abs().max())
    np.testing.assert_allclose(found, h.numpy(), atol=1e-5 * scale)

  def test_biases_of_the_paper_begin_at_one(self):
    model = cifar_alexnet(width=0.02, unit_biases=True, dense=(4, 4))
    params = jax.jit(lambda: model.init(jax.random.key(0), jnp.zeros((1, *CIFAR)),
                                        train=False))()['params']  # fmt: skip
    means = {name: float(layer['bias'].mean()) for name, layer in params.items()}
    ones = {name for name, mean in means.items() if mean == 1}
    self.assertEqual(ones, {'conv2', 'conv4', 'conv5', 'fc6', 'fc7'})
    self.assertEqual({means[name] for name in means.keys() - ones}, {0.0})

  def test_dropout_is_of_the_dense_layers_in_training_alone(self):
    model = cifar_alexnet(width=0.02, dense=(50,), stride=1)
    x = jnp.ones((1, 8, 8, 1))
    variables = model.init(jax.random.key(0), x, train=False)
    kept = jax.tree.map(lambda p: jnp.full_like(p, 0.1), variables)

    @jax.jit
    def features(key):
      rngs = {'dropout': key}
      call = lambda train: model.apply(kept, x, train, method='features', rngs=rngs)
      return call(False), call(True)

    plain, dropped = map(np.asarray, features(jax.random.key(1)))
    zeros = (dropped == 0).sum()
    self.assertBetween(zeros, 10, 40)  # 25, deviation 3.5.
    np.testing.assert_allclose(dropped[dropped > 0], 2 * plain[dropped > 0], rtol=1e-6)

  def test_refuses(self):
    with self.assertRaisesRegex(ConfigError, 'groups=3 is not allowed'):
      imagenet_alexnet(groups=3)
    with self.assertRaisesRegex(ConfigError, 'width=0 is not allowed'):
      cifar_alexnet(width=0)
    with self.assertRaisesRegex(ConfigError, 'stride=0 is not allowed'):
      cifar_alexnet(stride=0)
    with self.assertRaisesRegex(ConfigError, 'Pooling window .* is not allowed'):
      by_shape.maps(cifar_alexnet(), (16, 16, 3))


if __name__ == '__main__':
  absltest.main()
