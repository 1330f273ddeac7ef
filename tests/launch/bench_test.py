"""The bench itself: turns, ratios, the table, bad input. No time is asserted."""

import json
import os
import subprocess
import sys

import jax
import pytest

from dlx.errors import ConfigError
from launch import bench
from launch.benchmarks import rounds, workloads


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
    'workload': 'mlp', 'dlx_ms': 1.25, 'first_step_s': 3.2, 'first_step_cached_s': 1.1,
    'peak_mb': 300.4, 'gflops': 100.0,
  }  # fmt: skip

  def test_a_peer_that_is_missing_is_a_dash(self):
    row = {**self.ROW, 'ratio': 0.5, 'peers': {'torch': 2.5}}
    last = bench.table([row], ['torch', 'keras'], 200.0).splitlines()[-1]
    assert last == '| mlp | 0.50 | 1.25 | 2.5 | - | 3.2 | 1.1 | 300 | 100 | 50 % |'

  def test_without_peers_there_is_no_ratio(self):
    found = bench.document([dict(self.ROW)], 200.0, ['x', '--suite=gpu'])
    assert found['geometric_mean'] is None
    assert found['command'] == 'python -m launch.bench --suite=gpu'
    assert found['rows'][0]['limit_gflops'] == 200
    json.dumps(found)

  def test_geometric_mean(self):
    rows = [{**self.ROW, 'ratio': r} for r in (0.5, 2.0, 1.0)]
    assert bench.document(rows, 1.0, ['x'])['geometric_mean'] == pytest.approx(1)


class TestBadInput:
  def test_unknown_names(self):
    with pytest.raises(ConfigError, match="--workloads=mlp,mpl: 'mpl' is not allowed"):
      bench.chosen('mlp,mpl', ['mlp', 'vae'], 'workloads')
    assert bench.chosen(None, ['mlp', 'vae'], 'workloads') == ['mlp', 'vae']
    assert bench.chosen('vae', ['mlp', 'vae'], 'workloads') == ['vae']

  @pytest.mark.parametrize(
    'flag', ['--workloads=mpl', '--peers=tensorflow', '--cpus=9999', '--cpus=a']
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
