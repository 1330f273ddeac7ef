"""The code of a run, found again: an experiment of dlx by its name, a fork by its copy.

What lies in a workdir is data until a person says otherwise. The copies of a fork in
WORKDIR/source run where the same files stand at hand, to the byte, where the run was
started from, or where they are trusted. dlx's own experiments need no trust.
"""

import contextlib
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import pathlib
import sys
import types
from typing import Any, Iterator, Mapping

from etils import epath

from dlx.errors import ConfigError
from dlx.run import experiments_by_name
from dlx.run.experiments_by_name import is_path
from dlx.run.records import sources


def refusal(run: Mapping[str, Any], workdir: Any) -> str | None:
  """Why the code of a run does not run without trust; None: it does.

  Args:
    run: config.json.
    workdir: where it lies.
  """
  name = run['experiment']
  if not is_path(name):
    return None if _own(name) else f'{name} is no experiment of dlx'
  then, now = _record(run).get('sha256', {}), at_hand(run)
  if lies_in(name, workdir):
    return f'{name} came with the workdir'
  if not now:
    return f'{name} is not there'
  if not then or sources.record(now)['sha256'] != then:
    return f'{name} is not as it was ({told(run, workdir, now)})'
  return None


def lies_in(name: str, workdir: Any) -> bool:
  """Whether the file of an experiment came with the workdir, or may have come with it.

  A run records the path from the root: another one was written by hand, and leads to
  wherever a person stands.
  """
  if is_path(name) and not pathlib.Path(name).is_absolute():
    return True
  folder = pathlib.Path(os.fspath(workdir)).expanduser().resolve()
  return is_path(name) and pathlib.Path(name).resolve().is_relative_to(folder)


def module(
  run: Mapping[str, Any], workdir: Any, exp: Any = None, trust: bool = False
) -> Any:
  """The module of the experiment of a run, imported; tells where it has changed since.

  Args:
    run: config.json.
    workdir: where it lies.
    exp: where the experiment is now: a name, the path of a file, or anything that has
      `Config` and `build`. None: as config.json says.
    trust: whether the copies in the workdir may run.

  Raises:
    ConfigError: no such experiment, or one that is not trusted.
  """
  if exp is not None and not isinstance(exp, (str, os.PathLike)):
    return _checked(exp, repr(exp))
  name = run['experiment'] if exp is None else os.fspath(exp)
  if not is_path(name) and (own := _own(name)):
    found = importlib.import_module(own)
    return _checked(_noted(run, workdir, found, sources.of(own)), name)
  if exp is not None:
    path = pathlib.Path(name).expanduser().resolve()
    if not path.is_file():
      raise ConfigError(f'exp={name} is no experiment: must be a name or a .py file.')
    if str(path.parent) not in sys.path:
      sys.path.append(str(path.parent))
    files = {path.stem: path.read_bytes()}
    found = _import(path.stem, files, {path.stem: path})
    return _checked(_noted(run, workdir, found, files), name)
  why = refusal(run, workdir)
  if why is not None and not trust:
    raise ConfigError(
      f'{workdir}: the code of the run does not run, as {why}: give exp=PATH of the '
      'experiment, or trust=True, which runs the copy in the workdir.'
    )
  files = kept(run, workdir)
  main = _record(run).get('main')
  if main not in files:
    raise ConfigError(
      f'{workdir} keeps no file of the experiment {name}: give exp=PATH where it is.'
    )
  for file, text in files.items():
    if hashlib.sha256(text).hexdigest() != _record(run)['sha256'][file]:
      raise ConfigError(
        f'{_path(workdir, file)} is not what config.json says: restore it, or give '
        'exp=PATH of the experiment.'
      )
  found = _import(main, files, {file: _path(workdir, file) for file in files})
  return _checked(_noted(run, workdir, found, at_hand(run)), name)


def kept(run: Mapping[str, Any], workdir: Any) -> dict[str, bytes]:
  """Contents of the copies in the workdir by module, as far as they are there."""
  paths = {name: _path(workdir, name) for name in _record(run).get('sha256', {})}
  return {name: path.read_bytes() for name, path in paths.items() if path.exists()}


def at_hand(run: Mapping[str, Any]) -> dict[str, bytes]:
  """Contents of the same files where the run was started from, the main one first.

  Nothing, where the main one is not there.
  """
  main, names = _record(run).get('main'), _record(run).get('sha256', {})
  path = pathlib.Path(run['experiment'])
  if main is None or not path.is_absolute() or not path.is_file():
    return {}
  folder, found = path.parents[main.count('.')], {main: path.read_bytes()}
  for name in names:
    for ending in ('.py', '/__init__.py'):
      file = folder / (name.replace('.', '/') + ending)
      if name not in found and file.is_file():
        found[name] = file.read_bytes()
  return found


def told(run: Mapping[str, Any], workdir: Any, now: Mapping[str, bytes]) -> str:
  """What differs between the files of the run and those of today; '' for nothing."""
  then = _record(run)
  if not then.get('main') or not now or sources.same(then, sources.record(now)):
    return ''
  return sources.difference(then, kept(run, workdir), now)


def _noted(run, workdir, found, now):
  if difference := told(run, workdir, now):
    print(f'The source is not that of the run: {difference}.', file=sys.stderr)
  return found


def _record(run: Mapping[str, Any]) -> Mapping[str, Any]:
  return run.get('source') or {}


def _path(workdir: Any, name: str) -> Any:
  if not all(part.isidentifier() for part in name.split('.')):
    raise ConfigError(f'{workdir}: config.json names {name!r} as a module: it is none.')
  return epath.Path(workdir) / 'source' / f'{name}.py'


def _own(name: str) -> str | None:
  """Dotted name of an experiment of dlx."""
  if name not in experiments_by_name.names():
    return None
  return experiments_by_name.module_name(name)


def _checked(found: Any, name: str) -> Any:
  lacks = [part for part in ('Config', 'build') if not hasattr(found, part)]
  if lacks:
    raise ConfigError(f'{name} is no experiment: it has no {" and no ".join(lacks)}.')
  return found


class _Texts(importlib.abc.MetaPathFinder, importlib.abc.Loader):
  """Imports modules out of texts; nothing is written beside them."""

  def __init__(self, texts: Mapping[str, bytes], paths: Mapping[str, Any]):
    self._texts, self._paths = texts, paths

  def find_spec(self, fullname, path=None, target=None):
    inside = any(name.startswith(f'{fullname}.') for name in self._texts)
    if fullname in self._texts:
      return importlib.util.spec_from_file_location(
        fullname,
        os.fspath(self._paths[fullname]),
        loader=self,
        submodule_search_locations=[] if inside else None,
      )
    if inside:  # A folder without __init__.py.
      return importlib.machinery.ModuleSpec(fullname, None, is_package=True)
    return None

  def exec_module(self, module):
    name = module.__name__
    code = compile(self._texts[name], os.fspath(self._paths[name]), 'exec')
    exec(code, module.__dict__)


@contextlib.contextmanager
def _found_first(finder: _Texts) -> Iterator[None]:
  sys.meta_path.insert(0, finder)
  try:
    yield
  finally:
    sys.meta_path.remove(finder)
    sys.meta_path.append(finder)  # For imports inside its functions.


def _import(
  main: str, texts: Mapping[str, bytes], paths: Mapping[str, Any]
) -> types.ModuleType:
  """Imports `main` under a name of its own, beside today's module of that name.

  Modules that it imports keep their names: others of those names must not be loaded.
  """
  for name, text in texts.items():
    file = getattr(sys.modules.get(name), '__file__', None)
    if name != main and file and pathlib.Path(file).read_bytes() != text:
      raise ConfigError(
        f'{paths[name]}: another {name} is loaded ({file}): open the run in a process '
        'of its own.'
      )
  package, _, stem = main.rpartition('.')
  every = hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()
  own = f'{package}{"." * bool(package)}{stem}_{every[:12]}'
  if own not in sys.modules:
    of = lambda old: {own if k == main else k: v for k, v in old.items()}
    with _found_first(_Texts(of(texts), of(paths))):
      importlib.import_module(own)
  return sys.modules[own]
