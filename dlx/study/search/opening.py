"""Opens where the trials of a search lie: a file in the workdir, or a database."""

import os
import random
import time
from typing import Any, Literal

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from dlx.errors import ConfigError
from dlx.study.search.address import Address
from dlx.study.search.storage import WAIT_SECONDS, Store, cause_of, one_line, quiet

Direction = Literal['minimize', 'maximize']
FILE = 'trials.journal'
_TRIES = 20  # To make tables that another worker makes at the same time.


class _NoLock(JournalFileOpenLock):
  """The workdir has a lock of its own; one that a killed process left would stay."""

  def __init__(self):
    pass

  def acquire(self) -> bool:
    return True

  def release(self) -> None:
    pass


def local(workdir: Any, direction: Direction) -> Store:
  """The trials of one process at a time, in a file of its workdir, which is locked.

  Args:
    workdir: path of a local folder.
    direction: 'minimize' or 'maximize'.
  """
  path = os.path.join(os.fspath(workdir), FILE)
  _mend(path)
  with quiet():
    backend = JournalFileBackend(path, lock_obj=_NoLock())
    storage = optuna.storages.JournalStorage(backend)
    study = optuna.create_study(
      storage=storage, study_name='sweep', direction=direction, load_if_exists=True
    )
  return Store(study, told=f'The file {path}', stale_seconds=None)


def _mend(path: str):
  """Cuts off a last line that a kill left half written."""
  if not os.path.exists(path):
    return
  with open(path, 'r+b') as file:
    data = file.read()
    if data and not data.endswith(b'\n'):
      file.truncate(data.rfind(b'\n') + 1)


def shared(
  address: Address,
  name: str,
  direction: Direction,
  *,
  stale_seconds: int,
  wait_seconds: float = WAIT_SECONDS,
) -> Store:
  """The trials of any number of processes, in a database.

  Args:
    address: of the database.
    name: of the search in it.
    direction: 'minimize' or 'maximize'.
    stale_seconds: a worker not heard of for so long is dead.
    wait_seconds: for a database that went away while it was used.

  Raises:
    ConfigError: it does not answer, or refuses.
  """
  told = f'The database {address.told}'
  connect: dict[str, Any] = {}
  if address.password is not None:
    connect['password'] = address.password
  if address.is_server:
    connect['connect_timeout'] = 10
  else:
    connect['timeout'] = 30  # For another process of the file.
  for i in range(_TRIES):
    try:
      with quiet():
        storage = optuna.storages.RDBStorage(
          address.url,
          engine_kwargs={'connect_args': connect, 'pool_pre_ping': True},
          heartbeat_interval=max(1, stale_seconds // 4),
          grace_period=stale_seconds,
        )
        study = optuna.create_study(
          storage=storage, study_name=name, direction=direction, load_if_exists=True
        )
      break
    except (StorageInternalError, SQLAlchemyError, RuntimeError) as error:
      cause = cause_of(error)
      why = one_line(cause)
      unreachable = address.is_server and isinstance(cause, OperationalError)
      if unreachable or i == _TRIES - 1:
        raise ConfigError(
          f'--storage: {told[0].lower()}{told[1:]} cannot be used: {why}: start it, or '
          'give another address.'
        ) from None
      # Workers that start at once race for the tables.
      time.sleep(random.uniform(0.1, 0.5))
  return Store(
    study,
    told=told,
    stale_seconds=stale_seconds,
    wait_seconds=wait_seconds,
    dispose=storage.engine.dispose,
  )
