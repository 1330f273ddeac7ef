"""Losses and norms of a batch that lies on eight devices are those of one device."""

import json
import pathlib
import subprocess
import sys

from absl.testing import absltest

from tests import simulated

ROOT = pathlib.Path(__file__).parents[3]


class ShardedTest(absltest.TestCase):
  def test_equal_on_meshes(self):
    done = subprocess.run(
      [sys.executable, '-m', 'tests.dlx.losses.eight_devices'],
      env={**simulated.environment(8), 'PYTHONPATH': str(ROOT)},
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=False,
    )
    self.assertEqual(done.returncode, 0, done.stderr[-3000:])
    found = json.loads(done.stdout.splitlines()[-1])
    self.assertEqual(found.pop('devices'), 8)
    self.assertLen(found, 2 * 7)
    for name, off in found.items():
      # float64; sums of some hundred terms of at most some units.
      self.assertLess(off, 1e-12, name)


if __name__ == '__main__':
  absltest.main()
