"""A full disk and a read-only one, on a real file system; see disk.py."""

import json
import pathlib
import shutil
import subprocess
import sys

from absl.testing import absltest
import pytest

SCRIPT = pathlib.Path(__file__).with_name('disk.py')


def may_mount():
  """Whether this machine lets a process mount in a namespace of its own."""
  if shutil.which('unshare') is None:
    return False
  command = 'mount -t tmpfs -o size=1m none /mnt'
  done = subprocess.run(['unshare', '-Urm', 'sh', '-c', command], capture_output=True)
  return done.returncode == 0


@pytest.mark.slow  # Six processes one after the other.
class DiskTest(absltest.TestCase):
  def test_full_and_read_only(self):
    if not may_mount():
      self.skipTest('no user namespaces: a small disk cannot be mounted')
    done = subprocess.run(
      ['unshare', '-Urm', sys.executable, SCRIPT, self.create_tempdir().full_path],
      capture_output=True,
      text=True,
      timeout=900,
    )
    self.assertEqual(done.returncode, 0, done.stderr[-3000:])
    found = json.loads(done.stdout)
    for name in ('straight', 'begun', 'ended'):
      self.assertEqual(found[name][0], 0, found[name][1][-3000:])
    # One line says what is wrong; the rest of stderr is the run's own lines.
    for name in ('full', 'nearly', 'read_only'):
      status, err = found[name]
      self.assertEqual(status, 2, err[-3000:])
      self.assertNotIn('Traceback', err)
      last = err.splitlines()[-1]
      self.assertRegex(
        last, r'^error: .*(No space left on device|disk is full|Read-only file system)'
      )
      print(f'{name}: {last}')
    # The checkpoints before are whole, the next start goes on from the newest.
    self.assertEqual(found['verified'], '20: sound\n25: sound\n')
    self.assertIn('Going on from step 25 of 60.', found['ended'][1])
    self.assertTrue(found['lines_equal'])
    self.assertTrue(found['bits_equal'])
    self.assertEqual(found['left'], ['50', '60'])


if __name__ == '__main__':
  absltest.main()
