"""Pre-activation, wide nets and the four forms: sizes of the papers, and the maths."""

import functools

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.layers.convolution import Conv
from dlx.layers.normalisation import BatchNorm
from dlx.models.resnet import (
  PreactivationBlock,
  ResidualBlock,
  cifar_resnet,
  imagenet_resnet,
  mean_of_windows,
  wide_resnet,
)
from tests.dlx.models import by_shape

SMALL = (32, 32, 3)


def num_params(model, image=SMALL):
  return by_shape.parameters(model, image)


class SizesTest(parameterized.TestCase):
  # Billions of multiply-adds: Table 1 of arXiv 1512.03385.
  @parameterized.parameters((18, 1.8), (34, 3.6), (50, 3.8), (152, 11.3))
  def test_operations_as_published(self, depth, billions):
    model = imagenet_resnet(depth, num_outputs=1000, form='a')
    found = by_shape.multiply_adds(model, (224, 224, 3)) / 1e9
    self.assertAlmostEqual(found, billions, delta=0.07)

  # Table 5 of arXiv 1812.01187; parameters as libraries publish weights of them.
  @parameterized.parameters(
    ('a', 3.8, 25557032),
    ('b', 4.1, 25557032),
    ('c', 4.3, 25576264),
    ('d', 4.3, 25576264),
  )
  def test_forms(self, form, billions, params):
    model = imagenet_resnet(50, num_outputs=1000, form=form)
    found = by_shape.multiply_adds(model, (224, 224, 3)) / 1e9
    self.assertAlmostEqual(found, billions, delta=0.07)
    self.assertEqual(num_params(model, (224, 224, 3)), params)

  # Table 4 of arXiv 1605.07146 and its text; millions.
  @parameterized.parameters(
    (40, 1, '0.6'),
    (40, 2, '2.2'),
    (40, 4, '8.9'),
    (16, 4, '2.7'),
    (16, 8, '11.0'),
    (22, 8, '17.2'),
    (28, 10, '36.5'),
    (28, 12, '52.5'),
  )
  def test_wide(self, depth, widen, millions):
    found = num_params(wide_resnet(depth, widen))
    self.assertEqual(f'{found / 1e6:.1f}', millions)

  def test_wide_to_the_last_parameter(self):
    self.assertEqual(num_params(wide_resnet(28, 10)), 36479194)
    self.assertAlmostEqual(
      by_shape.multiply_adds(wide_resnet(28, 10), SMALL) / 1e9, 5.2, 1
    )

  # arXiv 1603.05027 names nets of 1.7 M parameters at 110 and 164 layers.
  @parameterized.parameters((110, False, '1.7'), (164, True, '1.7'))
  def test_preactivation(self, depth, bottleneck, millions):
    model = cifar_resnet(depth, bottleneck=bottleneck, preactivation=True)
    self.assertEqual(f'{num_params(model) / 1e6:.1f}', millions)

  def test_bottlenecks_by_hand(self):
    def by_hand(n):
      before, total = 16, 27 * 16
      for narrow in (16, 32, 64):
        wide = 4 * narrow
        total += before * wide  # The projection.
        for inputs in [before] + [wide] * (n - 1):
          total += 2 * (inputs + 2 * narrow)
          total += inputs * narrow + 9 * narrow * narrow + narrow * wide
        before = wide
      return total + 2 * 256 + 256 * 10 + 10

    model = cifar_resnet(29, bottleneck=True, preactivation=True)
    self.assertEqual(num_params(model), by_hand(3))
    self.assertEqual(f'{by_hand(111) / 1e6:.1f}', '10.3')  # 1001 layers.

  def test_refuses_other_depths(self):
    with self.assertRaisesRegex(ConfigError, 'must be 6 n . 4 with n at least 1'):
      wide_resnet(20, 4)
    with self.assertRaisesRegex(ConfigError, 'widen=0 is not allowed'):
      wide_resnet(28, 0)
    with self.assertRaisesRegex(ConfigError, 'of bottlenecks: must be 9 n . 2'):
      cifar_resnet(110 + 6, bottleneck=True)
    with self.assertRaisesRegex(ConfigError, 'form=e is not allowed'):
      imagenet_resnet(50, form='e')


def conv(x, kernel, stride=1):
  pad = kernel.shape[0] // 2
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (stride, stride),
    [(pad, pad)] * 2,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


def norm_relu(x, p):
  centred = x - x.mean((0, 1, 2), keepdims=True)
  x = centred / jnp.sqrt(jnp.square(centred).mean((0, 1, 2), keepdims=True) + 1e-5)
  return jax.nn.relu(x * p['scale'][None, None, None] + p['bias'][None, None, None])


def wide_by_hand(p, x, blocks):
  """Figure 1 of arXiv 1605.07146, in training: B(3, 3) with projections."""
  h = conv(x, p['stem']['kernel'])
  for i in range(1, 4):
    for j in range(1, blocks + 1):
      q, stride = p[f'stage{i}_block{j}'], 2 if i > 1 and j == 1 else 1
      a = norm_relu(h, q['norm1'])
      y = norm_relu(conv(a, q['conv1']['kernel'], stride), q['norm2'])
      y = conv(y, q['conv2']['kernel'])
      carried = conv(a, q['skip']['kernel'], stride) if 'skip' in q else h
      h = carried + y
  out = norm_relu(h, p['last_norm']).mean((1, 2))
  return out @ p['head']['kernel'] + p['head']['bias'][None]


def random_variables(model, x):
  variables = jax.eval_shape(functools.partial(model.init, train=False), KEY, x)
  rng = np.random.default_rng(0)
  draw = lambda s: jnp.asarray(rng.normal(size=s.shape) * 0.3 + 0.1, s.dtype)
  return {
    'params': jax.tree.map(draw, variables['params']),
    'batch_stats': jax.tree.map(lambda s: jnp.ones(s.shape), variables['batch_stats']),
  }


KEY = jax.random.key(0)


class MathsTest(absltest.TestCase):
  def test_a_wide_net_is_that_of_the_paper(self):
    model = wide_resnet(16, 2, width=2)
    x = jax.random.normal(KEY, (3, 8, 8, 3))
    variables = random_variables(model, x)

    @jax.jit
    def both(variables, x):
      out = model.apply(variables, x, train=True, mutable=['batch_stats'])[0]
      return out, wide_by_hand(variables['params'], x, 2)

    found, wanted = both(variables, x)
    # Ten norms of 12 to 192 values one after the other.
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-4)

  def test_dropout_is_of_training_alone_and_lies_between_the_convolutions(self):
    block = lambda train: PreactivationBlock(
      channels=4,
      stride=1,
      bottleneck=False,
      shortcut='pad',
      skip=True,
      zero_init=False,
      conv=recorder,
      norm=lambda **kw: lambda x: x,
      dropout=0.5,
      train=train,
    )
    seen = []

    def recorder(width, size, strides, **kw):
      def call(x):
        seen.append(x)
        return jnp.ones((*x.shape[:3], width))

      return call

    x = jnp.ones((2, 16, 16, 4))
    block(True).apply({}, x, rngs={'dropout': KEY})
    first, second = seen
    np.testing.assert_array_equal(first, 1)
    self.assertEqual(set(np.unique(second)), {0.0, 2.0})
    self.assertBetween(float((second == 0).mean()), 0.4, 0.6)
    seen.clear()
    block(False).apply({}, x)
    np.testing.assert_array_equal(seen[1], 1)

  def test_blocks_of_preactivation_that_start_at_zero_add_nothing(self):
    model = cifar_resnet(14, width=4, preactivation=True, zero_init=True)
    x = jax.random.normal(KEY, (2, 8, 8, 3))

    @jax.jit
    def run(x):
      variables = model.init(KEY, x, train=False)
      kept = {'capture_intermediates': True, 'mutable': ['intermediates']}
      return model.apply(variables, x, train=False, **kept)[1]['intermediates']

    seen = run(x)
    # The first block carries what is activated, the others the stream as it is.
    first = seen['stage1_block1']['__call__'][0]
    stem = jax.nn.relu(seen['stem']['__call__'][0] / np.sqrt(1 + 1e-5))
    np.testing.assert_allclose(first, stem, rtol=1e-6)
    np.testing.assert_array_equal(first, seen['stage1_block2']['__call__'][0])

  def test_a_mean_shortcut_sees_every_pixel_and_a_strided_one_a_quarter(self):
    for shortcut, share in (('projection', 0.25), ('average', 1.0)):
      block = ResidualBlock(
        channels=3,
        stride=2,
        bottleneck=False,
        shortcut=shortcut,
        skip=True,
        zero_init=True,  # Nothing but the shortcut counts.
        conv=functools.partial(Conv, use_bias=False),
        norm=functools.partial(BatchNorm, use_running_average=True),
      )

      def loss(x, block=block):
        return block.apply(block.init(KEY, x), x + 1).sum()

      slope = jax.jit(jax.grad(loss))(jnp.ones((1, 8, 8, 2)))
      self.assertEqual(float((jnp.abs(slope).sum(-1) > 0).mean()), share)

  def test_means_of_windows_at_odd_edges(self):
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    found = mean_of_windows(x, 2)[0, :, :, 0]
    np.testing.assert_array_equal(found, [[2.0, 3.5], [6.5, 8.0]])
    np.testing.assert_array_equal(mean_of_windows(x[:, :2, :2], 2), [[[[2.0]]]])


if __name__ == '__main__':
  absltest.main()
