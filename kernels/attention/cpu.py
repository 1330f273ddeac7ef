"""'onednn': attention by kernels.onednn, one call of C++ each way, on the CPU."""

import jax

from kernels.attention.case import Case, Operands
from kernels.dispatch import Refusal
from kernels.onednn import attention, library

Array = jax.Array


def refusal(case: Case) -> Refusal | None:
  if case.dtype not in ('float32', 'bfloat16'):
    return Refusal(f'dtype={case.dtype}', 'float32 or bfloat16')
  if case.q_heads != case.kv_heads:
    heads = f'{case.kv_heads} heads of keys for {case.q_heads} of queries'
    return Refusal(heads, f'{case.q_heads} heads of keys')
  lacks = (
    ('segment_ids', case.segments),
    ('bias', case.bias is not None),
    ('window', case.window is not None),
    ('soft_cap', case.soft_cap is not None),
    ('dropout', case.dropout_rate > 0),
    ('gradient of the log sums', case.return_lse),
  )
  for name, asked in lacks:
    if asked:
      return Refusal(f'it has no {name}')
  if not library.usable():
    why = library.reason() or 'XLA shards no call: it is for one device, and not asked'
    return Refusal(f'kernels.onednn is not usable: {why}')
  return None


def forward(case: Case, operands: Operands) -> tuple[Array, Array]:
  """(o [B, L, H, K], log sum exp of the scores [B, H, L])."""
  return attention.forward(_form(case), *operands[:3])


def backward(
  case: Case, operands: Operands, o: Array, lse: Array, do: Array, dlse: Array | None
) -> tuple[Array, Array, Array]:
  """(dq, dk, dv) from what `forward` gave and the slope of o."""
  assert dlse is None
  return attention.backward(_form(case), *operands[:3], o, lse, do)


def _form(case: Case) -> attention.Form:
  return attention.Form(case.causal, case.scale)
