"""Hidden blocks: parts in their order by hand, what is split, what is refused."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.layers.activations import activation
from dlx.layers.initialisers import initialiser
from dlx.models.hidden_blocks import Blocks
from experiments.foundations import hidden_blocks


def blocks(*block, **fields):
  return Blocks(
    **{
      'depth': 2,
      'width': 4,
      'block': block,
      'num_outputs': 3,
      'split': 2,
      'rate': 0.5,
      'activation': nn.relu,
      'kernel_init': initialiser('he_normal'),
      **fields,
    }
  )


X = np.random.default_rng(0).normal(size=(8, 2, 2, 1)).astype(np.float32)


def numbers(model, seed=1):
  """Parameters and statistics that are neither 0 nor 1."""
  made = jax.eval_shape(lambda key: model.init(key, X, train=False), jax.random.key(0))
  leaves, tree = jax.tree.flatten(made)
  random = np.random.default_rng(seed)
  drawn = [random.uniform(0.5, 1.5, x.shape).astype(np.float32) for x in leaves]
  return jax.tree.unflatten(tree, drawn)


def normed(y, of):
  return (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + 1e-6) * (
    of['scale']
  ) + of['bias']


def test_parts_stand_in_their_order():
  model = blocks('dense', 'layer_norm', 'activation')
  found = numbers(model)
  p = jax.tree.map(np.asarray, found['params'])
  y, hidden = X.reshape(8, 4), []
  for i in range(2):
    y = y @ p[f'block_{i}_0']['kernel'] + p[f'block_{i}_0']['bias']
    y = np.maximum(normed(y, p[f'block_{i}_1']), 0)
    hidden.append(y)
  logits = y @ p['head']['kernel'] + p['head']['bias']
  # Rounding of float32 over the variance of four numbers, which may be small.
  near = {'rtol': 1e-4, 'atol': 1e-4}
  np.testing.assert_allclose(model.apply(found, X, train=False), logits, **near)
  for one, wanted in zip(model.apply(found, X, method='hidden'), hidden, strict=True):
    np.testing.assert_allclose(one, wanted, **near)
  other = blocks('dense', 'activation', 'layer_norm')
  moved = {name[:-1] + '2' if name[-1] == '1' else name: of for name, of in p.items()}
  assert np.abs(other.apply({'params': moved}, X, train=False) - logits).max() > 0.01


@pytest.mark.parametrize(
  ('block', 'mixed'), [(('split',), False), (('split', 'shuffle'), True)]
)
def test_a_shuffle_brings_every_part_to_every_part(block, mixed):
  """By the slope of each hidden unit by each input, of two blocks of two parts."""
  model = blocks(*block)
  found = numbers(model)
  shared = found['params']['block_1_0']['shared']
  assert (shared['kernel'].shape, shared['bias'].shape) == ((2, 2), (2,))
  flat = lambda x: model.apply(found, x.reshape(1, 2, 2, 1), method='hidden')[-1][0]
  touched = np.asarray(jax.jit(jax.jacobian(flat))(jnp.ones(4))) != 0
  apart = np.kron(np.eye(2), np.ones((2, 2))) == 1
  np.testing.assert_array_equal(touched, np.ones((4, 4), bool) if mixed else apart)


def test_a_linear_part_right_before_batch_norm_has_no_bias():
  of = lambda *block: numbers(blocks(*block))['params']['block_0_0'].keys()
  assert of('dense', 'batch_norm', 'activation') == {'kernel'}
  assert of('dense', 'dropout', 'batch_norm') == {'kernel', 'bias'}


@pytest.mark.parametrize('part', ['dropout', 'alpha_dropout', 'drop_norm'])
def test_what_drops_does_so_in_training_alone(part):
  model = blocks('dense', part, depth=1, width=64, split=1, rate=0.25)
  found = numbers(model)

  @jax.jit
  def trained(rate, key):
    own = model.clone(rate=rate)  # Traced, as in runs that share a program.
    return own.apply(found, X, train=True, rngs={'dropout': key}, method='forward')[1]

  (dropped,) = trained(0.25, jax.random.key(1))
  still = jnp.asarray(model.apply(found, X, method='hidden'))[0]
  if part == 'alpha_dropout':
    # All that is dropped has one value, that of no other unit.
    lost = np.unique(np.round(dropped, 4), return_counts=True)[1].max()
  else:
    lost = int((np.asarray(dropped) == 0).sum())
  # Of 512 draws of probability 1/4: five deviations of 9.8.
  assert abs(lost - 128) < 49
  assert not np.allclose(dropped, still)
  again = trained(0.25, jax.random.key(1))[0]
  np.testing.assert_array_equal(dropped, again)


def test_selu_keeps_mean_and_variance_over_30_layers():
  model = blocks(
    *('dense', 'activation'), depth=30, width=256, activation=activation('selu')
  )
  x = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)

  def lecun(seed):
    random = np.random.default_rng(seed)
    kernel = lambda n: random.normal(0, n**-0.5, (n, 256)).astype(np.float32)
    layer = lambda n: {'kernel': kernel(n), 'bias': np.zeros(256, np.float32)}
    return {f'block_{i}_0': layer(256 if i else 64) for i in range(30)}

  head = {'head': {'kernel': np.zeros((256, 3)), 'bias': np.zeros(3)}}
  last = jax.jit(lambda params: model.apply(params, x, method='hidden')[-1])
  y = np.concatenate([last({'params': {**lecun(s), **head}}) for s in range(4)])
  # Over a net of 256 units mean and variance deviate by 0.03 and 0.05 (NumPy, 6 seeds).
  assert abs(y.mean()) < 0.06 and abs(y.var() - 1) < 0.1


@pytest.mark.parametrize(
  ('fields', 'told'),
  [
    ({'block': ('activation', 'dense')}, 'block=.* dense or split, then any of'),
    ({'block': ()}, 'block='),
    ({'block': ('dense', 'norm')}, 'block='),
    ({'split': 3}, 'split=3 is not allowed: must be a divisor of 8'),
    ({'dropout': 1.0}, r'dropout=1.0 is not allowed: must be in \[0, 1'),
    ({'optimizer': 'newton'}, 'optimizer=newton'),
    ({'activation': 'softmax'}, 'activation=softmax'),
  ],
)
def test_refusals(fields, told):
  with pytest.raises(ConfigError, match=told):
    dataclasses.replace(hidden_blocks.SMALL, **fields)


def test_parts_that_do_not_divide_the_inputs():
  config = dataclasses.replace(
    hidden_blocks.SMALL, block=('split',), width=12, split=12
  )
  with pytest.raises(
    ConfigError, match='split=12 is not allowed: must be a divisor of'
  ):
    hidden_blocks.build(config)
