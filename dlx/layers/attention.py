"""Attention (arXiv:1706.03762): the one place where it is computed.

B batch, L queries, M keys, H heads, K width of a head, D width of the stream, T new
tokens of a cached call. A mask is bool, True where a query may look at a key.
"""

import functools
from typing import Any, Callable, NamedTuple

import chex
import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from dlx.layers.linear import rows_dot_general
from kernels.attention import flash_attention
from kernels.onednn import attention as onednn
from kernels.onednn import library

Array = jax.Array
Initializer = Callable[..., Array]

_MASKED = -1e9  # Score of a key that a query may not look at: exp of it is 0.


class KVCache(NamedTuple):
  """Keys and values of the tokens so far; a plain pytree, argument and result.

  Attributes:
    key_BMHK: room for M tokens, zeros past `length`.
    value_BMHK: likewise.
    length: int32 [], tokens held. Appending past M overwrites the last tokens: who
      calls counts, since `length` is traced.
  """

  key_BMHK: Array
  value_BMHK: Array
  length: Array


class Attended(NamedTuple):
  """What `MultiHeadAttention` gives.

  Attributes:
    x_BLD: the output.
    cache: with the new keys and values; None where none was given.
    weights_BHLM: float32 or wider, rows sum to 1; None unless asked for.
  """

  x_BLD: Array
  cache: KVCache | None = None
  weights_BHLM: Array | None = None


def empty_cache(
  batch_size: int, capacity: int, num_heads: int, head_dim: int, dtype: Any
) -> KVCache:
  """A cache that holds no token yet."""
  zeros = jnp.zeros((batch_size, capacity, num_heads, head_dim), dtype)
  return KVCache(zeros, zeros, jnp.zeros((), jnp.int32))


def append(cache: KVCache, k_BTHK: Array, v_BTHK: Array) -> KVCache:
  """The cache with T more tokens."""
  put = lambda old, new: lax.dynamic_update_slice_in_dim(
    old, new.astype(old.dtype), cache.length, axis=1
  )
  return KVCache(
    put(cache.key_BMHK, k_BTHK),
    put(cache.value_BMHK, v_BTHK),
    cache.length + k_BTHK.shape[1],
  )


def causal_mask(num_queries: int, num_keys: int, offset: Array | int = 0) -> Array:
  """bool [1, 1, L, M]: query l is token `offset + l` and sees keys up to itself."""
  query_L = jnp.arange(num_queries) + offset
  return (jnp.arange(num_keys)[None] <= query_L[:, None])[None, None]


def dot_product_attention(
  q_BLHK: Array,
  k_BMHK: Array,
  v_BMHK: Array,
  mask_BHLM: Array | None = None,
  *,
  dropout: float = 0.0,
  dropout_key: Array | None = None,
) -> tuple[Array, Array]:
  """softmax(q k^T / sqrt(K)) v for each head; the softmax in float32 or wider.

  Args:
    q_BLHK: queries.
    k_BMHK: keys.
    v_BMHK: values.
    mask_BHLM: bool, of size 1 on any axis; None: every query sees every key. A query
      that sees no key gets the mean of all values.
    dropout: probability that a weight is dropped and the others scaled up.
    dropout_key: of the dropped weights; None: none is dropped.

  Returns:
    Output [B, L, H, K] in the dtype of the values, and the weights [B, H, L, M] before
    dropout. Weights that nobody uses cost nothing under jit.
  """
  chex.assert_rank([q_BLHK, k_BMHK, v_BMHK], 4)
  chex.assert_equal_shape([k_BMHK, v_BMHK])
  chex.assert_equal_shape_prefix([q_BLHK, k_BMHK], 1)
  chex.assert_equal_shape_suffix([q_BLHK, k_BMHK], 2)
  wide = jnp.promote_types(q_BLHK.dtype, jnp.float32)
  # The scale goes to the queries, of which there are L K and not L M.
  q_BLHK = q_BLHK * q_BLHK.shape[-1] ** -0.5
  scores_BHLM = jnp.einsum(
    'BLHK,BMHK->BHLM', q_BLHK, k_BMHK, preferred_element_type=wide
  )
  if mask_BHLM is not None:
    chex.assert_rank(mask_BHLM, 4)
    scores_BHLM = jnp.where(mask_BHLM, scores_BHLM, _MASKED)
  weights_BHLM = jax.nn.softmax(scores_BHLM, axis=-1)
  used_BHLM = weights_BHLM
  if dropout > 0 and dropout_key is not None:
    keep_BHLM = jax.random.bernoulli(dropout_key, 1 - dropout, weights_BHLM.shape)
    used_BHLM = jnp.where(keep_BHLM, weights_BHLM / (1 - dropout), 0)
  x_BLHK = jnp.einsum('BHLM,BMHK->BLHK', used_BHLM.astype(v_BMHK.dtype), v_BMHK)
  return x_BLHK, weights_BHLM


def fused_attention(
  q_BLHK: Array, k_BMHK: Array, v_BMHK: Array, *, causal: bool = False
) -> Array:
  """softmax(q k^T / sqrt(K)) v for each head, [B, L, H, K], by kernels.attention.

  Weights are not kept: memory grows with L + M, not with L M. Reverse mode only, of any
  order. One device takes the implementation that is best for it (`explain` of
  kernels.attention says which); several take XLA's, which XLA can divide among them.

  Where kernels/onednn is built, a CPU computes float32 by one call of C++ each way:
  value and gradients of B = 64, L = M = 65, 3 heads of 64 take 4.4 ms, 10.2 by products
  that keep the weights; causal B = 8, L = M = 256, 6 heads of 64: 7.6 and 20.8 ms (two
  cores, jax 0.10.2, medians of 5, November 2026).

  Args:
    q_BLHK: queries.
    k_BMHK: keys.
    v_BMHK: values.
    causal: query l sees keys up to l.
  """
  return flash_attention(
    q_BLHK,
    k_BMHK,
    v_BMHK,
    causal=causal,
    implementation='auto' if jax.device_count() == 1 else 'xla',
  )


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
  `query`, `key` and `value` [D, H, K], `out` [H, K, D].

  Attributes:
    num_heads: H, a divisor of the width of the stream; K is their quotient.
    causal: no query sees a later token. A cached call is always causal.
    use_bias: in all four maps.
    dropout: probability that a weight is dropped (rng 'dropout').
    kernel_init: of W_q, W_k and W_v.
    out_init: of W_o.
    dtype: of the arithmetic; the softmax is at least float32.
    param_dtype: of the parameters.
  """

  num_heads: int
  causal: bool = False
  use_bias: bool = True
  dropout: float = 0.0
  kernel_init: Initializer = nn.initializers.xavier_uniform()
  out_init: Initializer = nn.initializers.xavier_uniform()
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x_BLD: Array,
    memory_BMD: Array | None = None,
    *,
    train: bool,
    mask_BHLM: Array | None = None,
    cache: KVCache | None = None,
    return_weights: bool = False,
  ) -> Attended:
    """Attends from `x_BLD` to `memory_BMD` (None: to itself).

    Args:
      x_BLD: where the queries come from.
      memory_BMD: where keys and values come from.
      train: drop weights.
      mask_BHLM: besides the causal one. With a cache, M is its capacity.
      cache: tokens before `x_BLD`, whose keys and values are appended to it.
      return_weights: also give them; a kernel would not make them.

    Raises:
      ValueError: a width that the heads do not divide.
    """
    width = x_BLD.shape[-1]
    if width % self.num_heads:
      raise ValueError(
        f'num_heads={self.num_heads} is not allowed: must be a divisor of the width '
        f'{width}.'
      )
    shared = {
      'use_bias': self.use_bias,
      'dtype': self.dtype,
      'param_dtype': self.param_dtype,
      'dot_general': rows_dot_general,
    }

    def heads(name):
      return nn.DenseGeneral(
        (self.num_heads, width // self.num_heads),
        kernel_init=self.kernel_init,
        name=name,
        **shared,
      )

    out = nn.DenseGeneral(
      width, axis=(-2, -1), kernel_init=self.out_init, name='out', **shared
    )
    drops = train and self.dropout > 0
    fused = mask_BHLM is None and cache is None and not drops and not return_weights
    x_BLD = x_BLD.astype(self.dtype)
    if fused and memory_BMD is None and not self.is_initializing():
      if x_BLD.dtype == jnp.float32 and x_BLD.size and library.usable():
        return Attended(out(self._packed(x_BLD)))
    source_BMD = x_BLD if memory_BMD is None else memory_BMD
    q_BLHK = heads('query')(x_BLD)
    k_BMHK, v_BMHK = heads('key')(source_BMD), heads('value')(source_BMD)
    start = 0
    if cache is not None:
      start = cache.length
      cache = append(cache, k_BMHK, v_BMHK)
      k_BMHK = cache.key_BMHK.astype(q_BLHK.dtype)
      v_BMHK = cache.value_BMHK.astype(q_BLHK.dtype)
    weights_BHLM = None
    if fused:
      y_BLHK = fused_attention(q_BLHK, k_BMHK, v_BMHK, causal=self.causal)
    else:
      if self.causal or cache is not None:
        # Room not yet used lies behind the last query, so that this hides it too.
        causal = causal_mask(q_BLHK.shape[1], k_BMHK.shape[1], start)
        mask_BHLM = causal if mask_BHLM is None else causal & mask_BHLM
      y_BLHK, weights_BHLM = dot_product_attention(
        q_BLHK,
        k_BMHK,
        v_BMHK,
        mask_BHLM,
        dropout=self.dropout,
        dropout_key=self.make_rng('dropout') if drops else None,
      )
    return Attended(out(y_BLHK), cache, weights_BHLM if return_weights else None)

  def _packed(self, x_BLD: Array) -> Array:
    """[B, L, D] -> [B, L, H, K]: tokens look at each other. One product, not three."""
    maps = [self.variables['params'][name] for name in ('query', 'key', 'value')]
    together = lambda name: jnp.stack([m[name].astype(x_BLD.dtype) for m in maps], -3)
    kernel_DPHK = together('kernel')
    dims = (((2,), (0,)), ((), ()))
    qkv_BLPHK = rows_dot_general(x_BLD, kernel_DPHK, dims)
    if self.use_bias:
      qkv_BLPHK = qkv_BLPHK + together('bias')[None, None]
    form = onednn.Form(self.causal, kernel_DPHK.shape[-1] ** -0.5)
    y: Any = _packed_attention(form, qkv_BLPHK)
    return y
