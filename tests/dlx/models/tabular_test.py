"""A net over columns: sizes by hand, and what it is without a hidden layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.models.tabular import Tabular, embedding_width

ROW = {
  'number': np.array([[1.0, 2.0], [0.0, -1.0]], np.float32),
  'missing': np.array([[True], [False]]),
  'code': np.array([[3], [0]], np.int32),
}


def test_widths_of_embeddings():
  # 1.6 times 2^0.56 = 1.474, 5^0.56 = 2.463, 64^0.56 = 10.27.
  assert [embedding_width(n) for n in (2, 5, 64)] == [2, 4, 16]


def test_parameters_by_hand():
  model = Tabular([3], [2], [4], 1)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), ROW, train=False))
  sizes = jax.tree.map(lambda x: x.shape, shapes['params'])
  assert sizes == {
    'embedding_0': {'table': {'embedding': (4, 2)}},  # Three values, and none of them.
    'mlp': {
      'hidden_0': {'kernel': (2 + 1 + 2, 4), 'bias': (4,)},
      'head': {'kernel': (4, 1), 'bias': (1,)},
    },
  }


def test_linear_by_hand():
  """Two numbers, a mark, and a code of 0 to 3."""
  model = Tabular([3], [0], [], 1)
  weights = np.array([[10, 100, 1000, 1, 2, 3, 4]], np.float32).T
  params = {'mlp': {'head': {'kernel': weights, 'bias': np.array([0.5])}}}
  found = model.apply({'params': params}, ROW, train=False)
  np.testing.assert_allclose(found, [[10 + 200 + 1000 + 4.5], [-100 + 1.5]])


def test_a_code_picks_its_embedding():
  model = Tabular([3], [1], [], 1)
  params = {
    'embedding_0': {'table': {'embedding': jnp.array([[1.0], [2], [3], [4]])}},
    'mlp': {'head': {'kernel': jnp.eye(4)[3:].T, 'bias': jnp.zeros(1)}},
  }
  found = model.apply({'params': params}, ROW, train=False)
  np.testing.assert_array_equal(found, [[4], [1]])
  wrong = {**ROW, 'code': np.array([[4], [-1]], np.int32)}
  assert np.isnan(model.apply({'params': params}, wrong, train=False)).all()


@pytest.mark.parametrize('dtype', ('float32', 'bfloat16'))
def test_outputs_are_float32(dtype):
  model = Tabular([3], [2], [4], 2, dtype=dtype)
  found = jax.eval_shape(
    lambda: model.init_with_output(jax.random.key(0), ROW, train=False)[0]
  )
  assert (found.shape, found.dtype) == ((2, 2), jnp.float32)
