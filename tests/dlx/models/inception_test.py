"""GoogLeNet and BN-Inception: the papers' tables, and what a block computes."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.models.inception import Inception, bn_inception, cifar_googlenet, googlenet
from dlx.models.inception_tables import BN_INCEPTION, GOOGLENET, kept
from tests.dlx.models.by_shape import layers

# Table 1 of arXiv 1409.4842: output, parameters (K = 1024), multiply-adds (M).
TABLE = {
  'inception_3a': ((28, 28, 256), 159, 128),
  'inception_3b': ((28, 28, 480), 380, 304),
  'inception_4a': ((14, 14, 512), 364, 73),
  'inception_4b': ((14, 14, 512), 437, 88),
  'inception_4c': ((14, 14, 512), 463, 100),
  'inception_4d': ((14, 14, 528), 580, 119),
  'inception_4e': ((14, 14, 832), 840, 170),
  'inception_5a': ((7, 7, 832), 1072, 54),
  'inception_5b': ((7, 7, 1024), 1388, 71),
  'head': ((1000,), 1000, 1),
}
# By hand, of rows whose printed numbers do not follow from their widths.
MISPRINTS = {'inception_4c': (497.5, 99.9), 'inception_5a': (1018.0, 51.1)}
# Outputs of the table in the appendix of arXiv 1502.03167.
BN_TABLE = {
  'inception_3a': (28, 28, 256),
  'inception_3b': (28, 28, 320),
  'inception_3c': (14, 14, 576),
  'inception_4a': (14, 14, 576),
  'inception_4b': (14, 14, 576),
  'inception_4c': (14, 14, 576),
  'inception_4d': (14, 14, 576),
  'inception_4e': (7, 7, 1024),
  'inception_5a': (7, 7, 1024),
  'inception_5b': (7, 7, 1024),
}


class TableTest(parameterized.TestCase):
  def test_rows_of_googlenet(self):
    found = layers(googlenet(num_outputs=1000, stem='separable'), (224, 224, 3))
    first = [found['conv1_depthwise'], found['conv1']]
    # 2.7 K and 34 M.
    self.assertEqual(sum(layer.weights for layer in first), 2712)
    self.assertEqual(sum(layer.multiply_adds for layer in first), 2712 * 112**2)
    self.assertEqual(found['conv1'].output, (112, 112, 64))
    second = [found['conv2'], found['conv3']]
    self.assertEqual(sum(layer.weights for layer in second), 112 * 1024)
    self.assertEqual(round(sum(layer.multiply_adds for layer in second) / 1e6), 360)
    self.assertEqual(found['conv3'].output, (56, 56, 192))
    for name, (output, thousands, millions) in TABLE.items():
      with self.subTest(name):
        layer = found[name]
        self.assertEqual(layer.output, output)
        thousands, millions = MISPRINTS.get(name, (thousands, millions))
        # The paper rounds either way, and by hand.
        self.assertAlmostEqual(layer.multiply_adds / 1e6, millions, delta=0.8)
        self.assertLess(abs(layer.weights / 1024 / thousands - 1), 0.02)

  def test_googlenet_does_1_5_billion_multiply_adds(self):
    model = googlenet(num_outputs=1000, stem='separable', auxiliary=())
    self.assertEqual(round(layers(model, (224, 224, 3))[''].multiply_adds / 1e8), 15)

  @parameterized.parameters(
    # Known of Caffe's bvlc_googlenet, without and with its auxiliary heads.
    (lambda: googlenet(num_outputs=1000, auxiliary=()), (224, 224, 3), 6998552),
    (lambda: googlenet(num_outputs=1000), (224, 224, 3), 13378280),
    # By hand, below.
    (lambda: bn_inception(num_outputs=1000, auxiliary=()), (224, 224, 3), 11188288),
    # kuangliu/pytorch-cifar has 6166250, of which 7904 are biases before batch norm.
    (cifar_googlenet, (32, 32, 3), 6166250 - 7904),
  )
  def test_counts(self, make, image, expected):
    self.assertEqual(layers(make(), image)[''].params, expected)

  def test_counts_of_bn_inception_by_hand(self):
    def unit(inputs, outputs, size):
      return size**2 * inputs * outputs + 2 * outputs  # Scale and bias of batch norm.

    count = 7 * 7 * 24 + unit(24, 64, 1) + unit(64, 64, 1) + unit(64, 192, 3)
    inputs = 192
    for block in (block for stage in BN_INCEPTION for block in stage):
      count += unit(inputs, block.one, 1) + unit(inputs, block.project, 1)
      count += unit(inputs, block.three_reduce, 1)
      count += unit(block.three_reduce, block.three, 3)
      count += unit(inputs, block.wide_reduce, 1)
      count += unit(block.wide_reduce, block.wide, 3) + unit(block.wide, block.wide, 3)
      pooled = block.project or inputs
      inputs = block.one + block.three + block.wide + pooled
    self.assertEqual(inputs, 1024)
    self.assertEqual(count + 1024 * 1000 + 1000, 11188288)

  def test_shapes_of_bn_inception(self):
    found = layers(bn_inception(num_outputs=1000), (224, 224, 3))
    self.assertEqual({name: found[name].output for name in BN_TABLE}, BN_TABLE)
    # Both auxiliary heads read maps of 14 x 14, pooled to 4 x 4.
    for name in ('auxiliary_4a', 'auxiliary_4d'):
      self.assertEqual(found[f'{name}/conv'].output, (4, 4, 128))
      self.assertEqual(found[f'{name}/hidden'].output, (1024,))
      self.assertEqual(found[name].output, (1000,))

  def test_shapes_of_the_cifar_form(self):
    found = layers(cifar_googlenet(), (32, 32, 3))
    shapes = [found[f'inception_{name}'].output for name in ('3b', '4e', '5b')]
    self.assertEqual(shapes, [(32, 32, 480), (16, 16, 832), (8, 8, 1024)])

  def test_widths_are_scaled_and_never_nothing(self):
    found = layers(cifar_googlenet(width=1 / 64), (8, 8, 1))
    self.assertEqual(found['conv1'].output, (8, 8, 3))
    # 3a: 1, 2, 0.5 and 0.5, of which the last two are 1.
    self.assertEqual(found['inception_3a'].output, (8, 8, 1 + 2 + 1 + 1))
    self.assertEqual(found['inception_3a/one'].output, (8, 8, 1))


class KeptTest(absltest.TestCase):
  def test_the_first_and_the_last(self):
    names = lambda stages: [[block.name for block in stage] for stage in stages]
    found = names(kept(GOOGLENET, (1, 3, 2)))
    self.assertEqual(found, [['3b'], ['4a', '4b', '4e'], ['5a', '5b']])
    self.assertEqual(kept(BN_INCEPTION, (3, 5, 2)), BN_INCEPTION)

  def test_refuses_what_is_not_there(self):
    for counts in ((2, 5), (3, 5, 2), (0, 5, 2)):
      with self.assertRaisesRegex(ConfigError, 'blocks=.* is not allowed'):
        kept(GOOGLENET, counts)


class HeadsTest(parameterized.TestCase):
  def test_an_auxiliary_head_trains_what_lies_before_it(self):
    stages = kept(GOOGLENET, (1, 2, 1))
    model = cifar_googlenet(
      stages=stages, width=1 / 32, auxiliary=('4a',), auxiliary_pool=(2, 2)
    )
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    variables = model.init(jax.random.key(1), x, train=False)

    @jax.jit
    def slopes(params):
      outputs = lambda params: model.apply(
        {**variables, 'params': params}, x, train=False
      )
      square = lambda found: jnp.square(found).sum()
      of_auxiliary = jax.grad(lambda p: square(outputs(p).auxiliary['4a']))(params)
      return of_auxiliary, jax.grad(lambda p: square(outputs(p).logits))(params)

    auxiliary, final = slopes(variables['params'])
    moved = lambda tree: any(bool(jnp.any(x != 0)) for x in jax.tree.leaves(tree))
    for name in ('conv1', 'inception_3b', 'inception_4a'):
      self.assertTrue(moved(auxiliary[name]) and moved(final[name]), name)
    for name in ('inception_4e', 'inception_5b', 'head'):
      self.assertFalse(moved(auxiliary[name]), name)
      self.assertTrue(moved(final[name]), name)
    self.assertTrue(moved(auxiliary['auxiliary_4a']))
    self.assertFalse(moved(final['auxiliary_4a']))

  def test_refuses(self):
    key = jax.random.key(0)
    init = lambda model: jax.eval_shape(
      lambda: model.init(key, jnp.zeros((1, 8, 8, 1)), train=False)
    )
    with self.assertRaisesRegex(
      ConfigError, "stem='small' is not allowed: must be one"
    ):
      init(Inception(GOOGLENET, stem='small'))
    with self.assertRaisesRegex(
      ConfigError, r'window \(5, 5\) is not allowed on 4 x 4'
    ):
      init(cifar_googlenet(auxiliary=('4a',)))


def torch_net(torch, params, stages, x_BCHW, *, double, batch_norm, auxiliary_pool):
  """(logits, {block: auxiliary logits}) in training, without dropout."""
  functional = torch.nn.functional

  def tensor(x):
    return torch.tensor(np.array(x))

  def conv(h, p, stride=1, groups=1):
    w = tensor(p['kernel']).permute(3, 2, 0, 1)
    bias = tensor(p['bias']) if 'bias' in p else None
    return functional.conv2d(h, w, bias, stride, w.shape[-1] // 2, groups=groups)

  def unit(h, p, stride=1):
    h = conv(h, p['conv'], stride)
    if batch_norm:
      scale, bias = tensor(p['norm']['scale']), tensor(p['norm']['bias'])
      h = functional.batch_norm(h, None, None, scale, bias, training=True, eps=1e-5)
    return h.relu()

  def halved(h):
    return functional.max_pool2d(h, 3, 2, ceil_mode=True)

  def responses(h):
    return h if batch_norm else functional.local_response_norm(h, 5)

  def linear(h, p):
    return functional.linear(h, tensor(p['kernel']).T, tensor(p['bias']))

  def block(h, p, row):
    branches = [unit(h, p['one'], row.stride)] if row.one else []
    branches.append(unit(unit(h, p['three_reduce']), p['three'], row.stride))
    y = unit(h, p['wide_reduce'])
    y = unit(y, p['wide_1']) if double else y
    branches.append(unit(y, p['wide'], row.stride))
    if row.stride == 2:
      y = halved(h)
    elif row.pool == 'max':
      y = functional.max_pool2d(h, 3, 1, 1)
    else:
      y = functional.avg_pool2d(h, 3, 1, 1)
    branches.append(unit(y, p['pool']) if row.project else y)
    return torch.cat(branches, 1)

  h = x_BCHW
  if 'conv1_depthwise' in params:
    h = conv(h, params['conv1_depthwise'], 2, groups=h.shape[1])
    h = unit(h, params['conv1'])
  else:
    h = unit(h, params['conv1'], 2)
  h = responses(halved(h))
  h = unit(unit(h, params['conv2']), params['conv3'])
  h = halved(responses(h))
  auxiliary = {}
  for n, rows in enumerate(stages):
    if n and stages[n - 1][-1].stride == 1:
      h = halved(h)
    for row in rows:
      h = block(h, params[f'inception_{row.name}'], row)
      if (head := params.get(f'auxiliary_{row.name}')) is not None:
        y = unit(functional.avg_pool2d(h, *auxiliary_pool), head['conv'])
        y = y.permute(0, 2, 3, 1).flatten(1)  # Units in our order.
        auxiliary[row.name] = linear(linear(y, head['hidden']).relu(), head['head'])
  return linear(h.mean((2, 3)), params['head']), auxiliary


class TorchTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('googlenet', googlenet, kept(GOOGLENET, (1, 2, 1))),
    ('bn_inception', bn_inception, kept(BN_INCEPTION, (2, 2, 1))),
  )
  def test_equals(self, make, stages):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    batch_norm = make is bn_inception
    fields = {'dropout': 0.0, 'auxiliary_dropout': 0.0, 'auxiliary_pool': (3, 2)}
    model = make(stages=stages, width=1 / 16, auxiliary=('4a',), **fields)
    x = jax.random.normal(jax.random.key(0), (2, 96, 96, 3))

    @jax.jit
    def run(x):
      variables = model.init(jax.random.key(1), x, train=False)
      # Biases and scales other than 0 and 1.
      params = jax.tree.map(
        lambda p: p + 0.1 * jax.random.normal(jax.random.key(2), p.shape),
        variables['params'],
      )
      outputs, _ = model.apply(
        {**variables, 'params': params}, x, train=True, mutable=['batch_stats']
      )
      return params, outputs

    params, outputs = run(x)
    logits, auxiliary = torch_net(
      torch,
      params,
      stages,
      torch.tensor(np.array(x)).permute(0, 3, 1, 2),
      double=batch_norm,
      batch_norm=batch_norm,
      auxiliary_pool=(3, 2),
    )
    self.assertEqual([*outputs.auxiliary], [*auxiliary])
    # 20 layers of 9 to 150 products; batch norm divides by deviations of 18 values.
    close = {'rtol': 1e-3, 'atol': 1e-3} if batch_norm else {'rtol': 1e-4, 'atol': 1e-5}
    np.testing.assert_allclose(outputs.logits, logits.numpy(), **close)
    np.testing.assert_allclose(outputs.auxiliary['4a'], auxiliary['4a'], **close)


if __name__ == '__main__':
  absltest.main()
