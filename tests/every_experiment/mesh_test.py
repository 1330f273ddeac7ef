"""Every experiment is the same on one device and on eight: a new one joins by existing.

In float64, so that nothing but the order of sums may differ: a tenth digit that does is
a wrong placement, a metric or a statistic of a part of the batch, or a float32.
"""

import dataclasses
import importlib
import json
import pathlib
import subprocess
import sys
import tempfile

import pytest

from dlx.run import experiments_by_name
from tests import simulated, turns
from tests.every_experiment import tiers

ROOT = pathlib.Path(__file__).parents[2]
NAMES = experiments_by_name.names()
# In the fast suite on all of its meshes; the others on COMBINED alone. One of the two
# has its turn; both where they changed.
PAIR = ('cnn', 'char_gpt')
ALL_MESHES = {PAIR[turns.has_it(1, 2)]} | (set(PAIR) & tiers.tiers().own)
COMBINED = 'data=2,fsdp=2,tensor=2'
# Sums of n float64 terms in another order differ by some sqrt(n) 1e-16 of their size;
# five steps of Adam, which divides small entries by small roots, make up to 1e4 times
# that of it. The largest found was 8e-13 (ddpm; jax 0.10.2, CPU).
TOLERANCE = 1e-10
# Leaves that cannot be equal where floats are not, to the bit.
CHECKSUMS = {'linear_probe': 'state/opt_state/frozen/'}


def meshes(name: str) -> list[str]:
  """One axis after the other, of those that this experiment makes use of."""
  module = importlib.import_module(experiments_by_name.module_name(name))
  found = ['data=8', 'fsdp=8']
  specs = [spec for _, spec in module.build(module.Config()).placement]
  if any('tensor' in str(spec) for spec in specs):
    found.append('data=4,tensor=2')
  if 'num_heads' in {f.name for f in dataclasses.fields(module.Config)}:
    found.append('data=4,sequence=2')
  return found


class Child:
  """One process for all that a worker is asked for, as starting JAX takes seconds."""

  def __init__(self):
    of_eight = simulated.environment(8)
    # Compiling is nearly all of the time: less of LLVM's halves it.
    cheap = (
      '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
    )
    env = {
      **of_eight,
      'XLA_FLAGS': f'{of_eight["XLA_FLAGS"]} {cheap}',
      'JAX_ENABLE_X64': '1',
      'PYTHONPATH': str(ROOT),
    }
    self.errors = tempfile.TemporaryFile('w+')
    self.process = subprocess.Popen(
      [sys.executable, '-m', 'tests.every_experiment.mesh'],
      env=env,
      cwd=ROOT,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self.errors,
      text=True,
    )

  def ask(self, name: str, texts: list[str]) -> dict:
    """What mesh.py answers of an experiment and meshes."""
    assert self.process.stdin and self.process.stdout
    self.process.stdin.write(' '.join([name, *texts]) + '\n')
    self.process.stdin.flush()
    line = self.process.stdout.readline()
    if not line:
      self.errors.seek(0)
      raise AssertionError(f'{name} ended the process: {self.errors.read()[-3000:]}')
    answer = json.loads(line)
    assert 'error' not in answer, answer['error']
    return answer

  def close(self):
    self.process.communicate(timeout=60)
    self.errors.close()


@pytest.fixture(scope='module')
def ask():
  """ask(name, meshes), of a process that starts with the first question."""
  children: list[Child] = []

  def asked(name, texts):
    if not children or children[-1].process.poll() is not None:
      children.append(Child())
    return children[-1].ask(name, texts)

  yield asked
  for child in children:
    child.close()


def check(answer: dict, name: str, texts: list[str]):
  for text in texts:
    skipped = CHECKSUMS.get(name, '-')
    far = {k: v for k, v in answer[text]['far'].items() if not k.startswith(skipped)}
    assert 'metrics/loss/total' in far
    wrong = {k: v for k, v in far.items() if not v <= TOLERANCE}
    assert not wrong, f'{name} on {text}'
    if 'fsdp' in text:
      assert answer[text]['apart'] > 0, f'{name} on {text}'


@pytest.mark.parametrize('name', tiers.every(expensive=True, newest=True, thirds=True))
def test_five_steps_equal_those_of_one_device(ask, name):
  texts = meshes(name) if name in ALL_MESHES else [COMBINED]
  check(ask(name, texts), name, texts)


@pytest.mark.slow
@pytest.mark.parametrize('name', [n for n in NAMES if n not in ALL_MESHES])
def test_five_steps_on_all_meshes(ask, name):
  texts = meshes(name)
  check(ask(name, texts), name, texts)
