"""LeNet: counts and connections of the paper, its table, values by other means."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.models import lenet
from dlx.models.lenet import CONNECTIONS, LeNet, LeNet5, TableConv, codes
from tests.dlx.models import by_shape

IMAGE = (32, 32, 1)
MAPS = {
  'c1': (28, 28, 6),
  's2': (14, 14, 6),
  'c3': (10, 10, 16),
  's4': (5, 5, 16),
  'c5': (120,),
  'f6': (84,),
}


def sizes(params):
  count = lambda layer: sum(int(np.prod(x.shape)) for x in jax.tree.leaves(layer))
  return {name: count(layer) for name, layer in params.items()}


class LeNet5Test(parameterized.TestCase):
  def test_parameters_and_connections_are_those_of_the_paper(self):
    shapes = jax.eval_shape(
      lambda: LeNet5().init(jax.random.key(0), jnp.zeros((1, *IMAGE)), train=False)
    )
    params = shapes['params']
    wanted = {'c1': 156, 's2': 12, 'c3': 1516, 's4': 32, 'c5': 48120, 'f6': 10164}
    self.assertEqual(sizes(params), wanted)
    self.assertEqual(by_shape.parameters(LeNet5(), IMAGE), 60000)
    maps = by_shape.maps(LeNet5(), IMAGE)
    self.assertEqual(maps, MAPS)
    # A parameter of a map is a connection at each of its places; of the pools the
    # coefficient is one for each of four inputs. With the output: 340,908 in all.
    places = {name: int(np.prod(shape[:-1])) for name, shape in maps.items()}
    found = {name: wanted[name] * places[name] for name in ('c1', 'c3', 'c5', 'f6')}
    found |= {name: int(np.prod(maps[name])) * 5 for name in ('s2', 's4')}
    self.assertEqual(
      found,
      {'c1': 122304, 's2': 5880, 'c3': 151600, 's4': 2000, 'c5': 48120, 'f6': 10164},
    )
    self.assertEqual(sum(found.values()) + codes(10).size, 340908)

  def test_the_table(self):
    # By the rows of Table 1: each map of s2 is read by ten of c3.
    read = [sum(i in inputs for inputs in CONNECTIONS) for i in range(6)]
    self.assertEqual(read, [10] * 6)
    self.assertEqual([len(x) for x in CONNECTIONS], [3] * 6 + [4] * 9 + [6])
    self.assertLen(set(CONNECTIONS), 16)
    x = jax.random.normal(jax.random.key(0), (1, 5, 5, 6))
    layer = TableConv(CONNECTIONS)
    params = layer.init(jax.random.key(1), x)

    @jax.jit
    def slopes(x):
      return jax.jacrev(lambda x: layer.apply(params, x)[0, 0, 0])(x)

    seen = np.abs(np.asarray(slopes(x))).sum((1, 2, 3)) > 0  # [outputs, inputs]
    wanted = [[i in inputs for i in range(6)] for inputs in CONNECTIONS]
    np.testing.assert_array_equal(seen, wanted)

  def test_scaled_tanh(self):
    x = jnp.array([-1.0, 0.0, 1.0, 100.0])
    # The paper's constants: f(1) = 1 to 5 digits, the limit is 1.7159.
    found = lenet.scaled_tanh(x)
    np.testing.assert_allclose(found, [-1, 0, 1, 1.7159], atol=1e-4)

  def test_codes_are_apart(self):
    found = codes(26)
    self.assertEqual(found.shape, (26, 84))
    np.testing.assert_array_equal(np.abs(found), 1)
    np.testing.assert_array_equal(found[:10], codes(10))
    apart = (found[:, None] != found[None]).sum(-1)
    self.assertGreaterEqual(apart[~np.eye(26, dtype=bool)].min(), 8)

  def test_equals_numpy(self):
    model = LeNet5(num_outputs=3)
    x = jax.random.normal(jax.random.key(0), (2, *IMAGE))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(1), x, train=False))
    rng = np.random.default_rng(2)
    # Every layer matters: weights as drawn by the model leave its last units near 0.
    draw = lambda s: jnp.asarray(0.2 * rng.normal(size=s.shape), s.dtype)
    variables = jax.tree.map(draw, shapes)
    p = jax.tree.map(np.asarray, variables['params'])
    squash = lambda h: 1.7159 * np.tanh(2 / 3 * h)

    def windows(h, size, stride):  # [B, H, W, size, size, C]
      view = np.lib.stride_tricks.sliding_window_view(h, (size, size), (1, 2))
      return np.moveaxis(view[:, ::stride, ::stride], 3, -1)

    def subsample(h, layer):
      total = windows(h, 2, 2).sum((3, 4))
      return squash(total * layer['scale'] + layer['bias'])

    h = np.tensordot(windows(np.asarray(x), 5, 1), p['c1']['kernel'], 3)
    h = subsample(squash(h + p['c1']['bias']), p['s2'])
    maps, used = [], 0
    for inputs in CONNECTIONS:
      kernel = p['c3']['kernel'][:, :, used : used + len(inputs)]
      maps.append(np.tensordot(windows(h[..., list(inputs)], 5, 1), kernel, 3))
      used += len(inputs)
    h = subsample(squash(np.stack(maps, -1) + p['c3']['bias']), p['s4'])
    h = squash(h.reshape(2, -1) @ p['c5']['kernel'] + p['c5']['bias'])
    h = squash(h @ p['f6']['kernel'] + p['f6']['bias'])
    wanted = -((h[:, None] - codes(3)) ** 2).sum(-1)
    apply = jax.jit(lambda v, x: model.apply(v, x, train=False))
    # Sums of 84 squares of order 1, each of sums of up to 400 products.
    np.testing.assert_allclose(apply(variables, x), wanted, rtol=1e-4)

  def test_weights_begin_within_the_bounds_of_the_paper(self):
    shape = jnp.zeros((1, *IMAGE))
    params = LeNet5().init(jax.random.key(0), shape, train=False)['params']
    fan_in = {'c1': 25, 'c3': 150, 'c5': 400, 'f6': 120}
    for name in ('c1', 'c5', 'f6'):
      largest = float(jnp.abs(params[name]['kernel']).max())
      self.assertBetween(largest, 0.9 * 2.4 / fan_in[name], 2.4 / fan_in[name])
    # Of c3 those of the first map, which reads three, and of the last, which reads six.
    kernel = np.abs(params['c3']['kernel'])
    self.assertBetween(kernel[..., :3].max(), 0.9 * 2.4 / 75, 2.4 / 75)
    self.assertBetween(kernel[..., -6:].max(), 0.9 * 2.4 / 150, 2.4 / 150)

  def test_refuses_other_sizes(self):
    for model, side in ((LeNet5(), 28), (LeNet(), 8)):
      image = jnp.zeros((1, side, side, 1))
      with self.assertRaisesRegex(ConfigError, f'Images of {side} x {side} are not'):
        model.init(jax.random.key(0), image, train=False)


class LeNetTest(absltest.TestCase):
  def test_parameters_and_sizes(self):
    self.assertEqual(by_shape.parameters(LeNet(), IMAGE), 61706)
    maps = by_shape.maps(LeNet(), IMAGE)
    kept = {name: MAPS[name] for name in ('c1', 'c3', 'c5', 'f6')}
    self.assertEqual(maps, {**kept, 'head': (10,)})
    # c1 28^2 x 150, c3 10^2 x 2400, then 400 x 120, 120 x 84, 84 x 10.
    self.assertEqual(by_shape.multiply_adds(LeNet(), IMAGE), 416520)

  def test_equals_torch(self):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    model = LeNet(channels=(2, 3), dense=(5, 4), num_outputs=3)
    x = jax.random.normal(jax.random.key(0), (2, 16, 20, 2))
    variables = model.init(jax.random.key(1), x, train=False)
    tensor = lambda a: torch.tensor(np.array(a))
    p = jax.tree.map(tensor, variables['params'])
    functional = torch.nn.functional
    h = tensor(x).permute(0, 3, 1, 2)
    for name in ('c1', 'c3'):
      kernel = p[name]['kernel'].permute(3, 2, 0, 1)
      h = functional.max_pool2d(functional.conv2d(h, kernel, p[name]['bias']).relu(), 2)
    h = h.permute(0, 2, 3, 1).flatten(1)  # By rows, columns, channels, as here.
    for name in ('c5', 'f6', 'head'):
      h = functional.linear(h, p[name]['kernel'].T, p[name]['bias'])
      h = h if name == 'head' else h.relu()
    found = model.apply(variables, x, train=False)
    np.testing.assert_allclose(found, h.numpy(), rtol=1e-5, atol=1e-5)


if __name__ == '__main__':
  absltest.main()
