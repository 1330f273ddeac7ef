"""The folder of a run: who may write there, and which run it belongs to."""

import contextlib
import fcntl
import json
import os
import time
from typing import Any, Mapping

from etils import epath
import jax

from dlx.errors import ConfigError
from dlx.run import processes
from dlx.run.records.environment import environment
from dlx.run.records.json_files import is_remote, read_json, write_json

SHARED_SECONDS = 30.0  # NFS remembers for about as long that a file was not there.


def absolute(path) -> epath.Path:
  """The path of a workdir; of a local one from the root, as Orbax needs it.

  A leading `~` is the home folder, also where it comes from a field of a config.
  """
  if is_remote(path):
    return epath.Path(path)
  return epath.Path(os.path.abspath(os.path.expanduser(path)))


class Workdir:
  """Opens the workdir of a run: fresh, or to go on with the same run.

  Constructing it compares and writes nothing; `begin` writes config.json and takes the
  lock (local disks only) that keeps a second run out. Of several processes the first
  writes, and all see the same folder.

  Attributes:
    path: epath.Path; may be an object store.
    resumed: whether config.json was there.
    finished: what result.json says, or None.
    record: what config.json says.
  """

  def __init__(self, path, *, name: str, config: Mapping[str, Any]):
    """
    Args:
      path: of the folder; need not exist.
      name: of the experiment, or the path of its file.
      config: as JSON.

    Raises:
      ConfigError: the folder belongs to another experiment or config, or is unreadable.
    """
    self.path = absolute(path)
    self._lock = None
    try:
      known = self.path / 'config.json'
      self.resumed = known.exists()
      former = read_json(known) if self.resumed else None
      result = self.path / 'result.json'
      self.finished = read_json(result) if self.resumed and result.exists() else None
    except NotADirectoryError as error:
      raise _unwritable(self.path, error) from None
    except json.JSONDecodeError as error:
      raise ConfigError(
        f'--workdir={self.path}: config.json or result.json is no JSON '
        f'({error}): repair it or use another --workdir.'
      ) from None
    if former is not None:
      _compare(self.path, former, name, json.loads(json.dumps(dict(config))))
    self.record: Mapping[str, Any] = former or {}

  def begin(self, record: Mapping[str, Any]):
    """Takes the lock and writes config.json unless it is there; `close` it then.

    Raises:
      ConfigError: not writable, another process is running in it, or process 0 has
        another folder or config.
    """
    self.record = self.record or record
    if jax.process_index() == 0:
      self._take(record)
    processes.meet()
    if jax.process_index() != 0:
      self._check_shared()

  def _take(self, record: Mapping[str, Any]):
    try:
      self.path.mkdir(parents=True, exist_ok=True)
      if not is_remote(self.path):
        self._lock = open(self.path / '.lock', 'w')
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      if not self.resumed:
        write_json(self.path / 'config.json', record)
    except BlockingIOError:
      self.close()
      raise ConfigError(
        f'--workdir={self.path}: another process is running there: '
        'wait for it, stop it, or use another --workdir.'
      ) from None
    except OSError as error:
      self.close()
      raise _unwritable(self.path, error) from None

  def _check_shared(self):
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
    mine = json.loads(json.dumps(dict(self.record['config'])))
    _compare(self.path, read_json(known), self.record['experiment'], mine)

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
    now, then = environment(), self.record
    pairs = {name: (then.get(name), now[name]) for name in ('threads', 'xla_flags')}
    pairs |= {
      f'{part} {name}': ((then.get(part) or {}).get(name), value)
      for part in ('versions', 'device')
      for name, value in now[part].items()
    }
    return ', '.join(
      f'{name} was {old}, is {new}' for name, (old, new) in pairs.items() if old != new
    )

  def close(self):
    if self._lock is not None:
      self._lock.close()
      self._lock = None


def _unwritable(path, error: OSError) -> ConfigError:
  return ConfigError(
    f'--workdir={path} cannot be written ({error.strerror or error}): '
    'choose a folder that can.'
  )


def _compare(path, former: Mapping[str, Any], name: str, config: Mapping[str, Any]):
  if former.get('experiment') != name:
    raise ConfigError(
      f'--workdir={path} holds a run of --exp={former.get("experiment")}, not of '
      f'--exp={name}: use another --workdir.'
    )
  old = former.get('config', {})
  if fields := sorted(
    f for f in old.keys() | config.keys() if old.get(f) != config.get(f)
  ):
    told = ', '.join(f'{f}: {old.get(f)} there, {config.get(f)} here' for f in fields)
    raise ConfigError(
      f'--workdir={path} holds a run of another config ({told}): use '
      'the same flags to go on, or another --workdir.'
    )
