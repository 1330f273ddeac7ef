"""Forks name their parent, overwrite nothing, and tell apart whose change is whose."""

import ast
import datetime
import pathlib
import subprocess

from absl.testing import parameterized
import pytest

from dlx.errors import ConfigError
from dlx.run import experiments_by_name, forks

PARENT = '''"""A net.

  python -m launch.train --exp=net --config.lr=1
  python -m launch.train --exp=net.py
  python -m launch.train --exp=net_large
"""

lr = 1
width = 2
depth = 3
'''


@pytest.fixture
def repo(tmp_path):
  """A checkout with one experiment, committed."""
  path = tmp_path / 'repo' / 'net.py'
  path.parent.mkdir()
  path.write_text(PARENT)
  git(path, 'init', '-q')
  git(path, 'add', '-A')
  commit(path, 'one')
  return path


def git(path, *args):
  who = ('-c', 'user.name=a', '-c', 'user.email=a@b.c')
  command = ['git', *who, *args]
  done = subprocess.run(command, cwd=path.parent, check=True, capture_output=True)
  return done.stdout.decode().strip()


def commit(path, message):
  git(path, 'commit', '-q', '-am', message)


def body(text: str) -> str:
  """All of a file but its docstring."""
  tree = ast.parse(text)
  return ast.unparse(ast.Module(tree.body[1:], []))


@pytest.mark.parametrize(
  'name', [*experiments_by_name.names(), *experiments_by_name.studies()]
)
def test_a_fork_is_its_parent_but_for_the_docstring(name, tmp_path):
  target = tmp_path / f'my_{name}.py'
  parent = forks.fork(name, target)
  text = target.read_text()
  source = experiments_by_name.path_of(name).read_text()
  assert body(text) == body(source)
  assert forks.parent_of(text) == parent
  assert forks.parent_of(source) is None
  found = forks.difference(target)
  assert found.own == found.upstream == found.today == ''


def test_the_fork_of_a_fork_keeps_the_whole_line(tmp_path):
  first = forks.fork('cnn', tmp_path / 'a.py')
  second = forks.fork(str(tmp_path / 'a.py'), tmp_path / 'b.py')
  text = (tmp_path / 'b.py').read_text()
  assert forks.parent_of(text) == second
  assert second.path == str(tmp_path / 'a.py')
  assert text.index(str(second)) < text.index(str(first))
  assert '--exp=b.py' in text and '--exp=a.py' not in text
  assert forks.difference(tmp_path / 'b.py').own == ''


def test_own_changes_and_those_of_the_parent_are_told_apart(repo, tmp_path):
  fork = tmp_path / 'mine.py'
  parent = forks.fork(str(repo), fork)
  assert parent.kind == 'commit' and parent.version == git(repo, 'rev-parse', 'HEAD')
  fork.write_text(fork.read_text().replace('lr = 1', 'lr = 5'))
  repo.write_text(PARENT.replace('depth = 3', 'depth = 4'))
  commit(repo, 'two')
  found = forks.difference(fork)
  changed = lambda diff: [
    x for x in diff.splitlines() if x[0] in '+-' and x[:3] not in ('+++', '---')
  ]
  assert changed(found.own) == ['-lr = 1', '+lr = 5']
  assert changed(found.upstream) == ['-depth = 3', '+depth = 4']
  assert changed(found.today) == ['-lr = 1', '+lr = 5', '-depth = 4', '+depth = 3']
  today = datetime.datetime.now(datetime.UTC).date().isoformat()
  assert 'today, 1 commit of the parent since, the last on ' + today[:4] in found.age


def test_what_git_never_had_is_not_made_up(repo, tmp_path):
  repo.write_text(PARENT.replace('width = 2', 'width = 7'))  # Not committed.
  forks.fork(str(repo), tmp_path / 'mine.py')
  repo.write_text(PARENT)
  found = forks.difference(tmp_path / 'mine.py')
  assert found.own is None and found.upstream is None
  assert '+width = 7' in (found.today or '')
  repo.unlink()
  assert forks.difference(tmp_path / 'mine.py').today is None


def test_without_git_the_version_stands_there(tmp_path):
  (tmp_path / 'net.py').write_text(PARENT)
  parent = forks.fork(str(tmp_path / 'net.py'), tmp_path / 'mine.py')
  assert parent.kind == 'dlx' and parent.version[0].isdigit()
  (tmp_path / 'net.py').write_text(PARENT + 'more = 1\n')
  found = forks.difference(tmp_path / 'mine.py')
  assert found.own is None and '-more = 1' in (found.today or '')


def test_commands_name_the_fork_alone(repo, tmp_path):
  forks.fork(str(repo), tmp_path / 'mine.py')
  text = (tmp_path / 'mine.py').read_text()
  assert text.count('--exp=mine.py') == 2 and '--exp=net_large\n' in text


@pytest.mark.parametrize(
  ('source', 'value'),
  [
    ('x = 1\n', None),
    ('# -*- coding: utf-8 -*-\n\nx = 1\n', None),
    ('"A net."\nx = 1\n', 'A net.'),
    ('"A " "net.\\n\\\\ \\"\\"\\""\nx = 1\n', 'A net.\n\\ """'),
    ("'''Ein Netz: größer.'''; x = 1\n", 'Ein Netz: größer.'),
    ('r"""A \\net."""\r\nx = 1\r\n', 'A \\net.'),
    ('"""A net.\\\n"""\n\nx = 1\n', 'A net.'),
  ],
)
def test_any_docstring_takes_the_lines(tmp_path, source, value):
  (tmp_path / 'net.py').write_bytes(source.encode())
  parent = forks.fork(str(tmp_path / 'net.py'), tmp_path / 'mine.py')
  text = (tmp_path / 'mine.py').read_bytes().decode()
  assert forks.parent_of(text) == parent
  docstring = ast.get_docstring(ast.parse(text), clean=False) or ''
  assert docstring.partition('Forked ')[0].rstrip() == (value or '').rstrip()
  assert body(text) == 'x = 1'
  assert text.count('\r\n') in (0, text.count('\n'))
  assert forks.difference(tmp_path / 'mine.py').own == ''


class RefusedTest(parameterized.TestCase):
  @parameterized.parameters(
    ('there.py', 'overwrites nothing'),
    ('link.py', 'overwrites nothing'),
    ('no/such.py', 'no is no folder'),
    ('json.py', 'belongs to another module'),
    ('two words.py', 'must be NAME.py'),
    ('a.b.py', 'must be NAME.py'),
    ('noending', 'must be NAME.py'),
  )
  def test_targets(self, target, message):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / 'there.py').write_text('kept')
    (folder / 'link.py').symlink_to('nowhere.py')
    before = sorted(folder.iterdir())
    with self.assertRaisesRegex(ConfigError, message):
      forks.fork('cnn', folder / target)
    self.assertEqual(sorted(folder.iterdir()), before)
    self.assertEqual((folder / 'there.py').read_text(), 'kept')

  @parameterized.parameters(
    ('from . import net\n', 'line 1: a relative import'),
    ('def f():\n  from .net import a\n', 'line 2: a relative import'),
    ('import beside\n', 'imports beside, which lies beside it'),
    ('from beside.b import c\n', 'imports beside, which lies beside it'),
    ('x = (\n', 'line 1 is no Python'),
    (b'x = "\xff"\n', 'is no Python'),
  )
  def test_parents(self, source, message):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / 'to').mkdir()
    (folder / 'beside.py').write_text('')
    data = source if isinstance(source, bytes) else source.encode()
    (folder / 'parent.py').write_bytes(data)
    with self.assertRaisesRegex(ConfigError, message):
      forks.fork(str(folder / 'parent.py'), folder / 'to' / 'mine.py')
    self.assertEmpty(list((folder / 'to').iterdir()))

  def test_a_neighbour_is_at_hand_in_the_same_folder(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / 'beside.py').write_text('')
    (folder / 'parent.py').write_text('import beside\n')
    forks.fork(str(folder / 'parent.py'), folder / 'mine.py')

  def test_a_file_that_names_no_parent(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / 'net.py').write_text(PARENT)
    with self.assertRaisesRegex(ConfigError, 'names no parent'):
      forks.difference(folder / 'net.py')
