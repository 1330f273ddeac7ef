"""Layers in the order of the forward pass, as each family's own code has them."""

from absl.testing import absltest
import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.models.cnn import CNN
from dlx.models.forward_order import forward_order
from dlx.models.resnet import cifar_resnet

IMAGE = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)


class Backwards(nn.Module):
  """Layers whose names sort in the other order, one that is called twice, a scale."""

  @nn.compact
  def __call__(self, x):
    x = nn.Dense(2, name='z')(x)
    again = nn.Dense(2, name='y')
    x = nn.relu(again(x))
    x = nn.Dense(2, name='a')(again(x))
    return x * self.param('scale', nn.initializers.ones, (1, 2))


class ForwardOrderTest(absltest.TestCase):
  def test_cnn(self):
    found = forward_order(CNN((4, 4)), IMAGE, train=False)
    self.assertEqual(found, ('conv_0', 'norm_0', 'conv_1', 'norm_1', 'hidden', 'head'))

  def test_resnet(self):
    found = forward_order(cifar_resnet(8, width=2, dense=4), IMAGE, train=False)
    block = lambda i: [
      f'stage{i}_block1/{name}' for name in ('conv1', 'norm1', 'conv2', 'norm2')
    ]
    layers = [*block(1), *block(2), *block(3)]
    self.assertEqual(found, ('stem', 'stem_norm', *layers, 'hidden', 'head'))

  def test_a_shortcut_stands_where_it_is_called(self):
    net = cifar_resnet(8, width=2, shortcut='projection')
    found = forward_order(net, IMAGE, train=False)
    names = [x.split('/')[1] for x in found if x.startswith('stage2_block1')]
    self.assertEqual(names, ['conv1', 'norm1', 'conv2', 'skip', 'skip_norm', 'norm2'])

  def test_by_call_and_not_by_name_each_layer_once(self):
    found = forward_order(Backwards(), jax.ShapeDtypeStruct((1, 3), jnp.float32))
    # The module itself holds an array, and is called before its layers.
    self.assertEqual(found, ('', 'z', 'y', 'a'))


if __name__ == '__main__':
  absltest.main()
