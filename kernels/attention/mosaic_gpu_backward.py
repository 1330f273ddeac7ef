"""The slopes of attention on Hopper GPUs, without atomics: the same bits every time.

Two kernels in the manner of kernels/attention/mosaic_gpu.py, which says what of them is
simulated: one of blocks of queries that walks over the keys and sums dq, one of blocks
of keys that walks over the queries of all heads that share them and sums dk and dv.
Both compute the weights again from the log sums (arXiv:2205.14135). The second has keys
as rows of its products, so that weights and slopes go from one product into the next in
registers. Where the sums of dk and dv do not fit into the registers together it runs
twice.
"""

from typing import Any

import jax
import jax.numpy as jnp

from kernels.attention import reference
from kernels.attention.case import Case, Operands
from kernels.attention.mosaic_gpu_blocks import LOG2E, Config, extras, padded
from kernels.attention.mosaic_gpu_dkv import of_keys
from kernels.attention.mosaic_gpu_dq import of_queries
from kernels.attention.mosaic_gpu_launch import ROWS, Blocks, rounded, staged

Array = jax.Array

FAR = 1e30  # The log sum of a row without keys, so that exp2(s - FAR) is 0.


NAMES = tuple(f'{k}_{field}' for k in ('dq', 'dkv') for field in Blocks._fields)
FORWARD_NAMES = ('compute', 'keys', 'stages')


def blocks(case: Case, config: Config | None, kernel: str) -> Blocks:
  """The sizes asked for as <kernel>_compute and so on, or else those that fit.

  Raises:
    ValueError: a name or size in `config` that is not allowed.
  """
  # One dict of a tuned row serves both directions.
  config = {k: v for k, v in (config or {}).items() if k not in FORWARD_NAMES}
  compute = config.get(f'{kernel}_compute', 2)
  across = config.get(f'{kernel}_across', 64)
  stages = config.get(f'{kernel}_stages', 0)
  if (
    set(config) - set(NAMES) or compute not in (1, 2, 3) or across not in (32, 64, 128)
  ):
    raise ValueError(
      f'{config=} is not allowed: must be some of {NAMES}, compute 1 to 3, across '
      '64 or 128, stages 1 or more.'
    )
  return staged(case, Blocks(compute, across, stages), own=2, beside=2)


def backward(
  case: Case,
  operands: Operands,
  o: Array,
  lse: Array,
  do: Array,
  dlse: Array | None,
  *,
  interpret: Any = False,
  config: Config | None = None,
) -> tuple[Array, Array, Array]:
  """(dq, dk, dv) from what `forward` gave and the slopes of it.

  Args:
    case, operands, interpret: as in `forward`.
    o, lse: what it gave.
    do, dlse: slopes of these; dlse None: zeros.
    config: any of dq_compute, dq_across, dq_stages and the same of dkv.
  """
  plans = {kernel: blocks(case, config, kernel) for kernel in ('dq', 'dkv')}
  # Rows for whole blocks of either kernel; those past the end have weights of 0.
  q_rows = max(
    rounded(case.q_len, plans['dq'].compute * ROWS),
    rounded(case.q_len, plans['dkv'].across),
  )
  kv_rows = max(
    rounded(case.kv_len, plans['dkv'].compute * ROWS),
    rounded(case.kv_len, plans['dq'].across),
  )
  rows = {
    'lse': padded(jnp.where(jnp.isneginf(lse), FAR, lse * LOG2E), q_rows, FAR),
    'delta': padded(reference.delta(o, do, dlse), q_rows),
  }
  more = extras(case, operands, q_rows, kv_rows)
  do = do.astype(case.dtype)
  matrix_args = (operands.q_BLHK, operands.k_BMGK, operands.v_BMGK, do)
  args = (case, matrix_args, {**rows, **more}, interpret)
  dq = of_queries(*args, plans['dq'])
  if 'bias' in more:  # Its columns are queries now, as in the blocks of scores.
    more['bias'] = more['bias'].swapaxes(2, 3)
    args = (case, matrix_args, {**rows, **more}, interpret)
  if case.head_dim <= (64 if case.dropout_rate or case.soft_cap is not None else 128):
    dk, dv = of_keys(*args, plans['dkv'], ('dk', 'dv'))
  else:
    (dk,), (dv,) = (of_keys(*args, plans['dkv'], (one,)) for one in ('dk', 'dv'))
  return dq, dk, dv
