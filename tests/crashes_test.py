"""Tests for tests/conftest.py: a worker that crashes, or hangs, ends the session."""

import os
import pathlib
import subprocess
import sys

from absl.testing import absltest

ROOT = pathlib.Path(__file__).parents[1]
TEST = """
import os, time
def test_{name}():
  {body}
"""


class CrashesTest(absltest.TestCase):
  def session(self, name, body, *options):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / 'conftest.py').write_text(
      'from tests.conftest import pytest_cmdline_main'
    )
    for i, which in enumerate(('sound', name, 'sound_too')):
      code = TEST.format(
        name=which, body=body if which == name else 'assert os.getpid() > 1'
      )
      (folder / f'file{i}_test.py').write_text(code)
    command = [sys.executable, '-m', 'pytest', '-n2']
    settings = ['-c', ROOT / 'pyproject.toml', '--rootdir', folder]
    return subprocess.run(
      [*command, *settings, *options, folder],
      cwd=ROOT,
      env={**os.environ, 'PYTEST_ADDOPTS': ''},
      capture_output=True,
      text=True,
      timeout=60,
    )

  def test_a_worker_that_crashes(self):
    done = self.session('aborts', 'os.abort()')
    self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
    self.assertRegex(done.stdout, r"crashed while running '.*test_aborts'")
    self.assertNotIn('replacing crashed worker', done.stdout)

  def test_a_worker_that_hangs(self):
    done = self.session('hangs', 'time.sleep(50)', '-o', 'faulthandler_timeout=1')
    self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
    self.assertRegex(done.stdout, r"crashed while running '.*test_hangs'")
    self.assertNotIn('replacing crashed worker', done.stdout)
    self.assertRegex(done.stderr, r'in test_hangs')


if __name__ == '__main__':
  absltest.main()
