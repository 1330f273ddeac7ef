"""`flash_attention` with examples and heads spread over a mesh."""

import functools
import math
from typing import Any, Callable

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from kernels.attention import api, masks
from kernels.attention.case import Case, Operands

Array = jax.Array
P = PartitionSpec
Axes = tuple[str, ...]


def sharded(
  mesh: Mesh, *, batch_axes: str | Axes = (), head_axes: str | Axes = ()
) -> Callable[..., Any]:
  """`flash_attention` for arrays that lie on a mesh; no array is gathered.

  XLA cannot divide a kernel among devices by itself; here each device calls it on its
  own examples and heads, by jax.shard_map. Tokens are not divided: see ring.py.
  Values, gradients and dropped weights are those of `flash_attention`. With dropout
  each head is a call of its own, under vmap, as kernels count heads from 0.

  Args:
    mesh: of the devices.
    batch_axes: its axes over which examples are spread.
    head_axes: its axes over which heads are spread; heads of keys are spread with those
      of queries, or one of them is on all.

  Returns:
    A function of the arguments of `flash_attention`, which may raise as that does, and
    ValueError where the axes do not divide examples or heads.
  """
  batch_axes, head_axes = _names(batch_axes), _names(head_axes)

  def attention(
    q: Array, k: Array, v: Array, *,
    implementation: api.Implementation = 'auto', interpret: Any = None, **options: Any,
  ) -> Any:  # fmt: skip
    case, operands = api.prepare(q, k, v, **options)
    local = functools.partial(_local, case, implementation, interpret)
    specs = _specs(case, mesh, batch_axes, head_axes)
    given = {name: x for name, x in operands._asdict().items() if x is not None}
    call = jax.shard_map(
      lambda arrays: local(batch_axes, head_axes, Operands(**arrays)),
      mesh=mesh,
      in_specs=({name: specs[name] for name in given},),
      out_specs=(P(batch_axes, None, head_axes), P(batch_axes, head_axes)),
      check_vma=False,  # A kernel does not say over which axes its results vary.
    )
    o, lse = call(given)
    return (o, lse) if case.return_lse else o

  return attention


def _names(axes: str | Axes) -> Axes:
  return (axes,) if isinstance(axes, str) else tuple(axes)


def _specs(
  case: Case, mesh: Mesh, batch_axes: Axes, head_axes: Axes
) -> dict[str, PartitionSpec]:
  """Of each of the operands."""
  count = lambda axes: math.prod(mesh.shape[axis] for axis in axes)
  batch_parts, head_parts = count(batch_axes), count(head_axes)
  one = case.kv_heads == 1
  for name, number, parts in (
    ('examples', case.batch, batch_parts),
    ('heads of queries', case.q_heads, head_parts),
    ('heads of keys', case.kv_heads, 1 if one else head_parts),
  ):
    if number % parts:
      raise ValueError(
        f'{number} {name} over {parts} shards is not allowed: must be a multiple of '
        f'{parts}.'
      )
  keys = P(batch_axes, None, None if one else head_axes)
  ones = (1, 1) if case.bias is None else case.bias
  return {
    'q_BLHK': P(batch_axes, None, head_axes),
    'k_BMGK': keys,
    'v_BMGK': keys,
    'bias': P(batch_axes if ones[0] > 1 else None, head_axes if ones[1] > 1 else None),
    'q_segment_BL': P(batch_axes),
    'kv_segment_BM': P(batch_axes),
    'seed': P(),
  }


def _local(case, implementation, interpret, batch_axes, head_axes, operands: Operands):
  """`attend` of the examples and heads of this device; `case` is of all."""
  here = case._replace(
    batch=operands.q_BLHK.shape[0],
    q_heads=operands.q_BLHK.shape[2],
    kv_heads=operands.k_BMGK.shape[2],
    bias=None if operands.bias is None else operands.bias.shape,
  )
  if not case.dropout_rate:
    return api.attend(here, implementation, interpret, operands)
  example = lax.axis_index(batch_axes) * here.batch if batch_axes else 0
  head = lax.axis_index(head_axes) * here.q_heads if head_axes else 0
  example += jnp.arange(here.batch, dtype=jnp.int32)
  head += jnp.arange(here.q_heads, dtype=jnp.int32)
  index_BH = example[:, None] * case.q_heads + head[None, :]
  return _each_head(here, implementation, interpret, operands, index_BH)


def _each_head(case: Case, implementation, interpret, operands: Operands, index_BH):
  """`attend`, each head a case of its own whose weights drop as those of its index."""
  alone = case._replace(batch=1, q_heads=1, kv_heads=1)
  if case.bias is not None:
    alone = alone._replace(bias=(1, 1, *case.bias[2:]))
  q, k, v, bias, q_segment, kv_segment, seed = operands
  assert seed is not None

  def one(q_LK, k_MK, v_MK, bias_LM, q_segment_L, kv_segment_M, index):
    each = Operands(
      q_LK[None, :, None],
      k_MK[None, :, None],
      v_MK[None, :, None],
      None if bias_LM is None else bias_LM[None, None],
      None if q_segment_L is None else q_segment_L[None],
      None if kv_segment_M is None else kv_segment_M[None],
      jnp.stack(masks.seed_of_head((seed[0], seed[1]), index)),
    )
    o, lse = api.attend(alone, implementation, interpret, each)
    return o[0, :, 0], None if lse is None else lse[0, 0]

  def grouped(x):
    """[1 or B, 1 or H, ...] -> [B, G, R, ...]; XLA makes no array of the ones."""
    x = jnp.broadcast_to(x, (*index_BH.shape, *x.shape[2:]))
    return x.reshape(case.batch, case.kv_heads, case.group, *x.shape[2:])

  args = (
    grouped(q.swapaxes(1, 2)),
    k.swapaxes(1, 2),
    v.swapaxes(1, 2),
    None if bias is None else grouped(bias),
    q_segment,
    kv_segment,
    grouped(index_BH),
  )
  # Over heads of queries that share one of keys, over those of keys, over examples.
  has_bias = None if bias is None else 0
  for axes in (
    (0, None, None, has_bias, None, None, 0),
    (0, 0, 0, has_bias, None, None, 0),
    (0, 0, 0, has_bias, *[None if q_segment is None else 0] * 2, 0),
  ):
    one = jax.vmap(one, in_axes=axes)
  o, lse = one(*args)  # [B, G, R, L, K] and [B, G, R, L] or None.
  flat = lambda x: x.reshape(case.batch, case.q_heads, *x.shape[3:])
  return flat(o).swapaxes(1, 2), None if lse is None else flat(lse)
