"""Attention and its derivative as calls of C++ on the CPU.

Arrays are float32 or bfloat16, all alike, but for the log sums: float32. Scores and
sums are float32; weights are rounded to bfloat16 before they go into a product. The
products of matrices are oneDNN's. Other platforms compute the plain forms below, which
is also what derivatives of the two are taken of. Under vmap a call is made for each
row. dlx.layers.attention.multihead ties the two together.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernels.onednn import calls

Array = jax.Array


class Form(NamedTuple):
  """What is computed.

  Attributes:
    causal: query l sees keys 0 to l, not all.
    scale: of the scores.
  """

  causal: bool
  scale: float


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def forward(
  form: Form, q_BLHK: Array, k_BMHK: Array, v_BMHK: Array
) -> tuple[Array, Array]:
  """(softmax(scale q k^T) v [B, L, H, K], log sum exp of the scores [B, H, L]).

  Args:
    form: a NamedTuple, hashable.
    q_BLHK: queries.
    k_BMHK: keys; M at least 1.
    v_BMHK: values.
  """
  return calls.on_cpu(_call_forward, plain_forward, form, q_BLHK, k_BMHK, v_BMHK)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def backward(
  form: Form,
  q_BLHK: Array,
  k_BMHK: Array,
  v_BMHK: Array,
  o_BLHK: Array,
  lse_BHL: Array,
  do_BLHK: Array,
) -> tuple[Array, Array, Array]:
  """(dq [B, L, H, K], dk and dv [B, M, H, K]); o and lse as `forward` gave them."""
  args = (q_BLHK, k_BMHK, v_BMHK, o_BLHK, lse_BHL, do_BLHK)
  return calls.on_cpu(_call_backward, plain_backward, form, *args)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def packed_forward(form: Form, qkv_BLPHK: Array) -> tuple[Array, Array]:
  """`forward` of queries, keys and values [B, L, 3, H, K] as one product gives them."""
  return calls.on_cpu(_call_packed_forward, _plain_packed_forward, form, qkv_BLPHK)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def packed_backward(
  form: Form, qkv_BLPHK: Array, o_BLHK: Array, lse_BHL: Array, do_BLHK: Array
) -> Array:
  """`backward`, packed as well: [B, L, 3, H, K]."""
  args = (qkv_BLPHK, o_BLHK, lse_BHL, do_BLHK)
  return calls.on_cpu(_call_packed_backward, _plain_packed_backward, form, *args)


def plain_forward(form: Form, q_BLHK, k_BMHK, v_BMHK) -> tuple[Array, Array]:
  """`forward` in any dtype."""
  scores_BHLM = _scores(form, q_BLHK, k_BMHK)
  lse_BHL = jax.nn.logsumexp(scores_BHLM, axis=-1)
  weights_BHLM = jnp.exp(scores_BHLM - lse_BHL[..., None])
  o_BLHK = _product('BHLM,BMHK->BLHK', weights_BHLM.astype(v_BMHK.dtype), v_BMHK)
  return o_BLHK.astype(q_BLHK.dtype), lse_BHL


def plain_backward(
  form: Form, q_BLHK, k_BMHK, v_BMHK, o_BLHK, lse_BHL, do_BLHK
) -> tuple[Array, Array, Array]:
  """`backward` in any dtype."""
  weights_BHLM = jnp.exp(_scores(form, q_BLHK, k_BMHK) - lse_BHL[..., None])
  along_BHL = jnp.einsum('BLHK,BLHK->BHL', calls.wide(o_BLHK), calls.wide(do_BLHK))
  slopes_BHLM = _product('BLHK,BMHK->BHLM', do_BLHK, v_BMHK) - along_BHL[..., None]
  slopes_BHLM = (form.scale * weights_BHLM * slopes_BHLM).astype(q_BLHK.dtype)
  found = (
    _product('BHLM,BMHK->BLHK', slopes_BHLM, k_BMHK),
    _product('BHLM,BLHK->BMHK', slopes_BHLM, q_BLHK),
    _product('BHLM,BLHK->BMHK', weights_BHLM.astype(do_BLHK.dtype), do_BLHK),
  )
  dq_BLHK, dk_BMHK, dv_BMHK = (x.astype(q_BLHK.dtype) for x in found)
  return dq_BLHK, dk_BMHK, dv_BMHK


def _product(axes: str, a: Array, b: Array) -> Array:
  """`einsum` in float32 or wider."""
  wide = jnp.promote_types(a.dtype, jnp.float32)
  return jnp.einsum(axes, a, b, preferred_element_type=wide)


def _unpacked(qkv_BLPHK: Array) -> list[Array]:
  return [qkv_BLPHK[:, :, i] for i in range(3)]


def _plain_packed_forward(form: Form, qkv_BLPHK) -> tuple[Array, Array]:
  return plain_forward(form, *_unpacked(qkv_BLPHK))


def _plain_packed_backward(form: Form, qkv_BLPHK, *args) -> Array:
  return jnp.stack(plain_backward(form, *_unpacked(qkv_BLPHK), *args), axis=2)


def _scores(form: Form, q_BLHK: Array, k_BMHK: Array) -> Array:
  scores_BHLM = form.scale * _product('BLHK,BMHK->BHLM', q_BLHK, k_BMHK)
  if not form.causal:
    return scores_BHLM
  num_queries, num_keys = scores_BHLM.shape[2:]
  seen_LM = jnp.arange(num_keys)[None] <= jnp.arange(num_queries)[:, None]
  return jnp.where(seen_LM[None, None], scores_BHLM, -jnp.inf)


def _call_forward(form: Form, q_BLHK, k_BMHK, v_BMHK):
  call = calls.typed('dlx_onednn_attention_forward', q_BLHK, _log_sums(q_BLHK.shape))
  return tuple(call(q_BLHK, k_BMHK, v_BMHK, **_attributes(form)))


def _call_backward(form: Form, q_BLHK, k_BMHK, v_BMHK, o_BLHK, lse_BHL, do_BLHK):
  call = calls.typed('dlx_onednn_attention_backward', q_BLHK, k_BMHK, v_BMHK)
  args = (q_BLHK, k_BMHK, v_BMHK, o_BLHK, do_BLHK, lse_BHL)
  return tuple(call(*args, **_attributes(form)))


def _call_packed_forward(form: Form, qkv_BLPHK):
  batch, queries, _, heads, width = qkv_BLPHK.shape
  shape = (batch, queries, heads, width)
  types = (jax.ShapeDtypeStruct(shape, qkv_BLPHK.dtype), _log_sums(shape))
  call = calls.typed('dlx_onednn_attention_packed_forward', *types)
  return tuple(call(qkv_BLPHK, **_attributes(form)))


def _call_packed_backward(form: Form, qkv_BLPHK, o_BLHK, lse_BHL, do_BLHK):
  call = calls.typed('dlx_onednn_attention_packed_backward', qkv_BLPHK)
  return call(qkv_BLPHK, o_BLHK, do_BLHK, lse_BHL, **_attributes(form))[0]


def _log_sums(shape) -> jax.ShapeDtypeStruct:
  batch, queries, heads, _ = shape
  return jax.ShapeDtypeStruct((batch, heads, queries), jnp.float32)


def _attributes(form: Form):
  return {'causal': form.causal, 'scale': np.float32(form.scale)}


calls.differentiate_plain(forward, plain_forward)
calls.differentiate_plain(backward, plain_backward)
calls.differentiate_plain(packed_forward, _plain_packed_forward)
calls.differentiate_plain(packed_backward, _plain_packed_backward)
