"""Every experiment is the same on one device and on eight: a new one joins by existing.

In float64, so that nothing but the order of sums may differ: a tenth digit that does is
a wrong placement, a metric or a statistic of a part of the batch, or a float32.
"""

import dataclasses
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest, parameterized
import pytest

from launch.flags import experiments_by_name

ROOT = pathlib.Path(__file__).parents[2]
NAMES = experiments_by_name.names()
ALL_MESHES = ('cnn', 'char_gpt')  # In the fast suite; the others on COMBINED alone.
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


class EveryMeshTest(parameterized.TestCase):
  """One process for all that this one is asked for, as starting JAX takes seconds."""

  child: subprocess.Popen | None = None

  @classmethod
  def tearDownClass(cls):
    if cls.child is not None:
      cls.child.communicate(timeout=60)
      cls.child = None
    super().tearDownClass()

  def ask(self, name: str, texts: list[str]):
    cls = type(self)
    if cls.child is None:
      flags = '--xla_force_host_platform_device_count=8'
      # Compiling is nearly all of the time: less of LLVM's halves it.
      flags += ' --xla_backend_optimization_level=0'
      flags += ' --xla_llvm_disable_expensive_passes=true'
      env = {
        **os.environ,
        'XLA_FLAGS': flags,
        'JAX_PLATFORMS': 'cpu',
        'JAX_ENABLE_X64': '1',
        'PYTHONPATH': str(ROOT),
      }
      cls.errors = tempfile.TemporaryFile('w+')
      cls.child = subprocess.Popen(
        [sys.executable, '-m', 'tests.every_experiment.mesh'],
        env=env,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=cls.errors,
        text=True,
      )
    assert cls.child.stdin and cls.child.stdout
    cls.child.stdin.write(' '.join([name, *texts]) + '\n')
    cls.child.stdin.flush()
    line = cls.child.stdout.readline()
    if not line:
      cls.errors.seek(0)
      told, cls.child = cls.errors.read()[-3000:], None
      self.fail(f'{name} ended the process: {told}')
    answer = json.loads(line)
    self.assertNotIn('error', answer, answer.get('error'))
    return answer

  def check(self, name: str, texts: list[str]):
    answer = self.ask(name, texts)
    for text in texts:
      skipped = CHECKSUMS.get(name, '-')
      far = {k: v for k, v in answer[text]['far'].items() if not k.startswith(skipped)}
      self.assertIn('metrics/loss/total', far)
      wrong = {k: v for k, v in far.items() if not v <= TOLERANCE}
      self.assertEmpty(wrong, f'{name} on {text}')
      if 'fsdp' in text:
        self.assertGreater(answer[text]['apart'], 0, f'{name} on {text}')

  @parameterized.parameters(*NAMES)
  def test_five_steps_equal_those_of_one_device(self, name):
    self.check(name, meshes(name) if name in ALL_MESHES else [COMBINED])

  @parameterized.parameters(*(name for name in NAMES if name not in ALL_MESHES))
  @pytest.mark.slow
  def test_five_steps_on_all_meshes(self, name):
    self.check(name, meshes(name))


if __name__ == '__main__':
  absltest.main()
