"""The command lines by name, and what there is to train: read from files, not imported.

`python -m launch` and `dlx` print it.
"""

import ast
import pathlib

from dlx import beside
from dlx.run import experiments_by_name

PACKAGE = 'launch'


def commands() -> dict[str, str]:
  """The first line of what each says of itself, by name; imports none."""
  found = {}
  for path in sorted(pathlib.Path(beside.ROOT, PACKAGE).glob('[!_]*.py')):
    tree = ast.parse(path.read_text(encoding='utf-8'))
    if any(isinstance(n, ast.FunctionDef) and n.name == 'main' for n in tree.body):
      found[path.stem] = (ast.get_docstring(tree) or '').partition('\n')[0]
  return found


def listing(start: str) -> str:
  """All commands and all experiments by area, a line each.

  Args:
    start: what stands before the name of a command, e.g. 'python -m launch.'.
  """
  known = commands()
  width = max(map(len, known), default=0)
  lines = [f'{start}{name:<{width}}  {text}'.rstrip() for name, text in known.items()]
  return '\n'.join(
    [
      *lines,
      f'\n{start}NAME --help says more. Experiments, by --exp=NAME or by a path:\n',
      experiments_by_name.listing(),
    ]
  )
