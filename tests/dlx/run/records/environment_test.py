"""Tests for what dlx/run/records/environment.py."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest

from dlx.run.records import environment
from dlx.run.records.json_files import plain


class EnvironmentTest(absltest.TestCase):
  def test_fields(self):
    import jax

    got = environment.environment()
    self.assertEqual(got['versions']['jax'], jax.__version__)
    self.assertEqual(got['device']['count'], jax.device_count())
    self.assertEqual(got['device']['platform'], jax.default_backend())
    self.assertGreaterEqual(got['threads'], 1)
    self.assertEqual(plain(got), got)
    self.assertNotIn(os.uname().nodename, json.dumps(got))

  def test_importing_starts_nothing(self):
    code = (
      'import sys; from dlx.run.records import environment as e; e.versions(); '
      'print(sorted({"jax", "flax", "tensorflow", "torch"} & set(sys.modules)))'
    )
    out = subprocess.run([sys.executable, '-c', code], check=True, capture_output=True)
    self.assertEqual(out.stdout.strip(), b'[]')

  def test_git_of_a_checkout(self):
    """In a copy of the tree: clean, changed, and inside another repository."""
    root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    package = root / 'dlx' / 'run' / 'records'
    package.mkdir(parents=True)
    source = pathlib.Path(environment.__file__)
    for path in (source, source.parents[2] / 'errors.py'):
      to = root / 'dlx' / path.relative_to(source.parents[2])
      to.write_bytes(path.read_bytes())
    for folder in (package, package.parent, package.parents[1]):
      (folder / '__init__.py').write_text('')

    def found():
      code = (
        'import json; from dlx.run.records import environment; '
        'print(json.dumps(environment.git()))'
      )
      env = {k: v for k, v in os.environ.items() if not k.startswith('GIT_')}
      out = subprocess.run(
        [sys.executable, '-c', code],
        cwd=root,
        check=True,
        capture_output=True,
        env=env | {'PYTHONPATH': str(root)},
      )
      return json.loads(out.stdout)

    def git(*args):
      return subprocess.run(
        ['git', '-c', 'user.name=t', '-c', 'user.email=t@t', *args],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
      ).stdout.strip()

    self.assertIsNone(found())
    git('init', '-q')
    self.assertIsNone(found())
    (root / 'other').write_text('')
    git('add', 'other')
    git('commit', '-q', '-m', 'other')
    self.assertIsNone(found())  # A checkout, but not of this package.
    git('add', 'dlx')
    git('commit', '-q', '-m', 'all')
    self.assertEqual(found(), {'commit': git('rev-parse', 'HEAD'), 'dirty': False})
    (root / 'dlx' / 'errors.py').write_text(
      '# changed\nclass DataError(Exception): ...\n'
    )
    self.assertTrue(found()['dirty'])


if __name__ == '__main__':
  absltest.main()
