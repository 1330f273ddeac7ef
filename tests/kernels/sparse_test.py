"""A sparse product in C++ against one of dense matrices; skipped where not built."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.layers import graph
from kernels.onednn import sparse

pytestmark = pytest.mark.usefixtures('onednn')
# Entries, rows, columns, features: 16 and 32 are one and two threads' columns.
SIZES = (
  (1, 1, 1, 1),
  (9, 4, 3, 7),
  (50, 11, 13, 16),
  (40, 9, 5, 35),
  (9000, 300, 500, 256),
)


def entries(count, rows, columns, features):
  rng = np.random.default_rng(count)
  return (
    rng.integers(0, rows, count).astype(np.int32),
    rng.integers(0, columns, count).astype(np.int32),
    rng.normal(size=count).astype(np.float32),
    rng.normal(size=(columns, features)).astype(np.float32),
  )


def dense(row, column, values, x, num_rows):
  matrix = jnp.zeros((num_rows, x.shape[0]), x.dtype).at[row, column].add(values)
  return jnp.matmul(matrix, x, precision='highest')


def derivatives(function, row, column, values, x, num_rows):
  total = lambda values, x: jnp.sin(function(row, column, values, x, num_rows)).sum()
  first = jax.grad(total, argnums=(0, 1))
  square = lambda *args: sum((g**2).sum() for g in first(*args))
  y = function(row, column, values, x, num_rows)
  return y, first(values, x), jax.grad(square, argnums=(0, 1))(values, x)


@pytest.mark.parametrize('size', SIZES)
def test_values_and_derivatives_are_those_of_dense_matrices_in_float64(size):
  row, column, values, x = entries(*size)
  ours = jax.jit(functools.partial(derivatives, sparse.product, num_rows=size[1]))(
    row, column, values, x
  )
  with jax.enable_x64(True):
    wide = [jnp.asarray(v, jnp.float64) for v in (values, x)]
    wanted = jax.jit(functools.partial(derivatives, dense, num_rows=size[1]))(
      row, column, *wide
    )
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * max(np.abs(b).max(), 1))


def test_entries_that_lie_outside_are_left_out():
  row, column, values, x = entries(6, 3, 4, 5)
  row[0], row[1], column[2], column[3] = -1, 3, -7, 4
  found = sparse.product(row, column, values, x, 3)
  np.testing.assert_allclose(
    found, dense(row[4:], column[4:], values[4:], x, 3), rtol=1e-5, atol=1e-6
  )


def test_under_vmap_and_in_a_loop():
  row, column, values, x = entries(50, 6, 6, 4)

  def many(product, x):
    body = lambda _, x: jnp.tanh(product(row, column, values, x, 6))
    return jax.lax.fori_loop(0, 3, body, x)

  xs = np.stack([x, 2 * x])
  found, wanted = (
    jax.vmap(functools.partial(many, f))(xs)
    for f in (sparse.product, sparse.plain_product)
  )
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_layers_call_it_and_other_platforms_do_not():
  row, column, values, x = entries(50, 6, 6, 4)
  index = jnp.stack([row, column], 1)
  calls = lambda f, *args: jax.jit(f).lower(*args).as_text().count('@dlx_sparse')
  matmul = lambda x: graph.sparse_matmul(index, values, x, 6).sum()
  assert calls(lambda x: graph.propagate(x, row, column, values), x) == 1
  assert calls(matmul, x) == 1
  # The gradient of a sum does not need the sum.
  assert calls(jax.grad(matmul), x) == 1
  assert calls(matmul, x.astype(jnp.bfloat16)) == 0
  text = jax.jit(matmul).trace(x).lower(lowering_platforms=('cuda',)).as_text()
  assert 'dlx_sparse' not in text
