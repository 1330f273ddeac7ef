"""Decision trees as arrays: grown elsewhere, evaluated by gathers (Breiman 1984).

Trees of unequal size lie in one array, T trees of N nodes, filled up with leaves that
nothing reaches. Node 0 is the root. An example goes left where its feature is at most
the threshold of the node; a leaf leads to itself, so that all trees take `depth` steps.
"""

from typing import Any, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlx.state import Array


class Trees(NamedTuple):
  """T trees of at most N nodes.

  Attributes:
    feature_TN: int32, which feature a node looks at; 0 of a leaf.
    threshold_TN: float32.
    left_TN, right_TN: int32, the next node; of a leaf the leaf itself.
    depth: int32 [], of the deepest leaf; a single root has 0.
  """

  feature_TN: Any
  threshold_TN: Any
  left_TN: Any
  right_TN: Any
  depth: Any


class Nodes(NamedTuple):
  """One tree as libraries give it: NumPy arrays, one entry a node.

  Attributes:
    feature_N: int.
    threshold_N: float64; an example goes left where its feature is at most this.
    left_N, right_N: int; of leaves whatever they are.
    leaf_N: bool.
  """

  feature_N: Any
  threshold_N: Any
  left_N: Any
  right_N: Any
  leaf_N: Any


def at_most(threshold: Any) -> np.ndarray:
  """The largest float32 up to each float64: no float32 compares otherwise with it."""
  wide = np.asarray(threshold, np.float64)
  near = wide.astype(np.float32)
  return np.where(near > wide, np.nextafter(near, np.float32(-np.inf)), near)


def blank(trees: int, nodes: int) -> Trees:
  """Trees of which each is a single leaf."""
  whole = lambda dtype: jnp.zeros((trees, nodes), dtype)
  itself = jnp.broadcast_to(jnp.arange(nodes, dtype=jnp.int32), (trees, nodes))
  return Trees(whole(jnp.int32), whole(jnp.float32), itself, itself, jnp.int32(0))


def pack(grown: Sequence[Nodes], trees: int, nodes: int) -> Trees:
  """Trees as NumPy arrays [trees, nodes]; missing trees are single leaves.

  Raises:
    ValueError: more trees, or more nodes in one, than there is room for.
  """
  most = max((len(tree.leaf_N) for tree in grown), default=0)
  if len(grown) > trees or most > nodes:
    raise ValueError(
      f'{len(grown)} trees of up to {most} nodes: there is room for {trees} of {nodes}.'
    )
  feature = np.zeros((trees, nodes), np.int32)
  threshold = np.zeros((trees, nodes), np.float32)
  left = np.tile(np.arange(nodes, dtype=np.int32), (trees, 1))
  right, depth = left.copy(), 0
  for i, tree in enumerate(grown):
    inner = (~np.asarray(tree.leaf_N, bool)).nonzero()[0]
    feature[i, inner] = tree.feature_N[inner]
    threshold[i, inner] = at_most(tree.threshold_N[inner])
    left[i, inner], right[i, inner] = tree.left_N[inner], tree.right_N[inner]
    level, steps = np.zeros(1, np.int32), 0
    while len(level := level[~np.asarray(tree.leaf_N, bool)[level]]):
      level, steps = np.concatenate([left[i, level], right[i, level]]), steps + 1
    depth = max(depth, steps)
  return Trees(feature, threshold, left, right, np.int32(depth))


def leaves(trees: Trees, x_BF: Array) -> Array:
  """The leaf of each example in each tree, int32 [B, T].

  Args:
    trees: of features in [0, F).
    x_BF: float32, without nan.
  """
  trees = jax.tree.map(jnp.asarray, trees)
  down = lambda _, node_BT: _next(trees, x_BF, node_BT)
  return jax.lax.fori_loop(0, trees.depth, down, _roots(trees, x_BF))


def values(value_TN: Array, leaf_BT: Array) -> Array:
  """What stands at the leaves, [B, T, ...].

  Args:
    value_TN: [T, N, ...].
    leaf_BT: of `leaves`.
  """
  return value_TN[jnp.arange(leaf_BT.shape[1])[None], leaf_BT]


def decisions(trees: Trees, x_BF: Array) -> Array:
  """How many nodes look at each feature on an example's way down, float32 [F].

  Mean over the examples and the trees.
  """
  trees, num_trees = jax.tree.map(jnp.asarray, trees), trees.feature_TN.shape[0]
  tree_T = jnp.arange(num_trees)

  def down(_, carry):
    node_BT, count_F = carry
    next_BT = _next(trees, x_BF, node_BT)
    moved_BT = (next_BT != node_BT).astype(jnp.float32)
    feature_BT = trees.feature_TN[tree_T[None], node_BT]
    return next_BT, count_F.at[feature_BT].add(moved_BT)

  start = _roots(trees, x_BF), jnp.zeros(x_BF.shape[1], jnp.float32)
  count_F = jax.lax.fori_loop(0, trees.depth, down, start)[1]
  return count_F / (x_BF.shape[0] * num_trees)


def _roots(trees: Trees, x_BF: Array) -> Array:
  return jnp.zeros((x_BF.shape[0], trees.feature_TN.shape[0]), jnp.int32)


def _next(trees: Trees, x_BF: Array, node_BT: Array) -> Array:
  """The node after each, of every example in every tree."""
  at = jnp.arange(trees.feature_TN.shape[0])[None], node_BT
  value_BT = jnp.take_along_axis(jnp.asarray(x_BF), trees.feature_TN[at], axis=1)
  go_left = value_BT <= trees.threshold_TN[at]
  return jnp.where(go_left, trees.left_TN[at], trees.right_TN[at])
