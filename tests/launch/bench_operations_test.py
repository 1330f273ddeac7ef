"""A profile by operation: counts by hand, and a step that was really traced."""

import json

import pytest

from launch.benchmarks import dlx_side, operations
from launch.planning import hlo

PROGRAM = """HloModule jit_many

%fused (param_0: f32[8,16], param_1: f32[16,4]) -> f32[8,4] {
  %param_0 = f32[8,16]{1,0} parameter(0)
  %param_1 = f32[16,4]{1,0} parameter(1)
  ROOT %dot.7 = f32[8,4]{1,0} dot(%param_0, %param_1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (state: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %state = (s32[], f32[8,16]{1,0}) parameter(0)
  %x = f32[8,16]{1,0} get-tuple-element(%state), index=1
  %w = f32[16,4]{1,0} constant({...})
  %ynn_fusion.1 = f32[8,4]{1,0} fusion(%x, %w), kind=kCustom, calls=%fused, metadata={op_name="jit(many)/while/body/jit(train_step)/transpose(jvp(MLP))/MLP.forward/hidden/dot_general"}
  %ynn_fusion.2 = f32[8,4]{1,0} fusion(%x, %w), kind=kCustom, calls=%fused, metadata={op_name="jit(many)/while/body/jit(train_step)/transpose(jvp(MLP))/MLP.forward/hidden/dot_general"}
  ROOT %out = (s32[], f32[8,16]{1,0}) tuple(%n, %x)
}

%condition (state: (s32[], f32[8,16])) -> pred[] {
  %state = (s32[], f32[8,16]{1,0}) parameter(0)
  ROOT %less = pred[] constant(true)
}

ENTRY %main (given: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %given = (s32[], f32[8,16]{1,0}) parameter(0)
  ROOT %while.3 = (s32[], f32[8,16]{1,0}) while(%given), condition=%condition, body=%body
}
"""  # noqa: E501
TIMES = {'while.3': (9.0, 1), 'ynn_fusion.1': (0.2, 4), 'ynn_fusion.2': (0.4, 4)}


def test_equal_operations_are_one_and_loops_are_what_they_run():
  (found,) = operations.of_step(PROGRAM, TIMES, 4)
  assert found.kind == 'ynn_fusion'
  assert found.shape == 'f32[8,4] <- f32[8,16], f32[16,4]'
  assert found.where == 'MLP/MLP.forward/hidden backward'
  # Of two calls a step, 0.6 s in 4 steps; of each 2 * 8 * 4 * 16 operations.
  assert found.ms == pytest.approx(150) and found.calls == 2
  assert found.flops == 2 * 2 * 8 * 4 * 16
  assert found.bytes == 2 * 4 * (8 * 16 + 16 * 4 + 8 * 4)


def call(target, result, operands, rest=''):
  """Operations of a call of C++ with operands of these shapes."""
  names = [f'%a{i}' for i in range(len(operands))]
  lines = [
    f'  {n} = {s} parameter({i})' for i, (n, s) in enumerate(zip(names, operands))
  ]
  given = ', '.join(names)
  last = (
    f'  ROOT %c = {result} custom-call({given}), custom_call_target="{target}"{rest}'
  )
  text = '\n'.join(['ENTRY %main (a: f32[]) -> f32[] {', *lines, last, '}'])
  program = hlo.parse(text)
  computation = program.computations['main']
  return operations.flops(program, computation['c'], computation)


class TestCalls:
  def test_convolution(self):
    """All three products of a convolution are as many."""
    geometry = '8, 6, 5, 4, 3, 2, 7, 6, 5, 1, 1, 1, 1, 1, 1, 0, 1, 2'
    rest = f', backend_config={{geometry = dense<[{geometry}]> : tensor<18xi64>}}'
    found = call('dlx_onednn_conv', 'f32[8,6,5,7]', ['f32[8,6,5,4]'] * 2, rest)
    assert found == 2 * 8 * 6 * 5 * 7 * (3 * 2 * 4 // 2)

  @pytest.mark.parametrize(('name', 'products'), [('forward', 2), ('backward', 5)])
  def test_attention(self, name, products):
    target = f'dlx_onednn_attention_{name}'
    operands = ['f32[2,9,3,8]', 'f32[2,7,3,8]']
    expected = products * 2 * (2 * 3) * 9 * 7 * 8
    assert call(target, 'f32[2,9,3,8]', operands) == expected
    packed = f'dlx_onednn_attention_packed_{name}'
    expected = products * 2 * (2 * 3) * 9 * 9 * 8
    assert call(packed, 'f32[2,9,3,8]', ['f32[2,9,3,3,8]']) == expected

  def test_lstm(self):
    state, x = 'f32[4,8]', 'f32[5,4,32]'
    forward = [x, 'f32[8,32]', 'f32[32]', state, state, 's32[4]']
    expected = 5 * 2 * 4 * 8 * 32
    assert call('dlx_onednn_lstm_forward', x, forward) == expected
    backward = ['f32[5,4,8]', state, state, x, 'f32[5,4,8]', 'f32[8,32]', 's32[4]']
    assert call('dlx_onednn_lstm_backward', x, backward) == expected

  def test_sparse(self):
    operands = ['s32[50]', 's32[50]', 'f32[50]', 'f32[20,6]']
    assert call('dlx_sparse_product', 'f32[30,6]', operands) == 2 * 50 * 6

  def test_what_has_no_products(self):
    assert call('dlx_norm_forward', 'f32[8,4]', ['f32[8,4]']) == 0
    assert call('unknown', 'f32[8,4]', ['f32[8,4]']) == 0


def test_convolution_of_xla():
  text = """ENTRY %main (x: f32[]) -> f32[] {
  %x = f32[8,6,5,4]{3,2,1,0} parameter(0)
  %w = f32[3,2,4,7]{3,2,1,0} parameter(1)
  ROOT %c = f32[8,6,5,7]{3,2,1,0} convolution(%x, %w), window={size=3x2}, dim_labels=b01f_01io->b01f
}"""  # noqa: E501
  program = hlo.parse(text)
  computation = program.computations['main']
  found = operations.flops(program, computation['c'], computation)
  assert found == 2 * 8 * 6 * 5 * 7 * (3 * 2 * 4)


def test_the_table():
  made = operations.of_step(PROGRAM, TIMES, 4)
  many = [o._asdict() for o in made] * 3
  text = operations.table(many, 500.0, 100.0, 10.0, most=1).splitlines()
  assert text[2].startswith('| 33.3 % | 150.000 | 2 | `ynn_fusion` f32[8,4] <- ')
  assert text[3] == '| 66.7 % | 300.000 | 4 | 2 more | | | |'
  assert 'Limits: 100 GFLOP/s, 10.0 GB/s.' in text[4]


def test_a_traced_step_has_all_its_products():
  side = dlx_side.Side('mlp', features=(64,), batch_size=32)
  found = side.profile(3)
  json.dumps(found)
  assert found['step_ms'] > 0
  products = [o for o in found['operations'] if o['flops']]
  # Two layers forward, the gradients of both kernels and of the hidden units.
  expected = 2 * 32 * (2 * 784 * 64 + 3 * 64 * 10)
  assert sum(o['flops'] for o in products) == pytest.approx(expected)
  # Those outside of the loop over steps run once a dispatch.
  assert all(o['calls'] > 0 and o['ms'] >= 0 for o in found['operations'])
