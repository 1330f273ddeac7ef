"""What attention computes, in a few lines of jnp: the yardstick of every kernel.

All scores are held at once, in float32 or wider. Any case, any derivative.
"""

import jax
import jax.numpy as jnp

from kernels.attention import masks
from kernels.attention.case import Case, Operands

Array = jax.Array


def refusal(case: Case) -> None:
  del case


def scores(case: Case, operands: Operands) -> tuple[Array, Array | None]:
  """(scores [B, H, L, M] after cap and bias, bool: who sees whom; None: all)."""
  q, k = wide(operands.q_BLHK), wide(operands.k_BMGK)
  s = case.scale * jnp.einsum('blhk,bmhk->bhlm', q, heads(case, k), precision='highest')
  if case.soft_cap is not None:
    s = case.soft_cap * jnp.tanh(s / case.soft_cap)
  if operands.bias is not None:
    s = s + wide(operands.bias)
  q_segment = kv_segment = None
  if operands.q_segment_BL is not None and operands.kv_segment_BM is not None:
    q_segment = operands.q_segment_BL[:, None, :, None]
    kv_segment = operands.kv_segment_BM[:, None, None, :]
  query = jnp.arange(case.q_len, dtype=jnp.int32)[None, None, :, None]
  key = jnp.arange(case.kv_len, dtype=jnp.int32)[None, None, None, :]
  seen = masks.visible(case, query, key, q_segment, kv_segment)
  return s, seen if seen is None else jnp.broadcast_to(seen, s.shape)


def forward(case: Case, operands: Operands) -> tuple[Array, Array]:
  """(o [B, L, H, K] in q's dtype, log sum exp of the scores [B, H, L]).

  A query that sees no key: 0 and -inf.
  """
  s, seen = scores(case, operands)
  s = s if seen is None else jnp.where(seen, s, -jnp.inf)
  top = jax.lax.stop_gradient(s.max(axis=-1, keepdims=True))
  none = jnp.isneginf(top)
  p = jnp.exp(s - jnp.where(none, 0, top))
  total = p.sum(axis=-1, keepdims=True)
  p = p / jnp.where(none, 1, total)
  lse = jnp.where(none, -jnp.inf, jnp.log(jnp.where(none, 1, total)) + top)[..., 0]
  if case.dropout_rate:
    p = jnp.where(kept(case, operands), p / (1 - case.dropout_rate), 0)
  v = heads(case, wide(operands.v_BMGK))
  o = jnp.einsum('bhlm,bmhk->blhk', p, v, precision='highest')
  return o.astype(operands.q_BLHK.dtype), lse


def backward(
  case: Case, operands: Operands, o: Array, lse: Array, do: Array, dlse: Array | None
) -> tuple[Array, Array, Array]:
  """(dq, dk, dv) from what `forward` gave and the slopes of it; a query without keys
  has none."""
  p, ds, da = slopes(case, operands, o, lse, do, dlse)
  q, k = wide(operands.q_BLHK), heads(case, wide(operands.k_BMGK))
  product = lambda names, a, b: jnp.einsum(names, a, b, precision='highest')
  dq = product('bhlm,bmhk->blhk', da, k)
  dk = product('bhlm,blhk->bmhk', da, q)
  dv = product('bhlm,blhk->bmhk', p, wide(do))
  of_keys = lambda d: d.reshape(*d.shape[:2], case.kv_heads, case.group, -1).sum(3)
  return (
    dq.astype(operands.q_BLHK.dtype),
    of_keys(dk).astype(operands.k_BMGK.dtype),
    of_keys(dv).astype(operands.v_BMGK.dtype),
  )


def bias_gradient(
  case: Case, operands: Operands, o: Array, lse: Array, do: Array, dlse: Array | None
) -> Array:
  """Of the bias, in its shape and dtype."""
  bias = operands.bias
  assert bias is not None
  _, ds, _ = slopes(case, operands, o, lse, do, dlse)
  axes = tuple(i for i, n in enumerate(bias.shape) if n == 1)
  return ds.sum(axes, keepdims=True).astype(bias.dtype)


def slopes(case, operands, o, lse, do, dlse):
  """[B, H, L, M] each: weights after dropout, slopes of the scores, and of q k^T."""
  s, seen = scores(case, operands)
  none = jnp.isneginf(lse)
  p = jnp.exp(s - jnp.where(none, 0, lse)[..., None])
  hidden = none[..., None] if seen is None else none[..., None] | ~seen
  p = jnp.where(hidden, 0, p)
  v = heads(case, wide(operands.v_BMGK))
  dp = jnp.einsum('blhk,bmhk->bhlm', wide(do), v, precision='highest')
  used = p
  if case.dropout_rate:
    stay, more = kept(case, operands), 1 / (1 - case.dropout_rate)
    used, dp = jnp.where(stay, p * more, 0), jnp.where(stay, dp * more, 0)
  ds = p * (dp - delta(o, do, dlse)[..., None])
  da = ds
  if case.soft_cap is not None:
    # Of the scores alone: those with a bias of -inf are no number again without it.
    capped, _ = scores(case._replace(bias=None), operands._replace(bias=None))
    da = ds * (1 - (capped / case.soft_cap) ** 2)
  return used, ds, case.scale * da


def delta(o: Array, do: Array, dlse: Array | None) -> Array:
  """[B, H, L]: what is subtracted from the slopes of the weights: sum of p dp."""
  found = jnp.einsum('blhk,blhk->bhl', wide(o), wide(do), precision='highest')
  return found if dlse is None else found - jnp.where(jnp.isfinite(dlse), dlse, 0)


def kept(case: Case, operands: Operands) -> Array:
  """bool [B, H, L, M]: the weights that are not dropped."""
  assert operands.seed is not None
  index = lambda n, axis: jnp.arange(n, dtype=jnp.int32).reshape(
    [n if i == axis else 1 for i in range(4)]
  )
  head = index(case.batch, 0) * case.q_heads + index(case.q_heads, 1)
  seed = (operands.seed[0], operands.seed[1])
  return masks.keep(
    case.dropout_rate, seed, head, index(case.q_len, 2), index(case.kv_len, 3)
  )


def heads(case: Case, x_BMGK: Array) -> Array:
  """[B, M, G, K] -> [B, M, H, K], a head of keys for each of queries."""
  return x_BMGK if case.group == 1 else jnp.repeat(x_BMGK, case.group, axis=2)


def wide(x: Array) -> Array:
  """In float32, or wider where it is."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
