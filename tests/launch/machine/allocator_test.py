"""The allocator keeps large temporaries, so that their pages are faulted in once."""

import subprocess
import sys

import pytest

from launch.machine import allocator

# Takes and returns 64 MB twenty times, as a training step does; prints page faults.
PROGRAM = """
import resource, sys
import numpy as np
if sys.argv[1] == 'tuned':
  from launch.machine import allocator
  assert allocator.tune({})
count = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**24, np.float32)
before = count()
for _ in range(20):
  np.ones(2**24, np.float32)
print(count() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='glibc is on Linux')
class TestTune:
  def test_temporaries_are_faulted_in_once(self):
    faults = {
      mode: int(
        subprocess.run(
          [sys.executable, '-c', PROGRAM, mode],
          check=True,
          capture_output=True,
          text=True,
        ).stdout
      )
      for mode in ('default', 'tuned')
    }
    # Pages of 4 kB or of 2 MB: at least 32 of each 64 MB.
    assert faults['default'] >= 20 * 32
    assert faults['tuned'] < faults['default'] / 10

  @pytest.mark.parametrize('name', ['MALLOC_ARENA_MAX', 'GLIBC_TUNABLES'])
  def test_what_the_user_has_set_is_left_alone(self, name):
    assert not allocator.tune({name: '1'})


def test_other_systems_are_left_alone(monkeypatch):
  monkeypatch.setattr(allocator.sys, 'platform', 'darwin')
  assert not allocator.tune({})
