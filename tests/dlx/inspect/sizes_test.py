"""Sizes, parameters, operations and receptive fields: by hand, and as XLA has them."""

from absl.testing import absltest, parameterized
import jax
from jax import lax
import numpy as np

from dlx.errors import ConfigError
from dlx.inspect import sizes
from dlx.inspect.sizes import Layer, Reach
from dlx.run import flops


def conv(kernel, features=1, stride=1, padding: str | int = 'same', **more):
  around = padding if isinstance(padding, str) else (padding, padding)
  pair = lambda n: (n, n)
  return Layer('conv', pair(kernel), pair(stride), around, features=features, **more)


def pool(kernel, stride):
  return Layer('pool', (kernel, kernel), (stride, stride))


# Araujo, Norris and Sim (2019), table: receptive field, effective stride, padding.
ALEXNET = [
  conv(11, 64, 4, 'valid'), pool(3, 2), conv(5, 192), pool(3, 2),
  conv(3, 384), conv(3, 384), conv(3, 256), pool(3, 2),
]  # fmt: skip
VGG_16 = [
  layer
  for repeats, features in ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
  for layer in [*[conv(3, features)] * repeats, pool(2, 2)]
]


class HandTest(parameterized.TestCase):
  def test_a_convolution(self):
    found = sizes.cost(conv(5, 10, padding=2), (32, 32, 3))
    self.assertEqual(found.output, (32, 32, 10))
    self.assertEqual((found.weights, found.biases, found.parameters), (750, 10, 760))
    self.assertEqual(found.flops_with_padding, 2 * 32 * 32 * 10 * 75)
    # Of 32 rows two miss two taps at either end, two miss one: 160 - 6 pairs.
    self.assertEqual(found.flops, 2 * 154**2 * 3 * 10)
    self.assertEqual(found.reach, (Reach(-2, 2, 1),) * 2)

  def test_a_dense_layer_on_a_picture(self):
    found = sizes.cost(Layer('dense', features=1000), (224, 224, 3))
    self.assertEqual((found.weights, found.biases), (150_528_000, 1000))
    self.assertEqual(found.flops, 2 * 150_528_000)
    self.assertIsNone(found.reach)
    self.assertEqual(sizes.cost(conv(3, 1000), (224, 224, 3)).parameters, 28_000)

  @parameterized.parameters(
    (7, 3, 1, (0, 0), 1, 5),
    (7, 3, 2, (0, 0), 1, 3),
    (7, 3, 3, (1, 1), 1, 3),
    (224, 11, 4, (2, 1), 1, 55),
    (7, 3, 1, (0, 0), 3, 1),
    (1, 1, 1, (0, 0), 1, 1),
  )
  def test_output_sizes(self, size, kernel, stride, padding, dilation, wanted):
    found = sizes.output_size(size, kernel, stride, padding, dilation)
    self.assertEqual(found, wanted)

  @parameterized.parameters(
    (ALEXNET, (6, 6, 256), 195, 32, 64), (VGG_16, (7, 7, 512), 212, 32, 90)
  )
  def test_published_receptive_fields(self, layers, output, size, stride, padding):
    side = 231 if layers is ALEXNET else 224
    last = sizes.stack(layers, (side, side, 3))[-1]
    self.assertEqual(last.output, output)
    assert last.reach is not None
    reach = last.reach[0]
    self.assertEqual((reach.size, reach.stride, -reach.low), (size, stride, padding))

  def test_vgg_16_has_its_parameters(self):
    head = [Layer('dense', features=n) for n in (4096, 4096, 1000)]
    costs = sizes.stack([*VGG_16, *head], (224, 224, 3))
    self.assertEqual(sum(x.parameters for x in costs), 138_357_544)

  def test_a_unit_sees_what_lies_inside(self):
    reach = Reach(-2, 2, 2)
    self.assertEqual(reach.seen(0, 8), (0, 2))
    self.assertEqual(reach.seen(2, 8), (2, 6))
    self.assertEqual(reach.seen(3, 8), (4, 7))

  def test_groups_and_no_bias(self):
    found = sizes.cost(conv(3, 8, groups=4, bias=False), (5, 5, 4))
    self.assertEqual((found.weights, found.biases), (9 * 8, 0))

  def test_texts(self):
    found = sizes.parse_layer('conv:3x5,features=8,stride=2,padding=same,bias=false')
    wanted = Layer('conv', (3, 5), (2, 2), 'same', features=8, bias=False)
    self.assertEqual(found, wanted)
    self.assertEqual(sizes.parse_layer('pool:2'), pool(2, 2))
    self.assertEqual(sizes.parse_layer('pool:3,stride=2,padding=1').padding, (1, 1))
    self.assertEqual(sizes.parse_layer('dense:7'), Layer('dense', features=7))
    self.assertEqual(sizes.parse_layer('global_pool').kind, 'global_pool')
    self.assertEqual(sizes.parse_shape('32X16x3'), (32, 16, 3))

  @parameterized.parameters(
    ('cnov:3', 'no kind of layer'),
    ('conv:3', 'features is missing'),
    ('conv:3,features=8,size=2', 'size is not known'),
    ('conv:3,kernel=5,features=8', 'given twice'),
    ('conv:0,features=8', 'at least 1'),
    ('conv:3,features=2x2', 'features=2x2'),
    ('pool:3x3x3', 'kernel=3x3x3'),
    ('conv:3,features=8,padding=full', 'same or valid'),
    ('conv:3,features=8,bias=1', 'true or false'),
    ('dense', 'features is missing'),
  )
  def test_refused_texts(self, text, message):
    with self.assertRaisesRegex(ConfigError, message):
      sizes.parse_layer(text)

  @parameterized.parameters(
    ([conv(9, padding='valid')], (8, 8, 1), 'must be no larger'),
    ([conv(3, groups=2)], (8, 8, 3), 'groups=2'),
    ([Layer('dense', features=3), conv(3)], (8, 8, 1), 'nothing but dense'),
    ([Layer('pol')], (8, 8, 1), 'no kind of layer'),
  )
  def test_refused_stacks(self, layers, shape, message):
    with self.assertRaisesRegex(ConfigError, message):
      sizes.stack(layers, shape)

  @parameterized.parameters('32', '', '3x', '0x3x3', '3x-1', '3 x 3')
  def test_refused_shapes(self, text):
    if text == '32':
      self.assertEqual(sizes.parse_shape(text), (32,))
      return
    with self.assertRaisesRegex(ConfigError, 'is no shape'):
      sizes.parse_shape(text)


class AgainstXlaTest(absltest.TestCase):
  def test_200_random_convolutions(self):
    rng = np.random.default_rng(0)
    for _ in range(200):
      draw = lambda low, high: tuple(int(n) for n in rng.integers(low, high, 2))
      groups = int(rng.integers(1, 3))
      shape = (*draw(9, 20), 2 * groups)
      padding = (sizes.SAME, sizes.VALID, draw(0, 3))[rng.integers(3)]
      layer = Layer(
        'conv', draw(1, 5), draw(1, 4), padding, draw(1, 3), 4 * groups, groups
      )
      pads = padding if isinstance(padding, str) else [(n, n) for n in padding]
      function = lambda x, w, layer=layer, pads=pads: lax.conv_general_dilated(
        x, w, layer.stride, pads.upper() if isinstance(pads, str) else pads,
        rhs_dilation=layer.dilation, feature_group_count=layer.groups,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      )  # fmt: skip
      x = jax.ShapeDtypeStruct((1, *shape), 'float32')
      taps = (*layer.kernel, shape[2] // groups, layer.features)
      w = jax.ShapeDtypeStruct(taps, 'float32')
      jaxpr = jax.make_jaxpr(function)(x, w)
      (eqn,) = jaxpr.eqns
      found = sizes.cost(layer, shape)
      self.assertEqual((1, *found.output), jaxpr.out_avals[0].shape, layer)
      self.assertEqual(found.flops, flops.count(jaxpr).total, layer)
      self.assertEqual(found.weights, np.prod(taps))
      low = tuple(-reach.low for reach in found.reach or ())
      self.assertEqual(low, tuple(low for low, _ in eqn.params['padding']), layer)


if __name__ == '__main__':
  absltest.main()
