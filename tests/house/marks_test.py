"""Tests get the marks by which .ci/run selects them from what they are."""

import ast
import pathlib

import pytest

from tests import changes, conftest, turns

TESTS = pathlib.Path(conftest.__file__).parent
SOME = """
import pytest

def reference():
  return pytest.importorskip('torch', reason='not installed')

class ConvTest:
  def test_direct(self):
    torch = pytest.importorskip('torch')

  def test_through_a_function(self):
    reference()

  def test_without(self):
    assert 'torch' != 'jax'
"""


@pytest.mark.parametrize(
  ('text', 'found'),
  (
    (SOME, ('test_direct', 'test_through_a_function')),
    ("import pytest\npytest.importorskip('torch')\ndef test_a(): pass", ('',)),
    ('import torch\ndef test_a(): pass', ('',)),
    ("def test_a():\n  assert 'import torch'", ()),
  ),
)
def test_those_that_compare_with_torch_are_found(tmp_path, text, found):
  (tmp_path / 'a_test.py').write_text(text)
  assert conftest.compare_with_torch(tmp_path / 'a_test.py') == found


def test_marks_of_folders_and_listed_files():
  assert conftest.marks(TESTS / 'kernels' / 'tune_test.py') == ('kernels',)
  assert conftest.marks(TESTS / 'house' / 'marks_test.py') == ('versions',)
  assert conftest.marks(TESTS / 'dlx' / 'state_test.py') == ()
  assert all((TESTS / path).exists() for path in conftest.VERSIONS)


def test_kernels_in_simulators_have_their_turn(monkeypatch):
  files = [p for end in conftest.SIMULATED for p in (TESTS / 'kernels').glob(f'*{end}')]
  assert len(files) > conftest.SIMULATED_TURNS
  marked = []
  monkeypatch.setattr(changes, 'closure_here', lambda path: False)
  for turn in range(conftest.SIMULATED_TURNS):
    monkeypatch.setattr(turns, 'TURN', turn)
    conftest.marks.cache_clear()
    marked += [path for path in files if 'kernels' in conftest.marks(path)]
    assert conftest.marks(TESTS / 'kernels' / 'tune_test.py') == ('kernels',)
  assert sorted(marked) == sorted(files)
  # The code of one changed: it does not wait.
  (first, *_) = sorted(set(files) - set(marked[-1:]))
  monkeypatch.setattr(changes, 'closure_here', lambda path: path == first)
  conftest.marks.cache_clear()
  assert 'kernels' in conftest.marks(first)
  monkeypatch.setattr(turns, 'TURN', None)
  conftest.marks.cache_clear()
  assert all('kernels' in conftest.marks(path) for path in files)


def lost(text: str) -> list[str]:
  """Functions with a mark above absl's parameters, which drop it."""
  found = []
  for node in ast.walk(ast.parse(text)):
    if isinstance(node, ast.FunctionDef):
      names = [ast.unparse(decorator) for decorator in node.decorator_list]
      marks = [i for i, x in enumerate(names) if x.startswith(('pytest.', 'turns.'))]
      below = [i for i, x in enumerate(names) if x.startswith('parameterized.')]
      if marks and below and min(marks) < max(below):
        found.append(node.name)
  return found


def test_no_mark_is_lost_above_parameters():
  mark, parameters = '@pytest.mark.slow\n', '@parameterized.parameters(1)\n'
  assert lost(f'{mark}{parameters}def test_a(): pass') == ['test_a']
  assert lost(f'{parameters}{mark}def test_a(): pass') == []
  wrong = {
    p.name: lost(p.read_text(encoding='utf-8')) for p in TESTS.rglob('*_test.py')
  }
  assert {name: found for name, found in wrong.items() if found} == {}
