"""Beam search: the likeliest sequences of a model with a cache, one jitted program.

A model is a `Step`, as in dlx/sampling/autoregressive.py. All beams of a row lie beside
each other, K rows of the cache for one of the prompt.
"""

from typing import Callable, NamedTuple

import chex
import jax
from jax import lax
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.precision import at_least_float32
from dlx.sampling.autoregressive import Step
from dlx.state import Array, PyTree


class Beams(NamedTuple):
  """K sequences for each prompt, the best first.

  Attributes:
    tokens_BKT: int32; the end included, then `fill`. -1 everywhere where a logit was
      nan.
    scores_BK: float32 or wider; log-probability over the length penalty, in nats. -inf:
      there are fewer than K sequences.
  """

  tokens_BKT: Array
  scores_BK: Array


class _Search(NamedTuple):
  """What goes round the loop.

  Attributes:
    tokens_BKT: of the sequences that go on.
    log_BK: their log-probabilities.
    ended_BKT: the best sequences that have ended.
    ended_BK: their scores, falling; -inf: none yet.
    count_B: how many have ended, those that were not kept too.
    length: tokens so far.
  """

  tokens_BKT: Array
  log_BK: Array
  ended_BKT: Array
  ended_BK: Array
  count_B: Array
  length: Array


def beam_search(
  step: Step,
  take: Callable[[PyTree, Array], PyTree],
  cache: PyTree,
  prompt_BP: Array,
  num_tokens: int,
  *,
  beams: int,
  end: int,
  fill: int = 0,
  length_penalty: float = 0.6,
) -> Beams:
  """The K best continuations of each prompt that a beam of K finds.

  In each round the 2 K likeliest continuations of a row's sequences are looked at; of
  the first K those that end are kept, and of those that do not the first K go on. A row
  is done as soon as K sequences have ended, so that a beam of one is greedy decoding
  whatever the length penalty is. Sequences that have ended come before those that the
  number of tokens cut off. A row does not depend on the others.

  Args:
    step: see the module's docstring; may close over parameters.
    take: (cache, int rows [R]) -> a cache of these rows.
    cache: of B rows, with room for P + num_tokens - 1 tokens.
    prompt_BP: int, at least one token each.
    num_tokens: most tokens of a continuation, the end included.
    beams: K.
    end: token after which nothing follows.
    fill: what stands after the end.
    length_penalty: a of the divisor ((5 + length) / 6)^a of a log-probability
      (arXiv:1609.08144), at least 0; 0: none, and longer sequences lose.

  Raises:
    ConfigError: a number below its least value, or a vocabulary without another token
      than the end.
  """
  chex.assert_rank(prompt_BP, 2)
  for name, value, least in (
    ('num_tokens', num_tokens, 1),
    ('beams', beams, 1),
    ('length_penalty', length_penalty, 0),
    ('prompt tokens', prompt_BP.shape[1], 1),
  ):
    if value < least:
      raise ConfigError(f'{name}={value} is not allowed: must be at least {least}.')
  batch = prompt_BP.shape[0]
  logits_BPV, cache = step(prompt_BP.astype(jnp.int32), cache)
  size = logits_BPV.shape[-1]
  if not (size > 1 and 0 <= end < size):
    raise ConfigError(
      f'end={end} is not allowed: must be one of the {size} tokens, of two or more.'
    )
  logits_BV = at_least_float32(logits_BPV[:, -1])
  logits_BKV = jnp.broadcast_to(logits_BV[:, None], (batch, beams, size))
  blank_BKT = jnp.full((batch, beams, num_tokens), fill, jnp.int32)
  none_BK = jnp.full((batch, beams), -jnp.inf, logits_BV.dtype)
  start = _Search(
    blank_BKT,
    none_BK.at[:, 0].set(0),  # All beams are one sequence still.
    blank_BKT,
    none_BK,
    jnp.zeros((batch,), jnp.int32),
    jnp.zeros((), jnp.int32),
  )
  search, _ = _advance(start, logits_BKV, end, length_penalty)
  if beams > 1:
    cache = take(cache, jnp.repeat(jnp.arange(batch), beams))

  def goes_on(carry):
    search, _ = carry
    return (search.length < num_tokens) & (search.count_B < beams).any()

  def body(carry):
    search, cache = carry
    last_BK = search.tokens_BKT[:, :, search.length - 1]
    logits_R1V, cache = step(last_BK.reshape(-1, 1), cache)
    logits_BKV = at_least_float32(logits_R1V).reshape(batch, beams, size)
    search, parent_BK = _advance(search, logits_BKV, end, length_penalty)
    if beams > 1:
      cache = take(cache, (jnp.arange(batch)[:, None] * beams + parent_BK).reshape(-1))
    return search, cache

  search, _ = lax.while_loop(goes_on, body, (search, cache))
  return _ordered(search, fill, length_penalty)


def _penalty(length: Array, exponent: float) -> Array:
  return ((5 + length) / 6) ** exponent


def _advance(
  search: _Search, logits_BKV: Array, end: int, length_penalty: float
) -> tuple[_Search, Array]:
  """One more token of each sequence that goes on, and which one it was [B, K]."""
  batch, beams, size = logits_BKV.shape
  log_BKV = search.log_BK[..., None] + jax.nn.log_softmax(logits_BKV)
  log_BC, place_BC = lax.top_k(log_BKV.reshape(batch, -1), 2 * beams)
  parent_BC, token_BC = place_BC // size, place_BC % size
  tokens_BCT = _picked(search.tokens_BKT, parent_BC)
  tokens_BCT = tokens_BCT.at[:, :, search.length].set(token_BC)
  length = search.length + 1
  ends_BC = token_BC == end

  first_1C = jnp.arange(2 * beams)[None] < beams
  counts_BC = ends_BC & first_1C & (log_BC > -jnp.inf)
  score_BC = log_BC / _penalty(length, length_penalty)
  score_BC = jnp.where(counts_BC, score_BC, -jnp.inf).astype(log_BC.dtype)
  ended_BK, kept_BK = lax.top_k(jnp.concatenate([search.ended_BK, score_BC], 1), beams)
  ended_BKT = _picked(jnp.concatenate([search.ended_BKT, tokens_BCT], 1), kept_BK)

  log_BK, kept_BK = lax.top_k(jnp.where(ends_BC, -jnp.inf, log_BC), beams)
  done_B = search.count_B >= beams
  keep = lambda old, new: jnp.where(
    done_B.reshape(-1, *(1,) * (old.ndim - 1)), old, new
  )
  new = _Search(
    keep(search.tokens_BKT, _picked(tokens_BCT, kept_BK)),
    keep(search.log_BK, log_BK),
    keep(search.ended_BKT, ended_BKT),
    keep(search.ended_BK, ended_BK),
    keep(search.count_B, search.count_B + counts_BC.sum(1, dtype=jnp.int32)),
    length,
  )
  return new, jnp.take_along_axis(parent_BC, kept_BK, 1)


def _picked(x_BCT: Array, index_BK: Array) -> Array:
  return jnp.take_along_axis(x_BCT, index_BK[:, :, None], 1)


def _ordered(search: _Search, fill: int, length_penalty: float) -> Beams:
  """What has ended, then what was cut off."""
  beams = search.log_BK.shape[1]
  going_BK = search.log_BK / _penalty(search.length, length_penalty)
  going_BK = going_BK.astype(search.ended_BK.dtype)
  # Of K places the first `count_B` are taken.
  place_BK = jnp.arange(beams)[None] - search.count_B[:, None]
  place_BK = jnp.where(place_BK < 0, jnp.arange(beams)[None], place_BK + beams)
  scores_BC = jnp.concatenate([search.ended_BK, going_BK], 1)
  tokens_BCT = jnp.concatenate([search.ended_BKT, search.tokens_BKT], 1)
  scores_BK = jnp.take_along_axis(scores_BC, place_BK, 1)
  tokens_BKT = _picked(tokens_BCT, place_BK)
  tokens_BKT = jnp.where(scores_BK[..., None] == -jnp.inf, fill, tokens_BKT)
  broken_B = jnp.isnan(search.log_BK).any(1)[:, None]
  return Beams(
    jnp.where(broken_B[..., None], -1, tokens_BKT),
    jnp.where(broken_B, jnp.nan, scores_BK),
  )
