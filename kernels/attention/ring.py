"""Attention over tokens that are spread over a mesh (arXiv:2310.01889).

Every device keeps its queries; keys and values go round the ring of devices, and what
a device finds in each block is merged by the log sums. The derivative goes round once
more, with the gradients of keys and values beside them.

Memory is that of one device's tokens: a step waits for the results of the one before
it, so that XLA does not move all keys first. With 4096 tokens a device, 8 heads of
width 64 in float32 (q is 8.4 MB) temporaries of value and gradients by 'xla' are 17.8,
23.1 and 25.3 MB on 2, 4 and 8 devices, causal 18.5, 57.7 and 60.6; without waiting
34.5, 82.4 and 132.0 (compiled for TPU v5e:2x4 by jax 0.10.2, memory_analysis(),
November 2026; never run there). XLA's CPU programs do not wait.
"""

import functools
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from kernels.attention import api
from kernels.attention.case import Case, Operands
from kernels.attention.reference import wide

Array = jax.Array


class Form(NamedTuple):
  """What is computed; hashable.

  Attributes:
    case: of the tokens of one device, not causal.
    causal: whether a query sees the keys up to its own.
    axis: of the mesh.
    size: devices on that axis.
    implementation, interpret: as in `flash_attention`.
  """

  case: Case
  causal: bool
  axis: str
  size: int
  implementation: Any
  interpret: Any


def ring_attention(
  q: Array,
  k: Array,
  v: Array,
  *,
  axis: str,
  causal: bool = False,
  segment_ids: Array | None = None,
  kv_segment_ids: Array | None = None,
  softmax_scale: float | None = None,
  soft_cap: float | None = None,
  implementation: api.Implementation = 'auto',
  interpret: Any = None,
) -> Array:
  """`flash_attention` inside jax.shard_map, where a device has a part of the tokens.

  Parts follow each other along `axis` of the mesh and are of one length; other axes
  may hold examples and heads. Each part is computed by `implementation` and rounded to
  the dtype of q; their sum is in float32 or wider. Keys and values move together, one
  collective permutation a step, n - 1 steps of n devices; segment ids one more. With
  `causal` no device computes later parts: the last one works longest. No bias, window
  or dropout. Reverse mode of any order.

  Args:
    q: queries of this device [B, L, H, K].
    k, v: keys and values of this device [B, M, G, K]; L = M where causal.
    axis: name of the mesh axis.
    causal, softmax_scale, soft_cap, implementation, interpret: as `flash_attention`.
    segment_ids, kv_segment_ids: int32 [B, L] and [B, M] of this device.

  Raises:
    ValueError, UnsupportedKernel: as `flash_attention`.
  """
  if causal and q.shape[1] != k.shape[1]:
    raise ValueError(
      f'causal with {q.shape[1]} queries and {k.shape[1]} keys of a device is not '
      'allowed: must be as many.'
    )
  case, operands = api.prepare(
    q, k, v, segment_ids=segment_ids, kv_segment_ids=kv_segment_ids,
    softmax_scale=softmax_scale, soft_cap=soft_cap,
  )  # fmt: skip
  if not isinstance(implementation, str):
    implementation = tuple(implementation)
  size = lax.axis_size(axis)
  form = Form(case, bool(causal), axis, size, implementation, interpret)
  return _ring(form, operands)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ring(form: Form, operands: Operands) -> Array:
  return _forward(form, operands)[0]


def _forward(form: Form, operands: Operands) -> tuple[Array, Array]:
  """(o, log sums over the keys of all devices)."""
  moving = _moving(operands)
  device = lax.axis_index(form.axis)
  state: Any = ()
  for step in range(form.size):
    moving, state = lax.optimization_barrier((moving, state))
    here = _at(operands, moving)
    if step + 1 < form.size:
      # Where causal, nobody reads what would come from the last device to the first.
      moving = _move(form, moving, _pairs(form.size, 1, not form.causal))
    part = functools.partial(_part, form, step, here)
    state = _unless_later(form, step == 0 or device >= step, part, *state)
  o, lse = state
  return o.astype(operands.q_BLHK.dtype), lse


def _keep(form: Form, operands: Operands):
  o, lse = _forward(form, operands)
  return o, (operands, o, lse)


def _backward(form: Form, residuals, do: Array) -> tuple[Operands]:
  operands, o, lse = residuals
  moving = _moving(operands)
  device = lax.axis_index(form.axis)
  # The other way round: moves like those of the forward pass XLA would take for the
  # same, and hold the keys and values of all devices until here (seen in its program,
  # also with an optimization barrier).
  back = _pairs(form.size, -1)
  dq = jnp.zeros_like(wide(operands.q_BLHK))
  found = jnp.zeros_like(wide(moving[0]))
  for step in range(form.size):
    moving, dq, found = lax.optimization_barrier((moving, dq, found))
    here = _at(operands, moving)
    if step + 1 < form.size:
      moving = _move(form, moving, back)
    part = functools.partial(_slopes, form, step, (here, o, lse, do, None))
    earlier = step == 0 or device >= form.size - step
    dq, found = _unless_later(form, earlier, part, dq, found)
    # With the keys, and after the last step home.
    found = lax.ppermute(found, form.axis, back)
  slopes = (dq, *found)
  return (Operands(*(d.astype(x.dtype) for d, x in zip(slopes, operands))),)


_ring.defvjp(_keep, _backward)


def _part(form: Form, step: int, here: Operands, *state: Array) -> Any:
  """(o, lse) of the state and of these keys."""
  o, lse = api.residuals(_case(form, step), *form[-2:], here)
  return _merge(state, (wide(o), lse))


def _slopes(form: Form, step: int, args: tuple, dq: Array, found: Array) -> Any:
  """dq, and dk with dv, to which those of these keys are added."""
  more, dk, dv = api.pull(_case(form, step), *form[-2:], args)
  return dq + wide(more), found + wide(jnp.stack((dk, dv)))


def _case(form: Form, step: int) -> Case:
  """Of this device's queries and the keys that came `step` devices far."""
  return form.case._replace(causal=form.causal and step == 0)


def _moving(operands: Operands) -> list[Array]:
  """What goes round: keys and values as one array, and segments."""
  segment = operands.kv_segment_BM
  pair = jnp.stack((operands.k_BMGK, operands.v_BMGK))
  return [pair] if segment is None else [pair, segment]


def _at(operands: Operands, moving: list[Array]) -> Operands:
  k, v = moving[0]
  found = operands._replace(k_BMGK=k, v_BMGK=v)
  return found._replace(kv_segment_BM=moving[1]) if len(moving) > 1 else found


def _move(form: Form, moving: list[Array], pairs) -> list[Array]:
  return [lax.ppermute(x, form.axis, pairs) for x in moving]


def _pairs(size: int, to: int, closed: bool = True) -> list[tuple[int, int]]:
  pairs = [(i, (i + to) % size) for i in range(size)]
  return pairs if closed else pairs[:-1]


def _unless_later(form: Form, computed: Any, part: Any, *state: Array) -> Any:
  """part(*state), or the state where all keys here come after all queries."""
  if not form.causal or computed is True:
    return part(*state)
  return lax.cond(computed, part, lambda *x: x, *state)


def _merge(state: tuple, part: tuple[Array, Array]) -> tuple[Array, Array]:
  """(o, lse) of the keys of both; o is 0 where neither has any. () has no keys."""
  if not state:
    return part
  (o, lse), (o_part, lse_part) = state, part
  both = jnp.logaddexp(lse, lse_part)
  level = jnp.where(jnp.isneginf(both), 0, both)
  share, share_part = (
    jnp.exp(x - level).swapaxes(1, 2)[..., None] for x in (lse, lse_part)
  )
  return share * o + share_part * o_part, both
