"""Contrastive losses: which of many keys belongs to a query?

Vectors that are compared have length 1 (`precision.unit`); a similarity is their dot
product.
"""

import math
from typing import Mapping, NamedTuple

import chex
import jax
import jax.numpy as jnp

from dlx.precision import EXACT, at_least_float32
from dlx.state import Array, Metric

# What a training by InfoNCE reports.
CONTRASTIVE: Mapping[str, Metric] = {
  'train/loss': Metric(
    'Contrastive loss',
    'lower',
    'Mean over the queries of the negative logarithm of the probability of the key of '
    'the same image among the keys of the queue.',
    'nats',
    'loss',
  ),
  'top1': Metric(
    'Keys found',
    'higher',
    'Share of the queries to which the key of the same image is the most similar.',
    '%',
    'share',
  ),
  'positive': Metric(
    'Similarity of views',
    None,
    'Mean cosine similarity of a query and the key of the same image.',
    '',
    'similarity',
  ),
}


def among(negatives: int) -> dict[str, Metric]:
  """CONTRASTIVE, with what a net that tells no keys apart gives."""
  chance = {'train/loss': math.log1p(negatives), 'top1': 1 / (1 + negatives)}
  return {k: m._replace(chance=chance.get(k)) for k, m in CONTRASTIVE.items()}


class InfoNCE(NamedTuple):
  """The loss of each query and what it did.

  Attributes:
    loss_B: in nats; log(1 + N) where nothing is told apart.
    hit_B: whether the positive is more similar than every other key.
    positive_B: similarity of the pair, in [-1, 1].
  """

  loss_B: Array
  hit_B: Array
  positive_B: Array


def info_nce(
  query_BD: Array, key_BD: Array, negative_ND: Array, temperature: float | Array
) -> InfoNCE:
  """Which of 1 + N keys belongs to the query? (arXiv:1807.03748, arXiv:1911.05722)

  `-log exp(q.k / t) / (exp(q.k / t) + sum_n exp(q.n / t))`; queries see only their own
  key and the negatives, so that parts of a batch give the loss of the whole.

  Args:
    query_BD: of length 1.
    key_BD: row i belongs to query i; of length 1.
    negative_ND: keys of other images; of length 1.
    temperature: t, above 0.
  """
  chex.assert_rank([query_BD, key_BD, negative_ND], 2)
  chex.assert_equal_shape([query_BD, key_BD])
  query_BD, key_BD, negative_ND = map(at_least_float32, (query_BD, key_BD, negative_ND))
  positive_B = (query_BD * key_BD).sum(-1)
  negative_BN = jnp.dot(query_BD, negative_ND.T, precision=EXACT)
  logits_BN = jnp.concatenate([positive_B[:, None], negative_BN], 1) / temperature
  loss_B = jax.nn.logsumexp(logits_BN, 1) - logits_BN[:, 0]
  # Not the first of equals, which would find every key where nothing is told apart.
  hit_B = logits_BN[:, 0] > logits_BN[:, 1:].max(1, initial=-jnp.inf)
  return InfoNCE(loss_B, hit_B, positive_B)


def in_batch_info_nce(
  query_BD: Array, key_BD: Array, temperature: float | Array
) -> InfoNCE:
  """InfoNCE whose negatives are the keys of the other rows (arXiv:1807.03748).

  In one direction, from queries to keys: no query is a negative, and no key asks. Both
  directions, and the views of the other images on either side: `nt_xent`. Without a
  queue; not additive over parts of a batch.
  """
  chex.assert_rank([query_BD, key_BD], 2)
  chex.assert_equal_shape([query_BD, key_BD])
  query_BD, key_BD = at_least_float32(query_BD), at_least_float32(key_BD)
  logits_BB = jnp.dot(query_BD, key_BD.T, precision=EXACT) / temperature
  own_B = jnp.diagonal(logits_BB)
  own_BB = jnp.eye(query_BD.shape[0], dtype=bool)
  others_BB = jnp.where(own_BB, -jnp.inf, logits_BB)
  return InfoNCE(
    jax.nn.logsumexp(logits_BB, 1) - own_B,
    own_B > others_BB.max(1, initial=-jnp.inf),
    own_B * temperature,
  )


def symmetric_info_nce(
  one_BD: Array, two_BD: Array, temperature: float | Array
) -> InfoNCE:
  """CLIP's loss: the mean of `in_batch_info_nce` in both directions (arXiv:2103.00020).

  Row i of one is the pair of row i of the other, as a picture and its text. A pair is
  found where it is in both directions. Not additive over parts of a batch.
  """
  there = in_batch_info_nce(one_BD, two_BD, temperature)
  back = in_batch_info_nce(two_BD, one_BD, temperature)
  loss_B = (there.loss_B + back.loss_B) / 2
  return InfoNCE(loss_B, there.hit_B & back.hit_B, there.positive_B)


def nt_xent(one_BD: Array, two_BD: Array, temperature: float | Array) -> InfoNCE:
  """SimCLR's loss: which of the 2B - 1 other views is of the same image?

  Every view asks; its positive is the other view of its image, its negatives are both
  views of all other images (arXiv:2002.05709, equation 1). Not additive over parts of a
  batch.

  Args:
    one_BD: one view of each image; of length 1.
    two_BD: the other one; of length 1.
    temperature: t, above 0.

  Returns:
    Of 2B queries, those of `one_BD` first; log(2B - 1) where nothing is told apart.
  """
  chex.assert_rank([one_BD, two_BD], 2)
  chex.assert_equal_shape([one_BD, two_BD])
  view_VD = at_least_float32(jnp.concatenate([one_BD, two_BD]))
  itself_VV = jnp.eye(view_VD.shape[0], dtype=bool)
  logits_VV = jnp.dot(view_VD, view_VD.T, precision=EXACT) / temperature
  logits_VV = jnp.where(itself_VV, -jnp.inf, logits_VV)
  own_VV = jnp.roll(itself_VV, one_BD.shape[0], 1)
  own_V = jnp.where(own_VV, logits_VV, 0).sum(1)
  others_V = jnp.where(own_VV, -jnp.inf, logits_VV).max(1, initial=-jnp.inf)
  loss_V = jax.nn.logsumexp(logits_VV, 1) - own_V
  return InfoNCE(loss_V, own_V > others_V, own_V * temperature)
