"""The user's code of a run: the experiment's file and the files that it imports.

Files of dlx itself do not count, as commit and version say what they were; neither do
installed packages. What was imported is read from the files, not executed.
"""

import ast
import difflib
import hashlib
import pathlib
import sys
import sysconfig
from typing import Any, Iterator, Mapping

OWN = ('dlx', 'kernels', 'launch')


def of(module_name: str) -> dict[str, bytes]:
  """Contents of the files, by module name, the experiment's own first.

  Args:
    module_name: of the experiment, imported; from a notebook, which is no file, none.
  """
  found: dict[str, bytes] = {}
  open_ = [module_name]
  while open_:
    name = open_.pop(0)
    path = _file(name)
    if name in found or path is None or (found and not _is_users(name, path)):
      continue
    try:
      found[name] = path.read_bytes()
      open_ += imported(name, path, ast.parse(found[name]))
    except (OSError, SyntaxError, ValueError):
      continue
  return found


def record(files: Mapping[str, bytes]) -> dict[str, Any]:
  """What config.json says of them: `sha256` of each, and `main`, the experiment's."""
  return {
    'main': next(iter(files), None),
    'sha256': {name: hashlib.sha256(text).hexdigest() for name, text in files.items()},
  }


def same(former: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
  """Whether two records are of the same code, wherever it lies and however named."""
  own = lambda of: of['sha256'].get(of['main'])
  rest = lambda of: sorted(v for k, v in of['sha256'].items() if k != of['main'])
  return (own(former), rest(former)) == (own(now), rest(now))


def difference(
  former: Mapping[str, Any], kept: Mapping[str, bytes], files: Mapping[str, bytes]
) -> str:
  """Which files changed and by how many lines, as one line.

  Args:
    former: the record of then.
    kept: contents of then, as far as they are there.
    files: contents of today.
  """
  then = {'' if k == former['main'] else k: v for k, v in former['sha256'].items()}
  told = []
  for i, (name, text) in enumerate(files.items()):
    old = then.pop(name if i else '', None)
    if old is None:
      told.append(f'{name} is new')
    elif old != hashlib.sha256(text).hexdigest():
      told.append(name + _lines(kept.get(name if i else former['main']), text))
  told += [f'{name} is gone' for name in then]
  return ', '.join(told)


def _lines(old: bytes | None, new: bytes) -> str:
  if old is None:
    return ''
  lines = lambda text: text.decode(errors='replace').splitlines()
  signs = [line[0] for line in difflib.ndiff(lines(old), lines(new))]
  return f' ({signs.count("+")} lines added, {signs.count("-")} removed)'


def _file(name: str) -> pathlib.Path | None:
  origin = getattr(sys.modules.get(name), '__file__', None)
  return pathlib.Path(origin) if origin and origin.endswith('.py') else None


def _is_users(name: str, path: pathlib.Path) -> bool:
  kinds = ('stdlib', 'platstdlib', 'purelib', 'platlib')
  installed = {pathlib.Path(sysconfig.get_path(kind)).resolve() for kind in kinds}
  inside = any(path.resolve().is_relative_to(folder) for folder in installed)
  return name.partition('.')[0] not in OWN and not inside


def imported(name: str, path: pathlib.PurePath, tree: ast.Module) -> Iterator[str]:
  """Names that a module imports, anywhere in it: modules, and what may be one.

  Args:
    name: of the module.
    path: of its file.
    tree: its text, parsed.
  """
  package = name.split('.') if path.name == '__init__.py' else name.split('.')[:-1]
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      base = package[: len(package) + 1 - node.level] if node.level else []
      whole = '.'.join([*base, *([node.module] if node.module else [])])
      yield whole
      yield from (f'{whole}.{alias.name}' for alias in node.names)
