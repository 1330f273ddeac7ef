"""The bench of the kernels on tiny cases: what is wrong is found, figures add up."""

import argparse
import json

import jax
import jax.numpy as jnp
import pytest

from kernels import bench, cases


def tiny(causal=False):
  return cases._attention('tiny', (1, 8, 2, 4), dtype=jnp.float32, causal=causal)


@pytest.fixture(autouse=True)
def short(monkeypatch):
  monkeypatch.setattr(bench, 'TURNS', 2)
  monkeypatch.setattr(bench, 'TURN_S', 1e-4)


def test_flops_and_bytes_by_hand():
  forward, both = tiny()
  # 64 pairs of query and key, 2 heads, 4 wide, two products of 2 FLOPs.
  assert forward.flops == 64 * 2 * 4 * 4 and both.flops == 3.5 * forward.flops
  assert forward.bytes == 4 * 8 * 2 * 4 * 4
  assert tiny(causal=True)[0].flops == forward.flops / 2
  (conv,) = cases._conv(
    'c', (1, 4, 4, 2), (3, 3, 2, 5), passes=('forward',), dtype=jnp.float32
  )
  assert conv.flops == 2 * 16 * 5 * 9 * 2
  assert conv.bytes == 4 * (32 + 90 + 80)


@pytest.mark.parametrize('suite', sorted(cases.SUITES))
def test_every_case_can_be_asked_and_some_library_takes_it(suite):
  rows = cases.SUITES[suite]()
  assert len({row.name for row in rows}) == len(rows)
  for row in rows:
    for device in ('cpu', 'cuda', 'tpu'):
      assert bench.supported(row, suite, device)['xla'] == ''
    out = jax.eval_shape(lambda *a, row=row: row.call({}, *a), *row.shapes)
    assert jax.tree.leaves(out)


def test_a_row_has_times_of_all_and_reasons_of_the_others(tmp_path):
  options = argparse.Namespace(
    suite='attention', minutes=1, out=tmp_path / 'bench.json', cases=''
  )
  assert bench.run(tiny(), options, ['--suite=attention']) == 0
  found = json.loads(options.out.read_text())
  assert [row['case'] for row in found['rows']] == ['tiny', 'tiny +bwd']
  row = found['rows'][0]
  assert row['ms']['xla'] > 0 and row['best_library'] == 'xla'
  assert row['tflops']['xla'] == pytest.approx(4096e-12 / row['ms']['xla'] * 1e3 / 2)
  assert 'not for cpu' in row['notes']['cudnn']
  assert found['not_run'] == [] and found['versions']['jax'] == jax.__version__


def test_what_does_not_fit_into_the_time_is_named(capsys, tmp_path):
  options = argparse.Namespace(
    suite='attention', minutes=0, out=tmp_path / 'bench.json', cases=''
  )
  bench.run(tiny(), options, [])
  assert 'not run: tiny, tiny +bwd' in capsys.readouterr().out


def test_a_wrong_result_is_named_and_not_timed(monkeypatch):
  x = jnp.ones((4, 4))
  assert bench.wrong(x, x, x) == ''
  assert bench.wrong(x + 1e-3, x, x) == ''
  assert 'off by 0.1' in bench.wrong(x + 0.1, x, x)
  assert 'off by nan' in bench.wrong(x * jnp.nan, x, x)
  monkeypatch.setattr(bench, 'wrong', lambda *_: 'result 0 is off')
  row = bench.measure(tiny()[0], 'attention', 'cpu')
  assert row['ms'] == {} and row['notes']['xla'] == 'result 0 is off'


def test_unknown_cases_and_suites_end_with_a_line(capsys):
  for argv, text in (
    (['--suite=conv', '--cases=nothing'], 'no case has it in its name'),
    (['--suite=dense'], 'invalid choice'),
  ):
    with pytest.raises(SystemExit) as stopped:
      bench.main(argv)
    assert stopped.value.code == 2
    assert text in capsys.readouterr().err
