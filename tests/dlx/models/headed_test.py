"""Heads by hand: layers, widths, dropout beside norms that stay as they are."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.models import headed
from dlx.models.cnn import CNN
from dlx.models.resnet import ResNet
from tests.same_bytes import same_bytes

SIZES = {'features': (4, 6), 'depth': 8, 'width': 2}
IMAGES = jnp.zeros((2, 8, 8, 3))


def init(net):
  return jax.eval_shape(lambda: net.init(jax.random.key(0), IMAGES, train=False))


class HeadedTest(parameterized.TestCase):
  @parameterized.parameters(
    # A CNN halves 8 x 8 twice: 2 x 2 x 6. A ResNet ends in 4 x width channels.
    ('cnn', {}, (24, 128)),
    ('cnn', {'pool': True, 'dense': 256}, (6, 256)),
    ('resnet', {}, (8, 128)),
    ('resnet', {'dense': None}, None),
  )
  def test_layers(self, name, fields, hidden):
    net = headed.net(name, headed.Head(**fields), 5, **SIZES)
    params = init(net)['params']
    shape = params['hidden']['kernel'].shape if 'hidden' in params else None
    self.assertEqual(shape, hidden)
    read = 8 if hidden is None else hidden[1]
    self.assertEqual(params['head']['kernel'].shape, (read, 5))

  def test_units_of_the_hidden_layer_are_dropped_and_no_others(self):
    net = lambda name: headed.net(name, headed.Head(dropout=0.7), 5, **SIZES)
    residual = net('resnet')
    self.assertEqual((residual.dense_dropout, residual.dropout), (0.7, 0.0))
    self.assertEqual(net('cnn').dropout, 0.7)

  def test_what_begins_anew(self):
    self.assertEqual(headed.Head().layers, ('hidden', 'head'))
    self.assertEqual(headed.Head(new=False).layers, ('head',))

  def test_refuses(self):
    with self.assertRaisesRegex(ConfigError, 'net=vit is not allowed: must be one of'):
      headed.net('vit', headed.Head(), 5, **SIZES)
    with self.assertRaisesRegex(ConfigError, 'head.dense=None is not allowed for cnn'):
      headed.net('cnn', headed.Head(dense=None), 5, **SIZES)
    for fields in ({'dense': 0}, {'dropout': 1.0}):
      with self.assertRaisesRegex(ConfigError, 'Head.d.* is not allowed'):
        headed.Head(**fields)

  @parameterized.parameters(
    (CNN((3,), dense=16, dropout=0.5),),
    (ResNet((1,), (2,), dense=16, dense_dropout=0.5, zero_init=False),),
  )
  def test_frozen_norms_keep_their_statistics_while_units_are_dropped(self, net):
    x = jax.random.normal(jax.random.key(1), (4, 6, 6, 2))
    variables = jax.jit(lambda key: net.init(key, x, train=False))(jax.random.key(0))

    @jax.jit
    def train(variables, seed):
      return net.clone(frozen_norms=True).apply(
        variables,
        x,
        train=True,
        rngs={'dropout': jax.random.key(seed)},
        mutable=['batch_stats'],
      )

    logits, new = train(variables, 0)
    self.assertTrue(same_bytes(new['batch_stats'], variables['batch_stats']))
    self.assertFalse(np.array_equal(logits, train(variables, 1)[0]))
    # Of a unit the mean over dropout is that of evaluation: few units, many seeds.
    seeds = jnp.arange(400)
    found = jax.jit(jax.vmap(lambda s: train(variables, s)[0]))(seeds)
    plain = jax.jit(lambda v: net.apply(v, x, train=False))(variables)
    error = np.std(found, axis=0) / np.sqrt(len(seeds))
    np.testing.assert_array_less(abs(found.mean(0) - plain), 5 * error + 1e-6)


if __name__ == '__main__':
  absltest.main()
