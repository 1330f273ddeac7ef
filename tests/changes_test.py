"""What changed: closures of a planted tree, files that differ, what is left out."""

import pathlib
import subprocess

import pytest

from tests import changes
from tests.planted_tree import plant


@pytest.fixture
def root(tmp_path):
  """The planted files."""
  return plant(tmp_path)


@pytest.fixture
def repository(root, tmp_path, monkeypatch):
  """The same, committed; the branch origin/main is that commit."""
  monkeypatch.delenv('DLX_BASE', raising=False)
  run = lambda *args: subprocess.run(['git', *args], cwd=tmp_path, check=True)
  run('init', '-q')
  commit(tmp_path)
  run('update-ref', 'refs/remotes/origin/main', 'HEAD')
  return tmp_path


def commit(root: pathlib.Path):
  who = ('-c', 'user.name=a', '-c', 'user.email=a@b')
  for args in (('add', '-A'), (*who, 'commit', '-q', '-m', 'a')):
    subprocess.run(['git', *args], cwd=root, check=True)


def test_closure_has_what_is_imported_in_any_form_and_nothing_else(root):
  tree = changes.Tree(root)
  assert tree.closure('experiments.graphs.gcn') == {
    'experiments.graphs.gcn',
    # `from package import module`; a package's own file is run, a neighbour's is not.
    *('dlx', 'dlx.layers', 'dlx.layers.graph'),
    'kernels.sparse',  # Imported in a function.
    # A package that imports its modules, one of them from a relative import.
    *('dlx.losses', 'dlx.losses.huber', 'dlx.losses.squared'),
  }
  assert tree.closure('experiments.vision.cnn') == {
    'experiments.vision.cnn',
    *('dlx', 'dlx.layers', 'dlx.layers.dense', 'dlx.errors'),
    *('dlx.models.ring', 'dlx.models.circle'),  # A circle ends.
    *('kernels.conv', 'kernels.conv.cpu'),  # Named by a string.
  }


def test_changes_are_counted_from_the_base(repository):
  root = repository
  assert changes.changed_files(root, None) == []
  (root / 'dlx/errors.py').write_text('')
  assert changes.changed_files(root, None) == ['dlx/errors.py']
  commit(root)
  assert changes.changed_files(root, None) == ['dlx/errors.py']
  assert changes.changed_files(root, 'HEAD') == []
  assert changes.changed_files(root, 'HEAD~1') == ['dlx/errors.py']
  (root / 'dlx/new.py').write_text('')  # Not yet known to git.
  assert changes.changed_files(root, 'HEAD') == ['dlx/new.py']


def test_without_a_base_nothing_is_known_to_have_changed(repository, tmp_path_factory):
  root = repository
  assert changes.changed_files(root, 'no_such_commit') is None
  subprocess.run(['git', 'update-ref', '-d', 'refs/remotes/origin/main'], cwd=root)
  assert changes.changed_files(root, None) is None
  assert changes.changed_files(tmp_path_factory.mktemp('no_repository'), None) is None


@pytest.mark.parametrize('cut', (False, True))
def test_the_base_is_the_commit_that_passed(repository, cut):
  subprocess.run(
    ['git', 'update-ref', '-d', 'refs/remotes/origin/main'], cwd=repository
  )
  passed = (changes.git(repository, 'rev-parse', 'HEAD') or [''])[0]
  (repository / '.ci').mkdir()
  (repository / changes.PASSED).write_text(f'{"0" * 40 if cut else passed}\n')
  (repository / 'dlx/errors.py').write_text('')
  commit(repository)
  found = changes.changed_files(repository)
  assert found == (None if cut else ['dlx/errors.py'])


TESTS = {
  'tests/dlx/errors_test.py': 'from dlx import errors\n',
  'tests/dlx/huber_test.py': 'from dlx.losses.huber import huber\n',
  'tests/dlx/child_test.py': "SCRIPT = 'child.py'\n",
  'tests/dlx/child.py': 'import dlx.never\n',
  'tests/experiments/gcn_test.py': "load('gcn')\n",
  'tests/kernels/conv_test.py': 'from tests.helper import f\n',
  'tests/helper.py': 'from kernels import conv\n',
  'tests/house/rules_test.py': '',
}


@pytest.mark.parametrize(
  ('file', 'changed'),
  (
    ('dlx/errors.py', {'errors', 'child'}),
    ('dlx/losses/squared.py', {'huber', 'gcn'}),
    ('kernels/conv/cpu.cc', {'conv'}),
    ('tests/helper.py', {'conv'}),
    ('tests/dlx/huber_test.py', {'huber'}),
    ('experiments/graphs/gcn.py', {'gcn'}),
    ('launch/train.py', set()),
    ('constraints.txt', {'errors', 'huber', 'child', 'gcn', 'conv'}),
  ),
)
def test_tests_of_unchanged_code_wait_for_their_turn(root, file, changed):
  for name, text in TESTS.items():
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
  tests = [name for name in TESTS if name.endswith('_test.py')]
  always = {*(x for x in tests if x.removesuffix('_test.py').split('/')[-1] in changed)}
  always.add('tests/house/rules_test.py')
  runs = []
  for turn in range(changes.QUARTERS):
    tree = changes.Tree(root, changes.ALL_CODE)
    out = changes.left_out(tree, tests, [file], turn)
    runs += [x for x in tests if x not in out]
    assert always.isdisjoint(out)
  # Of the others each has one turn.
  once = {x for x in tests if runs.count(x) == 1}
  assert once == set(tests) - always
  assert all(runs.count(x) == changes.QUARTERS for x in always)
