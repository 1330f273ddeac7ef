"""The rules of the house, read from the source by ast; nothing is imported.

launch -> experiments (by name, at run time) -> dlx -> kernels -> jax, and a few more.
Each rule is also shown a small tree that breaks it, and it alone.
"""

import ast
from collections.abc import Callable, Iterator
import functools
import pathlib
import re
import subprocess
import sys
from typing import NamedTuple

import pytest

REPO = pathlib.Path(__file__).resolve().parents[2]
CODE = ('dlx', 'experiments', 'kernels', 'launch')
MAX_LINES = 400
TOP_LEVEL = {
  *CODE, '.ci', '.github', '.gitignore', 'LICENSE', 'README.md', 'constraints.txt',
  'pyproject.toml', 'setup.py', 'tests',
}  # fmt: skip
VAGUE = re.compile(r'(^|_)(utils?|helpers?|misc)$')


class Rule(NamedTuple):
  """What the modules below `where` may import.

  Attributes:
    where: module prefixes that the rule speaks of.
    forbidden: module prefixes that they must not import.
    allowed: if given, all that they may import besides the standard library.
    but: module prefixes below `where` that the rule does not speak of.
  """

  where: tuple[str, ...]
  forbidden: tuple[str, ...] = ()
  allowed: tuple[str, ...] | None = None
  but: tuple[str, ...] = ()


# What may import flax: it moves from Linen to NNX, and the day dlx follows must cost a
# week, not a rewrite. The peer of a benchmark is Flax itself.
FLAX = ('dlx.layers', 'dlx.models', 'dlx.train', 'dlx.tasks', 'launch.benchmarks')

IMPORT_RULES = {
  'launch finds experiments by name': Rule(('launch',), ('experiments', 'tests')),
  'experiments never import each other': Rule(('experiments',), ('experiments',)),
  'experiments know no launcher': Rule(('experiments',), ('launch', 'tests')),
  'dlx knows what is above it by contract alone': Rule(
    ('dlx',), ('experiments', 'launch', 'tests')
  ),
  'kernels stand on jax and numpy alone': Rule(
    ('kernels',), allowed=('jax', 'kernels', 'numpy')
  ),
  'lessons stand on jax and numpy alone': Rule(
    ('dlx.scratch',), allowed=('dlx.scratch', 'jax', 'numpy')
  ),
  'the library does not call lessons': Rule(
    ('dlx', 'launch'), ('dlx.scratch',), but=('dlx.scratch',)
  ),
  'models know no data': Rule(('dlx.models',), ('dlx.data',)),
  'flax is imported where modules are made': Rule(
    ('dlx', 'experiments', 'launch'), ('flax',), but=FLAX
  ),
  'absl flags stay in launch': Rule(
    ('dlx', 'experiments', 'kernels'), ('absl.flags', 'absl.app')
  ),
}


# The floors of dlx, from the ground up: a room imports rooms of lower floors.
# On the ground floor everything may import everything; elsewhere the rooms of one floor
# know nothing of each other.
FLOORS = (
  (
    *('dlx.errors', 'dlx.state', 'dlx.precision', 'dlx.config', 'dlx.config_json'),
    *('dlx.config_text', 'dlx.leaving', 'dlx.beside'),
    *('dlx.experiment', 'dlx.labels', 'dlx.boxes', 'dlx.data.dataset'),
  ),
  (
    *('dlx.data', 'dlx.layers', 'dlx.losses', 'dlx.metrics', 'dlx.optim'),
    *('dlx.diffusion', 'dlx.detection'),
  ),
  ('dlx.scratch',),
  ('dlx.figures',),
  ('dlx.models', 'dlx.sampling', 'dlx.train'),
  ('dlx.tasks',),
  ('dlx.run',),
  ('dlx.study', 'dlx.report', 'dlx.inspect', 'dlx.commands'),
  ('dlx.runs', 'dlx.__main__'),
)


class Source(NamedTuple):
  """One file: its path below the root, its dotted name, its syntax tree."""

  path: pathlib.PurePath
  module: str
  tree: ast.Module


@functools.cache
def sources(root: pathlib.Path, folders=CODE, text='') -> tuple[Source, ...]:
  """All Python files in `folders` that hold the text; read once."""
  return tuple(_sources(root, folders, text))


def _sources(root: pathlib.Path, folders, text: str) -> Iterator[Source]:
  for path in sorted(p for f in folders for p in (root / f).rglob('*.py')):
    relative = path.relative_to(root)
    parts = relative.with_suffix('').parts
    module = '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)
    found = path.read_text(encoding='utf-8')
    if text in found:
      yield Source(relative, module, ast.parse(found))


def below(module: str, prefixes: tuple[str, ...]) -> bool:
  """Whether `module` is one of `prefixes` or inside of one."""
  return any(module == p or module.startswith(p + '.') for p in prefixes)


def imports(source: Source) -> Iterator[tuple[int, str]]:
  """Line and dotted name of every import, wherever it stands in the file.

  `from a import b` gives a.b, whether b is a module or a name in a. A literal given to
  import_module or __import__ counts, but for experiments: those are found by name.
  """
  package = source.module.split('.')
  if source.path.name != '__init__.py':
    package = package[:-1]
  for node in ast.walk(source.tree):
    if isinstance(node, ast.Import):
      yield from ((node.lineno, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      base = package[: len(package) + 1 - node.level] if node.level else []
      base = '.'.join([*base, *([node.module] if node.module else [])])
      yield from ((node.lineno, f'{base}.{alias.name}') for alias in node.names)
    elif isinstance(node, ast.Call) and node.args:
      called = node.func
      name = getattr(called, 'attr', None) or getattr(called, 'id', None)
      target = getattr(node.args[0], 'value', None)
      if name in ('import_module', '__import__') and isinstance(target, str):
        if not below(target, ('experiments',)):
          yield node.lineno, target


def room(module: str) -> tuple[int, str] | None:
  """The floor of a module of dlx and its room there; None: on no floor."""
  for floor, rooms in enumerate(FLOORS):
    for name in rooms:
      if below(module, (name,)):
        return floor, 'ground' if floor == 0 else name
  return None


def wrong_floors(root: pathlib.Path) -> list[str]:
  """Imports within dlx that lead up, or to another room of the same floor."""
  found = []
  for source in sources(root, ('dlx',)):
    if source.module == 'dlx':
      continue
    here = room(source.module)
    if here is None:
      found.append(f'{source.path}: stands on no floor of FLOORS')
      continue
    for line, name in imports(source):
      there = room(name)
      if there is not None and there[1] != here[1] and there[0] >= here[0]:
        found.append(f'{source.path}:{line}: imports {name}')
  return found


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
  """Sets of nodes that reach each other, each sorted (Tarjan's algorithm)."""
  index, low, stack, found = {}, {}, [], []

  def visit(node: str):
    index[node] = low[node] = len(index)
    stack.append(node)
    for other in sorted(arrows.get(node, ())):
      if other not in index:
        visit(other)
      if other in stack:
        low[node] = min(low[node], low[other])
    if low[node] == index[node]:
      at = stack.index(node)
      if len(stack) - at > 1:
        found.append(sorted(stack[at:]))
      del stack[at:]

  for node in sorted(arrows):
    if node not in index:
      visit(node)
  return found


def file_arrows(root: pathlib.Path) -> dict[str, set[str]]:
  """The modules that each module imports, anywhere in it."""
  known = {source.module: source for source in sources(root)}
  arrows: dict[str, set[str]] = {}
  for module, source in known.items():
    found = set()
    for _, name in imports(source):
      # `from a import b` is of a.b where that is a module, else of a.
      found |= {
        next((m for m in (name, name.rpartition('.')[0]) if m in known), module)
      }
    arrows[module] = found - {module}
  return arrows


def circles_of_files(root: pathlib.Path) -> list[str]:
  arrows = file_arrows(root)
  paths = {source.module: source.path for source in sources(root)}
  return [f'{paths[c[0]]}: a circle of files: {", ".join(c)}' for c in circles(arrows)]


def circles_of_folders(root: pathlib.Path) -> list[str]:
  """Circles of folders, seen from above: names cut to two and to three parts.

  The ground floor of dlx counts as one place, below dlx.data.
  """
  arrows, found = file_arrows(root), []
  for depth in (2, 3):

    def place(module: str, depth: int = depth) -> str:
      at = room(module)
      return 'ground' if at and at[0] == 0 else '.'.join(module.split('.')[:depth])

    folders: dict[str, set[str]] = {}
    for module, others in arrows.items():
      here = place(module)
      folders.setdefault(here, set()).update({place(m) for m in others} - {here})
    within = circles(arrows)  # A circle of files is told as such, once.
    for circle in circles(folders):
      if not any({place(m) for m in c} == set(circle) for c in within):
        found.append(f'{circle[0].replace(".", "/")}: a circle: {", ".join(circle)}')
  return found


def breaks(rule: Rule, root: pathlib.Path) -> list[str]:
  """The imports that a rule forbids, as `path:line: name`."""
  found = []
  for source in sources(root):
    if not below(source.module, rule.where) or below(source.module, rule.but):
      continue
    for line, name in imports(source):
      allowed = rule.allowed is None or (
        name.split('.')[0] in sys.stdlib_module_names or below(name, rule.allowed)
      )
      if below(name, rule.forbidden) or not allowed:
        found.append(f'{source.path}:{line}: imports {name}')
  return found


def uses_of_pmap(root: pathlib.Path) -> list[str]:
  """Every use of a name pmap, imported or taken from a module."""
  found = []
  for source in sources(root, (*CODE, 'tests'), 'pmap'):
    for node in ast.walk(source.tree):
      names = {getattr(node, 'attr', None), getattr(node, 'id', None)}
      if isinstance(node, ast.alias):
        names.add(node.name.split('.')[-1])
      if 'pmap' in names:
        found.append(f'{source.path}:{getattr(node, "lineno", 0)}: pmap')
  return found


def vague_names(root: pathlib.Path) -> list[str]:
  """Files and folders whose name says nothing."""
  paths = (source.path for source in sources(root, (*CODE, 'tests')))
  return [
    str(path)
    for path in paths
    if any(VAGUE.search(part) for part in path.with_suffix('').parts)
  ]


def long_files(root: pathlib.Path) -> list[str]:
  """Files past the length at which they hold two subjects."""
  found = []
  for source in sources(root):
    lines = len((root / source.path).read_text(encoding='utf-8').splitlines())
    if lines > MAX_LINES:
      found.append(f'{source.path}: {lines} lines')
  return found


def strange_entries(root: pathlib.Path) -> list[str]:
  """Tracked entries of the top folder that nobody agreed on."""
  listed = subprocess.run(
    ['git', 'ls-files', '-z'], cwd=root, check=True, capture_output=True, text=True
  ).stdout
  return sorted({path.split('/')[0] for path in listed.split('\0') if path} - TOP_LEVEL)


def import_check(rule: Rule) -> Callable[[pathlib.Path], list[str]]:
  return lambda root: breaks(rule, root)


CHECKS: dict[str, Callable[[pathlib.Path], list[str]]] = {
  **{name: import_check(rule) for name, rule in IMPORT_RULES.items()},
  'dlx is built floor upon floor': wrong_floors,
  'files form no circle': circles_of_files,
  'folders form no circle': circles_of_folders,
  'pmap is not used': uses_of_pmap,
  'names say what a file is about': vague_names,
  'a file holds one subject': long_files,
  'the top folder holds what was agreed': strange_entries,
}

# A tree in which every rule holds.
CLEAN = {
  'README.md': '',
  'dlx/__init__.py': '',
  'dlx/state.py': 'import jax\n',
  'dlx/data/dataset.py': 'from dlx import state\n',
  'dlx/data/batches.py': 'import numpy\nfrom dlx.data import dataset\n',
  'dlx/layers/dense.py': 'import flax.linen as nn\n',
  'dlx/losses.py': 'import jax\n',
  'dlx/models/cnn.py': 'from dlx.layers import dense\nfrom ..losses import jax\n',
  'dlx/scratch/tape.py': 'import numpy as np\nfrom dlx.scratch import rules\n',
  'dlx/scratch/rules.py': 'import jax.numpy as jnp\n',
  'dlx/train/steps.py': 'import dlx.losses\n',
  'dlx/run/loop.py': 'from dlx.data import batches\nfrom . import cadence\n',
  'dlx/run/cadence.py': 'import math\n',
  'dlx/run/records/plain.py': '',
  'dlx/run/store/a.py': 'from dlx.run.records import plain\n',
  'experiments/vision/cnn.py': (
    'from dlx.models import cnn\nimport kernels.attention\n'
  ),
  'kernels/attention/__init__.py': 'from . import tuned\n',
  'kernels/attention/tuned.py': 'import functools\nimport jax.numpy as jnp\n',
  'kernels/bench.py': 'import numpy as np\nfrom kernels.attention import tuned\n',
  'launch/train.py': (
    'from absl import app, flags\nimport importlib\nimport dlx.run.loop\n'
    "def load(name):\n  return importlib.import_module('experiments.vision.cnn')\n"
  ),
  'tests/cnn_test.py': (
    'from experiments.vision import cnn\nimport dlx\nimport launch.train\n'
  ),
}

# By name, so that a search of the tree for its use does not stop at these samples.
PMAP = 'pmap'

# (rule, file, its text): each breaks that rule and no other.
BROKEN = [
  ('launch finds experiments by name', 'launch/a.py', 'import experiments.cnn'),
  ('launch finds experiments by name', 'launch/a.py', 'from experiments import cnn'),
  ('launch finds experiments by name', 'launch/a.py', 'import experiments as e'),
  ('launch finds experiments by name', 'launch/a.py', 'from ..experiments import cnn'),
  ('launch finds experiments by name', 'launch/a.py', 'from tests import cnn_test'),
  ('experiments never import each other', 'experiments/a.py', 'from . import cnn'),
  ('experiments never import each other', 'experiments/a.py', 'from .cnn import build'),
  (
    'experiments never import each other',
    'experiments/a.py',
    'import experiments.vision.cnn',
  ),
  ('experiments know no launcher', 'experiments/a.py', 'from launch import train'),
  (
    'dlx knows what is above it by contract alone',
    'dlx/report/a.py',
    'def f():\n  import experiments.vision.cnn',
  ),
  (
    'dlx knows what is above it by contract alone',
    'dlx/report/a.py',
    'from launch.train import main',
  ),
  (
    'dlx knows what is above it by contract alone',
    'dlx/losses/a.py',
    "__import__('launch.train')",
  ),
  ('kernels stand on jax and numpy alone', 'kernels/a.py', 'import flax'),
  ('kernels stand on jax and numpy alone', 'kernels/a.py', 'from dlx import losses'),
  (
    'kernels stand on jax and numpy alone',
    'kernels/conv/a.py',
    'class A:\n  def f(self):\n    from scipy import signal',
  ),
  ('lessons stand on jax and numpy alone', 'dlx/scratch/a.py', 'import scipy'),
  ('lessons stand on jax and numpy alone', 'dlx/scratch/a.py', 'import dlx.state'),
  (
    'the library does not call lessons',
    'dlx/train/a.py',
    'from dlx.scratch import tape',
  ),
  ('the library does not call lessons', 'launch/a.py', 'import dlx.scratch.tape'),
  ('flax is imported where modules are made', 'dlx/run/a.py', 'import flax.linen'),
  ('flax is imported where modules are made', 'experiments/a.py', 'from flax import x'),
  ('dlx is built floor upon floor', 'dlx/train/a.py', 'import dlx.models.cnn'),
  ('dlx is built floor upon floor', 'dlx/train/a.py', 'from ..models import cnn'),
  ('dlx is built floor upon floor', 'dlx/train/a.py', 'from dlx.run import cadence'),
  ('dlx is built floor upon floor', 'dlx/data/a.py', 'from dlx import models'),
  (
    'dlx is built floor upon floor',
    'dlx/data/a.py',
    "import importlib\nimportlib.import_module('dlx.models.cnn')",
  ),
  ('dlx is built floor upon floor', 'dlx/data/__init__.py', 'from ..models import a'),
  ('models know no data', 'dlx/models/a.py', 'import dlx.data.batches'),
  ('dlx is built floor upon floor', 'dlx/models/vit/a.py', 'from ...train import step'),
  ('dlx is built floor upon floor', 'dlx/layers/a.py', 'from dlx.losses import jax'),
  (
    'dlx is built floor upon floor',
    'dlx/layers/a.py',
    'if True:\n  from dlx.train import steps',
  ),
  ('dlx is built floor upon floor', 'dlx/precision.py', 'import dlx.losses'),
  ('dlx is built floor upon floor', 'dlx/attic/a.py', 'import jax'),
  (
    'files form no circle',
    'dlx/run/cadence.py',
    'def f():\n  from dlx.run import loop',
  ),
  ('files form no circle', 'kernels/attention/tuned.py', 'import kernels.bench'),
  ('folders form no circle', 'dlx/run/records/a.py', 'from dlx.run.store import a\n'),
  ('absl flags stay in launch', 'dlx/losses/a.py', 'from absl import logging, flags'),
  ('absl flags stay in launch', 'experiments/a.py', 'import absl.flags'),
  (
    'absl flags stay in launch',
    'dlx/losses/a.py',
    'def f():\n  from absl.flags import FLAGS',
  ),
  ('pmap is not used', 'dlx/losses/a.py', f'import jax\nstep = jax.{PMAP}(abs)'),
  ('pmap is not used', 'launch/a.py', f'from jax import {PMAP} as p'),
  ('pmap is not used', 'tests/a_test.py', f'import jax as j\nstep = j.{PMAP}'),
  ('names say what a file is about', 'dlx/losses/utils.py', ''),
  ('names say what a file is about', 'launch/test_helpers.py', ''),
  ('names say what a file is about', 'tests/misc/a_test.py', ''),
  ('a file holds one subject', 'experiments/a.py', '\n' * (MAX_LINES + 1)),
  ('the top folder holds what was agreed', 'notes.md', ''),
  ('the top folder holds what was agreed', 'scripts/a.py', ''),
]


def plant(root: pathlib.Path, files: dict[str, str]) -> pathlib.Path:
  """Writes a tree and puts it under git, without a commit."""
  for name, text in files.items():
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')
  subprocess.run(['git', 'init', '-q'], cwd=root, check=True)
  subprocess.run(['git', 'add', '-A'], cwd=root, check=True)
  return root


@pytest.mark.parametrize('name', CHECKS)
def test_rule_holds(name):
  if CHECKS[name] is strange_entries and not (REPO / '.git').exists():
    pytest.skip('not a git checkout: what is tracked is not known')
  assert CHECKS[name](REPO) == []


def test_rules_see_the_code():
  seen = {source.module for source in sources(REPO)}
  assert {'dlx.experiment', 'dlx.state', *CODE} <= seen


def test_clean_tree_breaks_no_rule(tmp_path):
  root = plant(tmp_path, CLEAN)
  assert {name: check(root) for name, check in CHECKS.items()} == dict.fromkeys(
    CHECKS, []
  )


@pytest.mark.parametrize(('rule', 'path', 'text'), BROKEN)
def test_broken_tree_breaks_that_rule_alone(tmp_path, rule, path, text):
  root = plant(tmp_path, {**CLEAN, path: text})
  reported = {name: found for name, check in CHECKS.items() if (found := check(root))}
  assert list(reported) == [rule], reported
  # The report names the file, or the top folder it lies in.
  assert all(path.startswith(line.split(':')[0]) for line in reported[rule]), reported


def test_every_rule_is_seen_to_fail():
  assert {rule for rule, _, _ in BROKEN} == set(CHECKS)


@pytest.mark.parametrize(
  ('module', 'path', 'text', 'expected'),
  [
    ('a.b', 'a/b.py', 'import c.d as e, f', ['c.d', 'f']),
    ('a.b', 'a/b.py', 'from c.d import e as f, g', ['c.d.e', 'c.d.g']),
    ('a.b', 'a/b.py', 'from . import c', ['a.c']),
    ('a.b', 'a/__init__.py', 'from . import c', ['a.b.c']),
    ('a.b.c', 'a/b/c.py', 'from ..d import e', ['a.d.e']),
    ('a', 'a/__init__.py', 'from .b import *', ['a.b.*']),
    ('a', 'a.py', 'def f():\n  if f:\n    import b', ['b']),
    ('a', 'a.py', 'import_module(name)\n"import b"  # import c', []),
  ],
)
def test_imports_by_hand(module, path, text, expected):
  source = Source(pathlib.PurePath(path), module, ast.parse(text))
  assert [name for _, name in imports(source)] == expected
