"""A deep stack of linear layers equals one matrix; with relu it does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.models.mlp import MLP
from dlx.scratch import linear_stack

RNG = np.random.default_rng(0)


def stack(*sizes):
  """Layers that keep the variance of what they are given."""
  return [
    (RNG.normal(size=(n, m)) / np.sqrt(n), RNG.normal(size=m))
    for n, m in zip(sizes, sizes[1:])
  ]


@pytest.mark.parametrize('depth', [1, 2, 50])
def test_equals_one_matrix(depth):
  layers, x = stack(7, *[16] * (depth - 1), 3), RNG.normal(size=(20, 7))
  w, b = linear_stack.collapse(layers)
  assert w.shape == (7, 3)
  np.testing.assert_allclose(
    linear_stack.forward(layers, x), x @ w + b, rtol=1e-10, atol=1e-10
  )


def test_a_narrow_layer_bounds_the_rank():
  w, _ = linear_stack.collapse(stack(8, 16, 2, 16, 8))
  assert np.linalg.matrix_rank(w) == 2


@pytest.mark.parametrize(
  ('activation', 'is_affine'), [(lambda x: x, True), (jax.nn.relu, False)]
)
def test_the_network_of_the_library(activation, is_affine):
  widths = (32,) * 12
  model = MLP(widths, 5, activation=activation)
  x = jnp.asarray(RNG.normal(size=(20, 8)), jnp.float32)
  init = jax.jit(lambda x: model.init(jax.random.key(0), x, train=False))
  params = init(x)['params']
  names = [*(f'hidden_{k}' for k in range(len(widths))), 'head']
  layers = [(params[n]['kernel'], params[n]['bias'] + 0.1) for n in names]
  for name, (_, bias) in zip(names, layers):
    params[name]['bias'] = bias
  got = jax.jit(lambda p, x: model.apply({'params': p}, x, train=False))(params, x)
  w, b = linear_stack.collapse([(np.asarray(w), np.asarray(b)) for w, b in layers])
  error = np.abs(got - (np.asarray(x) @ w + b)).max() / np.abs(got).max()
  assert (error < 1e-5) == is_affine
  assert is_affine or error > 0.1
