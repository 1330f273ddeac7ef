"""Lines of an experiment's file: where what a finding is about stands."""

import ast
import pathlib
from typing import Any, Iterator


def find(module: Any, about: str) -> str:
  """'FILE:LINE' of a field of Config, or of what `build` makes or is given.

  Args:
    module: of the experiment.
    about: the name of a field, of a function, of a variable or of an argument; the
      first that is there of several with blanks between them.

  Returns:
    Of what is not there the line of `build`; '' where there is no source.
  """
  path = getattr(module, '__file__', None)
  if path is None or not about:
    return ''
  try:
    tree = ast.parse(pathlib.Path(path).read_text(encoding='utf-8'))
  except (OSError, SyntaxError):
    return ''
  lines: dict[str, int] = {}
  for name, line in _named(tree):
    lines.setdefault(name, line)
  found = next((lines[name] for name in about.split() if name in lines), None)
  found = lines.get('build') if found is None else found
  return '' if found is None else f'{pathlib.Path(path).name}:{found}'


def _named(tree: ast.Module) -> Iterator[tuple[str, int]]:
  """(name, line): fields of Config first, then what stands in functions."""
  for node in tree.body:
    if isinstance(node, ast.ClassDef) and node.name == 'Config':
      for part in node.body:
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
          yield part.target.id, part.lineno
  functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
  for node in (part for function in functions for part in ast.walk(function)):
    if isinstance(node, ast.FunctionDef):
      yield node.name, node.lineno
    elif isinstance(node, ast.keyword) and node.arg:
      yield node.arg, node.lineno
    elif isinstance(node, ast.Assign):
      yield from ((t.id, t.lineno) for t in node.targets if isinstance(t, ast.Name))
