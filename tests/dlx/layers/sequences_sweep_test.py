"""Layers of sequences against torch: attention, blocks, cells, rows of a table."""

import numpy as np
import pytest

from dlx.layers import spectrogram
from dlx.layers.attention.multihead import MultiHeadAttention, dot_product_attention
from dlx.layers.block_config import BlockConfig
from dlx.layers.embeddings import LabelEmbedding
from dlx.layers.recurrent.cells import CELLS
from dlx.layers.recurrent.stack import Recurrent
from dlx.layers.split_linear import SplitLinear
from dlx.layers.transformer import Block
from tests.dlx import sweeps
from tests.dlx.sweeps import Sweep, many

torch = pytest.importorskip(
  'torch', reason='torch is not installed: pip install .[reference]'
)
f = torch.nn.functional


def x_alone(rng, *shape):
  return (rng.normal(size=shape),)


def applied(layer, params, *args, **more):
  return layer.apply({'params': params}, *args, **more)


def wide(x):
  """Fields of a layer that computes in the dtype of x."""
  return {'dtype': x.dtype, 'param_dtype': x.dtype}


# Attention.


def heads_of(rng, b, q, m, h, g, k):
  mask = rng.uniform(size=(b, 1, q, m)) < 0.6
  mask[..., 0] = True  # Every query sees a key.
  return rng.normal(size=(b, q, h, k)), *rng.normal(size=(2, b, m, g, k)), mask


def attention(q, k, v, mask, kind='all'):
  length, keys = q.shape[1], k.shape[1]
  mask = {
    'all': None,
    'masked': mask,
    'causal': np.tril(np.ones((1, 1, length, keys), bool)),
  }[kind]
  return dot_product_attention(q, k, v, mask)[0]


def torch_attention(q, k, v, mask, kind='all'):
  q, k, v = (z.transpose(1, 2) for z in (q, k, v))
  more = {'attn_mask': mask if kind == 'masked' else None, 'enable_gqa': True}
  y = f.scaled_dot_product_attention(q, k, v, is_causal=kind == 'causal', **more)
  return y.transpose(1, 2)


def block_weights(rng, b, t, d, heads):
  """The stream, four maps of attention, two of the feed-forward part, two norms."""
  k = d // heads
  maps = [rng.normal(size=(d, heads, k)) for _ in range(3)]
  biases = [rng.normal(size=(heads, k)) for _ in range(3)]
  out = rng.normal(size=(heads, k, d)), rng.normal(size=d)
  mlp = rng.normal(size=(d, 4 * d)), rng.normal(size=4 * d)
  back = rng.normal(size=(4 * d, d)), rng.normal(size=d)
  norms = rng.normal(size=(4, d))
  return rng.normal(size=(b, t, d)), *maps, *biases, *out, *mlp, *back, *norms


def of_block(wq, wk, wv, bq, bk, bv, wo, bo, *rest):
  """The parameters as our layers name them: (attention, feed-forward, norms)."""
  map_ = lambda kernel, bias: {'kernel': kernel, 'bias': bias}
  attending = {'query': map_(wq, bq), 'key': map_(wk, bk), 'value': map_(wv, bv)}
  attending['out'] = map_(wo, bo)
  w1, b1, w2, b2, scale1, shift1, scale2, shift2 = rest
  norms = [{'scale': s, 'bias': b} for s, b in ((scale1, shift1), (scale2, shift2))]
  return attending, {'in': map_(w1, b1), 'out': map_(w2, b2)}, norms


def multi_head(x, *weights, causal):
  d, heads, _ = weights[0].shape
  config = BlockConfig(width=d, num_heads=heads, causal=causal, **wide(x))
  attending, _, _ = of_block(*weights)
  return applied(MultiHeadAttention(config), attending, x, train=False).x_BLD


def block(x, *weights, causal, exact):
  d, heads, _ = weights[0].shape
  config = BlockConfig(
    width=d, num_heads=heads, causal=causal, exact_gelu=exact, **wide(x)
  )
  attending, mlp, (one, two) = of_block(*weights)
  params = {'attention': attending, 'mlp': mlp, 'norm_attention': one, 'norm_mlp': two}
  return applied(Block(config), params, x)[0]


def torch_multi_head(x, *weights, causal):
  d, heads, _ = weights[0].shape
  attending, _, _ = of_block(*weights)
  maps = [attending[name] for name in ('query', 'key', 'value')]
  x = x.transpose(0, 1)
  y, _ = f.multi_head_attention_forward(
    x, x, x, d, heads,
    torch.cat([m['kernel'].reshape(d, d).T for m in maps]),
    torch.cat([m['bias'].reshape(d) for m in maps]),
    None, None, False, 0.0,
    attending['out']['kernel'].reshape(d, d).T, attending['out']['bias'],
    need_weights=False, is_causal=causal,
    attn_mask=torch.ones(len(x), len(x)).bool().triu(1) if causal else None,
  )  # fmt: skip
  return y.transpose(0, 1)


def torch_block(x, *weights, causal, exact):
  _, mlp, norms = of_block(*weights)
  normed = lambda x, of: f.layer_norm(x, x.shape[-1:], of['scale'], of['bias'], 1e-5)
  x = x + torch_multi_head(normed(x, norms[0]), *weights, causal=causal)
  y = f.linear(normed(x, norms[1]), mlp['in']['kernel'].T, mlp['in']['bias'])
  y = f.gelu(y, approximate='none' if exact else 'tanh')
  return x + f.linear(y, mlp['out']['kernel'].T, mlp['out']['bias'])


# Recurrent layers.
GATES = {'rnn': 1, 'lstm': 4, 'gru': 3}


def recurrent_weights(cell):
  def draw(rng, b, t, d, h):
    g, scale = GATES[cell] * h, h**-0.5
    return (
      rng.normal(size=(b, t, d)),
      *(scale * rng.normal(size=shape) for shape in ((d, g), (h, g), (g,), (g,))),
    )

  return draw


def recurrent(cell):
  def call(x, wx, wh, bx, bh):
    names = 'input_kernel', 'hidden_kernel', 'input_bias', 'hidden_bias'
    layer = Recurrent(CELLS[cell], wh.shape[0], **wide(x))
    return applied(layer, dict(zip(names, (wx, wh, bx, bh))), x)[0]

  return call


def torch_recurrent(cell):
  def call(x, wx, wh, bx, bh):
    kind = getattr(torch.nn, cell.upper())
    layer = kind(wx.shape[0], wh.shape[0], batch_first=True)
    names = 'weight_ih_l0', 'weight_hh_l0', 'bias_ih_l0', 'bias_hh_l0'
    given = dict(zip(names, (wx.T, wh.T, bx, bh)))
    return torch.func.functional_call(layer.to(x.dtype), given, (x,))[0]

  return call


# Others.


def split_linear(x, kernel, bias, parts):
  layer = SplitLinear(parts * kernel.shape[1], parts, **wide(x))
  return applied(layer, {'shared': {'kernel': kernel, 'bias': bias}}, x)


def torch_split_linear(x, kernel, bias, parts):
  return f.linear(x, torch.block_diag(*[kernel.T] * parts), bias.repeat(parts))


def label_rows(label, table):
  layer = LabelEmbedding(table.shape[0] - 1, table.shape[1], **wide(table))
  return applied(layer, {'table': {'embedding': table}}, label)


def torch_spectrogram(x, size, hop):
  window = torch.hann_window(size, dtype=x.dtype)
  found = torch.stft(x, size, hop, window=window, center=False, return_complex=True)
  return found.abs().square().transpose(1, 2)


SWEEPS: dict[str, Sweep] = {
  'attention': Sweep(
    heads_of, attention, torch_attention, many('kind', 'all', 'masked', 'causal'),
    ((1, 1, 1, 1, 1, 1), (2, 3, 5, 2, 2, 4), (2, 5, 4, 6, 2, 3)),
  ),
  'multi_head': Sweep(
    block_weights, multi_head, torch_multi_head, many('causal', False, True),
    ((1, 1, 4, 1), (2, 5, 12, 3)),
  ),
  'transformer_block': Sweep(
    block_weights, block, torch_block,
    ({'causal': False, 'exact': True}, {'causal': True, 'exact': False}),
    ((1, 2, 4, 2), (2, 5, 6, 1)),
  ),
  **{
    cell: Sweep(
      recurrent_weights(cell), recurrent(cell), torch_recurrent(cell),
      shapes=((1, 1, 1, 1), (3, 4, 2, 5)),
    )
    for cell in GATES
  },
  'split_linear': Sweep(
    lambda rng, *shape: (
      rng.normal(size=shape), rng.normal(size=(shape[-1] // 3, 2)), rng.normal(size=2)
    ),
    split_linear, torch_split_linear, many('parts', 3), ((2, 3), (2, 4, 9)),
  ),
  'label_embedding': Sweep(
    lambda rng, b, k, d: (rng.integers(0, k, b), rng.normal(size=(k, d))),
    label_rows, lambda label, table: f.embedding(label, table),
    shapes=((1, 1, 1), (7, 4, 3)),
  ),
  'power_spectrogram': Sweep(
    x_alone, spectrogram.power_spectrogram, torch_spectrogram,
    ({'size': 8, 'hop': 8}, {'size': 15, 'hop': 4}, {'size': 16, 'hop': 3}),
    ((1, 16), (3, 41)),
  ),


}  # fmt: skip


@pytest.mark.parametrize('name', sorted(SWEEPS))
def test_values_and_gradients(name):
  sweeps.run(torch, SWEEPS[name])
