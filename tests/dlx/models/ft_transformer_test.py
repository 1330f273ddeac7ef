"""FT-Transformer: tokens and parameters by hand, and what does not depend on what."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.layers.block_config import BlockConfig
from dlx.layers.embeddings import LinearNumbers, PeriodicNumbers
from dlx.models.ft_transformer import FTTransformer

ROW = {
  'number': np.array([[1.0, 2.0], [0.0, -1.0]], np.float32),
  'missing': np.array([[True], [False]]),
  'code': np.array([[3], [0]], np.int32),
}


def net(layers=1, width=4, numbers=None, **fields):
  block = BlockConfig(width=width, num_heads=2, mlp_ratio=2, **fields)
  return FTTransformer([3], layers, block, 1, numbers or LinearNumbers(width))


def initial(model, row=ROW):
  return jax.jit(lambda key: model.init(key, row, train=False))(jax.random.key(0))


def test_numbers_become_tokens_by_hand():
  weight = np.array([[1, 2], [3, 4]], np.float32)
  params = {'weight': weight, 'bias': np.array([[0.5, 0], [0, -1]], np.float32)}
  found = LinearNumbers(2).apply({'params': params}, ROW['number'])
  want = [[[1.5, 2], [6, 7]], [[0.5, 0], [-3, -5]]]
  np.testing.assert_allclose(found, want, rtol=1e-6)


def test_periodic_numbers_by_hand():
  """Of frequency 1/4 a unit is a quarter turn: (sin, cos) of 1 is (1, 0)."""
  kernel = np.array([[[1.0, -1.0], [10.0, -10.0]]], np.float32)
  params = {
    'frequency': np.array([[0.25]], np.float32),
    'kernel': kernel,
    'bias': np.array([[0.5, 0.25]], np.float32),
  }
  x_B1 = np.array([[0.0], [1.0], [-1.0]], np.float32)
  found = PeriodicNumbers(2, frequencies=1).apply({'params': params}, x_B1)
  want = [[[10.5, 0]], [[1.5, 0]], [[0, 1.25]]]
  np.testing.assert_allclose(found, want, atol=1e-5)


def test_parameters_by_hand():
  shapes = jax.eval_shape(lambda: initial(net(layers=2)))['params']
  sizes = {
    name: sum(x.size for x in jax.tree.leaves(tree)) for name, tree in shapes.items()
  }
  width = 4
  block = 4 * (width * width + width)  # Queries, keys, values and what leads out.
  block += (width + 1) * 2 * width + (2 * width + 1) * width + 2 * 2 * width
  assert sizes == {
    'start': width,
    'numbers': 2 * 3 * width,  # Two numbers and a mark.
    'embedding_0': 4 * width,  # Three values, and none of them.
    'transformer': 2 * block,
    'norm': 2 * width,
    'head': width + 1,
  }


def test_one_block_against_numpy():
  """One head: the formulas of the paper, in NumPy."""
  model = FTTransformer(
    [3], 1, BlockConfig(width=4, num_heads=1, mlp_ratio=2), 1, LinearNumbers(4)
  )
  params = initial(model)['params']
  found = jax.jit(lambda p: model.apply({'params': p}, ROW, train=False))(params)
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  x = np.concatenate([ROW['number'], ROW['missing']], 1)
  tokens = x[..., None] * p['numbers']['weight'] + p['numbers']['bias']
  code = p['embedding_0']['table']['embedding'][ROW['code']]
  start = np.broadcast_to(p['start'], (2, 1, 4))
  x = np.concatenate([start, tokens, code], 1)
  block = jax.tree.map(lambda x: x[0], p['transformer']['blocks'])

  def norm(x, w):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * w['scale'] + w['bias']

  def to(x, w):
    return x @ w['kernel'].reshape(x.shape[-1], -1) + w['bias'].reshape(-1)

  h, a = norm(x, block['norm_attention']), block['attention']
  q, k, v = (to(h, a[name]) for name in ('query', 'key', 'value'))
  score = np.exp(q @ k.transpose(0, 2, 1) / 2)  # The root of the width of a head.
  mixed = score / score.sum(-1, keepdims=True) @ v
  out = a['out']
  x = x + mixed @ out['kernel'].reshape(4, 4) + out['bias']
  h = to(norm(x, block['norm_mlp']), block['mlp']['in'])
  erf = np.vectorize(math.erf)
  x = x + to(h * (1 + erf(h / np.sqrt(2))) / 2, block['mlp']['out'])
  want = (
    np.maximum(norm(x[:, 0], p['norm']), 0) @ p['head']['kernel'] + p['head']['bias']
  )
  np.testing.assert_allclose(found, want, rtol=2e-5, atol=2e-5)


def test_a_row_depends_on_itself_alone_and_on_all_its_columns():
  model = net(layers=2, width=8)
  variables = initial(model)

  def first(number_BN):
    return model.apply(variables, {**ROW, 'number': number_BN}, train=False)[0, 0]

  grad_BN = jax.jit(jax.grad(first))(jnp.asarray(ROW['number']))
  assert (grad_BN[0] != 0).all() and (grad_BN[1] == 0).all()


def test_attention_rows_sum_to_one():
  model = net(layers=2)
  weights = jax.jit(lambda v: model.apply(v, ROW, method='attention'))(initial(model))
  assert weights.shape == (2, 2, 2, 5, 5)
  np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)


def test_an_unknown_code_gives_nan():
  model = net()
  wrong = {**ROW, 'code': np.array([[4], [1]], np.int32)}
  found = jax.jit(lambda v: model.apply(v, wrong, train=False))(initial(model))
  assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()


@pytest.mark.parametrize('dtype', ('float32', 'bfloat16'))
@pytest.mark.parametrize('numbers', (LinearNumbers, PeriodicNumbers))
def test_outputs_are_float32(dtype, numbers):
  model = net(numbers=numbers(4, dtype=dtype), dtype=dtype)
  found = jax.eval_shape(
    lambda: model.init_with_output(jax.random.key(0), ROW, train=False)[0]
  )
  assert (found.shape, found.dtype) == ((2, 1), jnp.float32)
