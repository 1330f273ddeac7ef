"""Decision trees as arrays: grown elsewhere, evaluated by gathers (Breiman 1984).

Trees of unequal size lie in one array, T trees of N nodes, filled up with leaves that
nothing reaches. Node 0 is the root. An example goes left where its feature is at most
the threshold of the node; a leaf leads to itself.
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
  """

  feature_TN: Any
  threshold_TN: Any
  left_TN: Any
  right_TN: Any


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
  return Trees(whole(jnp.int32), whole(jnp.float32), itself, itself)


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
  right = left.copy()
  for i, tree in enumerate(grown):
    inner = (~np.asarray(tree.leaf_N, bool)).nonzero()[0]
    feature[i, inner] = tree.feature_N[inner]
    threshold[i, inner] = at_most(tree.threshold_N[inner])
    left[i, inner], right[i, inner] = tree.left_N[inner], tree.right_N[inner]
  return Trees(feature, threshold, left, right)


def leaves(trees: Trees, x_BF: Array) -> Array:
  """The leaf of each example in each tree, int32 [B, T].

  Args:
    trees: of features in [0, F).
    x_BF: float32, without nan.
  """
  return _down(trees, x_BF, lambda node_BT, next_BT, found: found, ())[0]


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
  tree_T = jnp.arange(trees.feature_TN.shape[0])
  feature_TN = jnp.asarray(trees.feature_TN)

  def count(node_BT, next_BT, count_F):
    moved_BT = (next_BT != node_BT).astype(jnp.float32)
    return count_F.at[feature_TN[tree_T[None], node_BT]].add(moved_BT)

  zeros_F = jnp.zeros(x_BF.shape[1], jnp.float32)
  node_BT, count_F = _down(trees, x_BF, count, zeros_F)
  return count_F / node_BT.size


def _down(trees: Trees, x_BF: Array, see: Any, found: Any) -> tuple[Array, Any]:
  """The leaves int32 [B, T], and `found = see(nodes, next nodes, found)` of each step.

  No way is longer than there are nodes, whatever arrays were given for trees.
  """
  trees = jax.tree.map(jnp.asarray, trees)
  num_trees, most = trees.feature_TN.shape
  tree_1T = jnp.arange(num_trees)[None]

  def step(carry):
    i, node_BT, _, found = carry
    at = tree_1T, node_BT
    value_BT = jnp.take_along_axis(x_BF, trees.feature_TN[at], axis=1)
    go_left = value_BT <= trees.threshold_TN[at]
    next_BT = jnp.where(go_left, trees.left_TN[at], trees.right_TN[at])
    moving = (next_BT != node_BT).any()
    return i + 1, next_BT, moving, see(node_BT, next_BT, found)

  root_BT = jnp.zeros((x_BF.shape[0], num_trees), jnp.int32)
  start = jnp.int32(0), root_BT, jnp.bool_(True), found
  more = lambda carry: carry[2] & (carry[0] < most)
  _, node_BT, _, found = jax.lax.while_loop(more, step, start)
  return node_BT, found
