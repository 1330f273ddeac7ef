"""The folder of a run: who may write there, and which run it belongs to."""

import contextlib
import fcntl
import json
import os
import time
from typing import Any, Mapping, NamedTuple

from etils import epath
import jax

from dlx.errors import DISK, ConfigError
from dlx.run import processes
from dlx.run.records import agreement, sources
from dlx.run.records.environment import environment
from dlx.run.records.json_files import is_remote, read_json, write_bytes, write_json

SAVED = '.saved'  # A mark: a checkpoint was written here.
SHARED_SECONDS = 30.0  # NFS remembers for about as long that a file was not there.


def absolute(path) -> epath.Path:
  """The path of a workdir; of a local one from the root, as Orbax needs it.

  A leading `~` is the home folder, also where it comes from a field of a config.
  """
  if is_remote(path):
    return epath.Path(path)
  return epath.Path(os.path.abspath(os.path.expanduser(path)))


class Asked(NamedTuple):
  """What a start asks for, which the workdir must be of.

  Attributes:
    name: of the experiment, or the path of its file.
    config, defaults: as JSON.
    sources: the user's files, see sources.py.
    free: fields of the config that may change.
    data_changed: whether other data than before are taken.
    init_from: what the run begins with, see `run.initial.Source.asked`; None: nothing
      is said.
  """

  name: str
  config: Mapping[str, Any]
  defaults: Mapping[str, Any] = {}
  sources: Mapping[str, bytes] = {}
  free: tuple[str, ...] = agreement.FREE
  data_changed: bool = False
  init_from: Mapping[str, Any] | None = None


class Workdir:
  """Opens the workdir of a run: fresh, or to go on with the same run.

  Constructing it compares and writes nothing; `begin` takes the lock (local disks only)
  that keeps a second run out, compares once more and writes config.json and the user's
  files. Of several processes the first writes, and all see the same folder. A folder in
  which nothing was saved belongs to nobody.

  Attributes:
    path: epath.Path; may be an object store.
    resumed: whether there is a run to go on with.
    finished: what result.json says of a run that needs no further step, or None.
    record: what config.json says.
    notes: what is not as it was when the run began, of what may change.
  """

  def __init__(self, path, asked: Asked):
    """
    Args:
      path: of the folder; need not exist.
      asked: what is to be run.

    Raises:
      ConfigError: the folder belongs to another experiment or config, was finished with
        other source, has lost a part, or is unreadable.
    """
    self.path = absolute(path)
    if not is_remote(self.path) and (found := set('*?[\\') & set(str(self.path))):
      raise ConfigError(
        f'--workdir={self.path} is not allowed: has {" ".join(sorted(found))} in it, '
        'which checkpoints take for a pattern; choose a path without.'
      )
    self._lock, self._asked = None, asked
    self._look()

  def _look(self):
    try:
      former, result = self._read('config.json'), self._read('result.json')
      trained, lost = _trained(self.path)
    except OSError as error:
      raise _unwritable(self.path, error) from None
    except json.JSONDecodeError as error:
      raise ConfigError(
        f'--workdir={self.path}: config.json or result.json is no JSON '
        f'({error}): repair it, use another --workdir, or --fresh.'
      ) from None
    self.record: Mapping[str, Any] = (former or {}) if trained else {}
    self.resumed, self.finished = trained, None
    self.notes: list[str] = []
    self.source_changed = ''  # Which files did, and by how many lines.
    if not trained:
      return
    if former is None:
      raise ConfigError(
        f'--workdir={self.path} has checkpoints and no config.json, so that nobody '
        'knows of which run: put it back, use another --workdir, or --fresh.'
      )
    self._compare(former)
    self.finished = result if _complete(result, self._asked.config) else None
    if self.finished is not None and self.source_changed:
      raise ConfigError(
        f'--workdir={self.path} holds a finished run of other source '
        f'({self.source_changed}; kept in {self.path / "source"}): use another '
        '--workdir, or --fresh.'
      )
    if lost and self.finished is None:
      raise ConfigError(
        f'--workdir={self.path}: its checkpoints are gone: put '
        f'{self.path / "checkpoints"} back, use another --workdir, or --fresh.'
      )

  def _read(self, name: str) -> Any:
    path = self.path / name
    return read_json(path) if path.exists() else None

  def _compare(self, former: Mapping[str, Any]):
    """Fills `notes`; raises what keeps the run from going on."""
    asked, then = self._asked, former.get('source') or {}
    now = sources.record(asked.sources)
    known = bool(then.get('main') and now['main'])
    same = known and sources.same(then, now)
    agreement.experiment(self.path, former, asked.name, same)
    agreement.init_from(self.path, former.get('init_from'), asked.init_from)
    self.notes = agreement.config(
      self.path,
      former.get('config', {}),
      _plain(asked.config),
      _plain(asked.defaults),
      asked.free,
    )
    if known and not same:
      names = then['sha256']
      kept = {n: f.read_bytes() for n in names if (f := self._kept(n)).exists()}
      self.source_changed = sources.difference(then, kept, asked.sources)
      self.notes.append(f'source: {self.source_changed}')

  @property
  def shorter(self) -> int | None:
    """The `num_steps` with which the run began, where more are asked for now."""
    old = self.record.get('config', {}).get('num_steps')
    return old if self.resumed and old != self._asked.config.get('num_steps') else None

  def _kept(self, module: str):
    return self.path / 'source' / f'{module}.py'

  def begin(self, record: Mapping[str, Any]):
    """Takes the lock and writes config.json; `close` it then.

    Args:
      record: of this start; `data` in it is compared with that of the run.

    Raises:
      ConfigError: not writable, another process is running in it, other data, or
        process 0 has another folder or config.
    """
    if jax.process_index() == 0:
      self._take(record)
    processes.meet()
    if jax.process_index() != 0:
      self._check_shared(record)

  def _take(self, record: Mapping[str, Any]):
    try:
      self.path.mkdir(parents=True, exist_ok=True)
      if not is_remote(self.path):
        self._lock = open(self.path / '.lock', 'w')
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      self._look()  # Another start may have come first.
      self._write(record)
    except BlockingIOError:
      self.close()
      raise ConfigError(
        f'--workdir={self.path}: another process is running there: '
        'wait for it, stop it, or use another --workdir.'
      ) from None
    except OSError as error:
      self.close()
      raise _unwritable(self.path, error) from None
    except ConfigError:
      self.close()
      raise

  def _write(self, record: Mapping[str, Any]):
    """config.json and the sources: of a fresh run, or with what changed since."""
    asked = self._asked
    source = sources.record(asked.sources)
    if not self.resumed:
      self.record = {**record, 'source': source}
    else:
      self.notes += self._data(record)
      # The name, too: the experiment's file may have moved.
      now = ('experiment', 'config', 'defaults')
      news = {name: record[name] for name in now if name in record}
      if asked.data_changed and 'data' in record:
        news['data'] = record['data']
      if source['main']:
        news['source'] = source
      self.record = {**self.record, **news}
    self._keep_sources()
    write_json(self.path / 'config.json', self.record)

  def _data(self, record: Mapping[str, Any]) -> list[str]:
    then = self.record.get('data')
    if then is None or 'data' not in record:
      return []
    found = agreement.data(then, _plain(record['data']))
    if found and not self._asked.data_changed:
      raise ConfigError(
        f'--workdir={self.path} holds a run on other data ({", ".join(found[:4])}): '
        'give it the data it began with; --data_changed goes on with these.'
      )
    return found

  def _keep_sources(self):
    """WORKDIR/source/MODULE.py; what changed since goes to source/before_N first."""
    folder = self.path / 'source'
    if not self._asked.sources:
      return
    folder.mkdir(parents=True, exist_ok=True)
    if self.source_changed:
      count = sum(p.name.startswith('before_') for p in folder.iterdir())
      aside = folder / f'before_{count + 1}'
      aside.mkdir()
      for path in [p for p in folder.iterdir() if p.suffix == '.py']:
        (aside / path.name).write_bytes(path.read_bytes())
        path.unlink()
      self.notes = [
        f'{note}; kept in {aside}' if note.startswith('source: ') else note
        for note in self.notes
      ]
    for name, text in self._asked.sources.items():
      if not self._kept(name).exists():
        write_bytes(self._kept(name), text)

  def _check_shared(self, record: Mapping[str, Any]):
    """What process 0 has written must be there, and be the run of this process."""
    known = self.path / 'config.json'
    until = time.monotonic() + SHARED_SECONDS
    while not known.exists():
      if time.monotonic() > until:
        raise ConfigError(
          f'--workdir={self.path}: process {jax.process_index()} does not see what '
          'process 0 has written there: choose a folder that all of them share.'
        )
      time.sleep(0.2)
    self.record = read_json(known)
    agreement.equal(self.path, self.record, _plain(record))

  @contextlib.contextmanager
  def starting(self):
    """Yields a dict; what is put there is added to config.json.

    A ConfigError inside takes the config.json away that `begin` wrote, so that the
    corrected command is not refused there.
    """
    more: dict[str, Any] = {}
    try:
      yield more
    except ConfigError:
      if not self.resumed and jax.process_index() == 0:
        (self.path / 'config.json').unlink(missing_ok=True)
      raise
    self.record = {**self.record, **more}
    if jax.process_index() == 0:
      write_json(self.path / 'config.json', self.record)

  def changed(self) -> str:
    """What is not as it was when the run began, of what may decide its bits."""
    if not self.resumed:
      return ''
    return '; '.join(self.notes + agreement.environment(self.record, environment()))

  def calling(self, shape_id: int, calls: Mapping[str, int]) -> str:
    """What a program calls that it did not call when the run began; '' where all is so.

    The calls of a first program for a shape are added to config.json.

    Args:
      shape_id: of its batches.
      calls: their number by target.
    """
    known = self.record.get('calls')
    if not isinstance(known, Mapping):
      return ''  # Written before this was recorded.
    former = known.get(str(shape_id))
    if isinstance(former, Mapping):
      return '; '.join(agreement.calls(former, calls))
    known = {**known, str(shape_id): dict(calls)}
    self.record = {**self.record, 'calls': known}
    if jax.process_index() == 0:
      write_json(self.path / 'config.json', self.record)
    return ''

  def close(self):
    if self._lock is not None:
      self._lock.close()
      self._lock = None


def _unwritable(path, error: OSError) -> ConfigError:
  return ConfigError(
    f'--workdir={path} cannot be written or read '
    f'({DISK.get(error.errno or 0, error.strerror)}): choose a folder that can.'
  )


def _plain(value: Mapping[str, Any]) -> Any:
  """As it reads back from a file: tuples are lists."""
  return json.loads(json.dumps(dict(value)))


def _trained(path) -> tuple[bool, bool]:
  """Whether a run saved a step here, and whether its checkpoints are gone."""
  folder = path / 'checkpoints'
  entries = [p.name for p in folder.iterdir()] if folder.exists() else []
  saved = (path / SAVED).exists()
  return saved or any(name.isdecimal() for name in entries), saved and not entries


def _complete(result: Mapping[str, Any] | None, config: Mapping[str, Any]) -> bool:
  """Whether a result needs no further step under the config of today."""
  if result is None:
    return False
  return bool(result.get('stopped_early')) or result.get('step', 0) >= config.get(
    'num_steps', 0
  )


def move_aside(path) -> str | None:
  """Renames a workdir to PATH.before_N, and returns that; None: there is none.

  Raises:
    ConfigError: an object store, or it cannot be renamed.
  """
  path = absolute(path)
  if is_remote(path):
    raise ConfigError(
      f'--fresh is not allowed: {path} lies in an object store and cannot be renamed: '
      'use another --workdir.'
    )
  if not path.exists():
    return None
  number = 1
  while (aside := path.with_name(f'{path.name}.before_{number}')).exists():
    number += 1
  try:
    with open(path / '.lock', 'w') as lock:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      os.rename(path, aside)
  except BlockingIOError:
    raise ConfigError(
      f'--fresh: another process is running in {path}: stop it, or use another '
      '--workdir.'
    ) from None
  except OSError as error:
    raise _unwritable(path, error) from None
  return str(aside)
