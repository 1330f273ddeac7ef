"""What is read from programs in HLO text, written by hand."""

import textwrap

from absl.testing import absltest, parameterized

from launch.planning import collectives, hlo, traffic

PROGRAM = """
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[8])->f32[8]}

%turns (state.1: (s32[], f32[8,128])) -> pred[] {
  %limit = s32[]{:T(128)} constant(6)
  %state.1 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %less = pred[]{:T(512)} compare(%i.1, %limit), direction=LT
}

%inner (state.2: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {
  %state.2 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) parameter(0)
  %i.2 = s32[]{:T(128)} get-tuple-element(%state.2), index=0
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%i.2, %one)
  %a = f32[8,128]{1,0:T(8,128)} get-tuple-element(%state.2), index=1
  %b = f32[8,128]{1,0:T(8,128)} all-reduce(%a), replica_groups={{0,1},{2,3}}
  ROOT %out.2 = (s32[]{:T(128)}, f32[8,128]{1,0:T(8,128)}) tuple(%next, /*index=1*/%b)
}

%unknown (state.3: (s32[], s32[], f32[8,128])) -> pred[] {
  %state.3 = (s32[], s32[], f32[8,128]{1,0}) parameter(0)
  %i.3 = s32[] get-tuple-element(%state.3), index=0
  %n.3 = s32[] get-tuple-element(%state.3), index=1
  ROOT %less.3 = pred[] compare(%i.3, %n.3), direction=LT
}

%outer (state.4: (s32[], s32[], f32[8,128])) -> (s32[], s32[], f32[8,128]) {
  %state.4 = (s32[], s32[], f32[8,128]{1,0}) parameter(0)
  %i.4 = s32[] get-tuple-element(%state.4), index=0
  %n.4 = s32[] get-tuple-element(%state.4), index=1
  %x.4 = f32[8,128]{1,0} get-tuple-element(%state.4), index=2
  %first = s32[] constant(2)
  %given = (s32[], f32[8,128]{1,0}) tuple(%first, %x.4)
  %loop = (s32[], f32[8,128]{1,0}) while(%given), condition=%turns, body=%inner
  %y.4 = f32[8,128]{1,0} get-tuple-element(%loop), index=1
  ROOT %out.4 = (s32[], s32[], f32[8,128]{1,0}) tuple(%i.4, %n.4, %y.4)
}

ENTRY %main (p0: f32[8,128], n: s32[]) -> f32[8,128] {
  %p0 = f32[8,128]{1,0:T(8,128)} parameter(0), metadata={op_name="args[0]"}
  %n = s32[] parameter(1)
  %zero = s32[] constant(0)
  %start = (s32[], s32[], f32[8,128]{1,0}) tuple(%zero, %n, %p0)
  %steps = (s32[], s32[], f32[8,128]) while(%start), condition=%unknown, body=%outer
  ROOT %result = f32[8,128]{1,0} get-tuple-element(%steps), index=2
}
"""


def entry(body: str, more: str = '') -> hlo.Program:
  """A program of these instructions and other computations."""
  lines = textwrap.indent(textwrap.dedent(body).strip('\n'), '  ')
  return hlo.parse(f'{more}\nENTRY %main (p: f32[]) -> f32[] {{\n{lines}\n}}\n')


def loops(program):
  return {
    r.instruction.name: hlo.trip_count(program, r.computation, r.instruction)
    for r in hlo.running(program)
    if r.instruction.opcode == 'while'
  }


class ParseTest(absltest.TestCase):
  def test_sizes_and_spaces_of_arrays(self):
    found = hlo.arrays(
      '(bf16[2,3]{1,0:T(8,128)(2,1)S(1)}, pred[5]{0}, s4[3], f32[], token[])'
    )
    self.assertEqual(found, ((12, 1), (5, 0), (2, 0), (4, 0), (0, 0)))

  def test_instructions(self):
    inner = hlo.parse(PROGRAM).computations['inner']
    one = inner['b']
    self.assertEqual(
      (one.opcode, one.operands, one.root), ('all-reduce', ('a',), False)
    )
    self.assertEqual(one.arrays, ((4096, 0),))
    self.assertEqual(inner['out.2'].operands, ('next', 'b'))
    self.assertTrue(inner['out.2'].root)

  def test_a_loop_turns_from_its_first_number_and_an_unknown_one_once(self):
    program = hlo.parse(PROGRAM)
    self.assertEqual(loops(program), {'steps': None, 'loop': 4})
    times = {r.instruction.name: r.times for r in hlo.running(program)}
    self.assertEqual((times['b'], times['loop'], times['p0']), (4, 1, 1))

  def test_xlas_own_note_stands_above_the_condition(self):
    noted = PROGRAM.replace(
      'body=%inner', 'body=%inner, backend_config={"known_trip_count":{"n":"5"}}'
    )
    self.assertEqual(loops(hlo.parse(noted))['loop'], 5)


class CollectiveTest(parameterized.TestCase):
  def test_runs_as_often_as_its_loop(self):
    (one,) = collectives.find(hlo.parse(PROGRAM), [0] * 4)
    self.assertEqual((one.kind, one.times, one.size), ('all-reduce', 4, 4096))
    self.assertEqual(one.inside, 4 * 4096)  # 2 (n - 1) / n of it, n = 2.

  @parameterized.parameters(
    ('{{0,2},{1,3}}', [[0, 2], [1, 3]]),
    ('{}', [[0, 1, 2, 3]]),
    ('[2,2]<=[4]', [[0, 1], [2, 3]]),
    ('[2,2]<=[2,2]T(1,0)', [[0, 2], [1, 3]]),
    ("mesh['a'=2,'b'=2] {'a'}", [[0, 2], [1, 3]]),
    ("mesh['a'=2,'b'=2] {'b'}", [[0, 1], [2, 3]]),
    ("mesh['a'=2,'b'=1,'c'=2] {'a','b','c'}", [[0, 2, 1, 3]]),
    ("mesh['a'=4] {'a':(1)2}", [[0, 2], [1, 3]]),
    ("mesh['a'=4] {'a':(2)2}", [[0, 1], [2, 3]]),
  )
  def test_groups_in_all_their_forms(self, text, wanted):
    found = collectives.groups(f'channel_id=1, replica_groups={text}, x={{1}}', 4)
    order = lambda groups: sorted(sorted(group) for group in groups)
    self.assertEqual(order(found), order(wanted))

  @parameterized.parameters(
    # Of 4 KiB on each of 4 devices, as a ring sends them.
    ('all-reduce(%p)', 'all-reduce', 4096, 2 * 4096 * 3 / 4),
    ('all-gather(%p)', 'all-gather', 4 * 4096, 4096 * 3),
    ('reduce-scatter(%p)', 'reduce-scatter', 4096, 4096 * 3 / 4),
    ('all-to-all(%p)', 'all-to-all', 4096, 4096 * 3 / 4),
    ('all-reduce-start(%p)', 'all-reduce', 4096, 2 * 4096 * 3 / 4),
  )
  def test_bytes_that_a_device_sends(self, call, kind, size, sent):
    program = entry(f"""
      %p = f32[1024]{{0}} parameter(0)
      ROOT %c = f32[1024]{{0}} {call}, replica_groups={{{{0,1,2,3}}}}
    """)
    (one,) = collectives.find(program, [0] * 4)
    self.assertEqual(one, (kind, 1, size, sent, 0))

  def test_over_slices_each_device_carries_its_share(self):
    program = entry("""
      %p = f32[1024]{0} parameter(0)
      ROOT %c = f32[1024]{0} all-reduce(%p), replica_groups={{0,1,2,3}}
    """)
    (one,) = collectives.find(program, [0, 0, 1, 1])
    self.assertEqual((one.inside, one.across), (4096, 2 * 2048 / 2))

  def test_permutations(self):
    program = entry("""
      %p = f32[1024]{0} parameter(0)
      %c = f32[1024]{0} collective-permute(%p), source_target_pairs={{0,1},{1,2},{2,3}}
      ROOT %d = f32[1024]{0} collective-permute(%p), source_target_pairs={{0,0},{1,1}}
    """)
    (one,) = collectives.find(program, [0, 0, 1, 1])  # The second moves nothing.
    self.assertEqual(one, ('collective-permute', 1, 4096, 4096, 4096))

  def test_one_that_is_cut_at_once_is_a_reduce_scatter(self):
    more = """
%scattered (input: f32[1024]) -> f32[512] {
  %input = f32[1024]{0} parameter(0)
  %sum = f32[1024]{0} all-reduce(%input), replica_groups={{0,1}}
  %i = s32[] constant(0)
  ROOT %part = f32[512]{0} dynamic-slice(%sum, %i), dynamic_slice_sizes={512}
}
"""
    program = entry(
      """
      %p = f32[1024]{0} parameter(0)
      ROOT %f = f32[512]{0} fusion(%p), kind=kCustom, calls=%scattered
      """,
      more,
    )
    (one,) = collectives.find(program, [0, 0])
    self.assertEqual(one, ('reduce-scatter', 1, 4096, 2048, 0))

  def test_one_that_is_spread_over_fusions_counts_once(self):
    flag = 'backend_config={"async_collective_fusion_config":{"flag_start":"%s"}}'
    body = '\n'.join(
      f"""
%step.{i} (p: f32[512]) -> f32[1024] {{
  %p = f32[512]{{0}} parameter(0)
  ROOT %g = f32[1024]{{0}} all-gather(%p), replica_groups={{{{0,1}}}}, {flag % n}
}}
"""
      for i, n in enumerate(('-1', '2', '2'))
    )
    calls = '\n'.join(
      f'%f.{i} = f32[1024]{{0}} fusion(%p), kind=kCustom, calls=%step.{i}'
      for i in range(3)
    )
    program = entry(f'%p = f32[512]{{0}} parameter(0)\n{calls}', body)
    (one,) = collectives.find(program, [0, 0])
    self.assertEqual((one.kind, one.times, one.size), ('all-gather', 1, 4096))

  def test_what_a_tpu_sends_to_other_slices(self):
    says = '_xla_megascale_target="{1,2}x{0:15}",'
    says += '_xla_megascale_transfer_type="ALL_REDUCE"'
    program = entry(f"""
      %p = f32[1024]{{0}} parameter(0)
      %t = token[] after-all()
      %s = (f32[1024], u32[], token[]) send(%p, %t), frontend_attributes={{{says}}}
    """)
    (one,) = collectives.find(program, [0] * 16 + [1] * 16)
    self.assertEqual(one, ('all-reduce', 1, 4096, 0, 2 * 4096 / 2))

  def test_sums_by_kind(self):
    found = collectives.by_kind(collectives.find(hlo.parse(PROGRAM), [0] * 4))
    wanted = dict(count=4, bytes=4 * 4096, sent_within_slice=4 * 4096, sent_across=0)
    self.assertEqual(found, {'all-reduce': wanted})


class TrafficTest(parameterized.TestCase):
  def moved(self, body, more='', on_chip=True):
    return traffic.bytes_moved(entry(body, more), on_chip)

  def test_operands_and_result(self):
    body = """
      %a = f32[1024]{0} parameter(0)
      %b = f32[1024]{0:T(1024)S(1)} parameter(1)
      ROOT %c = f32[1024]{0} add(%a, %b)
    """
    self.assertEqual(self.moved(body), 2 * 4096)  # b is on the chip.
    self.assertEqual(self.moved(body, on_chip=False), 3 * 4096)

  @parameterized.parameters(
    ('f32[8]{0} dynamic-slice(%a, %i), dynamic_slice_sizes={8}', 2 * 32),
    ('f32[1024]{0} dynamic-update-slice(%a, %u, %i)', 2 * 32),
    ('f32[1024]{0} bitcast(%a)', 0),
    ('(f32[1024]{0:S(1)}, f32[1024]{0}, u32[]) copy-start(%a)', 4096 + 4),
    ('f32[1024]{0} copy-done(%a)', 0),
  )
  def test_parts_of_an_array(self, call, wanted):
    body = f"""
      %a = f32[1024]{{0}} parameter(0)
      %u = f32[8]{{0}} parameter(1)
      %i = s32[] parameter(2)
      ROOT %c = {call}
    """
    self.assertEqual(self.moved(body), wanted)

  def test_a_fusion_that_slices_and_updates_in_place(self):
    more = """
%fused (x: f32[10,128], y: f32[10,128], i: s32[]) -> f32[10,128] {
  %x = f32[10,128]{1,0} parameter(0)
  %y = f32[10,128]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %row = f32[1,128]{1,0} dynamic-slice(%x, %i, %i), dynamic_slice_sizes={1,128}
  ROOT %put = f32[10,128]{1,0} dynamic-update-slice(%y, %row, %i, %i)
}
"""
    body = """
      %x = f32[10,128]{1,0} parameter(0)
      %y = f32[10,128]{1,0} parameter(1)
      %i = s32[]{:S(2)} parameter(2)
      ROOT %f = f32[10,128]{1,0} fusion(%x, %y, %i), kind=kLoop, calls=%fused
    """
    self.assertEqual(self.moved(body, more), 512 + 512)

  def test_a_loop_moves_as_often_as_it_turns(self):
    # An all-reduce of 4 KiB, read and written; an addition of two numbers to one.
    self.assertEqual(
      traffic.bytes_moved(hlo.parse(PROGRAM), True), 4 * (2 * 4096 + 12 + 9) + 9
    )


if __name__ == '__main__':
  absltest.main()
