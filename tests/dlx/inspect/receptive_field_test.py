"""The receptive field that is read from a jaxpr is the one that gradients measure."""

from absl.testing import absltest, parameterized
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from dlx.inspect import sizes, spans
from dlx.inspect.receptive_field import receptive_field
from dlx.inspect.sizes import Reach
from dlx.layers import pooling
from dlx.layers.convolution import conv_general_dilated

DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
PIXEL = Reach(0, 0, 1)


def conv(x, kernel, stride=1, padding='SAME', dilation=1, holes=1, own=True):
  """Of positive weights, so that no gradient is 0 by chance."""
  w = jnp.full((kernel, kernel, x.shape[-1], 2), 0.1)
  function = conv_general_dilated if own else lax.conv_general_dilated
  return function(
    x, w, (stride, stride), padding, (holes, holes), (dilation, dilation), DIMENSIONS
  )


def image(side=24, channels=1, batch=1):
  return jax.ShapeDtypeStruct((batch, side, side, channels), 'float32')


def field(function, shape=None):
  """By axis, of the first result."""
  return receptive_field(function, shape or image(), axes={0: (1, 2)})[0]


def measured(function, shape, unit, draws=4) -> np.ndarray:
  """Where the gradient of a unit is not 0, over some random inputs: [H, W]."""
  seen = np.zeros(shape.shape[1:3], bool)
  gradient = jax.jit(jax.grad(lambda x: function(x)[0, unit[0], unit[1]].sum()))
  for i in range(draws):
    x = jax.random.uniform(jax.random.key(i), shape.shape)
    seen |= np.asarray(gradient(x)[0] != 0).any(-1)
  return seen


NETS = {
  'valid': lambda x: conv(conv(x, 3, padding='VALID'), 5, 2, 'VALID'),
  'same, strides, a pool': lambda x: pooling.avg_pool(conv(conv(x, 3, 2), 3)),
  'dilated': lambda x: conv(conv(x, 3, dilation=2), 3, dilation=3),
  'odd padding': lambda x: conv(x, 4, 3, [(2, 1), (0, 3)], own=False),
  'residual': lambda x: x + conv(x, 3).sum(-1, keepdims=True),
  'pool that overlaps': lambda x: pooling.avg_pool(
    conv(x, 3), (3, 3), (2, 2), [(1, 1), (1, 1)]
  ),
  'window of lax': lambda x: lax.reduce_window(
    conv(x, 3), 0.0, lax.add, (1, 3, 2, 1), (1, 2, 2, 1), 'VALID'
  ),
  'transposed': lambda x: conv(
    conv(x, 3, 2), 4, 1, [(2, 2), (2, 2)], holes=2, own=False
  ),
}


class MeasuredTest(parameterized.TestCase):
  @parameterized.named_parameters((name, net) for name, net in NETS.items())
  def test_theory_is_what_gradients_measure(self, net):
    shape = image()
    reach = field(net, shape)
    places = jax.eval_shape(net, shape).shape[1:3]
    for unit in (
      (0, 0),
      (places[0] // 2, places[1] // 2),
      tuple(n - 1 for n in places),
    ):
      seen = measured(net, shape, unit)
      for axis in range(2):
        (where,) = np.nonzero(seen.any(1 - axis))
        found = reach[axis]
        assert found is not None
        low, high = found.seen(unit[axis], shape.shape[1 + axis])
        if found.stride == int(found.stride) and net is not NETS['transposed']:
          self.assertEqual((where[0], where[-1]), (low, high))
        else:  # A fraction is rounded outward.
          self.assertBetween(int(where[0]), low, low + 1)
          self.assertBetween(int(where[-1]), high - 1, high)

  def test_max_pool_over_many_inputs(self):
    net = lambda x: pooling.max_pool(jax.nn.relu(conv(x, 3)))
    seen = measured(net, image(12), (3, 3), draws=20)
    (where,) = np.nonzero(seen.any(1))
    found = field(net, image(12))[0]
    assert found is not None
    self.assertEqual((where[0], where[-1]), found.seen(3, 12))
    self.assertEqual(found, Reach(-1, 2, 2))


class RuleTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('weights on the left', lambda x: lax.dot_general(
      jnp.ones((3, 1)), x, (((1,), (3,)), ((), ()))).transpose(1, 2, 3, 0), PIXEL),
    ('a padded window', lambda x: lax.reduce_window(
      x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1),
      ((0, 0), (1, 1), (1, 1), (0, 0))), Reach(-1, 1, 2)),
    ('nothing', lambda x: jnp.tanh(x) * 2 + 1, PIXEL),
    ('flat and back', lambda x: (x.reshape(-1, 1) @ jnp.ones((1, 3))).reshape(
      1, 24, 24, 3), PIXEL),
    ('transposed', lambda x: x.transpose(0, 2, 1, 3).transpose(0, 2, 1, 3), PIXEL),
    ('strided slice', lambda x: x[:, 1::2, 1::2], Reach(1, 1, 2)),
    ('padded', lambda x: jnp.pad(x, ((0, 0), (2, 1), (2, 1), (0, 0))),
     Reach(-2, -2, 1)),
    ('turned twice', lambda x: x[:, ::-1, ::-1][:, ::-1, ::-1], PIXEL),
    ('turned', lambda x: x[:, ::-1, ::-1], Reach(0, 0, 1)),
    ('shifted sum', lambda x: x[:, 1:, 1:] + x[:, :-1, :-1], Reach(0, 1, 1)),
    ('joined along channels', lambda x: jnp.concatenate([x, conv(x, 3)], -1),
     Reach(-1, 1, 1)),
    ('joined along rows', lambda x: jnp.concatenate([x[:, :, :5], x[:, :, 5:]], 2),
     PIXEL),
    ('blocks into channels', lambda x: x.reshape(1, 12, 2, 12, 2, 1).transpose(
      0, 1, 3, 2, 4, 5).reshape(1, 12, 12, 4), Reach(0, 1, 2)),
    ('block means', lambda x: x.reshape(1, 8, 3, 8, 3, 1).mean((2, 4)),
     Reach(0, 2, 3)),
    ('in a scan', lambda x: lax.scan(
      lambda c, _: (conv(c, 3, own=False).sum(-1, keepdims=True), None), x, None, 4)[0],
     Reach(-4, 4, 1)),
    ('in a branch', lambda x: lax.cond(
      True, lambda x: x + 1, lambda x: conv(x, 5).sum(-1, keepdims=True), x),
     Reach(-2, 2, 1)),
    ('computed again', jax.checkpoint(lambda x: conv(x, 3)), Reach(-1, 1, 1)),
    ('padding is not counted twice', lambda x: conv(conv(x, 3), 3), Reach(-2, 2, 1)),
    ('mean', lambda x: x.mean((1, 2)), None),
    ('sorted', lambda x: jnp.sort(x, (1)).sum(2), None),
    ('in a while', lambda x: lax.while_loop(
      lambda c: c[0].sum() < 1, lambda c: (c[0] * 2,), (x,))[0], None),
    ('a fourier transform', lambda x: jnp.abs(jnp.fft.fft2(x, axes=(1, 2))), None),
  )  # fmt: skip
  def test_by_hand(self, function, wanted):
    self.assertEqual(field(function)[0], wanted)

  def test_a_tower_agrees_with_the_arithmetic_of_stacks(self):
    layers = [
      sizes.parse_layer(text)
      for text in ('conv:5,features=2', 'pool:2', 'conv:3,features=2,padding=same')
    ]
    net = lambda x: conv(pooling.max_pool(conv(x, 5, padding='VALID')), 3)
    costs = sizes.stack(layers, (24, 24, 1))
    self.assertEqual(field(net), list(costs[-1].reach or ()))
    self.assertEqual(jax.eval_shape(net, image()).shape[1:], costs[-1].output)

  def test_weights_and_tables_do_not_matter(self):
    tokens = jax.ShapeDtypeStruct((2, 9), 'int32')
    table = jax.ShapeDtypeStruct((40, 3), 'float32')
    found = receptive_field(lambda t, w: w[t], tokens, table, axes={0: (1,)})
    self.assertEqual(found, [[PIXEL]])

  def test_what_depends_on_no_input(self):
    found = receptive_field(lambda x: (jnp.ones(3), x), image(), axes={0: (1, 2)})
    self.assertEqual(found, [[None, None], [PIXEL, PIXEL]])

  def test_two_axes_on_one_dimension_are_kept_apart(self):
    value = spans.reshaped(spans.followed((4, 6), 0, (0, 1)), (24,))
    self.assertEqual(value.dims, ((4, 6),))
    back = spans.reshaped(value, (4, 3, 2))
    self.assertEqual([back.reach((0, d)) for d in (0, 1)], [PIXEL, Reach(0, 1, 2)])
    # A row of 9 holds one and a half of 6: the third begins in its middle.
    across = spans.reshaped(spans.followed((3, 6), 0, (0, 1)), (2, 9))
    self.assertIsNone(across.reach((0, 0)))


if __name__ == '__main__':
  absltest.main()
