"""Decoder: causal, blind to padding and order of the memory, caches, torch's."""

import functools

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.layers.attention.multihead import Memory, empty_cache
from dlx.layers.block_config import BlockConfig
from dlx.layers.decoder import Decoder, DecoderBlock
from dlx.layers.transformer import Transformer, stacked_cache

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(2, 5, 8)), jnp.float32)
MEMORY = jnp.asarray(RNG.normal(size=(2, 4, 8)), jnp.float32)
REAL = jnp.asarray([[True, True, True, False], [True, True, False, False]])
MASK = REAL[:, None, None]
# Two blocks of sums of up to 32 products of size 1, in another order.
TOLERANCE = 2e-5


def config(**fields):
  return BlockConfig(**{'width': 8, 'num_heads': 2, 'causal': True, **fields})


@functools.cache
def made(**fields):
  model = Decoder(2, config(**fields))
  init = jax.jit(lambda k: model.init(k, X, MEMORY, train=False, mask_BHTM=MASK))
  # Biases and scales that are not 0 and 1, or a swap of two norms would not be seen.
  noise = np.random.default_rng(1)
  vary = lambda x: x + jnp.asarray(0.2 * noise.normal(size=x.shape), x.dtype)
  return model, jax.tree.map(vary, init(jax.random.key(0)))


@functools.cache
def program(**options):
  model, variables = made()
  return jax.jit(
    lambda x, memory, mask: model.apply(
      variables, x, memory, train=False, mask_BHTM=mask, **options
    )
  )


def decode(x=X, memory=MEMORY, mask=MASK, **options):
  return program(**options)(x, memory, mask)


class DecoderTest(absltest.TestCase):
  def test_a_token_depends_on_those_before_and_on_the_real_memory(self):
    sums = lambda x, memory: decode(x, memory).x_BTD[0, 2].sum()
    of_x, of_memory = jax.grad(sums, (0, 1))(X, MEMORY)
    seen = np.abs(of_x[0]).max(1) > 0
    np.testing.assert_array_equal(seen, [True, True, True, False, False])
    np.testing.assert_array_equal(np.abs(of_memory[0]).max(1) > 0, REAL[0])
    self.assertEqual(float(np.abs(of_x[1]).max() + np.abs(of_memory[1]).max()), 0)

  def test_the_order_of_the_memory_means_nothing(self):
    order = np.array([2, 0, 3, 1])
    found = decode(X, MEMORY[:, order], MASK[..., order]).x_BTD
    np.testing.assert_allclose(found, decode().x_BTD, atol=TOLERANCE)

  def test_an_encoder_turns_with_the_order_of_its_tokens(self):
    model = Transformer(2, config(causal=False))
    variables = jax.jit(lambda k: model.init(k, X, train=False))(jax.random.key(0))
    real = jnp.asarray([[True] * 5, [True, True, False, True, False]])
    encode = jax.jit(
      lambda x, real: (
        model.apply(variables, x, train=False, mask_BHLM=real[:, None, None]).x_BLD
      )
    )
    order = np.array([4, 2, 0, 1, 3])
    turned = encode(X[:, order], real[:, order])
    np.testing.assert_allclose(turned, encode(X, real)[:, order], atol=TOLERANCE)
    other = encode(X.at[1, 2].add(3.0), real)  # Padding: nobody sees it.
    same = np.array([0, 1, 3, 4])
    np.testing.assert_array_equal(other[1, same], encode(X, real)[1, same])

  def test_cached_equals_uncached(self):
    model, variables = made()
    cache = stacked_cache(empty_cache(2, 6, 2, 4, jnp.float32), 2)
    call = jax.jit(
      lambda x, memory, cache: model.apply(
        variables, x, memory, train=False, mask_BHTM=MASK, cache=cache
      )
    )
    found = call(X[:, :2], MEMORY, cache)
    parts = [found.x_BTD]
    for i in range(2, 5):
      self.assertIsInstance(found.memory, Memory)
      self.assertEqual(found.memory.key_BMGK.shape, (2, 2, 4, 2, 4))
      found = call(X[:, i : i + 1], found.memory, found.cache)
      parts.append(found.x_BTD)
    whole = decode().x_BTD
    np.testing.assert_allclose(jnp.concatenate(parts, 1), whole, atol=TOLERANCE)

  def test_scan_equals_a_python_loop(self):
    _, variables = made()
    apply = jax.jit(
      lambda p, x: DecoderBlock(config()).apply(
        {'params': p}, x, None, None, MEMORY, MASK
      )[0]
    )
    x = X
    for i in range(2):
      x = apply(jax.tree.map(lambda p, i=i: p[i], variables['params']['blocks']), x)
    np.testing.assert_allclose(x, decode().x_BTD, atol=TOLERANCE)

  def test_weights_of_every_layer_skip_padding(self):
    weights = decode(return_weights=True).weights_NBHTM
    self.assertEqual(weights.shape, (2, 2, 2, 5, 4))
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    self.assertEqual(float(weights[:, 0, :, :, 3:].max()), 0)
    self.assertEqual(float(weights[:, 1, :, :, 2:].max()), 0)

  def test_dropout_is_on_in_training_alone(self):
    model, variables = made(dropout=0.5)

    @functools.partial(jax.jit, static_argnums=0)
    def call(train, key):
      return model.apply(
        variables, X, MEMORY, train=train, mask_BHTM=MASK, rngs={'dropout': key}
      ).x_BTD

    keys = jax.random.split(jax.random.key(0))
    off, one, two = call(False, keys[0]), call(True, keys[0]), call(True, keys[1])
    np.testing.assert_allclose(off, decode().x_BTD, atol=TOLERANCE)
    self.assertGreater(np.abs(one - two).max(), 0.1)


def test_equals_torch():
  """Values, and the gradient of the memory, of torch.nn.TransformerDecoder."""
  torch = pytest.importorskip('torch')
  _, variables = made()
  params = jax.tree.map(np.asarray, variables['params']['blocks'])
  layer = torch.nn.TransformerDecoderLayer(
    8, 2, 32, dropout=0.0, activation='gelu', batch_first=True, norm_first=True
  )
  decoder = torch.nn.TransformerDecoder(layer, 2)
  tensor = lambda x: torch.tensor(np.array(x))

  def attention(into, found):
    maps = [found[name] for name in ('query', 'key', 'value')]
    into.in_proj_weight.copy_(
      tensor(np.concatenate([m['kernel'].reshape(8, 8).T for m in maps]))
    )
    into.in_proj_bias.copy_(tensor(np.concatenate([m['bias'].ravel() for m in maps])))
    into.out_proj.weight.copy_(tensor(found['out']['kernel'].reshape(8, 8).T))
    into.out_proj.bias.copy_(tensor(found['out']['bias']))

  with torch.no_grad():
    for i, block in enumerate(decoder.layers):
      of = jax.tree.map(lambda x, i=i: x[i], params)
      attention(block.self_attn, of['attention'])
      attention(block.multihead_attn, of['cross_attention'])
      for linear, name in ((block.linear1, 'in'), (block.linear2, 'out')):
        linear.weight.copy_(tensor(of['mlp'][name]['kernel'].T))
        linear.bias.copy_(tensor(of['mlp'][name]['bias']))
      norms = ('norm_attention', 'norm_cross', 'norm_mlp')
      for norm, name in zip((block.norm1, block.norm2, block.norm3), norms):
        norm.weight.copy_(tensor(of[name]['scale']))
        norm.bias.copy_(tensor(of[name]['bias']))
  memory = tensor(MEMORY).requires_grad_()
  wanted = decoder(
    tensor(X),
    memory,
    tgt_mask=torch.triu(torch.ones(5, 5, dtype=torch.bool), 1),
    memory_key_padding_mask=~tensor(REAL),
  )
  np.testing.assert_allclose(decode().x_BTD, wanted.detach(), atol=TOLERANCE)
  (wanted**2).sum().backward()
  slope = jax.grad(lambda m: (decode(X, m).x_BTD ** 2).sum())(MEMORY)
  # Gradients of some hundred squares of size 1 to 10.
  np.testing.assert_allclose(slope, memory.grad, rtol=1e-4, atol=2e-4)


if __name__ == '__main__':
  absltest.main()
