"""Graph convolution as pure functions of edges, sparse features and weights.

Edges are undirected pairs [E, 2] without self-loops. Messages are sums over edges, so
that nothing of size N x N exists. An index of a node or feature that is not there makes
every sum nan. Where kernels/onednn is built, a CPU sums in float32
by one call of C++, without the messages in memory; then in reverse mode only.
"""

from typing import Any

import jax
import jax.numpy as jnp

from dlx import labels
from kernels.onednn import library, sparse


def symmetric_normalisation(
  edges_E2: jax.Array, num_nodes: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """D^-1/2 (A + I) D^-1/2 of arXiv 1609.02907 as a list of its non-zero entries.

  Args:
    edges_E2: int, each undirected edge once, no self-loops.
    num_nodes: N. A node without edges keeps its self-loop, of weight 1.

  Returns:
    sender, receiver int32 [2 E + N] and weight f32 [2 E + N].
  """
  nodes_N = jnp.arange(num_nodes, dtype=jnp.int32)
  a_E, b_E = edges_E2[:, 0].astype(jnp.int32), edges_E2[:, 1].astype(jnp.int32)
  sender = jnp.concatenate([a_E, b_E, nodes_N])
  receiver = jnp.concatenate([b_E, a_E, nodes_N])
  degree_N = jnp.zeros(num_nodes).at[receiver].add(1.0)
  scale_N = jax.lax.rsqrt(degree_N)
  return sender, receiver, scale_N[sender] * scale_N[receiver]


def propagate(
  x_NF: jax.Array, sender: jax.Array, receiver: jax.Array, weight: jax.Array
) -> jax.Array:
  """The sum over in-edges of `weight * x[sender]`, for every node: [N, F]."""
  return _product(receiver, sender, weight, x_NF, x_NF.shape[0])


def sparse_matmul(
  indices_X2: jax.Array, values_X: jax.Array, kernel_FH: jax.Array, num_rows: int
) -> jax.Array:
  """X @ kernel [N, H], of a sparse X given by its non-zero entries.

  Cora's features hold 49216 of 3880564 entries: a dense product and, before it,
  dropout on all entries are most of a dense GCN's time.
  """
  return _product(indices_X2[:, 0], indices_X2[:, 1], values_X, kernel_FH, num_rows)


def _product(rows_X, columns_X, values_X, x_MF, num_rows) -> Any:
  # An entry elsewhere would be left out or moved: no sum then means what it says.
  known = labels.is_index(rows_X, num_rows).all()
  known &= labels.is_index(columns_X, x_MF.shape[0]).all()
  values_X = jnp.where(known, values_X, jnp.nan)
  args = (rows_X, columns_X, values_X, x_MF, num_rows)
  fits = values_X.dtype == x_MF.dtype == jnp.float32 and x_MF.size and values_X.size
  if not (fits and library.usable()):
    return sparse.plain_product(*args)
  rows_X, columns_X = rows_X.astype(jnp.int32), columns_X.astype(jnp.int32)
  return sparse.product(rows_X, columns_X, *args[2:])


def row_normalise(
  indices_X2: jax.Array, values_X: jax.Array, num_rows: int
) -> jax.Array:
  """Values divided by the sum of their row [X]; rows without entries stay empty."""
  sums_N = jax.ops.segment_sum(values_X, indices_X2[:, 0], num_rows)
  return values_X / jnp.where(sums_N == 0, 1, sums_N)[indices_X2[:, 0]]
