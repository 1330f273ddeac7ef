"""Copies of experiments that know where they come from, and what changed since.

A fork is the text of its parent with a few lines more at the end of its docstring:

  Forked 2026-11-30 from experiments/vision/cnn.py
    commit 7380799c0a0f6a29f5e2a3a1d3a9a4c1a5a0b6f1
    sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

A path is below the checkout of dlx where it is relative. Where there is no git, `dlx`
and its version stand in place of the commit. The fork of a fork keeps the lines of its
parent below its own. Nothing here imports an experiment.
"""

import ast
import datetime
import difflib
import hashlib
import pathlib
import re
import subprocess
from typing import NamedTuple

from dlx import beside
from dlx.errors import ConfigError
from dlx.run import experiments_by_name
from dlx.run.records import environment

_LINES = re.compile(
  r'^Forked (?P<date>\d{4}-\d\d-\d\d) from (?P<path>.+)\n'
  r'  (?P<kind>commit|dlx) (?P<version>\S+)\n'
  r'  sha256 (?P<sha256>[0-9a-f]{64})$',
  re.MULTILINE,
)


class Parent(NamedTuple):
  """Where a fork comes from.

  Attributes:
    date: of the fork, YYYY-MM-DD, UTC.
    path: of the parent's file; relative: below the checkout of dlx.
    kind: 'commit', or 'dlx' where no git knows the file.
    version: the commit, or the version of dlx.
    sha256: of the parent's text as it was copied.
  """

  date: str
  path: str
  kind: str
  version: str
  sha256: str

  def __str__(self) -> str:
    return (
      f'Forked {self.date} from {self.path}\n'
      f'  {self.kind} {self.version}\n  sha256 {self.sha256}'
    )

  @property
  def file(self) -> pathlib.Path:
    """Where the parent lies, if it is there still."""
    return pathlib.Path(beside.ROOT, self.path)


class Difference(NamedTuple):
  """A fork beside its parent.

  Attributes:
    parent: as the fork names it.
    own: unified diff from the parent as it was; None: git does not have it.
    upstream: unified diff from the parent as it was to that of today; likewise.
    today: unified diff from the parent of today; None: it is gone.
    age: in words, e.g. '12 days ago, 3 commits of the parent since'.
  """

  parent: Parent
  own: str | None
  upstream: str | None
  today: str | None
  age: str


def fork(exp: str, target: pathlib.Path) -> Parent:
  """Writes a copy of an experiment or a study that stands alone.

  Args:
    exp: a name in experiments/, or the path of a .py file, itself a fork or not.
    target: the new file. What is there is never overwritten.

  Raises:
    ConfigError: no such experiment, a path that cannot be the fork's, or a parent that
      does not stand alone.
  """
  file = experiments_by_name.path_of(exp).resolve()
  source = _read(file)
  _check_target(target)
  _check_alone(file, source, target)
  parent = _parent(file, source)
  text = _as_fork(source, file, target, parent)
  try:
    with target.open('x', encoding='utf-8', newline='') as new:
      new.write(text)
  except FileExistsError:
    raise _taken(target) from None
  return parent


def parent_of(source: str) -> Parent | None:
  """The nearest parent that the docstring of a file names; None: it names none."""
  found = _LINES.search(_docstring(source) or '')
  return None if found is None else Parent(**found.groupdict())


def difference(path: pathlib.Path) -> Difference:
  """What a fork changed, and what its parent did since.

  The lines that `fork` wrote make no difference.

  Raises:
    ConfigError: no Python file, or one that names no parent.
  """
  path = experiments_by_name.path_of(str(path.absolute()))
  source = _read(path)
  parent = parent_of(source)
  if parent is None:
    raise ConfigError(
      f'{path} names no parent: must be a file that `python -m launch.fork NAME PATH` '
      'wrote, with the lines "Forked ..." in its docstring.'
    )
  file = parent.file
  then = _as_it_was(parent)
  now = _read(file) if file.is_file() else None
  was, name = f'{parent.path} ({parent.version[:12]})', f'{parent.path} (today)'
  age = _age(parent, then is not None and now is not None)

  def diff(a: str | None, b: str | None, of_a: str, of_b: str) -> str | None:
    if a is None or b is None:
      return None
    old, new = (text.splitlines(keepends=True) for text in (a, b))
    found = difflib.unified_diff(old, new, of_a, of_b)
    return ''.join(x if x.endswith('\n') else x + '\n' for x in found)

  def forked(text: str | None) -> str | None:
    return None if text is None else _as_fork(text, file, path, parent)

  return Difference(
    parent,
    own=diff(forked(then), source, was, str(path)),
    upstream=diff(then, now, was, name),
    today=diff(forked(now), source, name, str(path)),
    age=age,
  )


def _docstring(source: str) -> str | None:
  return ast.get_docstring(ast.parse(source), clean=False)


def _read(path: pathlib.Path) -> str:
  """The text of a file that is Python, its line ends as they are."""
  try:
    text = path.read_bytes().decode('utf-8')
    ast.parse(text)
  except (UnicodeDecodeError, SyntaxError, ValueError) as error:
    line = getattr(error, 'lineno', None)
    where = f', line {line}' if line else ''
    raise ConfigError(f'{path}{where} is no Python: {error}: mend it first.') from None
  return text


def _taken(target: pathlib.Path) -> ConfigError:
  return ConfigError(
    f'{target} is there already: a fork overwrites nothing; choose another path.'
  )


def _check_target(target: pathlib.Path):
  if target.suffix != '.py' or not target.stem.isidentifier():
    raise ConfigError(
      f'PATH={target} is not allowed: must be NAME.py, with a NAME of letters, digits '
      'and "_" that does not begin with a digit.'
    )
  if target.exists() or target.is_symlink():
    raise _taken(target)
  if not target.parent.is_dir():
    raise ConfigError(f'PATH={target} is not allowed: {target.parent} is no folder.')
  if other := experiments_by_name.other_module(target):
    raise ConfigError(
      f'PATH={target} is not allowed: the name {target.stem} belongs to another module '
      f'({other}): choose another.'
    )


def _check_alone(file: pathlib.Path, source: str, target: pathlib.Path):
  """Raises ConfigError where the file needs others that lie beside it."""
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.ImportFrom):
      names = [node.module or '']
      if node.level:
        raise ConfigError(
          f'{file}, line {node.lineno}: a relative import is not allowed in what is '
          'copied: name the module from the top.'
        )
    elif isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    else:
      continue
    for name in (name.partition('.')[0] for name in names):
      near = [file.parent / f'{name}.py', file.parent / name / '__init__.py']
      if target.resolve().parent != file.parent and any(x.is_file() for x in near):
        raise ConfigError(
          f'{file}, line {node.lineno}: imports {name}, which lies beside it: put the '
          f'fork into {file.parent}, or move what it needs into the file first.'
        )


def _parent(file: pathlib.Path, source: str) -> Parent:
  """The lines of a file that is copied today."""
  root = pathlib.Path(beside.ROOT).resolve()
  path = file.relative_to(root) if file.is_relative_to(root) else file
  kind, version = 'commit', _commit(file)
  if version is None:
    kind, version = 'dlx', str(environment.versions()['dlx'])
  return Parent(
    datetime.datetime.now(datetime.UTC).date().isoformat(),
    path.as_posix(),
    kind,
    version,
    hashlib.sha256(source.encode()).hexdigest(),
  )


def _git(file: pathlib.Path, *args: str) -> str | None:
  """What git prints in the folder of a file; None: it has nothing to say."""
  try:
    return environment.run_git(*args, root=file.parent)
  except (OSError, ValueError, subprocess.SubprocessError):
    return None


def _commit(file: pathlib.Path) -> str | None:
  """The commit of the checkout that has a file; None: none has it."""
  if _git(file, 'ls-files', '--error-unmatch', '--', file.name) is None:
    return None
  return (_git(file, 'rev-parse', 'HEAD') or '').strip() or None


def _as_it_was(parent: Parent) -> str | None:
  """The text that was copied; None: neither the file nor its git has it any more."""
  if parent.file.is_file():
    now = _read(parent.file)
    if hashlib.sha256(now.encode()).hexdigest() == parent.sha256:
      return now
  if parent.kind != 'commit' or not parent.file.parent.is_dir():
    return None
  place = f'{parent.version}:./{parent.file.name}'
  then = _git(parent.file, 'cat-file', '-p', place)
  if then is None:
    return None
  return then if hashlib.sha256(then.encode()).hexdigest() == parent.sha256 else None


def _age(parent: Parent, has_commits: bool) -> str:
  today = datetime.datetime.now(datetime.UTC).date()
  days = (today - datetime.date.fromisoformat(parent.date)).days
  told = {0: 'today', 1: '1 day ago'}.get(days, f'{days} days ago')
  if has_commits and parent.kind == 'commit':
    span = f'{parent.version}..HEAD'
    file = parent.file
    commits = _git(file, 'log', '--format=%cs', span, '--', file.name)
    if commits:
      dates = commits.split()
      s = 's' if len(dates) > 1 else ''
      told += f', {len(dates)} commit{s} of the parent since, the last on {dates[0]}'
  return told


def _as_fork(source: str, file: pathlib.Path, path: pathlib.Path, parent: Parent):
  """The text of a fork: the source, and in its docstring the lines of its parent.

  Commands there name the fork, and what was measured is said to be the parent's.
  """
  body = ast.parse(source).body
  end = '\r\n' if '\r\n' in source else '\n'
  lines = str(parent).replace('\n', end)
  docstring = _docstring(source)
  if docstring is None:
    begin = _first_statement(source)
    return f'{source[:begin]}"""{lines}{end}"""{end * 2}{source[begin:]}'
  node = body[0]
  at = source.encode().splitlines(keepends=True)
  assert node.end_lineno is not None and node.end_col_offset is not None
  begin = sum(map(len, at[: node.lineno - 1])) + node.col_offset
  stop = sum(map(len, at[: node.end_lineno - 1])) + node.end_col_offset
  code = source.encode()
  text = code[begin:stop].decode()
  if not re.fullmatch(r'[rR]?("""|\'\'\').*\1', text, re.DOTALL):
    escaped = docstring.replace('\\', '\\\\').replace('"""', r'\"\"\"')
    text = f'"""{escaped}"""'
  text, quotes = text[:-3], text[-3:]
  text = _named_anew(text, file, path)
  own = _LINES.search(text.replace('\r\n', '\n'))
  if own is not None:  # The parent's lines stay behind those of its fork.
    where = text.index(f'Forked {own["date"]} from {own["path"]}')
    text = f'{text[:where]}{lines}{end}{text[where:]}'
  else:
    text = f'{text.rstrip()}{end * 2}{lines}{end}'
  return code[:begin].decode() + text + quotes + code[stop:].decode()


def _first_statement(source: str) -> int:
  """Where the first line begins that is no comment."""
  begin = 0
  for line in source.splitlines(keepends=True):
    if line.strip() and not line.lstrip().startswith('#'):
      break
    begin += len(line)
  return begin


def _named_anew(text: str, file: pathlib.Path, path: pathlib.Path) -> str:
  old = rf'--exp=(?:{re.escape(file.stem)}|\S*\b{re.escape(file.stem)}\.py)(?![\w./-])'
  text = re.sub(old, lambda _: f'--exp={path.name}', text)
  return re.sub(r'^Measured: ', 'Measured by the parent: ', text, flags=re.MULTILINE)
