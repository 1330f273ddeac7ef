"""BLEU of rows of tokens, in sums that a jitted evaluation adds up.

The counts are those of dlx/metrics/translation.py, with tokens in place of the words of
a text: of a vocabulary of words the result is sacrebleu's with `tokenize='none'` and
the words set apart by spaces.
"""

from typing import Mapping

import jax.numpy as jnp

from dlx.metrics.translation import ORDER
from dlx.state import Array


def token_bleu_sums(
  found_BT: Array,
  target_BT: Array,
  weight_B: Array,
  *,
  fill: int = 0,
  unknown: int | None = None,
) -> dict[str, Array]:
  """What is counted of rows, float32: exact below 2^24 tokens.

  Args:
    found_BT: int [B, T]; where it is `fill` there is no token.
    target_BT: the reference of each, likewise; the two widths may differ.
    weight_B: 1, or 0 for rows that do not count.
    fill: what stands behind the end.
    unknown: token of words that are not known, which matches nothing, not even itself;
      None: there is none.

  Returns:
    `matches` and `totals` [4] of the n-grams, `length` and `reference_length`.
  """
  found_BT, target_BT = _in_front(found_BT, fill), _in_front(target_BT, fill)
  real_BT = found_BT != fill
  own_BTT = real_BT[:, :, None] & (found_BT[:, :, None] == found_BT[:, None])
  hit_BTU = real_BT[:, :, None] & (found_BT[:, :, None] == target_BT[:, None])
  if unknown is not None:
    hit_BTU &= (found_BT != unknown)[:, :, None]
  earlier_BTT, hits_BTU, ends_BT, matches, totals = own_BTT, hit_BTU, real_BT, [], []
  for n in range(ORDER):
    if n:  # An n-gram is one of n - 1 tokens with the token behind it.
      earlier_BTT &= _behind(own_BTT, n, (1, 2))
      hits_BTU &= _behind(hit_BTU, n, (1, 2))
      ends_BT = _behind(real_BT, n, (1,))
    # Where it stands for the k-th time, the reference must have it k times.
    times_BT = jnp.tril(earlier_BTT).sum(2)
    right_BT = ends_BT & (times_BT <= hits_BTU.sum(2))
    matches.append((weight_B * right_BT.sum(1)).sum())
    totals.append((weight_B * ends_BT.sum(1)).sum())
  return {
    'matches': jnp.stack(matches),
    'totals': jnp.stack(totals),
    'length': totals[0],
    'reference_length': (weight_B * (target_BT != fill).sum(1)).sum(),
  }


def _in_front(token_BT: Array, fill: int) -> Array:
  """Rows with all `fill` at their end, the tokens in their order."""
  order_BT = jnp.argsort(token_BT == fill, axis=1, stable=True)
  return jnp.take_along_axis(token_BT, order_BT, 1)


def _behind(x: Array, n: int, axes: tuple[int, ...]) -> Array:
  """What lies n places further along these axes, False past the end."""
  pad = [(0, n if axis in axes else 0) for axis in range(x.ndim)]
  cut = tuple(slice(n, None) if axis in axes else slice(None) for axis in range(x.ndim))
  return jnp.pad(x, pad)[cut]


def token_bleu(sums: Mapping[str, Array]) -> Array:
  """BLEU in [0, 1] of added `token_bleu_sums`, smoothed as sacrebleu does (`exp`)."""
  matches, totals = sums['matches'], sums['totals']
  none = (matches == 0) & (totals > 0)
  # The k-th n without a match has 1 / 2^k of one.
  matches = jnp.where(none, 0.5 ** jnp.cumsum(none), matches)
  log = jnp.log(jnp.where(matches > 0, matches / jnp.maximum(totals, 1), 1)).mean()
  length, wanted = sums['length'], sums['reference_length']
  short = jnp.where(length < wanted, 1 - wanted / jnp.maximum(length, 1), 0)
  some = (sums['matches'] > 0).any() & (matches > 0).all()
  return jnp.where(some, jnp.exp(log + short), 0)
