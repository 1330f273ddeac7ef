"""What a change may have changed: import closures, and files that differ from a base.

The base is the commit of which all tests are known to have passed: $DLX_BASE; else
where the branch left origin/main; else the commit that .ci/passed names. Where none of
them is known, as without git, nothing is said to be unchanged.

In CI ($DLX_TURN is a number) a file of tests whose import closure is that of the base
is left out but for a rotating quarter: its outcome is known. `python -m tests.changes`
prints what is left out.
"""

import ast
from collections.abc import Collection, Iterable, Iterator
import functools
import os
import pathlib
import subprocess

from dlx.run.records import sources
from tests import turns

REPO = pathlib.Path(__file__).parents[1]
CODE = ('dlx', 'experiments', 'kernels')
ALL_CODE = (*CODE, 'launch', 'tests')
# What a change of these changes is not known: then all tests run.
GROUND = (
  'constraints.txt',
  'pyproject.toml',
  'setup.py',
  'tests/conftest.py',
  'tests/leaks.py',
)
PASSED = '.ci/passed'
# Tests below these depend on code alone. Those of the rules of the code base, of the
# launchers and of every experiment read files and start processes: they always run.
BY_CLOSURE = ('tests/dlx/', 'tests/experiments/', 'tests/kernels/')
QUARTERS = 4


class Tree:
  """The modules below a folder and what each imports, read by ast."""

  def __init__(self, root: pathlib.Path, folders: Iterable[str] = CODE):
    self._root, self._paths = root, {}
    for path in sorted(p for folder in folders for p in (root / folder).rglob('*.py')):
      parts = path.relative_to(root).with_suffix('').parts
      self._paths['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    self._folders = {path.relative_to(root).parent for path in self._paths.values()}
    self._imports: dict[str, set[str]] = {}
    self._experiments = {
      name.rpartition('.')[2]: name
      for name in self._paths
      if name.startswith('experiments.')
    }

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
    path = self._paths[module]
    yield from sources.imported(module, path, tree)
    for node in ast.walk(tree):
      if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        continue
      if module.startswith('tests.'):  # An experiment by its name, a file beside it.
        yield self._experiments.get(node.value, '')
        if node.value.endswith('.py') and '/' not in node.value:
          yield '.'.join([*module.split('.')[:-1], node.value.removesuffix('.py')])
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

  def changed(
    self, module: str, files: Iterable[str], *, named: bool = False
  ) -> str | None:
    """The first of the changed files that the module depends on.

    With `named` of the module and those that it names itself alone. A file that is
    neither Python nor text for people (C++, a table of tuned sizes) belongs to the
    modules of its folder, or of the folder above if it has none.
    """
    modules = {module} | self.imports(module) if named else self.closure(module)
    closure = [self._paths[name].relative_to(self._root) for name in modules]
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


def base_commit(root: pathlib.Path) -> str | None:
  """The commit from which changes are counted; None: not known."""
  if given := os.environ.get('DLX_BASE'):
    return given
  if found := git(root, 'merge-base', 'HEAD', 'origin/main'):
    return found[0]
  try:
    passed = (root / PASSED).read_text(encoding='utf-8').split()[0]
  except (OSError, IndexError):
    return None
  # A history that was cut or written anew does not have it.
  known = git(root, 'merge-base', '--is-ancestor', passed, 'HEAD')
  return None if known is None else passed


def changed_files(
  root: pathlib.Path, base: str | None = None, folders: Iterable[str] = CODE
) -> list[str] | None:
  """Files that differ from a commit, committed or not; None: not known.

  Args:
    root: of the repository.
    base: the commit; None: `base_commit`.
    folders: those, and files, that are looked at.
  """
  base = base or base_commit(root)
  if not base:
    return None
  different = git(root, 'diff', '--name-only', '--no-renames', base, '--', *folders)
  new = git(root, 'ls-files', '--others', '--exclude-standard', '--', *folders)
  return None if different is None or new is None else sorted({*different, *new})


def left_out(
  tree: Tree, tests: Iterable[str], files: Collection[str], turn: int
) -> tuple[str, ...]:
  """Files of tests whose code did not change and whose turn it is not.

  Args:
    tree: of ALL_CODE.
    tests: all files of tests, from the root, as 'tests/dlx/state_test.py'.
    files: that changed.
    turn: each file runs in one of QUARTERS turns in a row.
  """
  if any(file in GROUND for file in files):
    return ()
  found = []
  for i, test in enumerate(sorted(x for x in tests if x.startswith(BY_CLOSURE))):
    module = test.removesuffix('.py').replace('/', '.')
    if turns.has_it(i, QUARTERS, turn):
      continue
    if tree.changed(module, files) is None:
      found.append(test)
  return tuple(found)


@functools.cache
def _here() -> tuple[Tree, tuple[str, ...]]:
  """The tree of this repository, and its files that changed; none where not known."""
  files = changed_files(REPO, folders=(*ALL_CODE, *GROUND))
  return Tree(REPO, ALL_CODE), tuple(files or ())


def _module(path: pathlib.Path) -> str:
  return '.'.join(path.relative_to(REPO).with_suffix('').parts)


def waits(
  number: int, of: int, files: Collection[str], path: pathlib.Path, turn: int | None
) -> bool:
  """Whether a test of that path with the mark `turns.seldom` does not run now.

  Args:
    number, of, files: of the mark.
    path: of its file, whose own change, or that of what it names, counts.
    turn: of now.
  """
  if turns.has_it(number, of, turn):
    return False
  tree, changed = _here()
  named = changed and tree.changed(_module(path), changed, named=True)
  return not named and set(files).isdisjoint(changed)


def closure_here(path: pathlib.Path) -> bool:
  """Whether a file of tests, or anything that its import runs, changed."""
  tree, changed = _here()
  return bool(changed) and tree.changed(_module(path), changed) is not None


@functools.cache
def left_out_here() -> tuple[str, ...]:
  """Of this repository and environment: none outside CI."""
  tree, files = _here()
  # Not known, or nothing: then the base is this commit itself.
  if turns.TURN is None or not files:
    return ()
  tests = [p.relative_to(REPO).as_posix() for p in REPO.glob('tests/**/*_test.py')]
  return left_out(tree, tests, files, turns.TURN)


if __name__ == '__main__':
  found = left_out_here()
  print(f'Files of tests left out, as nothing that they import changed: {len(found)}')
  for name in found:
    print(f'  {name}')
