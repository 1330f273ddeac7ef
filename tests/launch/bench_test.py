"""The bench itself: turns, ratios, the table, bad input. No time is asserted."""

import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import pytest

from dlx.errors import ConfigError
from kernels import processor
from launch import bench
from launch.benchmarks import (
  blas,
  document,
  peers,
  product_side,
  rounds,
  rows,
  workloads,
)


class Fake:
  """A side that takes a fixed time a step."""

  def __init__(self, name, steps, seconds, log):
    self._steps = steps
    self._name, self._seconds, self._log = name, seconds, log

  def ask(self, command):
    if command == 'memory':
      return {'peak_mb': 7.0, 'steps': self._steps}
    n = int(command.split()[1])
    self._log.append((self._name, n))
    return {'seconds': n * self._seconds, 'cpu': n * self._seconds / 2, 'loss': 1.5}


class TestInterleave:
  def test_sides_take_turns(self, monkeypatch):
    monkeypatch.setattr(rounds.time, 'sleep', lambda _: None)
    log = []
    sides = {'a': Fake('a', 10, 0.01, log), 'b': Fake('b', 1, 0.5, log)}
    found = rounds.interleave(sides, rounds=3, seconds=0.4)
    # 0.4 s are 40 steps of a, and less than one of b.
    turns = [('a', 40), ('b', 1)]
    warm = [('a', 1), ('a', 40), ('a', 40), ('b', 1), ('b', 1), ('b', 1)]
    assert log == warm + 3 * turns
    assert [found[name].steps for name in sides] == [10, 1]
    assert found['a'].seconds == pytest.approx([0.01] * 3)
    assert found['b'].seconds == [0.5] * 3
    assert found['a'].cpu_share == pytest.approx(0.5)
    assert found['b'].peak_mb == 7

  def test_ratio_is_the_median_over_rounds(self):
    # A round in which both are slow does not count more than others.
    assert rounds.ratio([1, 10, 3], [2, 20, 3]) == 0.5


class TestTable:
  ROW = {
    'workload': 'mlp', 'dtype': 'float32', 'dlx_ms': 1.25, 'first_step_s': 3.2,
    'first_step_cached_s': 1.1, 'peak_mb': 300.4, 'gflops': 100.0,
  }  # fmt: skip
  LIMITS = {'float32': {'xla': 80.0, 'onednn': 200.0}, 'bfloat16': {'xla': 400.0}}

  def last(self, row, peers):
    rows = document.document([row], ['x'], self.LIMITS)['rows']
    return document.table(rows, peers).splitlines()[-1]

  def test_a_peer_that_is_missing_is_a_dash(self):
    row = {**self.ROW, 'ratio': 0.5, 'peers': {'torch': 2.5}}
    assert self.last(row, ['torch', 'keras']) == (
      '| `mlp` | 0.50 | 1.25 | 2.5 | - | - | 3.2 / 1.1 | 300 | 100 (50 %) |'
    )

  def test_a_row_of_bfloat16_is_named_so_and_has_its_own_limit(self):
    name = {'name': 'mlp:bfloat16', 'dtype': 'bfloat16', 'over_float32': 0.5}
    row = {**self.ROW, **name}
    assert self.last(row, []) == (
      '| `mlp:bfloat16` | - | 1.25 | 0.50 | 3.2 / 1.1 | 300 | 100 (25 %) |'
    )

  def test_without_peers_there_is_no_ratio(self):
    found = document.document([dict(self.ROW)], ['x', '--suite=gpu'], self.LIMITS)
    assert found['geometric_means'] == {}
    assert found['command'] == 'python -m launch.bench --suite=gpu'
    assert found['rows'][0]['limit_gflops'] == 200  # Of the best library.
    assert found['limits_gflops'] == self.LIMITS
    json.dumps(found)

  def test_geometric_means_are_of_a_dtype(self):
    rows = [{**self.ROW, 'ratio': r} for r in (0.5, 2.0, 1.0)]
    rows += [{**self.ROW, 'dtype': 'bfloat16', 'ratio': 4.0}]
    found = document.document(rows, ['x'])['geometric_means']
    assert found == pytest.approx({'float32': 1, 'bfloat16': 4})

  def test_the_machine_is_named(self):
    found = document.document([], ['x'])['machine']
    assert found['kind'].startswith(found['vendor'] + '_')
    assert found['processor'] and found['threads'] >= 1
    assert document.document([], ['x'], cpus=[0])['machine']['threads'] == 1
    assert isinstance(found['instruction_sets'], list)

  def test_a_folder_has_a_file_of_each_kind_of_processor(self, tmp_path):
    other = tmp_path / 'cpu_intel_amx.json'
    other.write_text('{"date": "then"}')
    place = document.place(tmp_path, 'cpu')
    assert place == tmp_path / f'cpu_{processor.processor().kind}.json'
    if place != other:
      document.write(place, {'date': 'now'})
      assert other.read_text() == '{"date": "then"}'
    assert document.place(tmp_path / 'a.json', 'cpu') == tmp_path / 'a.json'


RESULTS = pathlib.Path(document.__file__).parent / 'results'


class TestResults:
  """What is committed: one file of each kind of processor, each named."""

  def test_the_readme_links_every_file_and_says_which_it_shows(self):
    text = (RESULTS.parent / 'README.md').read_text(encoding='utf-8')
    linked = set(re.findall(r'\(results/(\w+\.json)\)', text))
    assert linked == {path.name for path in RESULTS.glob('*.json')}
    shown = re.findall(r'The table shows \[results/(\w+)\.json\]', text)
    assert len(shown) == 1 and (RESULTS / f'{shown[0]}.json').exists()

  @pytest.mark.parametrize('path', sorted(RESULTS.glob('cpu_*.json')), ids=str)
  def test_a_file_is_of_the_kind_that_it_is_named_by(self, path):
    found = json.loads(path.read_text(encoding='utf-8'))
    kind = found['machine'].get('kind')
    # Written before 2026-12-01: the vendor alone is known.
    assert path.stem == ('cpu_amd' if kind is None else f'cpu_{kind}')
    assert found['date'] and found['versions']['jax'] and found['command']
    if kind is not None:
      assert document.summary(found).count('\n') > len(found['rows'])

  def test_a_summary_names_the_machine(self):
    row = {**TestTable.ROW, 'ratio': 0.5, 'peers': {'torch_mkl': 2.5}}
    said = {'config': '', 'parallel': '', 'capability': 'AVX2', 'mkl': None}
    made = document.document([row], ['x'], TestTable.LIMITS, {'plain': said})
    text = document.summary(made)
    assert "| PyTorch, MKL's fast path |" in text
    assert 'Products of float32, GFLOP/s: xla 80, onednn 200.' in text
    assert f'{made["machine"]["threads"]} threads' in text
    assert "PyTorch's BLAS, plain: AVX2." in text


class TestRows:
  def test_names(self):
    found = rows.every()
    assert list(found)[: len(workloads.WORKLOADS)] == list(workloads.WORKLOADS)
    assert found['vit:bfloat16'].fields == {'compute_dtype': 'bfloat16'}
    assert found['vit'].fields == {}
    assert 'vae:bfloat16' not in found
    assert rows.dtypes([*found.values()]) == ['float32', 'bfloat16']
    assert all(row.name == name for name, row in found.items())

  def test_whom_a_row_stands_beside(self):
    beside = lambda name: [p for p in peers.PEERS if rows.every()[name].has(p)]
    assert beside('mlp') == list(peers.PEERS)
    assert beside('mlp:bfloat16') == ['torch', 'torch_compile', 'flax']
    assert 'keras' not in beside('vit') and 'flax' not in beside('densenet')

  @pytest.mark.parametrize('name', rows.BFLOAT16)
  def test_bfloat16_is_computed_in(self, name):
    built = workloads.build(name, **rows.every()[name + ':bfloat16'].fields)
    state = jax.eval_shape(built.experiment.init, jax.random.key(0))
    batch = built.experiment.train_data.shapes[0]
    jaxpr = str(jax.make_jaxpr(built.experiment.train_step)(state, batch))
    assert 'bf16' in jaxpr
    assert all(x.dtype != 'bfloat16' for x in jax.tree.leaves(state.params))


class TestProducts:
  @pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
  def test_every_library_multiplies(self, dtype):
    for library in product_side.here(dtype):
      side = product_side.build(dtype, library, size=32)
      assert side.flops == 2 * 32**3
      found = side.step(2)
      assert found == 32 or library == 'xla'  # Ones, and random numbers of scale 1.
      assert abs(found) <= 32

  def test_numpy_has_no_bfloat16(self):
    assert 'numpy' not in product_side.here('bfloat16')
    assert 'numpy' in product_side.here('float32')


class TestBlas:
  def test_only_an_amd_processor_needs_it(self, tmp_path):
    with pytest.raises(blas.NotPossible, match='for AMD processors under Linux'):
      blas.preload(str(tmp_path), 'intel')

  def test_without_a_compiler(self, tmp_path, monkeypatch):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setenv('CC', 'no-such-compiler')
    with pytest.raises(blas.NotPossible, match='no C compiler'):
      blas.preload(str(tmp_path), 'amd')

  @pytest.mark.skipif(not sys.platform.startswith('linux'), reason='LD_PRELOAD')
  def test_mkl_names_another_instruction_set(self, tmp_path):
    pytest.importorskip('torch', reason='torch is not installed')
    plain = blas.report({})
    assert plain is not None
    assert 'PyTorch built with' in plain['config']
    assert 'get_num_threads' in plain['parallel']
    if processor.processor().vendor != 'amd' or plain['mkl'] is None:
      pytest.skip('no MKL, or no AMD processor')
    try:
      preload = blas.preload(str(tmp_path), 'amd')
    except blas.NotPossible as error:
      pytest.skip(str(error))
    fast = blas.report(preload)
    assert fast is not None
    assert 'Architecture processors' in plain['mkl']
    assert 'AVX' in fast['mkl']


class TestBadInput:
  def test_unknown_names(self):
    with pytest.raises(ConfigError, match="--workloads=mlp,mpl: 'mpl' is not allowed"):
      bench.chosen('mlp,mpl', ['mlp', 'vae'], 'workloads')
    assert bench.chosen(None, ['mlp', 'vae'], 'workloads') == ['mlp', 'vae']
    assert bench.chosen('vae', ['mlp', 'vae'], 'workloads') == ['vae']

  def test_a_profile_is_of_a_row_of_the_suite_cpu(self, capsys):
    assert bench.main(['bench', '--suite=mnist', '--profile=vit']) == 2
    text = capsys.readouterr().err
    assert '--suite=mnist is not allowed with --profile=vit' in text
    assert bench.main(['bench', '--profile=mpl']) == 2
    assert "--profile=mpl: 'mpl' is not allowed" in capsys.readouterr().err

  @pytest.mark.parametrize(
    'flag',
    [
      '--workloads=mpl',
      '--peers=tensorflow',
      '--cpus=9999',
      '--cpus=a',
      '--workloads=gcn:bfloat16',
    ],
  )
  def test_is_one_line(self, flag, capsys):
    assert bench.main(['bench', flag]) == 2
    text = capsys.readouterr().err
    assert flag in text and text.count('\n') == 1


@pytest.mark.parametrize('name', workloads.WORKLOADS)
def test_an_accelerator_gets_larger_batches_in_bfloat16(name):
  fields = workloads.ACCELERATOR[name]
  built = workloads.build(name, **fields).experiment
  batch = built.train_data.shapes[0]
  state = jax.eval_shape(built.init, jax.random.key(0))
  jaxpr = str(jax.make_jaxpr(built.train_step)(state, batch))
  assert 'bf16' in jaxpr
  if 'batch_size' in fields:
    assert next(iter(batch.values())).shape[0] == fields['batch_size']


class TestProcess:
  def test_a_side_that_cannot_be_built_is_broken(self, tmp_path):
    with open(tmp_path / 'log', 'w') as log:
      with pytest.raises(rounds.Broken, match='ended with status 1'):
        self.start({'side': 'dlx', 'workload': 'unknown'}, log)
    assert 'KeyError' in (tmp_path / 'log').read_text()

  def test_a_side_of_dlx_steps(self, tmp_path):
    fields = {'features': [4], 'batch_size': 4}
    asked = {'side': 'dlx', 'workload': 'mlp', 'fields': fields}
    with open(tmp_path / 'log', 'w') as log, self.start(asked, log) as process:
      # Three matrix products of [4, 784] x [784, 4] and [4, 4] x [4, 10], at least.
      assert process.ready['flops'] > 2 * 4 * (2 * 784 * 4 + 3 * 4 * 10)
      answer = process.ask('go 4')
      assert answer['loss'] > 0 and answer['seconds'] > 0
      last = process.ask('memory')
      assert last['peak_mb'] > 50 and last['steps'] >= 1

  def start(self, asked, log):
    environ = {'JAX_PLATFORMS': 'cpu'}
    cpus = sorted(os.sched_getaffinity(0))
    return rounds.Process(asked, environ=environ, cpus=cpus, limit_s=300, log=log)


def test_libraries_print_to_stderr(tmp_path):
  """What a side prints must not mix with its answers."""
  code = (
    'import sys; from launch.benchmarks import worker\n'
    'class Side:\n'
    '  def step(self, n):\n'
    '    print("noise"); return 2.0\n'
    'worker.make = lambda *_: Side()\n'
    'worker.main(["", \'{"side": "dlx", "workload": "mlp"}\'])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], input='go 3\n', capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  answers = [json.loads(line) for line in done.stdout.splitlines()]
  assert [a['loss'] for a in answers] == [2.0, 2.0]
  assert done.stderr.count('noise') == 2
