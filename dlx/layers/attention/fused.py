"""Attention by kernels.attention on one device, or on those of the ambient mesh.

B batch, L queries, M keys, H heads of queries, G of keys, K width of a head.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from dlx.errors import ConfigError
from dlx.layers.mesh import ambient, fitting
from kernels.attention import flash_attention
from kernels.attention.ring import ring_attention
from kernels.attention.sharding import sharded

Array = jax.Array


def fused_attention(
  q_BLHK: Array,
  k_BMGK: Array,
  v_BMGK: Array,
  *,
  causal: bool = False,
  window: int | None = None,
  soft_cap: float | None = None,
  bias_BHLM: Array | None = None,
  dropout: float = 0.0,
  dropout_key: Array | None = None,
) -> Array:
  """softmax(q k^T / sqrt(K)) v for each head, [B, L, H, K], by kernels.attention.

  Weights are not kept: memory grows with L + M, not with L M. Reverse mode only, of any
  order. One device takes the implementation that is best for it (`explain` of
  kernels.attention says which).

  On an ambient mesh each device computes its own examples (along data and fsdp) and
  heads (along tensor). Where the mesh has an axis `sequence` that divides the tokens,
  keys and values go round it (arXiv:2310.01889) and no device holds those of all; other
  numbers of tokens, windows and biases are computed whole on each device of that axis.
  Values, gradients and dropped weights are those of one device up to rounding.

  Where kernels/onednn is built, a CPU computes float32 and bfloat16 by one call of C++
  each way. In float32 value and gradients of B = 64, L = M = 65, 3 heads of 64 take
  4.4 ms, 10.2 by products that keep the weights; causal B = 8, L = M = 256, 6 heads of
  64: 7.6 and 20.8 ms (two cores, jax 0.10.2, medians of 5, November 2026).

  Args:
    q_BLHK: queries.
    k_BMGK: keys; G divides H, and head h of the queries reads head h // (H / G).
    v_BMGK: values.
    causal: query l sees keys up to l.
    window: W, query l sees keys l - W + 1 to l + W - 1; None: all.
    soft_cap: scores s become cap tanh(s / cap), before the bias; None: they do not.
    bias_BHLM: added to the scores, of sizes 1 or B, H, L, M; it has a gradient. A query
      whose scores are all -inf gives 0.
    dropout: probability that a weight is dropped and the others scaled up.
    dropout_key: of the dropped weights; None: none is dropped.

  Raises:
    ConfigError: weights to drop where keys go round: nobody has their numbers there.
  """
  options: dict[str, Any] = {'causal': causal, 'soft_cap': soft_cap}
  near: dict[str, Any] = {'bias': bias_BHLM}
  near['window'] = None if window is None else (window - 1, window - 1)
  drops = dropout > 0 and dropout_key is not None
  if drops:
    options |= {'dropout_rate': dropout, 'dropout_key': dropout_key}
  mesh: Any = ambient()
  if mesh is None:
    # Devices but no mesh: XLA can divide its own operations among them, and no kernel.
    implementation = 'auto' if jax.device_count() == 1 else 'xla'
    return flash_attention(
      q_BLHK, k_BMGK, v_BMGK, implementation=implementation, **options, **near
    )
  rows, heads = _axes(mesh, q_BLHK)
  k_BMGK, v_BMGK = _spread(mesh, heads, q_BLHK, k_BMGK, v_BMGK)
  whole = window is not None or bias_BHLM is not None
  if whole or not _goes_round(mesh, q_BLHK, k_BMGK):
    call = sharded(mesh, batch_axes=rows, head_axes=heads)
    return call(q_BLHK, k_BMGK, v_BMGK, **options, **near)
  if drops:
    raise ConfigError(
      f'--config.dropout={dropout} is not allowed on a mesh with '
      f'sequence={mesh.shape["sequence"]}: must be 0, since attention round a ring of '
      'devices drops no weights; or leave sequence out of --mesh.'
    )
  keys = heads if k_BMGK.shape[2] > 1 else ()
  of_queries, of_keys = P(rows, 'sequence', heads), P(rows, 'sequence', keys)
  return jax.shard_map(
    functools.partial(
      ring_attention, axis='sequence', causal=causal, soft_cap=soft_cap
    ),
    mesh=mesh,
    in_specs=(of_queries, of_keys, of_keys),
    out_specs=of_queries,
    check_vma=False,  # A kernel does not say over which axes its results vary.
  )(q_BLHK, k_BMGK, v_BMGK)


def _axes(mesh: AbstractMesh, q_BLHK: Array) -> tuple[tuple[str, ...], ...]:
  """Axes of the mesh that divide the examples, and those that divide the heads."""
  batch, _, heads, _ = q_BLHK.shape
  spec = fitting(P(('data', 'fsdp'), 'tensor'), (batch, heads), mesh.shape)
  names = lambda entry: (entry,) if isinstance(entry, str) else tuple(entry or ())
  return tuple(map(names, spec))


def _spread(mesh, head_axes, q_BLHK, k_BMGK, v_BMGK) -> tuple[Array, Array]:
  """Keys and values, repeated as often as their heads can be divided like queries'."""
  parts = math.prod(mesh.shape[axis] for axis in head_axes)
  heads = k_BMGK.shape[2]
  if heads == 1 or heads % parts == 0:
    return k_BMGK, v_BMGK
  # Heads of both and parts divide those of queries, so their multiple does too.
  times = math.lcm(heads, parts) // heads
  assert q_BLHK.shape[2] % (heads * times) == 0
  return jnp.repeat(k_BMGK, times, axis=2), jnp.repeat(v_BMGK, times, axis=2)


def _goes_round(mesh: AbstractMesh, q_BLHK: Array, k_BMGK: Array) -> bool:
  parts, length = mesh.shape.get('sequence', 1), q_BLHK.shape[1]
  return parts > 1 and length % parts == 0 and k_BMGK.shape[1] == length
