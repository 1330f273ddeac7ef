"""The choice of the fast tier: import closures of planted trees, turns of all."""

import pathlib
import subprocess

import pytest

from launch.flags import experiments_by_name
from tests.every_experiment import tiers

FILES = {
  'README.md': '',
  'dlx/__init__.py': '',
  'dlx/errors.py': 'import numpy\n',
  'dlx/layers/__init__.py': '"""Imports nothing."""\n',
  'dlx/layers/dense.py': 'from ..errors import ConfigError\n',
  'dlx/layers/graph.py': 'def f():\n  import kernels.sparse\n',
  'dlx/losses/__init__.py': 'from dlx.losses.huber import huber as huber\n',
  'dlx/losses/huber.py': 'from . import squared\n',
  'dlx/losses/squared.py': '',
  'dlx/models/circle.py': 'from dlx.models import ring\n',
  'dlx/models/ring.py': 'import dlx.models.circle\n',
  'dlx/never.py': 'import dlx.errors\n',
  'kernels/conv/__init__.py': "CPU = lazy('kernels.conv.cpu')\n",
  'kernels/conv/cpu.py': '',
  'kernels/conv/cpu.cc': '',
  'kernels/conv/tuned/gpu.json': '',
  'kernels/sparse.py': '',
  'experiments/graphs/gcn.py': 'from dlx.layers import graph\nimport dlx.losses\n',
  'experiments/vision/cnn.py': (
    'from dlx.layers.dense import Dense\nimport kernels.conv\nimport dlx.models.ring\n'
  ),
}
MODULES = {'gcn': 'experiments.graphs.gcn', 'cnn': 'experiments.vision.cnn'}


@pytest.fixture
def root(tmp_path):
  """The planted files."""
  for name, text in FILES.items():
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
  return tmp_path


@pytest.fixture
def repository(root, tmp_path):
  """The same, committed; the branch origin/main is that commit."""
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
  tree = tiers.Tree(root)
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


@pytest.mark.parametrize(
  ('file', 'found'),
  (
    ('dlx/errors.py', {'cnn'}),
    ('dlx/losses/squared.py', {'gcn'}),
    ('dlx/__init__.py', {'cnn', 'gcn'}),
    ('experiments/vision/cnn.py', {'cnn'}),
    ('kernels/conv/cpu.cc', {'cnn'}),
    ('kernels/conv/tuned/gpu.json', {'cnn'}),
    ('dlx/never.py', set()),
    ('dlx/layers/README.md', set()),
    ('README.md', set()),
  ),
)
def test_experiments_whose_closure_has_a_changed_file_are_fast(root, file, found):
  chosen = tiers.choose(MODULES, {}, tiers.Tree(root), [file], None)
  assert set(chosen.changed) == found
  assert all(name in chosen for name in found)
  assert set(chosen.changed.values()) <= {file}


def test_changes_are_counted_from_the_base(repository):
  root = repository
  assert tiers.changed_files(root, None) == []
  (root / 'dlx/errors.py').write_text('')
  assert tiers.changed_files(root, None) == ['dlx/errors.py']
  commit(root)
  assert tiers.changed_files(root, None) == ['dlx/errors.py']
  assert tiers.changed_files(root, 'HEAD') == []
  assert tiers.changed_files(root, 'HEAD~1') == ['dlx/errors.py']
  (root / 'dlx/new.py').write_text('')  # Not yet known to git.
  assert tiers.changed_files(root, 'HEAD') == ['dlx/new.py']


def test_without_a_base_nothing_is_known_to_have_changed(repository, tmp_path_factory):
  root = repository
  assert tiers.changed_files(root, 'no_such_commit') is None
  subprocess.run(['git', 'update-ref', '-d', 'refs/remotes/origin/main'], cwd=root)
  assert tiers.changed_files(root, None) is None
  assert tiers.changed_files(tmp_path_factory.mktemp('no_repository'), None) is None
  said = tiers.text(tiers.Tiers({}, {}, None, ()), 5, known=False)
  assert 'changed: none (the base commit is not known' in said


@pytest.mark.parametrize('count', (0, 1, 9, 10, 20, 110))
@pytest.mark.parametrize('start', (0, 7, 123))
def test_all_have_one_turn_in_ten(count, start):
  names = [f'experiment_{i:03}' for i in range(count)]
  turns = [tiers.rotating(names, start + i) for i in range(tiers.TURNS)]
  assert sorted(name for turn in turns for name in turn) == names
  assert max(map(len, turns)) - min(map(len, turns)) <= 1


def test_all_are_fast_in_ten_turns_whatever_changes(root):
  names = {f'experiment_{i}': f'experiments.a.e{i}' for i in range(25)} | MODULES
  fast = set()
  for turn in range(tiers.TURNS):
    chosen = tiers.choose(
      names, {'graph': 'gcn'}, tiers.Tree(root), ['dlx/errors.py'], turn
    )
    assert set(chosen.kinds) == {'gcn'} and set(chosen.changed) == {'cnn'}
    fast |= {name for name in names if name in chosen}
    assert f'a rotating tenth, {turn + 1} of 10' in tiers.text(chosen, 27, True)
  assert fast == set(names)


@pytest.mark.parametrize('own', (0, 3, 20))
def test_of_many_that_changed_some_are_fast_own_files_first_and_all_in_turn(root, own):
  names = {f'experiment_{i:02}': f'experiments.a.e{i:02}' for i in range(25)}
  for i in range(25):
    path = root / f'experiments/a/e{i:02}.py'
    path.parent.mkdir(exist_ok=True)
    path.write_text('import dlx.errors\n')
  files = [f'experiments/a/e{i:02}.py' for i in range(own)]
  fast = set()
  for turn in range(25):
    tree = tiers.Tree(root)
    chosen = tiers.choose(names, {}, tree, ['dlx/errors.py', *files], turn)
    assert len(chosen.changed) == tiers.MOST_CHANGED
    assert chosen.left_out == 25 - tiers.MOST_CHANGED
    assert 'and 17 more, not now' in tiers.text(chosen, 25, True)
    if own < tiers.MOST_CHANGED:
      assert set(list(names)[:own]) <= set(chosen.changed)
    fast |= set(chosen.changed)
  assert fast == set(names)


def test_one_experiment_stands_for_each_kind():
  assert len(set(tiers.KINDS.values())) == len(tiers.KINDS)
  assert set(tiers.KINDS.values()) <= set(experiments_by_name.names())


def test_every_experiment_has_a_parameter_and_those_of_the_kinds_are_marked():
  of = lambda params: {p.id: {mark.name for mark in p.marks} for p in params}
  marks = of(tiers.expensive())
  assert list(marks) == list(of(tiers.every())) == experiments_by_name.names()
  for name in tiers.KINDS.values():
    assert of(tiers.every())[name] == {'representative'}
    assert marks[name] == set()  # On the newest Python alone.
  assert all(
    ('slow' in found) != (name in tiers.tiers()) for name, found in marks.items()
  )
