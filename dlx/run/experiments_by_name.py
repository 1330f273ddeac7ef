"""Finds an experiment or a study by name (experiments/AREA/NAME.py) or by the path.

A study is a file with `study(config)` in place of `build(config)`.
"""

import ast
import dataclasses
import difflib
import importlib
import importlib.util
import pathlib
import pkgutil
import sys
import types
from typing import Any, Callable, NamedTuple

from dlx import beside
from dlx.errors import ConfigError

PACKAGE = 'experiments'


class Found(NamedTuple):
  """An experiment that was found.

  Attributes:
    name: as given, or the absolute path of a fork: finds it again from anywhere.
    short: the name, or the stem of the path; for folders and headings.
    module: the module itself.
    config_class: its `Config`.
    build: its `build`, with early stopping where the config asks for it.
  """

  name: str
  short: str
  module: types.ModuleType
  config_class: type
  build: Callable[[Any], Any]


class FoundStudy(NamedTuple):
  """A study that was found; see `Found`.

  Attributes:
    study: config -> Study, see dlx/study/declaration.py.
  """

  name: str
  short: str
  module: types.ModuleType
  config_class: type
  study: Callable[[Any], Any]


def is_path(name: str) -> bool:
  """Whether an experiment is named by the path of its file."""
  return name.endswith('.py') or '/' in name or '\\' in name


def _folder() -> pathlib.Path:
  """Where the experiments lie; behind it may be a folder of that name of the user's."""
  beside.claim(PACKAGE)
  return pathlib.Path(importlib.import_module(PACKAGE).__path__[0])


def by_area() -> dict[str, list[str]]:
  """Names of experiments and studies by area; both sorted; imports none.

  An area is a folder of experiments/.

  Raises:
    ConfigError: a name that stands in two areas.
  """
  folder = _folder()
  areas = {
    area.name: sorted(
      found.name
      for found in pkgutil.iter_modules([str(folder / area.name)])
      if not found.ispkg and not found.name.startswith('_')
    )
    for area in pkgutil.iter_modules([str(folder)])
    if area.ispkg and not area.name.startswith('_')
  }
  area_of: dict[str, str] = {}
  for area, found in areas.items():
    for name in found:
      if name in area_of:
        raise ConfigError(
          f'{PACKAGE}/{area_of[name]}/{name}.py and {PACKAGE}/{area}/{name}.py have '
          'one name: must be unique over all areas; rename one of them.'
        )
      area_of[name] = area
  return dict(sorted(areas.items()))


def names() -> list[str]:
  """The experiments of all areas, sorted; imports none of them."""
  return [name for name in _all_names() if not is_study(name)]


def studies() -> list[str]:
  """The studies of all areas, sorted; imports none of them."""
  return [name for name in _all_names() if is_study(name)]


def _all_names() -> list[str]:
  return sorted(name for found in by_area().values() for name in found)


def is_study(exp: str) -> bool:
  """Whether a name or a path is that of a study, by the text of its file.

  Raises:
    ConfigError: no such name.
    OSError, SyntaxError: the file cannot be read.
  """
  tree = ast.parse(_file_of(exp).read_text(encoding='utf-8'))
  return any(isinstance(n, ast.FunctionDef) and n.name == 'study' for n in tree.body)


def _file_of(exp: str) -> pathlib.Path:
  if is_path(exp):
    return pathlib.Path(exp).expanduser()
  return _folder().joinpath(*module_name(exp).split('.')[1:]).with_suffix('.py')


def module_name(name: str) -> str:
  """Dotted name of the module of an experiment, e.g. experiments.vision.cnn.

  Raises:
    ConfigError: no such experiment; the message has the nearest name and the areas.
  """
  areas = by_area()
  for area, found in areas.items():
    if name in found:
      return f'{PACKAGE}.{area}.{name}'
  known = [other for found in areas.values() for other in found]
  close = difflib.get_close_matches(name, known, n=1)
  hint = f' Did you mean {close[0]}?' if close else ''
  raise ConfigError(
    f'--exp={name} is no experiment.{hint} Must be one of '
    f'{", ".join(sorted(known))}, or the path of a .py file.'
  )


def listing() -> str:
  """Every experiment by area with the first line of its docstring; imports none."""
  lines = []
  for area, found in by_area().items():
    lines.append(area)
    width = max(map(len, found), default=0)
    for name in found:
      text = (_folder() / area / f'{name}.py').read_text(encoding='utf-8')
      doc = ast.get_docstring(ast.parse(text)) or ''
      lines.append(f'  {name:<{width}}  {doc.partition(chr(10))[0]}'.rstrip())
  return '\n'.join(lines)


def path_of(exp: str) -> pathlib.Path:
  """The file of an experiment or a study, by its name or its path; imports nothing.

  Raises:
    ConfigError: no such experiment.
  """
  file = _file_of(exp)
  return _existing(exp, file.resolve()) if is_path(exp) else file


def other_module(path: pathlib.Path) -> str | None:
  """The file of another module that has the name of a file; None: there is none."""
  try:
    spec = importlib.util.find_spec(path.stem)
  except ValueError:  # A module that was not imported, as __main__.
    return path.stem
  origin = None if spec is None else spec.origin
  return None if origin is None or _is_file(origin, path.resolve()) else origin


def fields_by_text(exp: str) -> list[str]:
  """Names of the fields of an experiment's Config, read and not imported.

  Those of groups and of other bases than dlx's Config are left out.

  Raises:
    ConfigError: no such experiment.
    OSError, SyntaxError: the file cannot be read.
  """
  ground = pathlib.Path(beside.ROOT, 'dlx', 'config.py')
  base = 'StudyConfig' if is_study(exp) else 'Config'
  found = []
  for file, name in ((_file_of(exp), 'Config'), (ground, base)):
    for node in ast.parse(file.read_text(encoding='utf-8')).body:
      if isinstance(node, ast.ClassDef) and node.name == name:
        found += [
          part.target.id
          for part in node.body
          if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
        ]
  return found


def load(exp: str | None) -> Found:
  """Imports an experiment.

  Args:
    exp: a name, or a path: whatever ends in .py or has a separator in it.

  Raises:
    ConfigError: no such experiment, or one without `Config` or `build`. What goes wrong
      inside the experiment's own code is a bug and is raised as it is.
  """
  found = load_any(exp)
  if isinstance(found, FoundStudy):
    raise ConfigError(
      f'--exp={exp} is a study of many runs: launch.train runs it; here give one of '
      'the experiments that it names.'
    )
  return found


def load_any(exp: str | None) -> Found | FoundStudy:
  """Imports an experiment or a study. Raises as `load` does."""
  if not exp:
    raise ConfigError(
      f'--exp is missing: must be one of {", ".join(names())}, or the '
      'path of a .py file.'
    )
  if is_path(exp):
    path = pathlib.Path(exp).expanduser().resolve()
    return _checked(str(path), path.stem, _load_file(exp, path))
  return _checked(exp, exp, importlib.import_module(module_name(exp)))


def given(exp: Any, config: Any = None) -> Found:
  """An experiment that is at hand: what a notebook has.

  Args:
    exp: a module, or anything with `Config` and `build`; or a function `build`.
    config: of such a function.

  Raises:
    ConfigError: see `load`.
  """
  from dlx.run import origin  # Imports jax.

  if config is not None and not hasattr(exp, 'build') and callable(exp):
    exp = types.SimpleNamespace(Config=type(config), build=exp)
  if not isinstance(exp, types.ModuleType):
    config_class, build = getattr(exp, 'Config', None), getattr(exp, 'build', None)
    module = getattr(config_class, '__module__', '')
    exp = types.SimpleNamespace(Config=config_class, build=build, __name__=module)
  name = origin.name_of(exp.__name__)
  return _checked(name, pathlib.PurePath(name).stem, exp)


def _load_file(exp: str, path: pathlib.Path) -> types.ModuleType:
  """Imports a file under its stem, with its folder at the end of the search path.

  Worker processes that read data get functions of the fork by the name of its module,
  and find that name by the search path: an invented name would fail there.
  """
  name, folder = _existing(exp, path).stem, str(path.parent)
  if '.' in name:
    raise ConfigError(
      f'--exp={exp}: {name!r} cannot be the name of a module: rename '
      'the file, without the dot.'
    )
  loaded = sys.modules.get(name)
  if loaded is not None and _is_file(getattr(loaded, '__file__', None), path):
    return loaded
  if folder not in sys.path:
    sys.path.append(folder)
  importlib.invalidate_caches()
  other = loaded.__spec__ if loaded is not None else importlib.util.find_spec(name)
  if loaded is not None or other is None or not _is_file(other.origin, path):
    where = other.origin if other is not None else 'loaded already'
    raise ConfigError(
      f'--exp={exp}: the name {name} belongs to another module '
      f'({where}): rename the file.'
    )
  # import_module puts the module into sys.modules before it is executed, which
  # dataclasses with postponed annotations need, and takes it out where that fails.
  return importlib.import_module(name)


def _existing(exp: str, path: pathlib.Path) -> pathlib.Path:
  """The path, unless ConfigError says that no Python file is there."""
  if path.suffix != '.py' or not path.is_file():
    raise ConfigError(
      f'--exp={exp}: no such file; must be the path of a .py file, or '
      f'one of {", ".join(names())}.'
    )
  return path


def _is_file(origin: str | None, path: pathlib.Path) -> bool:
  return origin is not None and pathlib.Path(origin).resolve() == path


def _checked(name: str, short: str, module: Any) -> Any:
  """Found, or FoundStudy; raises ConfigError unless the module is one of them."""
  # Imported here, since it imports jax: the names above must be quick to list.
  from dlx.config import StudyConfig
  from dlx.experiment import Config
  from dlx.train.early_stopping import with_early_stopping

  config_class, build = getattr(module, 'Config', None), getattr(module, 'build', None)
  study = getattr(module, 'study', None)
  if config_class is None or not (callable(build) or callable(study)):
    lacks = 'Config' if config_class is None else 'build'
    raise ConfigError(
      f'--exp={name} is no experiment: it has no {lacks}; it must have '
      'a Config and build(config), or study(config).'
    )
  if callable(build):
    base, called = Config, 'dlx.experiment.Config'
  else:
    base, called = StudyConfig, 'dlx.config.StudyConfig'
  if (
    not isinstance(config_class, type)
    or not issubclass(config_class, base)
    or '__dataclass_fields__' not in vars(config_class)
    or not all(f.kw_only for f in dataclasses.fields(config_class))
  ):
    raise ConfigError(
      f'--exp={name}: its Config is not allowed: must be '
      '@dataclasses.dataclass(frozen=True, kw_only=True) class '
      f'Config({called}).'
    )
  if not callable(build):
    assert callable(study)
    return FoundStudy(name, short, module, config_class, study)

  def whole(config: Any) -> Any:
    return with_early_stopping(module.build(config), config)

  return Found(name, short, module, config_class, whole)
