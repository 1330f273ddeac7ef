"""Importing the code pulls in no heavy library that the code does not use at once.

What counts is the attempt to import: the test finds it out also where the library is
not installed.
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

REPO = pathlib.Path(__file__).resolve().parents[2]
NEVER = ('tensorflow', 'torch', 'tensorflow_datasets', 'matplotlib')
# The bench's peers are those libraries; a process of their own imports each.
PEERS = ('launch.benchmarks.keras_peer.', 'launch.benchmarks.torch_peer.')
# The contract is imported by everything, so it is to be light.
NOT_BY_THE_CONTRACT = (*NEVER, 'grain', 'orbax', 'sklearn')

# Imports modules one after the other; prints, by module, what it was first to ask for.
PROBE = """
import importlib, json, sys

class Recorder:
  asked = set()
  def find_spec(self, name, path=None, target=None):
    self.asked.add(name.split('.')[0])

sys.meta_path.insert(0, Recorder())
modules, heavy = json.loads(sys.argv[1])
found = {}
for module in modules:
  importlib.import_module(module)
  new = (Recorder.asked | {name.split('.')[0] for name in sys.modules}) & set(heavy)
  if new:
    found[module] = sorted(new)
    heavy = set(heavy) - new
print(json.dumps(found))
"""


def modules_of(root: pathlib.Path, *folders: str) -> list[str]:
  """Dotted names of all modules in `folders`, but for __main__."""
  files = sorted(path for f in folders for path in (root / f).rglob('*.py'))
  parts = [path.relative_to(root).with_suffix('').parts for path in files]
  names = ['.'.join(p[:-1] if p[-1] == '__init__' else p) for p in parts]
  return [name for name in names if not name.endswith('__main__')]


def asked_for(modules, heavy, root: pathlib.Path = REPO) -> dict[str, list[str]]:
  """Heavy libraries by the module whose import asked for them, in a fresh process."""
  done = subprocess.run(
    [sys.executable, '-c', PROBE, json.dumps([modules, heavy])],
    env={**os.environ, 'PYTHONPATH': str(root)}, cwd=root,
    capture_output=True, text=True,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


def test_no_module_imports_a_heavy_library():
  modules = modules_of(REPO, 'dlx', 'experiments', 'kernels', 'launch')
  modules = [name for name in modules if not name.startswith(PEERS)]
  assert 'dlx.state' in modules
  assert asked_for(modules, NEVER) == {}


def test_the_contract_is_light():
  assert asked_for(['dlx', 'dlx.experiment'], NOT_BY_THE_CONTRACT) == {}


def test_the_package_itself_imports_nothing():
  assert asked_for(['dlx'], ['jax', 'numpy', 'flax']) == {}


@pytest.mark.parametrize('body', ['import torch', 'import torch.nn', 'import b'])
def test_probe_finds_a_heavy_import(tmp_path, body):
  (tmp_path / 'a.py').write_text(f'try:\n  {body}\nexcept ImportError:\n  pass\n')
  (tmp_path / 'b.py').write_text('from torch import nn\n')
  (tmp_path / 'c.py').write_text('def f():\n  import torch\n')
  (tmp_path / 'torch.py').write_text('')
  assert asked_for(['c', 'a'], NEVER, tmp_path) == {'a': ['torch']}


def test_probe_finds_an_attempt(tmp_path):
  text = 'try:\n  import tensorflow\nexcept ImportError:\n  pass\n'
  (tmp_path / 'a.py').write_text(text)
  assert asked_for(['a'], ('tensorflow',), tmp_path) == {'a': ['tensorflow']}
