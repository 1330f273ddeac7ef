"""Writes constraints.txt from what is installed in one virtual environment a Python.

# After: pip install -e '.[test,reference,onednn]'
.venv311/bin/pip freeze --all > 311.txt
# After: pip install -e '.[test]'
.venv312/bin/pip freeze --all > 312.txt
# After: pip install -e '.[test,onednn]'
.venv313/bin/pip freeze --all > 313.txt
python .ci/freeze.py 3.11=311.txt 3.12=312.txt 3.13=313.txt > constraints.txt
"""

import itertools
import pathlib
import sys

HEADER = """\
# The exact versions that .ci/run passed with, for everything that
# '.[test,reference,onednn]' installs. Where Pythons differ, a marker says so. Written
# by .ci/freeze.py; do not edit by hand.
"""
OURS = ('dlx', 'pip')


def read(path: str) -> dict[str, str]:
  """Version by name, from the lines `name==version`; local versions (+cpu) cut off."""
  lines = pathlib.Path(path).read_text(encoding='utf-8').splitlines()
  pairs = (line.split('==') for line in lines if '==' in line and line[0] != '#')
  return {
    name: version.split('+')[0] for name, version in pairs if name.lower() not in OURS
  }


def merge(frozen: dict[str, dict[str, str]]) -> list[str]:
  """One line for each package; several with markers where the Pythons differ.

  A Python without a package takes the version of the next older one that has it, or
  else of the next newer: a constraint installs nothing, and so a package that one
  environment lacks (torch, oneDNN) is pinned there too should somebody add it.

  Args:
    frozen: by Python, oldest first, the versions by name.
  """
  lines = []
  for name in sorted(set().union(*frozen.values()), key=str.lower):
    known = [versions[name] for versions in frozen.values() if name in versions]
    filled, last = [], known[0]
    for python, versions in frozen.items():
      last = versions.get(name, last)
      filled.append((python, last))
    runs = [list(run) for _, run in itertools.groupby(filled, lambda pair: pair[1])]
    for i, run in enumerate(runs):
      bounds = [f'python_version >= "{run[0][0]}"'] if i else []
      bounds += [f'python_version < "{later[0][0]}"' for later in runs[i + 1 : i + 2]]
      marker = f'; {" and ".join(bounds)}' if bounds else ''
      lines.append(f'{name}=={run[0][1]}{marker}')
  return lines


if __name__ == '__main__':
  given = dict(argument.split('=', 1) for argument in sys.argv[1:])
  print(HEADER + '\n'.join(merge({key: read(path) for key, path in given.items()})))
