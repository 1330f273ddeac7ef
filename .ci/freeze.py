"""Writes constraints.txt from what is installed in two virtual environments.

# After: pip install -e '.[test,reference,onednn]'
.venv311/bin/pip freeze --all > 311.txt
# After: pip install -e '.[test]'
.venv312/bin/pip freeze --all > 312.txt
python .ci/freeze.py 311.txt 312.txt > constraints.txt
"""

import pathlib
import sys

HEADER = """\
# The exact versions that .ci/run passed with, for everything that
# '.[test,reference,onednn]' installs. Where Python 3.11 and 3.12 differ, a marker says
# so. Written by .ci/freeze.py; do not edit by hand.
"""
OURS = ('dlx', 'pip')


def read(path: str) -> dict[str, str]:
  """Version by name, from the lines `name==version`; local versions (+cpu) cut off."""
  lines = pathlib.Path(path).read_text(encoding='utf-8').splitlines()
  pairs = (line.split('==') for line in lines if '==' in line and line[0] != '#')
  return {
    name: version.split('+')[0] for name, version in pairs if name.lower() not in OURS
  }


def merge(old: dict[str, str], new: dict[str, str]) -> list[str]:
  """One line for each package; two with markers where the Pythons differ."""
  lines = []
  for name in sorted({*old, *new}, key=str.lower):
    if old.get(name) == new.get(name):
      lines.append(f'{name}=={old[name]}')
      continue
    if name in old:
      lines.append(f'{name}=={old[name]}; python_version < "3.12"')
    if name in new:
      lines.append(f'{name}=={new[name]}; python_version >= "3.12"')
  return lines


if __name__ == '__main__':
  print(HEADER + '\n'.join(merge(read(sys.argv[1]), read(sys.argv[2]))))
