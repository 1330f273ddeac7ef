"""What is read from the TPU compiler, and that every attention kernel compiles.

Skips, saying how to get it, where libtpu is missing.
"""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import pytest

from kernels import dispatch
from kernels.attention import mosaic_tpu, mosaic_tpu_backward
from kernels.attention import mosaic_tpu_chips as chips
from kernels.attention.case import Case, Operands
from kernels.static import llo, tpu

PLAIN = Case(
  2, 1024, 1024, 8, 8, 128, 'bfloat16', scale=128**-0.5, causal=True, return_lse=True
)
CASES = {
  'plain': PLAIN,
  'float32': PLAIN._replace(dtype='float32', kv_heads=2, head_dim=256, batch=1),
  'all': PLAIN._replace(
    head_dim=80, q_len=1000, kv_len=777, window=(200, 0), segments=True, soft_cap=3.0,
    bias=(1, 8, 1000, 777), dropout_rate=0.1, kv_heads=4,
  ),
}  # fmt: skip


@pytest.fixture
def compiler():
  """Skips where there is none."""
  try:
    tpu.topology('v5e:2x2')
  except tpu.NoCompiler as error:
    pytest.skip(f'nothing is compiled for TPUs: {error}')


def shapes(case: Case):
  """Of (operands, o, lse, do)."""
  some = lambda shape, dtype, there: (
    jax.ShapeDtypeStruct(shape, dtype) if there else None
  )
  q = jax.ShapeDtypeStruct(
    (case.batch, case.q_len, case.q_heads, case.head_dim), case.dtype
  )
  kv = jax.ShapeDtypeStruct(
    (case.batch, case.kv_len, case.kv_heads, case.head_dim), case.dtype
  )
  operands = Operands(
    q, kv, kv,
    some(case.bias, jnp.float32, case.bias),
    some((case.batch, case.q_len), jnp.int32, case.segments),
    some((case.batch, case.kv_len), jnp.int32, case.segments),
    some((2,), jnp.uint32, case.dropout_rate),
  )  # fmt: skip
  lse = jax.ShapeDtypeStruct((case.batch, case.q_heads, case.q_len), jnp.float32)
  return operands, q, lse, q


def backward(case, *args):
  return mosaic_tpu_backward.backward(case, *args, None)


def test_moves_and_cycles_of_a_program():
  hlo = """
HloModule jit_f, is_scheduled=true
%moving (p: f32[2]) -> f32[2] {
  %p = f32[2]{0} parameter(0)
  ROOT %copy.9 = f32[2]{0} copy(%p)
}
%computing (p: f32[2]) -> f32[2] {
  %copy.8 = f32[2]{0} copy(%p)
  ROOT %add.9 = f32[2]{0} add(%copy.8, %copy.8)
}
ENTRY %main.1 (y: bf16[8,128]) -> f32[9] {
  %x.1 = bf16[8,128]{1,0:T(8,128)(2,1)} copy(%y), metadata={op_name="copy(pad(z)"}
  %c.2 = (f32[2]{0}, u32[]{:S(2)}) copy-start(%x.1)
  %m = f32[9]{0} fusion(%x.1), kind=kLoop, calls=%moving
  %f = f32[9]{0} pad(%a, %b), padding=0_1, backend_config={"estimated_cycles":"120"}
  ROOT %g.1 = f32[9]{0:T(8)S(1)} fusion(%f), calls=%computing, {"estimated_cycles":"7"}
}
"""
  assert tpu.moves(hlo) == [('copy', 8), ('copy', 2048), ('pad', 36)]
  assert tpu.cycles(hlo) == {'f': 120, 'g.1': 7}


def test_bundles_and_slots_of_a_listing():
  text = """
   0   :  { %s1 = sld [smem:[#a]]  ;;  %s2 = smov 0 }
  0x1 LB: > { %v1 = vld [vmem:[#a]] }
  0x2   : > { %v2 = vadd.f32 %v1, %v1 }
    source line 0x3
  0x3   : > { vst [vmem:[#a]] %v2 }
  0x4 PF: > { %s3 = sadd.s32 1, %s2 }
  """
  assert llo.parse_bundles(text) == (5, 3)
  table = 'MXU, VALU, VLOAD:FILL\n== UTIL\n1 0 0\n\n1 4 0\n'
  assert llo.parse_slots(table) == {'MXU': 2, 'VALU': 4}


def test_a_missing_compiler_says_how_to_get_it(monkeypatch):
  tpu.topology.cache_clear()
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(tpu.NoCompiler, match='pip install libtpu'):
    tpu.topology('v5e:2x2')


def test_an_unknown_topology_names_the_known(compiler):
  with pytest.raises(tpu.NoCompiler, match='v5e:2x2'):
    tpu.topology('v5e:1x1')


@pytest.mark.parametrize('name', CASES)
@pytest.mark.parametrize('topology', tpu.TOPOLOGIES)
def test_every_kernel_compiles_without_copies_or_memory(topology, name, compiler):
  """Where XLA may choose the order of q, k, v and o: see `test_copies` for the rest."""
  case = CASES[name]
  operands, o, lse, do = shapes(case)
  for count, function, args in (
    (1, functools.partial(mosaic_tpu.forward, case), (operands,)),
    (2, functools.partial(backward, case), (operands, o, lse, do)),
  ):
    result = tpu.compile_for(topology, function, *args, free_layouts=True)
    assert result.hlo.count('custom_call_target="tpu_custom_call"') == count
    assert result.temp_bytes <= 0.1 * result.output_bytes
    # Segment numbers and log sums: a few bytes a token.
    assert sum(move.size for move in result.moves) < 0.02 * result.output_bytes


DECODE = PLAIN._replace(batch=4, q_len=1, kv_len=8192, q_heads=32, causal=False)
ONE_QUERY = {
  'heads of their own': DECODE._replace(kv_heads=32),
  'grouped': DECODE,
  'odd groups, float32': DECODE._replace(
    q_heads=12, kv_heads=4, head_dim=80, dtype='float32'
  ),
  # Many, as on v5p any kernel that reads scalars takes 32 or 64 KB, for any sizes.
  'all': DECODE._replace(
    batch=128, kv_len=777, window=(0, 700), segments=True, soft_cap=3.0,
    bias=(1, 32, 1, 777), dropout_rate=0.1,
  ),
}  # fmt: skip


@pytest.mark.parametrize('log_sums', (False, True))
@pytest.mark.parametrize('name', ONE_QUERY)
@pytest.mark.parametrize('topology', tpu.TOPOLOGIES)
def test_one_query_needs_no_copies_or_memory(topology, name, log_sums, compiler):
  case = ONE_QUERY[name]
  function = mosaic_tpu.forward if log_sums else mosaic_tpu.values
  function = functools.partial(function, case)
  result = tpu.compile_for(topology, function, shapes(case)[0], free_layouts=True)
  assert result.hlo.count('custom_call_target="tpu_custom_call"') == 1
  assert 'dlx_attention_decode' in result.hlo
  assert result.temp_bytes <= 0.1 * result.output_bytes
  assert sum(move.size for move in result.moves) < 0.02 * result.output_bytes
  least = jnp.dtype(case.dtype).itemsize * case.batch * case.q_heads * case.head_dim
  # Memory is given to o by 8 rows of 128, and to log sums by 128 of an example.
  assert least <= result.output_bytes <= 2.5 * least + 4 * 128 * case.batch * log_sums


def test_log_sums_that_nobody_reads_are_not_there(compiler):
  values = functools.partial(mosaic_tpu.values, PLAIN)
  result = tpu.compile_for('v5e:2x2', values, shapes(PLAIN)[0], free_layouts=True)
  assert result.temp_bytes == 0 and result.moves == []
  assert result.output_bytes == 2 * 2 * 1024 * 8 * 128  # o alone.
  assert 'f32[2,8,1024]' not in result.hlo


def test_copies(compiler):
  """Who is copied: arguments and results of a program, not what an einsum made."""
  operands, *_ = shapes(PLAIN)  # q, k, v, and o.
  forward = functools.partial(mosaic_tpu.forward, PLAIN)
  result = tpu.compile_for('v5e:2x2', forward, operands)
  o_bytes = 2 * 2 * 1024 * 8 * 128
  assert result.moves == [('copy', o_bytes)] * 4

  def layer(x_BLD, w_DHK, out_HKD):
    q, k, v = (jnp.einsum('bld,dhk->blhk', x_BLD, w) for w in w_DHK)
    return jnp.einsum('blhk,hkd->bld', forward(Operands(q, k, v))[0], out_HKD)

  shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.bfloat16)
  weights = (shape(512, 8, 128),) * 3
  result = tpu.compile_for(
    'v5e:2x2', layer, shape(2, 1024, 512), weights, shape(8, 128, 512)
  )
  assert not any(move.size == o_bytes for move in result.moves)


@pytest.mark.parametrize('topology, chip', list(zip(tpu.TOPOLOGIES, chips.CUTS)))
def test_a_kernel_knows_the_chip_that_it_is_compiled_for(topology, chip, compiler):
  seen = []

  def function(x):
    seen.append((dispatch.target().device_kind, chips.cuts()))
    return x + 1

  tpu.compile_for(topology, function, jax.ShapeDtypeStruct((8, 128), jnp.float32))
  kind = tpu.topology(topology).devices[0].device_kind
  assert seen == [(kind, chips.CUTS[chip])]
  assert dispatch.target().device_kind == jax.devices()[0].device_kind


# Matrix units of 128 x 128 and of 256 x 256.
@pytest.mark.slow
@pytest.mark.parametrize('topology', ('v5e:2x2', 'tpu7x:2x2x1'))
def test_bundles_and_spills_are_at_most_those_of_splash(topology, compiler):
  (ours,) = llo.measure('dlx', 'forward', topology)
  (theirs,) = llo.measure('splash', 'forward', topology)
  assert ours.bundles <= theirs.bundles and ours.tile <= theirs.tile
  assert ours.spills <= theirs.spills
