"""Losses that are 0 from a margin on: hinge, pairs, triplets."""

import chex
import jax
import jax.numpy as jnp

from dlx import labels
from dlx.losses.regression import _mean_of_rows
from dlx.precision import at_least_float32, euclidean_norm
from dlx.state import Array


def hinge(logits: Array, target: Array, power: int = 1) -> Array:
  """`max(0, 1 - s x)^power`, s = 1 for yes and -1 for no (Cortes and Vapnik 1995).

  Args:
    logits: x, [B] or [B, ...].
    target: same shape: 1 or True is yes, 0 or False is no.
    power: 2 is the squared hinge, which is smooth.

  Returns:
    [B], the mean over the trailing axes; its gradient is 0 at the kink.
  """
  chex.assert_equal_shape([logits, target])
  x, target = at_least_float32(logits), at_least_float32(target)
  return _mean_of_rows(jax.nn.relu(1 - (2 * target - 1) * x) ** power)


def multiclass_hinge(
  logits_BK: Array, label_B: Array, margin: float | Array = 1.0
) -> Array:
  """`max(0, margin + largest wrong logit - logit of the label)` [B].

  Crammer and Singer 2001. nan for a label outside [0, K); K at least 2.
  """
  chex.assert_rank([logits_BK, label_B], [2, 1])
  chex.assert_equal_shape_prefix([logits_BK, label_B], 1)
  logits_BK = at_least_float32(logits_BK)
  hit_BK = labels.hits(label_B, logits_BK.shape[1])
  own_B = jnp.where(hit_BK, logits_BK, 0).sum(1)
  wrong_B = jnp.where(hit_BK, -jnp.inf, logits_BK).max(1)
  known_B = labels.is_index(label_B, logits_BK.shape[1])
  return jnp.where(known_B, jax.nn.relu(margin + wrong_B - own_B), jnp.nan)


def pair_contrastive(
  one_BD: Array, two_BD: Array, same_B: Array, margin: float | Array = 1.0
) -> Array:
  """Pulls like pairs together, pushes others a margin apart (Hadsell et al. 2006).

  `d^2 / 2` for a pair that is alike, `max(0, margin - d)^2 / 2` for one that is not, d
  the Euclidean distance. Two unlike vectors at the same place have no direction to go:
  their gradient is 0.

  Args:
    one_BD, two_BD: the embeddings of each pair.
    same_B: bool, or 1 and 0: whether they are alike.
    margin: above 0, in units of the embedding.
  """
  chex.assert_rank([one_BD, two_BD, same_B], [2, 2, 1])
  chex.assert_equal_shape([one_BD, two_BD])
  chex.assert_equal_shape_prefix([one_BD, same_B], 1)
  distance_B = distance(one_BD, two_BD)
  apart_B = jax.nn.relu(margin - distance_B)
  return jnp.square(jnp.where(same_B == 1, distance_B, apart_B)) / 2


def triplet(
  anchor_BD: Array,
  positive_BD: Array,
  negative_BD: Array,
  margin: float | Array = 1.0,
  squared: bool = False,
) -> Array:
  """`max(0, d(anchor, positive) - d(anchor, negative) + margin)` [B].

  Args:
    anchor_BD, positive_BD, negative_BD: embeddings; the first two are alike.
    margin: how much farther the negative shall be.
    squared: distances are squared (arXiv:1503.03832).
  """
  chex.assert_rank([anchor_BD, positive_BD, negative_BD], 2)
  chex.assert_equal_shape([anchor_BD, positive_BD, negative_BD])
  near_B, far_B = distance(anchor_BD, positive_BD), distance(anchor_BD, negative_BD)
  if squared:
    near_B, far_B = jnp.square(near_B), jnp.square(far_B)
  return jax.nn.relu(near_B - far_B + margin)


def distance(one_BD: Array, two_BD: Array) -> Array:
  """Euclidean distance of rows [B], float32 or wider; gradient 0 where it is 0."""
  difference_BD = at_least_float32(one_BD) - at_least_float32(two_BD)
  zero_B = (difference_BD == 0).all(1)
  # Of other numbers there, since the derivative of a norm at 0 is nan, and stays so.
  safe_BD = jnp.where(zero_B[:, None], 1, difference_BD)
  return jnp.where(zero_B, 0, euclidean_norm(safe_BD))
