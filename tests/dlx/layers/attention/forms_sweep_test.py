"""Forms of attention and blocks against torch, in values and gradients."""

import numpy as np
import pytest

from dlx.layers.attention.multihead import MultiHeadAttention, dot_product_attention
from dlx.layers.block_config import BlockConfig, Relative
from dlx.layers.decoder import DecoderBlock
from dlx.layers.transformer import Block
from tests.dlx import sweeps
from tests.dlx.sweeps import Sweep

torch = pytest.importorskip(
  'torch', reason='torch is not installed: pip install .[reference]'
)
f = torch.nn.functional
HEADS, RELATIVE = 2, Relative(8, 6)


def heads_of(rng, b, q, m, k):
  """Queries, keys, values and a float mask, in which a sixth of all is -inf."""
  bias = rng.normal(size=(b, HEADS, q, m))
  bias[..., 1:][rng.random(bias[..., 1:].shape) < 1 / 6] = -np.inf
  return (rng.normal(size=(b, n, HEADS, k)) for n in (q, m, m)), bias


def draw_heads(rng, *shape):
  qkv, bias = heads_of(rng, *shape)
  return *qkv, np.where(np.isinf(bias), 0, bias), np.isinf(bias)


def attention(q, k, v, bias, hidden, cap=None):
  bias = bias + np.where(hidden, -np.inf, 0).astype(bias.dtype)
  return dot_product_attention(q, k, v, bias_BHLM=bias, soft_cap=cap)[0]


def torch_attention(q, k, v, bias, hidden, cap=None):
  q, k, v = (x.transpose(1, 2) for x in (q, k, v))
  bias = bias.masked_fill(hidden, -np.inf)
  if cap is None:
    return f.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2)
  s = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
  return ((cap * torch.tanh(s / cap) + bias).softmax(-1) @ v).transpose(1, 2)


def weights(rng, b, t, d):
  """The stream, its memory, and all weights that a decoder block can have, by name."""
  k = d // HEADS
  attending = [(d, HEADS, k)] * 3 + [(HEADS, k, d), (k,), (k,), (HEADS, 8)]
  shapes = [*attending * 2, (d, 3 * d), (d, 3 * d), (3 * d, d), *[(d,)] * 3]
  scaled = (rng.normal(size=s) / 2 for s in shapes)
  return rng.normal(size=(b, t, d)), rng.normal(size=(b, t + 2, d)), *scaled


def named(rest):
  """Parameters as our layers name them."""
  one = ('query', 'key', 'value', 'out', 'query_norm', 'key_norm')

  def attending(parts):
    leaf = lambda name: 'scale' if name.endswith('norm') else 'kernel'
    found = {n: {leaf(n): x} for n, x in zip(one, parts)}
    return {**found, 'relative_bias': parts[6]}

  into, gate, out, *norms = rest[14:]
  names = ('norm_attention', 'norm_cross', 'norm_mlp')
  return {
    'attention': attending(rest[:7]),
    'cross_attention': attending(rest[7:14]),
    'mlp': {'in': {'kernel': into}, 'gate': {'kernel': gate}, 'out': {'kernel': out}},
    **{name: {'scale': x} for name, x in zip(names, norms)},
  }


def config(x, **form):
  return BlockConfig(
    width=x.shape[-1], num_heads=HEADS, mlp_ratio=3, use_bias=False, dtype=x.dtype,
    param_dtype=x.dtype, **form,
  )  # fmt: skip


def block(x, memory, *rest, kind, **form):
  c, params = config(x, **form), named(rest)
  if kind == 'attention':
    layer = MultiHeadAttention(c)
    return layer.apply({'params': params['attention']}, x, train=False).x_BLD
  if kind == 'cross':
    layer, given = MultiHeadAttention(c), {'params': params['cross_attention']}
    return layer.apply(given, x, memory, train=False).x_BLD
  if kind == 'block':
    return Block(c).apply({'params': params}, x)[0]
  return DecoderBlock(c).apply({'params': params}, x, None, None, memory, None)[0]


def torch_scores_bias(form, length):
  """Slopes 2^-4 and 2^-8; rows 0, 1 of the table, then 2 and 3, both ways."""
  place = torch.arange(length)
  ahead = place[None] - place[:, None]
  alibi = -torch.tensor([2**-4, 2**-8])[:, None, None] * ahead.abs()
  distance = ahead.abs()
  if form.get('causal'):  # Rows 0 to 3, then from 4 * 1.5^(j / 4): 4.4, 4.9, 5.4.
    past = torch.clamp(-ahead, min=0)
    row = torch.where(past < 4, past, torch.where(past == 4, 4, 6 + (past > 5).long()))
  else:  # Rows 0, 1, then from 2 and from 2 * 3^(1 / 2) = 3.5.
    row = torch.where(distance < 2, distance, 2 + (distance > 3).long())
    row = row + 4 * (ahead > 0)
  hidden = torch.zeros(length, length, dtype=torch.bool)
  if form.get('causal'):
    hidden |= ahead > 0
  if form.get('window'):
    hidden |= distance >= form['window']
  return alibi, row, hidden


def torch_attend(x, source, p, form, itself):
  q, k, v = (
    torch.einsum('bld,dhk->bhlk', y, p[name]['kernel'])
    for y, name in ((x, 'query'), (source, 'key'), (source, 'value'))
  )
  if form.get('qk_norm'):
    q = f.rms_norm(q, q.shape[-1:], p['query_norm']['scale'], 1e-6)
    k = f.rms_norm(k, k.shape[-1:], p['key_norm']['scale'], 1e-6)
  s = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
  if cap := form.get('soft_cap'):
    s = cap * torch.tanh(s / cap)
  if itself:
    alibi, row, hidden = torch_scores_bias(form, x.shape[1])
    if form.get('alibi'):
      s = s + alibi.to(s.dtype)
    if form.get('relative'):
      s = s + p['relative_bias'][:, row]
    s = s.masked_fill(hidden, -np.inf)
  return torch.einsum('bhlk,hkd->bld', s.softmax(-1) @ v, p['out']['kernel'])


def torch_block(x, memory, *rest, kind, **form):
  p = named(rest)
  if kind == 'attention':
    return torch_attend(x, x, p['attention'], form, True)
  if kind == 'cross':
    return torch_attend(x, memory, p['cross_attention'], form, False)

  def mlp(x):
    maps = {name: x @ p['mlp'][name]['kernel'] for name in ('in', 'gate')}
    bent = f.silu if form.get('mlp') == 'swiglu' else f.gelu
    if form.get('mlp', 'gelu') == 'gelu':
      return bent(maps['in']) @ p['mlp']['out']['kernel']
    return (bent(maps['gate']) * maps['in']) @ p['mlp']['out']['kernel']

  branches = [('norm_attention', lambda x: torch_attend(x, x, p['attention'], form, 1))]
  if kind == 'decoder':
    cross = lambda x: torch_attend(x, memory, p['cross_attention'], form, False)
    branches.append(('norm_cross', cross))
  for name, branch in [*branches, ('norm_mlp', mlp)]:
    norm = lambda y, n=name: f.layer_norm(y, y.shape[-1:], p[n]['scale'], None, 1e-5)
    x = norm(x + branch(x)) if form.get('norm') == 'post' else x + branch(norm(x))
  return x


ATTENTION = (
  {'kind': 'attention', 'alibi': True},
  {'kind': 'attention', 'relative': RELATIVE},
  {'kind': 'attention', 'relative': RELATIVE, 'causal': True},
  {'kind': 'attention', 'window': 2},
  {'kind': 'attention', 'window': 3, 'causal': True},
  {'kind': 'attention', 'qk_norm': True, 'soft_cap': 0.7},
  {'kind': 'cross', 'qk_norm': True},
)
BLOCKS = (
  {'kind': 'block', 'norm': 'post'},
  {'kind': 'block', 'mlp': 'swiglu'},
  {'kind': 'block', 'mlp': 'geglu', 'norm': 'post', 'window': 2, 'causal': True},
  {'kind': 'decoder', 'mlp': 'geglu', 'norm': 'post', 'qk_norm': True, 'causal': True},
  {'kind': 'decoder', 'mlp': 'swiglu', 'alibi': True, 'soft_cap': 1.0, 'causal': True},
)
SWEEPS = {
  'float_masks': Sweep(
    draw_heads, attention, torch_attention, ({}, {'cap': 1.5}),
    ((1, 1, 1, 2), (2, 3, 5, 4)),
  ),
  'attention': Sweep(weights, block, torch_block, ATTENTION, ((2, 8, 4), (1, 3, 8))),
  'blocks': Sweep(weights, block, torch_block, BLOCKS, ((2, 5, 4), (1, 3, 8))),
}  # fmt: skip


@pytest.mark.parametrize('name', sorted(SWEEPS))
def test_values_and_gradients(name):
  sweeps.run(torch, SWEEPS[name])
