"""Seconds to an accuracy: the clock, and PyTorch's training. No time is asserted."""

import json
import sys

import pytest

from dlx.errors import ConfigError
from launch.benchmarks import accuracy
from tests.every_experiment.contract_test import write_stripes

PRINTS = """
import sys, time
for step, value in ((10, 0.5), (20, 0.91), (30, 0.995), (40, 0.2)):
  print(f'step {step}/40  test/loss 3  test/accuracy {value}', file=sys.stderr)
  print('step 7/40  loss 0.5', flush=True)
{end}
"""


def python(end: str) -> list[str]:
  return [sys.executable, '-c', PRINTS.replace('{end}', end)]


class TestRun:
  def test_stops_at_the_first_line_that_is_good_enough(self):
    found = accuracy.run(python('time.sleep(600)'), {}, target=0.91)
    assert found.step == 20
    assert [(step, value) for _, step, value in found.curve] == [(10, 0.5), (20, 0.91)]
    assert found.seconds == found.curve[-1][0] > found.curve[0][0] > 0

  def test_never_reached(self):
    found = accuracy.run(python(''), {}, target=0.999)
    assert (found.seconds, found.step, len(found.curve)) == (None, 40, 4)

  def test_a_command_that_fails_says_why(self):
    with pytest.raises(ConfigError, match='failed: ValueError: no such data'):
      accuracy.run(python('raise ValueError("no such data")'), {}, target=0.999)


def test_sides_in_turns_seed_by_seed(monkeypatch, tmp_path):
  ran = []

  def run(command, environ):
    del environ
    side = 'dlx' if 'launch.train' in command else 'torch'
    ran.append(side)
    seconds = {'dlx': [30.0, 10.0, 12.0], 'torch': [20.0, 20.0, 20.0]}[side]
    value = seconds[ran.count(side) - 1]
    return accuracy.Reached(value, 100, [(value, 100, 0.99)])

  monkeypatch.setattr(accuracy, 'run', run)
  say = lambda *_, **__: None
  row = accuracy.compare(str(tmp_path), {}, seeds=3, torch=True, say=say)
  assert ran == ['dlx', 'torch'] * 3
  assert row['ratio'] == 0.6
  assert row['seconds'] == {'dlx': [30, 10, 12], 'torch': [20, 20, 20]}


def test_both_sides_get_the_same_numbers(tmp_path):
  found = accuracy.commands('DIR', 5, tmp_path, torch=True)
  asked = json.loads(found['torch'][-1])
  for name, value in {**accuracy.FIELDS, 'seed': 5}.items():
    assert f'--config.{name}={value}' in found['dlx']
    assert asked[name] == value


def test_torch_learns(tmp_path, capsys):
  pytest.importorskip('torch')
  from launch.benchmarks.torch_peer import mnist

  write_stripes(tmp_path / 'mnist', sizes=(300, 1000))
  asked = {
    'data_dir': str(tmp_path), 'seed': 0, 'num_steps': 40, 'eval_every_steps': 20,
    'batch_size': 32, 'lr': 3e-3,
  }  # fmt: skip
  mnist.main(['', json.dumps(asked)])
  lines = capsys.readouterr().out.splitlines()
  assert [line.split()[1] for line in lines] == ['20', '40']
  assert float(lines[-1].split()[-1]) > 0.8  # Chance is 0.1.
