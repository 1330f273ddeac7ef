"""The choice of the fast tier: who changed, turns of all."""

import pytest

from dlx.run import experiments_by_name
from tests import changes
from tests.every_experiment import tiers
from tests.planted_tree import plant

MODULES = {'gcn': 'experiments.graphs.gcn', 'cnn': 'experiments.vision.cnn'}


@pytest.fixture
def root(tmp_path):
  """The planted files."""
  return plant(tmp_path)


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
  chosen = tiers.choose(MODULES, {}, changes.Tree(root), [file], None)
  assert set(chosen.changed) == found
  assert all(name in chosen for name in found)
  assert set(chosen.changed.values()) <= {file}


def test_a_base_that_is_not_known_is_told():
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
      names, {'graph': 'gcn'}, changes.Tree(root), ['dlx/errors.py'], turn
    )
    assert set(chosen.kinds) == {'gcn'} and set(chosen.changed) == {'cnn'}
    fast |= {name for name in names if name in chosen}
    assert f'a rotating tenth, {turn + 1} of 10' in tiers.text(chosen, 27, True)
  assert fast == set(names)


@pytest.mark.parametrize('own', (0, 3, 4, 12, 20))
def test_of_many_that_changed_some_are_fast_own_files_first_and_all_in_turn(root, own):
  names = {f'experiment_{i:02}': f'experiments.a.e{i:02}' for i in range(25)}
  for i in range(25):
    path = root / f'experiments/a/e{i:02}.py'
    path.parent.mkdir(exist_ok=True)
    path.write_text('import dlx.errors\n')
  files = [f'experiments/a/e{i:02}.py' for i in range(own)]
  fast = set()
  for turn in range(25):
    tree = changes.Tree(root)
    chosen = tiers.choose(names, {}, tree, ['dlx/errors.py', *files], turn)
    found = set(chosen.changed)
    assert len(found) == min(max(own, tiers.MOST_CHANGED), tiers.MOST_OWN)
    assert chosen.left_out == 25 - len(found)
    assert f'and {25 - len(found)} more, not now' in tiers.text(chosen, 25, True)
    themselves = set(list(names)[:own])
    assert themselves <= found if own <= tiers.MOST_OWN else found <= themselves
    fast |= found
  # Beside more than fit there is no place for those that only import what changed.
  assert fast == (set(names) if own < tiers.MOST_CHANGED else themselves)


def test_one_experiment_stands_for_each_kind():
  assert len(set(tiers.KINDS.values())) == len(tiers.KINDS)
  assert set(tiers.KINDS.values()) <= set(experiments_by_name.names())


def test_every_experiment_has_a_parameter_and_those_of_the_kinds_are_marked():
  of = lambda params: {p.id: {mark.name for mark in p.marks} for p in params}
  marks = of(tiers.every(expensive=True, newest=True))
  assert list(marks) == list(of(tiers.every())) == experiments_by_name.names()
  for name in tiers.KINDS.values():
    assert of(tiers.every())[name] == {'representative'}
    assert marks[name] == set()
    assert of(tiers.every(expensive=True))[name] == {'representative'}
  assert all(
    ('slow' in found) != (name in tiers.tiers()) for name, found in marks.items()
  )


def test_of_the_kinds_a_third_has_its_turn_and_who_changed_itself(monkeypatch):
  marks = tiers.by_thirds(tiers.Tiers(dict.fromkeys(MODULES, ''), {}, 4, ()))
  assert marks['cnn'].args == (0, 3, ('experiments/vision/cnn.py',))
  assert marks['gcn'].args == (1, 3, ('experiments/graphs/gcn.py',))
  assert tiers.by_thirds(tiers.Tiers(dict.fromkeys(MODULES, ''), {}, None, ())) == {}
  # Who is in the fast tier for another reason does not wait.
  found = tiers.Tiers({'gcn': ''}, {'cnn': ''}, 4, ())
  monkeypatch.setattr(tiers, 'tiers', lambda: found)
  of = {
    p.id: {m.name for m in p.marks} for p in tiers.every(expensive=True, thirds=True)
  }
  assert (of['gcn'], of['cnn']) == ({'seldom', 'representative'}, set())
  assert of['mlp'] == {'slow'}
