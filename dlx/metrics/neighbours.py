"""Nearest neighbours by cosine similarity or distance, and their vote."""

from typing import Mapping, NamedTuple

import chex
import jax
import jax.numpy as jnp

from dlx import labels
from dlx.errors import ConfigError
from dlx.metrics.linear_probe import in_chunks
from dlx.precision import EXACT, at_least_float32, unit
from dlx.state import Array, Metric

# What a bank of neighbours reports while images are put into it.
BANK: Mapping[str, Metric] = {
  'train/loss': Metric(
    'Error of the bank',
    'lower',
    'Share of the batch that the other images of the bank, full or not, get wrong.',
    '%',
    'share',
  ),
  'filled': Metric(
    'Filled places',
    None,
    'Share of the places of the bank that hold an image.',
    '%',
    'share',
  ),
}


class Neighbours(NamedTuple):
  """The k most similar rows of a bank, the most similar first.

  Attributes:
    similarity_Mk: cosine, or minus the squared Euclidean distance; -inf where the bank
      holds fewer than k valid rows.
    row_Mk: int32, in the bank.
  """

  similarity_Mk: Array
  row_Mk: Array


def nearest(
  query_MF: Array,
  bank_NF: Array,
  *,
  k: int,
  valid_N: Array | None = None,
  itself_M: Array | None = None,
  chunk: int = 250,
  euclidean: bool = False,
) -> Neighbours:
  """Nearest rows by cosine similarity, `chunk` queries at a time.

  Args:
    query_MF: of any length.
    bank_NF: of any length.
    k: at most N.
    valid_N: rows of the bank that count; None: all.
    itself_M: int, a row of the bank that query m must not find: leave-one-out.
    chunk: M x N similarities are never held at once, `chunk` x N are.
    euclidean: by the distance instead, as in an embedding whose lengths matter.
  """
  chex.assert_rank([query_MF, bank_NF], 2)
  # Distances from the middle of the bank: squares of far coordinates lose their digits.
  middle_F = at_least_float32(bank_NF).mean(0)
  form = (lambda x: at_least_float32(x) - middle_F[None]) if euclidean else unit
  bank_FN = form(bank_NF).T
  size = bank_FN.shape[1]
  if not 1 <= k <= size:
    raise ConfigError(f'k={k} is not allowed: must be in [1, {size}], the bank.')
  row_1N = jnp.arange(size, dtype=jnp.int32)[None]

  def some(part):
    query_bF, itself_b = part
    query_bF = form(query_bF)
    similarity_bN = jnp.dot(query_bF, bank_FN, precision=EXACT)
    if euclidean:
      squares_b1 = jnp.square(query_bF).sum(1, keepdims=True)
      similarity_bN = 2 * similarity_bN - squares_b1 - jnp.square(bank_FN).sum(0)[None]
    keep_bN = row_1N != itself_b[:, None]
    if valid_N is not None:
      keep_bN &= valid_N[None]
    return tuple(jax.lax.top_k(jnp.where(keep_bN, similarity_bN, -jnp.inf), k))

  if itself_M is None:
    itself_M = jnp.full(query_MF.shape[:1], -1, jnp.int32)
  return Neighbours(*in_chunks(some, (query_MF, itself_M), chunk))


def vote(
  neighbours: Neighbours,
  label_N: Array,
  *,
  num_classes: int,
  temperature: float | Array = 0.07,
) -> Array:
  """Votes [M, K] of weight exp(similarity / temperature) (arXiv:1805.01978).

  Rows sum to 1; a row without valid neighbours is 0, one with a neighbour whose label
  is none of the classes is nan.
  """
  similarity_Mk = neighbours.similarity_Mk
  there_Mk = similarity_Mk > -jnp.inf
  # Relative to the nearest, which is the first: no overflow at low temperatures.
  top_M1 = jnp.where(there_Mk[:, :1], similarity_Mk[:, :1], 0)
  weight_Mk = jnp.where(there_Mk, jnp.exp((similarity_Mk - top_M1) / temperature), 0)
  near_Mk = jnp.asarray(label_N)[neighbours.row_Mk]
  one_hot_MkK = labels.one_hot(near_Mk, num_classes, weight_Mk.dtype)
  one_hot_MkK = jnp.where(there_Mk[..., None], one_hot_MkK, 0)
  votes_MK = (weight_Mk[..., None] * one_hot_MkK).sum(1)
  total_M1 = votes_MK.sum(1, keepdims=True)
  return votes_MK / jnp.where(total_M1 == 0, 1, total_M1)
