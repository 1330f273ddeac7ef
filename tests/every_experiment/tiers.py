"""Which experiments have their expensive generic tests in the fast tier, and why.

Overfitting, meshes, plans and figures cost seconds of compilation each, and there will
be over a hundred experiments. They are fast for

- one experiment of each kind, below;
- experiments that a change may have changed: whose import closure (the experiment and
  all of dlx and kernels that it imports, directly or not) has a file that differs from
  the base commit. That commit is $DLX_BASE, or where the branch left origin/main; where
  neither is known, none counts as changed. Of more than MOST_CHANGED, as after a change
  of the ground, those whose own file changed come first, then a number of others that
  turns as below;
- a tenth of the rest where $DLX_TURN is a number, as .ci/run sets it: another tenth for
  each commit, all of them in ten turns.

For all others they are slow (`-m slow`). `python -m tests.every_experiment.tiers`
prints who is in the fast tier; no experiment is imported to find it out.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
import functools
import os
import pathlib
import subprocess
from typing import NamedTuple

import pytest

from dlx.run.records import sources
from launch.flags import experiments_by_name

REPO = pathlib.Path(__file__).parents[2]
CODE = ('dlx', 'experiments', 'kernels')
TURNS = 10
MOST_CHANGED = 8
# One experiment of each kind of training.
KINDS = {
  'classifier': 'cnn',
  'table': 'house_prices',
  'language model': 'char_gpt',
  'graph': 'gcn',
  'recurrent': 'sst2_tbptt',
  'VAE': 'vae',
  'GAN': 'dcgan',
  'diffusion': 'ddpm',
  'self-supervised': 'moco',
  'two phases': 'distill',
  'ensemble': 'ensemble',
}


class Tiers(NamedTuple):
  """Experiments whose expensive tests are fast, by reason; one has one reason.

  Attributes:
    kinds: by experiment, the kind that it stands for.
    changed: by experiment, a file that changed; at most MOST_CHANGED.
    turn: of the rotation; None: nobody's turn.
    rotating: those whose turn it is.
    left_out: how many more changed.
  """

  kinds: Mapping[str, str]
  changed: Mapping[str, str]
  turn: int | None
  rotating: tuple[str, ...]
  left_out: int = 0

  def __contains__(self, name: str) -> bool:
    return name in self.kinds or name in self.changed or name in self.rotating


class Tree:
  """The modules below a folder and what each imports, read by ast."""

  def __init__(self, root: pathlib.Path, folders: Iterable[str] = CODE):
    self._root, self._paths = root, {}
    for path in sorted(p for folder in folders for p in (root / folder).rglob('*.py')):
      parts = path.relative_to(root).with_suffix('').parts
      self._paths['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    self._folders = {path.relative_to(root).parent for path in self._paths.values()}
    self._imports: dict[str, set[str]] = {}

  def imports(self, module: str) -> set[str]:
    """Modules of the tree that a module names: by import, or as a string.

    Strings count since some modules are imported by name when they are first needed.
    """
    if module not in self._imports:
      text = self._paths[module].read_text(encoding='utf-8')
      found = set(self._named(module, ast.parse(text)))
      self._imports[module] = {name for name in found if name in self._paths}
    return self._imports[module]

  def _named(self, module: str, tree: ast.Module) -> Iterator[str]:
    yield from sources.imported(module, self._paths[module], tree)
    for node in ast.walk(tree):
      if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if '.' in node.value:
          yield node.value

  def closure(self, module: str) -> set[str]:
    """The module and all that its import runs: packages above each of them, too."""
    found, open_ = set(), [module]
    while open_:
      name = open_.pop()
      if name in found or name not in self._paths:
        continue
      found.add(name)
      open_ += self.imports(name)
      open_.append(name.rpartition('.')[0])
    return found

  def changed(self, module: str, files: Iterable[str]) -> str | None:
    """The first of the changed files that the module depends on.

    A file that is neither Python nor text for people (C++, a table of tuned sizes)
    belongs to the modules of its folder, or of the folder above if it has none.
    """
    closure = [
      self._paths[name].relative_to(self._root) for name in self.closure(module)
    ]
    paths = {path.as_posix() for path in closure}
    folders = {path.parent for path in closure}
    for file in files:
      path = pathlib.PurePosixPath(file)
      if file in paths:
        return file
      owner = path.parent if path.parent in self._folders else path.parent.parent
      if path.suffix not in ('.py', '.md') and owner in folders:
        return file
    return None


def git(root: pathlib.Path, *args: str) -> list[str] | None:
  """The lines that git prints; None: it failed, or there is none."""
  try:
    done = subprocess.run(['git', *args], cwd=root, capture_output=True, text=True)
  except OSError:
    return None
  return done.stdout.splitlines() if done.returncode == 0 else None


def changed_files(root: pathlib.Path, base: str | None) -> list[str] | None:
  """Files of the code that differ from a commit, committed or not; None: not known.

  Args:
    root: of the repository.
    base: the commit; None: where HEAD left origin/main.
  """
  if not base:
    found = git(root, 'merge-base', 'HEAD', 'origin/main')
    if not found:
      return None
    (base,) = found
  different = git(root, 'diff', '--name-only', '--no-renames', base, '--', *CODE)
  new = git(root, 'ls-files', '--others', '--exclude-standard', '--', *CODE)
  return None if different is None or new is None else sorted({*different, *new})


def rotating(names: Iterable[str], turn: int) -> tuple[str, ...]:
  """Those whose turn it is: each has one turn in any TURNS in a row.

  Neighbours by name have different turns, and an experiment that joins or leaves moves
  at most the turns of those after it.
  """
  return tuple(name for i, name in enumerate(sorted(names)) if (turn - i) % TURNS == 0)


def some_of(changed: Mapping[str, str], turn: int) -> list[str]:
  """At most MOST_CHANGED: those whose own file changed, and some of the others in turn.

  Args:
    changed: by experiment, a file that changed, its own where that did.
    turn: each of the others is among them once in as many turns as it takes.
  """
  if len(changed) <= MOST_CHANGED:
    return sorted(changed)
  own = sorted(
    name for name, file in changed.items() if file.startswith('experiments/')
  )
  if len(own) >= MOST_CHANGED:
    own = []  # All in turn.
  others = sorted(changed.keys() - set(own))
  places = MOST_CHANGED - len(own)
  start = turn * places % len(others)
  return sorted([*own, *(others[start:] + others[:start])[:places]])


def choose(
  modules: Mapping[str, str],
  kinds: Mapping[str, str],
  tree: Tree,
  files: Iterable[str],
  turn: int | None,
) -> Tiers:
  """Who is in the fast tier.

  Args:
    modules: of the experiments, by name.
    kinds: experiments by kind.
    tree: of the code.
    files: that changed.
    turn: of the rotation; None: nobody's.
  """
  kind_of = {name: kind for kind, name in kinds.items()}
  files = sorted(files, key=lambda file: not file.startswith('experiments/'))
  found = {
    name: tree.changed(module, files)
    for name, module in modules.items()
    if files and name not in kind_of
  }
  changed = {name: file for name, file in found.items() if file}
  fast = some_of(changed, turn or 0)
  left_out = len(changed) - len(fast)
  changed = {name: changed[name] for name in fast}
  # All have their turn, whether they changed or not: who is next depends on the turn
  # alone.
  rest = () if turn is None else rotating(modules.keys() - kind_of.keys(), turn)
  rest = tuple(name for name in rest if name not in changed)
  return Tiers(kind_of, changed, turn, rest, left_out)


@functools.cache
def tiers() -> Tiers:
  """Of this repository and environment."""
  names = experiments_by_name.names()
  modules = {name: experiments_by_name.module_name(name) for name in names}
  turn = os.environ.get('DLX_TURN')
  files = changed_files(REPO, os.environ.get('DLX_BASE'))
  return choose(modules, KINDS, Tree(REPO), files or (), int(turn) if turn else None)


def figures(name: str) -> bool:
  """Whether an experiment's figures are drawn in the fast tier; $DLX_TESTS_FIGURES=off:
  nobody's, as .ci/run sets it on all Pythons but the newest."""
  return name in tiers() and os.environ.get('DLX_TESTS_FIGURES') != 'off'


def every() -> list:
  """Parameters of a test of every experiment: of its name."""
  found = tiers().kinds
  marked = lambda name: [pytest.mark.representative] if name in found else []
  names = experiments_by_name.names()
  return [pytest.param(name, id=name, marks=marked(name)) for name in names]


def expensive() -> list:
  """The same of an expensive test, which is slow but for those of the fast tier.

  It runs on the newest Python alone, so none stands for its kind on the others.
  """
  slow = lambda name: [] if name in tiers() else [pytest.mark.slow]
  names = experiments_by_name.names()
  return [pytest.param(name, id=name, marks=slow(name)) for name in names]


def text(found: Tiers, total: int, known: bool) -> str:
  """What .ci/run prints of the choice."""
  lines = ['Overfitting, meshes, plans and figures are tested of']
  listed = lambda reasons: ', '.join(f'{k} ({v})' for k, v in reasons.items()) or 'none'
  lines.append(f'  one experiment of each kind: {listed(found.kinds)}')
  why = '' if known else ' (the base commit is not known: set DLX_BASE)'
  more = f' and {found.left_out} more, not now' if found.left_out else ''
  lines.append(f'  those that changed: {listed(found.changed)}{more}{why}')
  if found.turn is not None:
    turn = f'{found.turn % TURNS + 1} of {TURNS}'
    lines.append(f'  a rotating tenth, {turn}: {", ".join(found.rotating) or "none"}')
  left = total - len({*found.kinds, *found.changed, *found.rotating})
  lines.append(f'and not of the other {left}: python -m pytest -m slow')
  return '\n'.join(lines)


if __name__ == '__main__':
  print(
    text(
      tiers(),
      len(experiments_by_name.names()),
      changed_files(REPO, os.environ.get('DLX_BASE')) is not None,
    )
  )
