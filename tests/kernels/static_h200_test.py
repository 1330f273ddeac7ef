"""What ptxas makes of the attention kernels for an H200; skips without the compiler."""

import functools
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.attention import mosaic_gpu
from kernels.attention.case import Case, Operands
from kernels.static import h200

# A program of known instructions: wgmma of shared memory twice and of registers once (a
# warpgroup's), two mma.
PTX = """
.version 8.0
.target sm_90a
.address_size 64
.visible .entry known(.param .u64 p)
{
 .reg .u64 %rd<4>; .reg .f32 %f<5>; .reg .b32 %r<5>;
 ld.param.u64 %rd1, [p];
 ld.global.u64 %rd2, [%rd1];
 ld.global.u64 %rd3, [%rd1+8];
 ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1+16];
 ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%rd1+32];
 wgmma.fence.sync.aligned;
 wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16
  {%f1, %f2, %f3, %f4}, %rd2, %rd3, 1, 1, 1, 0, 0;
 wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16
  {%f1, %f2, %f3, %f4}, %rd3, %rd2, 1, 1, 1, 0, 0;
 wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16
  {%f1, %f2, %f3, %f4}, {%r1, %r2, %r3, %r4}, %rd3, 1, 1, 1, 0;
 wgmma.commit_group.sync.aligned;
 wgmma.wait_group.sync.aligned 0;
 mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32
  {%f1, %f2, %f3, %f4}, {%r1, %r2}, {%r3}, {%f1, %f2, %f3, %f4};
 mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32
  {%f1, %f2, %f3, %f4}, {%r1, %r2}, {%r3}, {%f1, %f2, %f3, %f4};
 st.global.v4.f32 [%rd1], {%f1, %f2, %f3, %f4};
 ret;
}
"""


@pytest.fixture(scope='module')
def cuda() -> pathlib.Path:
  try:
    return h200.toolkit()
  except h200.NoCompiler as error:
    pytest.skip(f'nothing is compiled for an H200: {error}')


def test_instructions_are_counted(cuda, tmp_path):
  file = tmp_path / 'known.ptx'
  file.write_text(PTX)
  found = h200.assemble(cuda, file)
  assert (found.name, found.hgmma, found.hmma, found.spill_bytes) == ('known', 3, 2, 0)
  assert 0 < found.registers < 64 and found.instructions > 20


@pytest.mark.parametrize('name', ('d128 causal', 'd256', 'd128 ragged', 'd128 all'))
def test_kernels_use_the_matrix_unit_and_do_not_spill(cuda, name):
  case, *_ = made = h200.attention_cases()[name]
  report = h200.compile_for_h200(functools.partial(h200.both_ways, case), *made[1:])
  names = sorted({kernel.name for kernel in report.kernels})
  assert names == ['attention_dkv', 'attention_dq', 'attention_forward']
  for kernel in report.kernels:
    assert kernel.spill_bytes == 0, kernel
    assert kernel.hgmma > 0 and kernel.hmma == 0, kernel
    assert kernel.registers <= 168, kernel  # Of three warpgroups at launch.
    assert 0 < kernel.shared_bytes <= h200.SHARED_MEMORY_LIMIT, kernel
  # A few numbers a row, besides o, and a dense bias with its axes exchanged: nothing as
  # large as the scores.
  rows = case.batch * case.q_heads * case.q_len
  bias = 2 * np.prod(case.bias) if case.bias else 0
  assert report.temp_bytes <= 4 * 4 * rows + 2 * rows * case.head_dim + bias
  assert jax.devices()[0].platform == jax.default_backend()
  np.testing.assert_array_equal(jnp.arange(3) + 1, [1, 2, 3])


def test_too_much_shared_memory_is_an_error(cuda):
  del cuda
  q = jax.ShapeDtypeStruct((1, 128, 1, 128), 'bfloat16')
  case = Case(1, 128, 128, 1, 1, 128, 'bfloat16')
  forward = functools.partial(mosaic_gpu.forward, case, config={'stages': 4})
  with pytest.raises(ValueError, match='shared memory'):
    h200.compile_for_h200(forward, Operands(q, q, q))


def test_what_is_missing_is_named(monkeypatch):
  monkeypatch.setattr(h200.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(h200.NoCompiler, match='pip install --no-deps jax-cuda13-plugin'):
    h200.toolkit()
  monkeypatch.setattr(h200.importlib.util, 'find_spec', lambda name: name)
  monkeypatch.setattr(h200.pathlib.Path, 'exists', lambda path: False)
  monkeypatch.setattr(shutil, 'which', lambda name: None)
  with pytest.raises(h200.NoCompiler, match='ptxas'):
    h200.toolkit()
