"""Text from an autoregressive model with a cache: one jitted program, no host loop.

A model is given as `step(tokens_BT, cache) -> (logits_BTV, cache)`: the logits of the
token after each, and the cache that holds these tokens too. The prompt goes through it
at once, then each new token alone.
"""

import math
from typing import Any, Callable

import chex
import jax
from jax import lax
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.state import Array, Key, PyTree

Step = Callable[[Array, PyTree], tuple[Array, PyTree]]


def choose(
  key: Key,
  logits_BV: Array,
  *,
  temperature: Any = 1.0,
  top_k: int | None = None,
  top_p: float | None = None,
  min_p: float | None = None,
) -> Array:
  """One token a row, int32 [B], drawn from softmax(logits / temperature).

  Row b has the key fold_in(key, b), or a key of its own, so that it does not depend on
  the batch. -1, no token, where a logit is nan.

  Args:
    key: of this draw, or one a row, [B].
    logits_BV: any float dtype.
    temperature: at least 0; 0: the largest logit, the first of equals. A number or a
      scalar array, or one a row [B]; arrays may be traced.
    top_k: only the k largest logits can be drawn, ties with the last included; None:
      all.
    top_p: of what top_k leaves, only the fewest likeliest tokens whose probabilities
      come to top_p, ties with the last included (arXiv:1904.09751); None: all.
    min_p: of what these leave, only tokens that are at least min_p times as likely as
      the likeliest (arXiv:2407.01082); None: all.

  Raises:
    ConfigError: a temperature below 0, top_k outside [1, V], top_p outside (0, 1],
      min_p outside [0, 1].
  """
  chex.assert_rank(logits_BV, 2)
  plain = isinstance(temperature, (int, float))
  if plain and temperature < 0:
    raise ConfigError(f'temperature={temperature} is not allowed: must be at least 0.')
  size = logits_BV.shape[1]
  if top_k is not None and not 1 <= top_k <= size:
    raise ConfigError(
      f'top_k={top_k} is not allowed: must be in [1, {size}], the size of the '
      'vocabulary, or None for off.'
    )
  if top_p is not None and not 0 < top_p <= 1:
    raise ConfigError(
      f'top_p={top_p} is not allowed: must be in (0, 1], or None for off.'
    )
  if min_p is not None and not 0 <= min_p <= 1:
    raise ConfigError(
      f'min_p={min_p} is not allowed: must be in [0, 1], or None for off.'
    )
  broken_B = jnp.isnan(logits_BV).any(1)
  known = lambda token_B: jnp.where(broken_B, -1, token_B)
  likeliest_B = known(logits_BV.argmax(1).astype(jnp.int32))
  if plain and temperature == 0:
    return likeliest_B
  hot_B = None
  if not plain:
    hot_B = jnp.asarray(temperature) > 0
    temperature = jnp.where(hot_B, temperature, 1)
    temperature = temperature[:, None] if temperature.ndim == 1 else temperature
  logits_BV = logits_BV.astype(jnp.promote_types(logits_BV.dtype, jnp.float32))
  logits_BV = logits_BV / temperature
  if top_k is not None:
    least_B1 = lax.top_k(logits_BV, top_k)[0][:, -1:]
    logits_BV = jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)
  if top_p is not None and top_p < 1:
    sorted_BV = -jnp.sort(-logits_BV)
    probs_BV = jax.nn.softmax(sorted_BV)
    before_BV = jnp.cumsum(probs_BV, 1) - probs_BV
    kept_BV = jnp.where(before_BV < top_p, sorted_BV, jnp.inf)
    least_B1 = kept_BV.min(1, keepdims=True)
    logits_BV = jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)
  if min_p:
    least_B1 = logits_BV.max(1, keepdims=True) + math.log(min_p)
    logits_BV = jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)
  keys_B = key
  if key.ndim == 0:
    rows_B = jnp.arange(logits_BV.shape[0])
    keys_B = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows_B)
  drawn_B = jax.vmap(jax.random.categorical)(keys_B, logits_BV).astype(jnp.int32)
  drawn_B = known(drawn_B)
  return drawn_B if hot_B is None else jnp.where(hot_B, drawn_B, likeliest_B)


def generate(
  step: Step,
  empty_cache: PyTree,
  prompt_BP: Array,
  num_tokens: int,
  key: Key,
  *,
  context: int,
  temperature: Any = 1.0,
  top_k: int | None = None,
  top_p: float | None = None,
  min_p: float | None = None,
) -> Array:
  """`num_tokens` tokens after each prompt, int32 [B, num_tokens].

  Token i is drawn with fold_in(key, i). Once `context` tokens stand in the cache it is
  emptied and filled again with the last half of them, so that a text of any length
  costs one pass over half a window for each half window; the tokens after that see
  between half a context and a whole one.

  Args:
    step: see the module's docstring; may close over parameters.
    empty_cache: of B rows, with room for `context` tokens.
    prompt_BP: int, 1 to `context` tokens each.
    num_tokens: at least 1.
    key: of all draws, or one a row, [B].
    context: most tokens that the model takes.
    temperature, top_k, top_p, min_p: see `choose`.

  Raises:
    ConfigError: a prompt without a token or longer than the context, `num_tokens`
      below 1, context below 2.
  """
  chex.assert_rank(prompt_BP, 2)
  length = prompt_BP.shape[1]
  if context < 2:
    raise ConfigError(f'context={context} is not allowed: must be at least 2.')
  if not 1 <= length <= context:
    raise ConfigError(
      f'A prompt of {length} tokens is not allowed: must be 1 to context={context}.'
    )
  if num_tokens < 1:
    raise ConfigError(f'num_tokens={num_tokens} is not allowed: must be at least 1.')

  def draw(i, logits_BTV):
    fold = jax.random.fold_in
    return choose(
      fold(key, i) if key.ndim == 0 else jax.vmap(fold, (0, None))(key, i),
      logits_BTV[:, -1],
      temperature=temperature,
      top_k=top_k,
      top_p=top_p,
      min_p=min_p,
    )

  def continued(seen_BS, first, count):
    """Tokens first, first + 1, ... after `seen_BS`: [B, count]."""
    logits_BSV, cache = step(seen_BS, empty_cache)
    token_B = draw(first, logits_BSV)

    def body(carry, i):
      token_B, cache = carry
      logits_B1V, cache = step(token_B[:, None], cache)
      new_B = draw(i, logits_B1V)
      return (new_B, cache), new_B

    rest = first + 1 + jnp.arange(count - 1)
    _, tokens_TB = lax.scan(body, (token_B, cache), rest)
    return jnp.concatenate([token_B[None], tokens_TB]).swapaxes(0, 1)

  # A cache of `context` tokens predicts one more token than it can hold.
  count = min(num_tokens, context - length + 1)
  prompt_BP = prompt_BP.astype(jnp.int32)
  text_BT = jnp.concatenate([prompt_BP, continued(prompt_BP, 0, count)], 1)
  left = num_tokens - count
  if left:
    half = context // 2
    new = context - half + 1

    def refill(seen_BS, first):
      tokens_BT = continued(seen_BS, first, new)
      return jnp.concatenate([seen_BS, tokens_BT], 1)[:, -half:], tokens_BT

    firsts = count + new * jnp.arange(-(-left // new))
    _, tokens_FBT = lax.scan(refill, text_BT[:, -half:], firsts)
    batch = prompt_BP.shape[0]
    tokens_BT = tokens_FBT.swapaxes(0, 1).reshape(batch, -1)
    text_BT = jnp.concatenate([text_BT, tokens_BT[:, :left]], 1)
  return text_BT[:, length:]
