"""VGG: counts and sizes of the paper and of libraries, values as torch's layers."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.models.vgg import STAGES, cifar_vgg, imagenet_vgg
from tests.dlx.models import by_shape

IMAGENET, CIFAR = (224, 224, 3), (32, 32, 3)


class VGGTest(parameterized.TestCase):
  # Known from a library that publishes weights; the paper's table has 133, 133, 138
  # and 144 million. Multiply-adds in thousands of millions, likewise.
  @parameterized.parameters(
    (11, 132863336, 132868840, 7.61),
    (13, 133047848, 133053736, 11.31),
    (16, 138357544, 138365992, 15.47),
    (19, 143667240, 143678248, 19.63),
  )
  def test_imagenet_form(self, depth, plain, normed, multiply_adds):
    model = imagenet_vgg(depth, num_outputs=1000)
    self.assertEqual(by_shape.parameters(model, IMAGENET), plain)
    found = by_shape.multiply_adds(model, IMAGENET) / 1e9
    self.assertEqual(round(found, 2), multiply_adds)
    with_norm = imagenet_vgg(depth, num_outputs=1000, batch_norm=True, conv_bias=True)
    self.assertEqual(by_shape.parameters(with_norm, IMAGENET), normed)
    # Batch norm has two numbers a channel, and takes the place of one bias.
    channels = sum(
      count * width for count, width in zip(STAGES[depth], (64, 128, 256, 512, 512),
                                            strict=True)
    )  # fmt: skip
    self.assertEqual(normed - plain, 2 * channels)
    unbiased = imagenet_vgg(depth, num_outputs=1000, batch_norm=True)
    self.assertEqual(by_shape.parameters(unbiased, IMAGENET), normed - channels)
    maps = by_shape.maps(model, IMAGENET)
    convs = [name for name in maps if name.startswith('conv')]
    self.assertLen(convs, depth - 3)
    for i, (side, width) in enumerate(
      ((224, 64), (112, 128), (56, 256), (28, 512), (14, 512))
    ):
      self.assertEqual(maps[f'conv{i + 1}_{STAGES[depth][i]}'], (side, side, width))
    self.assertEqual(
      (maps['fc6'], maps['fc7'], maps['head']), ((4096,), (4096,), (1000,))
    )

  def test_form_c(self):
    # Table 2 of the paper: 134 million, 138 of D. By hand, a kernel of 1 x 1 in place
    # of 3 x 3 has 8 weights less for each pair of channels: of 256, 512 and 512.
    fewer = 8 * (256**2 + 2 * 512**2)
    model = imagenet_vgg(16, num_outputs=1000, third_kernel=1)
    self.assertEqual(by_shape.parameters(model, IMAGENET), 138357544 - fewer)
    self.assertEqual(138357544 - fewer, 133638952)
    saved = 8 * (256**2 * 56**2 + 512**2 * 28**2 + 512**2 * 14**2)
    whole = by_shape.multiply_adds(imagenet_vgg(16, num_outputs=1000), IMAGENET)
    self.assertEqual(by_shape.multiply_adds(model, IMAGENET), whole - saved)
    maps, same = (
      by_shape.maps(imagenet_vgg(16, third_kernel=size), IMAGENET) for size in (1, 3)
    )
    self.assertEqual(maps, same)
    shapes = jax.eval_shape(
      lambda: model.init(jax.random.key(0), jnp.zeros((1, *IMAGENET)), train=False)
    )['params']
    sides = {
      name: leaf['kernel'].shape[0]
      for name, leaf in shapes.items()
      if name.startswith('conv')
    }
    ones = [name for name, side in sides.items() if side == 1]
    self.assertCountEqual(ones, ['conv3_3', 'conv4_3', 'conv5_3'])
    self.assertEqual(set(sides.values()), {1, 3})

  # 14,728,266 and 20,040,522 with the biases of the convolutions.
  @parameterized.parameters((16, 14728266, 313.2), (19, 20040522, 398.1))
  def test_cifar_form(self, depth, parameters, millions):
    model = cifar_vgg(depth, conv_bias=True)
    self.assertEqual(by_shape.parameters(model, CIFAR), parameters)
    found = by_shape.multiply_adds(model, CIFAR) / 1e6
    self.assertEqual(round(found, 1), millions)
    maps = by_shape.maps(model, CIFAR)
    sides = [maps[f'conv{i}_1'][0] for i in range(1, 6)]
    self.assertEqual(sides, [32, 16, 8, 4, 2])
    late = cifar_vgg(depth, pools=(False, False, True, True, True))
    maps = by_shape.maps(late, (8, 8, 1))
    sides = [maps[f'conv{i}_1'][0] for i in range(1, 6)]
    self.assertEqual(sides, [8, 8, 8, 4, 2])

  @parameterized.parameters(False, True)
  def test_equals_torch(self, batch_norm):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    functional = torch.nn.functional
    # 40 pixels leave one entry, which is averaged to 7 x 7.
    model = imagenet_vgg(11, width=2, batch_norm=batch_norm, num_outputs=3)
    x = jax.random.normal(jax.random.key(0), (2, 40, 40, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(1), x, train=False))
    rng = np.random.default_rng(2)
    draw = lambda s: jnp.asarray(0.3 * rng.normal(size=s.shape), s.dtype)
    variables = jax.tree.map(draw, shapes)
    if batch_norm:  # Variances are above 0.
      variables['batch_stats'] = jax.tree.map(jnp.abs, variables['batch_stats'])
    found = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, x)

    variables = jax.tree.map(lambda a: torch.tensor(np.array(a)), variables)
    p, stats = variables['params'], variables.get('batch_stats')
    h = torch.tensor(np.array(x)).permute(0, 3, 1, 2)
    for i, count in enumerate((1, 1, 2, 2, 2), 1):
      for j in range(1, count + 1):
        layer = p[f'conv{i}_{j}']
        kernel = layer['kernel'].permute(3, 2, 0, 1)
        h = functional.conv2d(h, kernel, layer.get('bias'), padding=1)
        if batch_norm:
          name = f'norm{i}_{j}'
          h = functional.batch_norm(
            h, stats[name]['mean'], stats[name]['var'], p[name]['scale'],
            p[name]['bias'], eps=1e-5,
          )  # fmt: skip
        h = h.relu()
      h = functional.max_pool2d(h, 2)
    h = functional.adaptive_avg_pool2d(h, 7).permute(0, 2, 3, 1).flatten(1)
    for name in ('fc6', 'fc7', 'head'):
      h = functional.linear(h, p[name]['kernel'].T, p[name]['bias'])
      h = h if name == 'head' else h.relu()
    # Eleven layers of sums of up to 784 products; variances near 0 raise errors.
    scale = float(h.abs().max())
    np.testing.assert_allclose(found, h.numpy(), atol=1e-4 * scale)

  def test_refuses(self):
    with self.assertRaisesRegex(ConfigError, 'depth=12 is not allowed for VGG'):
      cifar_vgg(12)
    with self.assertRaisesRegex(ConfigError, 'Pooling window .* is not allowed'):
      by_shape.maps(cifar_vgg(11), (16, 16, 3))


if __name__ == '__main__':
  absltest.main()
