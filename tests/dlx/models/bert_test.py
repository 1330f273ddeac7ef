"""BERT: published counts, padding, marks, names of checkpoints, torch's encoder."""

import functools
import operator

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.layers.block_config import BlockConfig
from dlx.models import bert
from dlx.models.bert import Bert, BertClassifier, BertPretrainer
from dlx.state import leaves_by_path

TOKENS = jnp.asarray([[2, 7, 8, 9, 3, 0, 0], [2, 5, 6, 3, 11, 10, 3]], jnp.int32)
SEGMENTS = jnp.asarray([[0] * 7, [0, 0, 0, 0, 1, 1, 1]], jnp.int32)
INPUTS = {
  'token': TOKENS,
  'segment': SEGMENTS,
  'position': jnp.asarray([[1, 3], [4, 0]], jnp.int32),
}


def encoder(size='tiny', vocabulary=30522, context=512, **fields):
  shape = bert.SHAPES[size]
  block = BlockConfig(width=shape.width, num_heads=shape.num_heads, **fields)
  return Bert(vocabulary, context, shape.num_layers, block)


def small(**fields):
  return Bert(12, 9, 2, BlockConfig(width=8, num_heads=2, **fields))


@functools.cache
def initial(model=None):
  model = model or BertPretrainer(small())
  return jax.jit(lambda key: model.init(key, INPUTS, train=False))(jax.random.key(0))


def shapes(model, inputs):
  return jax.eval_shape(
    lambda x: model.init(jax.random.key(0), x, train=False), inputs
  )['params']


def count(tree):
  return sum(x.size for x in jax.tree.leaves(tree))


class BertTest(parameterized.TestCase):
  @parameterized.parameters(
    # arXiv:1810.04805 and arXiv:1908.08962, without heads.
    ('tiny', 4_385_920),
    ('mini', 11_170_560),
    ('small', 28_763_648),
    ('medium', 41_373_184),
    ('base', 109_482_240),
    ('large', 335_141_888),
  )
  def test_published_counts(self, size, expected):
    self.assertEqual(count(shapes(encoder(size), TOKENS)), expected)

  def test_base_with_heads_has_the_published_count(self):
    params = shapes(BertPretrainer(encoder('base')), INPUTS)
    self.assertEqual(count(params), 110_106_428)

  def test_every_parameter_has_a_name_in_published_checkpoints(self):
    params = leaves_by_path(shapes(BertPretrainer(encoder()), INPUTS))
    names = bert.checkpoint_names(2)
    self.assertEqual(set(names), set(params))
    flat = [name for group in names.values() for name in group]
    self.assertLen(set(flat), len(flat))
    # 5 of the embeddings, 16 a layer, 2 of the pooler, 5 of masked tokens, 2 of pairs.
    self.assertLen(flat, 5 + 2 * 16 + 2 + 5 + 2)

  def test_padding_changes_nothing(self):
    model = small()
    variables = {'params': initial()['params']['bert']}
    apply = jax.jit(functools.partial(model.apply, train=False))
    alone = apply(variables, TOKENS[:1, :5])
    padded = apply(variables, TOKENS[:1])
    # States of size 1 from sums of 8 products.
    np.testing.assert_allclose(alone.x_BTD, padded.x_BTD[:, :5], atol=1e-5)
    np.testing.assert_allclose(alone.pooled_BD, padded.pooled_BD, atol=1e-5)

  def test_masked_logits_read_the_positions_asked_for(self):
    model, variables = BertPretrainer(small()), initial()
    apply = jax.jit(functools.partial(model.apply, train=False))
    found = apply(variables, INPUTS)
    self.assertEqual(found['masked'].shape, (2, 2, 12))
    self.assertEqual(found['next'].shape, (2, 2))
    turned = apply(variables, {**INPUTS, 'position': INPUTS['position'][:, ::-1]})
    np.testing.assert_array_equal(turned['masked'], found['masked'][:, ::-1])

  def test_other_tokens_and_positions_are_nan(self):
    model, variables = BertPretrainer(small()), initial()
    apply = jax.jit(functools.partial(model.apply, train=False))
    for name, wrong in (('token', 12), ('segment', 2), ('position', 7)):
      changed = {**INPUTS, name: INPUTS[name].at[0, 0].set(wrong)}
      found = apply(variables, changed)['masked']
      self.assertTrue(bool(jnp.isnan(found[0]).any()), name)
      self.assertTrue(bool(jnp.isfinite(found[1]).all()), name)

  def test_padded_vocabulary_is_never_predicted(self):
    plain = small()
    model = BertPretrainer(plain.clone(pad_vocabulary_to=8), next_sentence=False)
    found = jax.jit(functools.partial(model.apply, train=False))(
      jax.jit(lambda key: model.init(key, INPUTS, train=False))(jax.random.key(0)),
      INPUTS,
    )
    self.assertEqual(list(found), ['masked'])
    self.assertTrue(bool((found['masked'][..., 12:] == -jnp.inf).all()))
    self.assertTrue(bool(jnp.isfinite(found['masked'][..., :12]).all()))

  def test_marks_go_around_the_text(self):
    rows = jnp.asarray([[7, 8, 0, 0], [5, 6, 7, 8], [0, 0, 0, 0]], jnp.int32)
    expected = [[2, 7, 8, 3, 0, 0], [2, 5, 6, 7, 8, 3], [2, 3, 0, 0, 0, 0]]
    np.testing.assert_array_equal(bert.between(rows, 2, 3), expected)

  def test_classifier_reads_the_first_token_alone(self):
    model = BertClassifier(small(), 3, 2, 3)
    variables = jax.jit(lambda key: model.init(key, TOKENS, train=False))(
      jax.random.key(0)
    )
    found = jax.jit(functools.partial(model.apply, train=False))(variables, TOKENS)
    self.assertEqual(found.shape, (2, 3))
    self.assertEqual(set(variables['params']['bert']), set(initial()['params']['bert']))

  def test_classifier_leaves_out_what_its_context_has_no_room_for(self):
    model = BertClassifier(small(), 3, 2, 3)
    rows = jnp.arange(20, dtype=jnp.int32).reshape(2, 10) % 7 + 5
    variables = jax.jit(lambda key: model.init(key, rows, train=False))(
      jax.random.key(0)
    )
    apply = jax.jit(functools.partial(model.apply, train=False))
    np.testing.assert_array_equal(apply(variables, rows), apply(variables, rows[:, :7]))

  def test_refuses_more_tokens_than_positions(self):
    with self.assertRaisesRegex(ValueError, '10 tokens are not allowed'):
      shapes(small(), jnp.zeros((1, 10), jnp.int32))

  def test_flops_by_hand(self):
    # 2 layers of 12 x 64, attention 2 x 2 x 8 x 7, head 64 + 12 x 8, pooler 64.
    expected = 6 * (7 * (2 * 768 + 224) + 2 * 160 + 64)
    self.assertEqual(bert.flops_per_row(BertPretrainer(small()), 7, 2), expected)


class TorchTest(absltest.TestCase):
  def test_equals_the_encoder_of_torch(self):
    torch = pytest.importorskip('torch')
    model, rng = small(), np.random.default_rng(0)
    params = jax.tree.map(
      lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), jnp.float32),
      initial()['params']['bert'],
    )
    layer = torch.nn.TransformerEncoderLayer(
      *(8, 2, 32),
      dropout=0.0,
      activation='gelu',
      layer_norm_eps=bert.EPSILON,
      batch_first=True,
    )
    tensor = lambda x: torch.tensor(np.array(x))
    norm = lambda x, p: torch.nn.functional.layer_norm(
      x, (8,), tensor(p['scale']), tensor(p['bias']), bert.EPSILON
    )
    token = tensor(params['token']['embedding'])[tensor(TOKENS).long()]
    segment = tensor(params['segment_embedding'])[tensor(SEGMENTS).long()]
    x = norm(token + segment + tensor(params['position_embedding'])[:7], params['norm'])
    for n in range(2):
      p = jax.tree.map(operator.itemgetter(n), params['blocks'])
      p = jax.tree.map(np.array, p)
      maps, flat = p['attention'], lambda kernel: kernel.reshape(8, 8).T
      qkv = [flat(maps[k]['kernel']) for k in ('query', 'key', 'value')]
      bias = [maps[k]['bias'].reshape(8) for k in ('query', 'key', 'value')]
      layer.load_state_dict(
        {
          'self_attn.in_proj_weight': tensor(np.concatenate(qkv)),
          'self_attn.in_proj_bias': tensor(np.concatenate(bias)),
          'self_attn.out_proj.weight': tensor(flat(maps['out']['kernel'])),
          'self_attn.out_proj.bias': tensor(maps['out']['bias']),
          'linear1.weight': tensor(p['mlp']['in']['kernel'].T),
          'linear1.bias': tensor(p['mlp']['in']['bias']),
          'linear2.weight': tensor(p['mlp']['out']['kernel'].T),
          'linear2.bias': tensor(p['mlp']['out']['bias']),
          'norm1.weight': tensor(p['norm_attention']['scale']),
          'norm1.bias': tensor(p['norm_attention']['bias']),
          'norm2.weight': tensor(p['norm_mlp']['scale']),
          'norm2.bias': tensor(p['norm_mlp']['bias']),
        }
      )
      layer.train()  # Else it takes a path that leaves padding out of the result.
      x = layer(x, src_key_padding_mask=tensor(TOKENS == 0))
    found = jax.jit(functools.partial(model.apply, train=False))(
      {'params': params}, TOKENS, SEGMENTS
    )
    real = np.asarray(TOKENS != 0)
    # Two layers of sums of 32 products, of size 1.
    np.testing.assert_allclose(
      np.asarray(found.x_BTD)[real], x.detach().numpy()[real], atol=1e-4
    )


if __name__ == '__main__':
  absltest.main()
