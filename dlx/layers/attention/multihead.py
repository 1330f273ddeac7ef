"""Attention (arXiv:1706.03762): the one place where it is computed.

B batch, L queries, M keys, H heads of queries, G of keys and values, K width of a head,
D width of the stream, T new tokens of a cached call. A mask is bool, True where a query
may look at a key. Where G < H, neighbouring heads of queries share one of keys
(arXiv:2305.13245).
"""

import functools
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from dlx.layers import mesh
from dlx.layers.attention.fused import fused_attention
from dlx.layers.attention.positions import alibi_bias, buckets, visible
from dlx.layers.attention.ring_cache import held, put_in_ring
from dlx.layers.attention.rotary import rotate
from dlx.layers.bias import add_bias
from dlx.layers.block_config import BlockConfig
from dlx.layers.matmul import DenseGeneral, rows_dot_general
from kernels.onednn import attention as onednn
from kernels.onednn import library

Array = jax.Array


class KVCache(NamedTuple):
  """Keys and values of the tokens so far; a plain pytree, argument and result.

  Attributes:
    key_BMGK: room for M tokens, zeros past `length`; as rotated.
    value_BMGK: likewise, not rotated.
    length: int32 [], tokens so far. Appending past M overwrites the last tokens: who
      calls counts, since `length` is traced. Layers with a window W use M places as a
      ring, token t at place t mod M: M of W - 1 is enough for texts of any length.
  """

  key_BMGK: Array
  value_BMGK: Array
  length: Array


class Memory(NamedTuple):
  """Keys and values of what is looked at from elsewhere, made once for all queries."""

  key_BMGK: Array
  value_BMGK: Array


class Attended(NamedTuple):
  """What `MultiHeadAttention` gives.

  Attributes:
    x_BLD: the output.
    cache: with the new keys and values; None where none was given.
    weights_BHLM: float32 or wider, rows sum to 1; None unless asked for.
    memory: keys and values of the memory; None where there was none.
  """

  x_BLD: Array
  cache: KVCache | None = None
  weights_BHLM: Array | None = None
  memory: Memory | None = None


def empty_cache(
  batch_size: int, capacity: int, num_kv_heads: int, head_dim: int, dtype: Any
) -> KVCache:
  """A cache that holds no token yet."""
  zeros = jnp.zeros((batch_size, capacity, num_kv_heads, head_dim), dtype)
  return KVCache(zeros, zeros, jnp.zeros((), jnp.int32))


def append(
  cache: KVCache, k_BTGK: Array, v_BTGK: Array, *, ring: bool = False
) -> KVCache:
  """The cache with T more tokens; of a ring the last M tokens stay."""
  if ring:
    put = lambda old, new: put_in_ring(old, new, cache.length)
  else:
    put = lambda old, new: lax.dynamic_update_slice_in_dim(
      old, new.astype(old.dtype), cache.length, axis=1
    )
  return KVCache(
    put(cache.key_BMGK, k_BTGK),
    put(cache.value_BMGK, v_BTGK),
    cache.length + k_BTGK.shape[1],
  )


def causal_mask(num_queries: int, num_keys: int, offset: Array | int = 0) -> Array:
  """bool [1, 1, L, M]: query l is token `offset + l` and sees keys up to itself."""
  query_L = jnp.arange(num_queries) + offset
  return (jnp.arange(num_keys)[None] <= query_L[:, None])[None, None]


def segment_mask(segment_BL: Array) -> Array:
  """bool [B, 1, L, L]: a query sees the keys of its own segment.

  Args:
    segment_BL: int, the number of the text that each token is of, see
      dlx/data/text/packed.py.
  """
  return (segment_BL[:, :, None] == segment_BL[:, None])[:, None]


def segment_positions(segment_BL: Array) -> Array:
  """int32 [B, L]: the place of each token in its segment, one run of tokens."""
  place_L = jnp.arange(segment_BL.shape[1], dtype=jnp.int32)
  before_BL = jnp.pad(segment_BL[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
  first_BL = jnp.where(segment_BL != before_BL, place_L[None], 0)
  return place_L[None] - lax.cummax(first_BL, axis=1)


def dot_product_attention(
  q_BLHK: Array,
  k_BMGK: Array,
  v_BMGK: Array,
  mask_BHLM: Array | None = None,
  *,
  bias_BHLM: Array | None = None,
  soft_cap: float | None = None,
  dropout: float = 0.0,
  dropout_key: Array | None = None,
) -> tuple[Array, Array]:
  """softmax(q k^T / sqrt(K)) v for each head; the softmax in float32 or wider.

  Args:
    q_BLHK: queries.
    k_BMGK: keys; G divides H, head h of the queries reads head h // (H / G).
    v_BMGK: values.
    mask_BHLM: bool, of size 1 on any axis; None: every query sees every key. A query
      that sees no key gets the mean of all values.
    bias_BHLM: added to the scores, of size 1 on any axis; -inf hides as a mask does.
    soft_cap: scores s become cap tanh(s / cap), before the bias; None: they do not.
    dropout: probability that a weight is dropped and the others scaled up.
    dropout_key: of the dropped weights; None: none is dropped.

  Returns:
    Output [B, L, H, K] in the dtype of the values, and the weights [B, H, L, M] before
    dropout. Weights that nobody uses cost nothing under jit.
  """
  chex.assert_rank([q_BLHK, k_BMGK, v_BMGK], 4)
  chex.assert_equal_shape([k_BMGK, v_BMGK])
  chex.assert_equal_shape_prefix([q_BLHK, k_BMGK], 1)
  chex.assert_equal_shape_suffix([q_BLHK, k_BMGK], 1)
  wide = jnp.promote_types(q_BLHK.dtype, jnp.float32)
  # The scale goes to the queries, of which there are L K and not L M.
  q_BLHK = q_BLHK * q_BLHK.shape[-1] ** -0.5
  batch, length, heads, _ = q_BLHK.shape
  groups = k_BMGK.shape[2]
  if heads % groups:
    raise ValueError(
      f'{groups} heads of keys are not allowed: must divide {heads} heads of queries.'
    )
  if groups == heads:
    scores_BHLM = jnp.einsum(
      'BLHK,BMHK->BHLM', q_BLHK, k_BMGK, preferred_element_type=wide
    )
  else:  # R heads of queries share one of keys, which is not repeated.
    scores_BHLM = jnp.einsum(
      'BLGRK,BMGK->BGRLM',
      q_BLHK.reshape(batch, length, groups, heads // groups, -1),
      k_BMGK,
      preferred_element_type=wide,
    ).reshape(batch, heads, length, -1)
  if soft_cap is not None:
    scores_BHLM = soft_cap * jnp.tanh(scores_BHLM / soft_cap)
  # No score is below it, and that of a query without keys is finite.
  masked = jnp.finfo(scores_BHLM.dtype).min
  if bias_BHLM is not None:
    chex.assert_rank(bias_BHLM, 4)
    scores_BHLM += bias_BHLM.astype(scores_BHLM.dtype)
    scores_BHLM = jnp.where(jnp.isneginf(scores_BHLM), masked, scores_BHLM)
  if mask_BHLM is not None:
    chex.assert_rank(mask_BHLM, 4)
    scores_BHLM = jnp.where(mask_BHLM, scores_BHLM, masked)
  weights_BHLM = jax.nn.softmax(scores_BHLM, axis=-1)
  used_BHLM = weights_BHLM
  if dropout > 0 and dropout_key is not None:
    keep_BHLM = jax.random.bernoulli(dropout_key, 1 - dropout, weights_BHLM.shape)
    used_BHLM = jnp.where(keep_BHLM, weights_BHLM / (1 - dropout), 0)
  used_BHLM = used_BHLM.astype(v_BMGK.dtype)
  if groups == heads:
    return jnp.einsum('BHLM,BMHK->BLHK', used_BHLM, v_BMGK), weights_BHLM
  used_BGRLM = used_BHLM.reshape(batch, groups, heads // groups, length, -1)
  x_BLGRK = jnp.einsum('BGRLM,BMGK->BLGRK', used_BGRLM, v_BMGK)
  return x_BLGRK.reshape(q_BLHK.shape), weights_BHLM


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _packed_attention(form: onednn.Form, qkv_BLPHK: Array) -> Any:
  """Queries, keys and values in one array, as one product gives them."""
  return _packed_forward(form, qkv_BLPHK)[0]


def _packed_forward(form, qkv_BLPHK):
  found: Any = onednn.packed_forward(form, qkv_BLPHK)
  return found[0], (qkv_BLPHK, *found)


def _packed_backward(form, residuals, slope):
  return (onednn.packed_backward(form, *residuals, slope),)


_packed_attention.defvjp(_packed_forward, _packed_backward)


class MultiHeadAttention(nn.Module):
  """Attention of H heads between maps W_q, W_k, W_v and W_o.

  Parameters have the names and shapes of `flax.linen.MultiHeadDotProductAttention`:
  `query` [D, H, K], `key` and `value` [D, G, K], `out` [H, K, D]. Where the config asks
  for them `query_norm` and `key_norm` [K], `relative_bias` [H, buckets].

  Attributes:
    config: heads, positions, window, cap, norms, mask, dropout of weights (rng
      'dropout'), initial weights (`residual_init` of W_o) and arithmetic. The width is
      that of the stream.
  """

  config: BlockConfig

  @nn.compact
  def __call__(
    self,
    x_BLD: Array,
    memory_BMD: Array | Memory | None = None,
    *,
    train: bool,
    mask_BHLM: Array | None = None,
    bias_BHLM: Array | None = None,
    cache: KVCache | None = None,
    return_weights: bool = False,
  ) -> Attended:
    """Attends from `x_BLD` to `memory_BMD` (None: to itself).

    Args:
      x_BLD: where the queries come from.
      memory_BMD: where keys and values come from; or they themselves, as an earlier
        call of this layer gave them.
      train: drop weights.
      mask_BHLM: besides the causal one. With a cache, M is its capacity.
      bias_BHLM: added to the scores, beside that of the positions, likewise.
      cache: tokens before `x_BLD`, whose keys and values are appended to it.
      return_weights: also give them; a kernel would not make them.

    Raises:
      ValueError: a width that the heads do not divide, or heads that those of keys do
        not; positions or a window of a memory; a mask or bias of a cache that is a
        ring.
      ConfigError: see `fused_attention`.
    """
    c, width = self.config, x_BLD.shape[-1]
    if width % c.num_heads:
      raise ValueError(
        f'num_heads={c.num_heads} is not allowed: must be a divisor of the width '
        f'{width}.'
      )
    if c.kv_heads < 1 or c.num_heads % c.kv_heads:
      raise ValueError(
        f'num_kv_heads={c.kv_heads} is not allowed: must be a divisor of '
        f'num_heads={c.num_heads}.'
      )
    if memory_BMD is not None:
      for name in ('rotary', 'alibi', 'relative', 'window'):
        if getattr(c, name):
          raise ValueError(f'{name} with a memory is not allowed: must be off there.')
    ring = cache is not None and c.window is not None
    if ring and not (mask_BHLM is None and bias_BHLM is None):
      raise ValueError(
        'A mask or bias with a cache is not allowed with a window: must be None there.'
      )
    dense = functools.partial(DenseGeneral, use_bias=c.use_bias, **c.dtypes)

    def heads(name, number):
      shape = (number, width // c.num_heads)
      return dense(shape, kernel_init=c.kernel_init, name=name)

    out = dense(width, axis=(-2, -1), kernel_init=c.residual_init, name='out')
    drops = train and c.dropout > 0
    fused = mask_BHLM is None and cache is None and not return_weights
    plain = fused and not drops and memory_BMD is None and bias_BHLM is None
    x_BLD = x_BLD.astype(c.dtype)
    if plain and c.kv_heads == c.num_heads and c.plain_scores:
      if self._packs(x_BLD):
        return Attended(out(self._packed(x_BLD)))
    root = lambda name: nn.RMSNorm(epsilon=1e-6, name=name, **c.dtypes)
    q_BLHK = heads('query', c.num_heads)(x_BLD)
    if c.qk_norm:
      q_BLHK = root('query_norm')(q_BLHK)
    if isinstance(memory_BMD, Memory):
      k_BMGK, v_BMGK = memory_BMD
    else:
      source_BMD = x_BLD if memory_BMD is None else memory_BMD
      k_BMGK = heads('key', c.kv_heads)(source_BMD)
      v_BMGK = heads('value', c.kv_heads)(source_BMD)
      if c.qk_norm:
        k_BMGK = root('key_norm')(k_BMGK)
    memory = None if memory_BMD is None else Memory(k_BMGK, v_BMGK)
    start = 0 if cache is None else cache.length
    position_L = start + jnp.arange(x_BLD.shape[1])
    key_M = jnp.arange(k_BMGK.shape[1])
    if c.rotary is not None:
      q_BLHK = rotate(q_BLHK, position_L, c.rotary)
      k_BMGK = rotate(k_BMGK, position_L, c.rotary)
    if cache is not None:
      old, new = cache, (k_BMGK, v_BMGK)
      cache = append(cache, *new, ring=ring)
      # A ring has no place for the new tokens beside all that the first of them sees.
      k_BMGK, v_BMGK = old[:2] if ring else cache[:2]
      key_M = jnp.arange(k_BMGK.shape[1])
      k_BMGK, v_BMGK = k_BMGK.astype(q_BLHK.dtype), v_BMGK.astype(q_BLHK.dtype)
      if ring:
        key_M = jnp.concatenate([held(start, k_BMGK.shape[1]), position_L])
        k_BMGK = jnp.concatenate([k_BMGK, new[0]], 1)
        v_BMGK = jnp.concatenate([v_BMGK, new[1]], 1)
    for bias in self._position_biases(position_L, key_M):
      bias_BHLM = bias if bias_BHLM is None else bias_BHLM + bias
    dropping = {
      'dropout': c.dropout,
      'dropout_key': self.make_rng('dropout') if drops else None,
    }
    scores = {'soft_cap': c.soft_cap, 'bias_BHLM': bias_BHLM}
    weights_BHLM = None
    if fused:
      y_BLHK = fused_attention(
        q_BLHK, k_BMGK, v_BMGK, causal=c.causal, window=c.window, **scores, **dropping
      )
    else:
      # Room not yet used lies behind the last query, so that this hides it too.
      causal = c.causal or cache is not None
      seen_BHLM = visible(position_L, key_M, causal=causal, window=c.window)
      if seen_BHLM is not None:
        mask_BHLM = seen_BHLM if mask_BHLM is None else seen_BHLM & mask_BHLM
      y_BLHK, weights_BHLM = dot_product_attention(
        q_BLHK, k_BMGK, v_BMGK, mask_BHLM, **scores, **dropping
      )
    weights_BHLM = weights_BHLM if return_weights else None
    return Attended(out(y_BLHK), cache, weights_BHLM, memory)

  def _position_biases(self, query_L: Array, key_M: Array) -> list[Array]:
    """[1, H, L, M] each, of tokens at these positions."""
    c, found = self.config, []
    wide = jnp.promote_types(c.dtype, jnp.float32)
    if c.alibi:
      found.append(alibi_bias(query_L, key_M, c.num_heads, wide))
    if c.relative is not None:
      shape = (c.num_heads, c.relative.num_buckets)
      init = nn.initializers.normal(c.width**-0.5)
      table_HR = self.param('relative_bias', init, shape, c.param_dtype)
      bucket_LM = buckets(query_L, key_M, c.relative, causal=c.causal)
      found.append(table_HR.astype(wide)[:, bucket_LM][None])
    return found

  def _packs(self, x_BLD: Array) -> bool:
    """Whether one call of C++ does it all, on the one device of a CPU."""
    if self.is_initializing() or mesh.ambient() is not None:
      return False
    fits = x_BLD.dtype in (jnp.float32, jnp.bfloat16)
    return bool(fits and x_BLD.size and library.usable())

  def _packed(self, x_BLD: Array) -> Array:
    """[B, L, D] -> [B, L, H, K]: tokens look at each other. One product, not three."""
    maps = [self.variables['params'][name] for name in ('query', 'key', 'value')]
    together = lambda name: jnp.stack([m[name] for m in maps], -3)
    kernel_DPHK = together('kernel').astype(x_BLD.dtype)
    dims = (((2,), (0,)), ((), ()))
    qkv_BLPHK = rows_dot_general(x_BLD, kernel_DPHK, dims)
    if self.config.use_bias:
      qkv_BLPHK = add_bias(qkv_BLPHK, together('bias'))
    form = onednn.Form(self.config.causal, kernel_DPHK.shape[-1] ** -0.5)
    y: Any = _packed_attention(form, qkv_BLPHK)
    return y
