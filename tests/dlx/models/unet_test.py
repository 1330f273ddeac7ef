"""U-Net: squares and channels, shapes, zero at the start, what depends on what."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlx.errors import ConfigError
from dlx.losses import softmax_cross_entropy
from dlx.models.unet import ResidualBlock, SelfAttention, UNet


def make(model, *shape, labels=False, time=True):
  """Inputs, and parameters of which none is 0; drawn, since `init` takes a compile."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=shape), jnp.float32)
  t = jnp.arange(shape[0]) * 100 if time else None
  label = jnp.arange(shape[0]) if labels else None
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), x, t, label, train=False)
  )['params']

  def draw(path, p):
    rows = np.prod(p.shape[:-1]) if p.ndim > 1 else 25
    mean = float(path[-1].key == 'scale')
    return jnp.asarray(mean + rng.normal(size=p.shape) / rows**0.5, p.dtype)

  return x, t, label, jax.tree_util.tree_map_with_path(draw, shapes)


def size(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


class UNetTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(shape=(2, 28, 28, 1), patch=2, channels=(8, 16), out_channels=1),
    dict(shape=(2, 8, 12, 3), channels=(8, 8, 16), out_channels=5, blocks=2),
    dict(shape=(1, 32, 32, 3), channels=(128, 256, 256, 256), blocks=2, out_channels=3),
    dict(shape=(3, 6, 6, 1), channels=(4,), attention=(), out_channels=2),
  )
  def test_shapes_and_dtypes(self, shape, out_channels, **fields):
    for dtype in (jnp.float32, jnp.bfloat16):
      model = UNet(out_channels, num_classes=10, dtype=dtype, **fields)
      x, zero = jnp.zeros(shape), jnp.zeros(shape[0], int)
      found, variables = jax.eval_shape(
        lambda m=model, x=x, z=zero: m.init_with_output(
          jax.random.key(0), x, z, z, train=False
        )
      )
      self.assertEqual(found.shape, (*shape[:-1], out_channels))
      self.assertEqual(found.dtype, jnp.float32)
      dtypes = {p.dtype for p in jax.tree.leaves(variables)}
      self.assertEqual(dtypes, {jnp.dtype(jnp.float32)})

  def test_parameters_by_hand(self):
    model = UNet(1, channels=(8,), attention=(0,), num_classes=10)
    x, zero = jnp.zeros((1, 4, 4, 1)), jnp.zeros(1, int)
    params = jax.eval_shape(
      lambda: model.init(jax.random.key(0), x, zero, zero, train=False)
    )['params']
    norm = lambda c: 2 * c
    conv = lambda i, o: 9 * i * o + o
    dense = lambda i, o: i * o + o

    def block(i):  # To 8 channels, from an embedding of 4 * 8.
      skip = dense(i, 8) if i != 8 else 0
      return norm(i) + conv(i, 8) + norm(8) + dense(32, 16) + conv(8, 8) + skip

    attention = norm(8) + dense(8, 24) + dense(8, 8)
    embedding = dense(64, 32) + dense(32, 32) + 11 * 32
    # Down one block, middle two, up two; attention behind all but the fourth of them.
    blocks = 3 * block(8) + 2 * block(16) + 4 * attention
    total = conv(1, 8) + embedding + blocks + norm(8) + conv(8, 1)
    self.assertEqual(size(params), total)

  def test_starts_at_zero_and_blocks_as_the_identity(self):
    model = UNet(3, channels=(8,), attention=())
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 3))
    draw = lambda key: model.init_with_output(key, x, jnp.arange(2), train=False)[0]
    np.testing.assert_array_equal(jax.jit(draw)(jax.random.key(0)), 0)
    h = jax.random.normal(jax.random.key(1), (2, 4, 4, 8))
    for block, more in ((ResidualBlock(8), {'train': False}), (SelfAttention(), {})):
      found = block.init_with_output(jax.random.key(0), h, **more)[0]
      np.testing.assert_array_equal(found, h)

  def test_what_the_output_depends_on(self):
    model = UNet(1, channels=(8, 8), num_classes=4)
    x, t, label, params = make(model, 3, 8, 8, 1, labels=True)
    apply = jax.jit(
      lambda *inputs: model.apply({'params': params}, *inputs, train=True)
    )
    before = apply(x, t, label)
    for inputs in (
      (x, t.at[0].add(1), label),
      (x, t, label.at[0].set(4)),  # Row 4 is "no class".
      (x.at[0, 0, 0].add(1.0), t, label),
    ):
      after = apply(*inputs)
      # Of one example, all pixels; of the others none.
      changed = np.abs(after - before).max((2, 3)) > 1e-6
      np.testing.assert_array_equal(changed.all(1), [True, False, False])
      np.testing.assert_array_equal(after[1:], before[1:])

  def test_no_parameter_is_idle(self):
    model = UNet(2, channels=(8, 8), num_classes=3, patch=2)
    x, t, label, params = make(model, 3, 8, 8, 1, labels=True)
    target = jax.random.normal(jax.random.key(7), (3, 8, 8, 2))

    @jax.jit
    def grads(params):
      def loss(p):
        found = jnp.asarray(model.apply({'params': p}, x, t, label, train=False))
        return jnp.square(found - target).mean()

      return jax.grad(loss)(params)

    for path, g in jax.tree_util.tree_leaves_with_path(grads(params)):
      name = jax.tree_util.keystr(path)
      if 'attention' in name and 'qkv' in name and 'bias' in name:
        # A bias of the keys adds the same to all scores of a query: no effect.
        g = g.reshape(3, -1)[::2]
      self.assertGreater(float(jnp.abs(g).max()), 1e-5, name)

  def test_without_time_and_labels_it_is_a_segmentation_net(self):
    model = UNet(5, channels=(8,), attention=())
    x, _, _, params = make(model, 2, 4, 4, 3, time=False)
    self.assertFalse({'time', 'label'} & set(params))
    # The class of a pixel is that of the brightest of its three channels, or of its
    # left neighbour's where there is one: no pixel tells it alone.
    own_BHW = np.asarray(x).argmax(-1)
    label_BHW = np.concatenate([own_BHW[:, :, :1], own_BHW[:, :, :-1]], 2)

    tx = optax.adam(1e-2)

    @jax.jit
    def step(params, moments):
      def loss(p):
        logits = jnp.asarray(model.apply({'params': p}, x, train=False))
        flat = logits.reshape(-1, 5), label_BHW.reshape(-1)
        return softmax_cross_entropy(*flat).mean(), logits

      grads, logits = jax.grad(loss, has_aux=True)(params)
      updates, moments = tx.update(grads, moments)
      return optax.apply_updates(params, updates), moments, logits

    moments, found = tx.init(params), None
    for _ in range(200):
      params, moments, found = step(params, moments)
    assert found is not None
    self.assertEqual(found.shape, (2, 4, 4, 5))
    np.testing.assert_array_equal(found.argmax(-1), label_BHW)

  def test_attention_does_not_see_where_positions_are(self):
    block = SelfAttention(head_features=4)
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 8))
    variables = block.init(jax.random.key(1), x)
    variables = jax.tree.map(
      lambda p: p + 0.3 * jax.random.normal(jax.random.key(2), p.shape), variables
    )
    order = np.random.default_rng(0).permutation(12)
    moved = x.reshape(2, 12, 8)[:, order].reshape(x.shape)
    found, after = (jnp.asarray(block.apply(variables, h)) for h in (x, moved))
    # Sums of 12 terms in another order.
    np.testing.assert_allclose(
      after.reshape(2, 12, 8), found.reshape(2, 12, 8)[:, order], atol=1e-5
    )
    self.assertGreater(float(jnp.abs(found - x).max()), 0.1)

  def test_attention_by_hand(self):
    block = SelfAttention(head_features=4)
    x = jax.random.normal(jax.random.key(0), (1, 2, 3, 8))
    variables = jax.tree.map(
      lambda p: p + 0.3 * jax.random.normal(jax.random.key(2), p.shape),
      block.init(jax.random.key(1), x),
    )
    p = jax.tree.map(np.asarray, variables['params'])
    h = np.asarray(x, np.float64).reshape(6, 8)
    groups = h.reshape(6, 2, 4)  # Two groups of four channels.
    mean = groups.mean((0, 2), keepdims=True)
    h = ((groups - mean) / np.sqrt(groups.var((0, 2), keepdims=True) + 1e-6)).reshape(
      6, 8
    )
    h = h * p['norm']['scale'] + p['norm']['bias']
    q, k, v = np.split(h @ p['qkv']['kernel'] + p['qkv']['bias'], 3, axis=1)
    heads = []
    for n in range(2):
      part = slice(4 * n, 4 * n + 4)
      scores = np.exp(q[:, part] @ k[:, part].T / 2)
      heads.append(scores / scores.sum(1, keepdims=True) @ v[:, part])
    out = np.concatenate(heads, 1) @ p['out']['kernel'] + p['out']['bias']
    expected = np.asarray(x).reshape(6, 8) + out
    found = np.asarray(block.apply(variables, x)).reshape(6, 8)
    np.testing.assert_allclose(found, expected, atol=2e-5)

  def test_dropout_is_of_training_alone(self):
    model = UNet(1, channels=(8,), attention=(), dropout=0.5)
    x, t, _, params = make(model, 2, 4, 4, 1)

    @jax.jit
    def train(seed):
      rngs = {'dropout': jax.random.key(seed)}
      return model.apply({'params': params}, x, t, train=True, rngs=rngs)

    self.assertFalse(np.allclose(train(0), train(1)))
    seen = [
      jax.jit(lambda m=m: m.apply({'params': params}, x, t, train=False))()
      for m in (model, UNet(1, channels=(8,), attention=()))
    ]
    np.testing.assert_array_equal(*seen)  # And it needs no rng.

  def test_impossible_inputs_are_refused(self):
    x, t = jnp.zeros((1, 28, 28, 1)), jnp.zeros(1, int)
    for model, label, message in (
      (UNet(1, channels=(8, 8, 8), patch=2), None, '28 x 28 .*multiples of 8'),
      (UNet(1, channels=(8,), num_classes=3), None, 'num_classes=3 .*without labels'),
      (UNet(1, channels=(8,)), t, 'num_classes=None .*with labels'),
      (UNet(1, channels=(48,), attention=(0,)), None, 'head_features=32 '),
    ):
      with self.assertRaisesRegex(ConfigError, message):
        jax.eval_shape(
          lambda m=model, y=label: m.init(jax.random.key(0), x, t, y, train=False)
        )


if __name__ == '__main__':
  absltest.main()
