"""A PostgreSQL server for one test: a folder of its own, a socket, no port."""

import contextlib
import glob
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
from typing import Iterator

import pytest

USER, PASSWORD, DATABASE = 'worker', 'geheim%7Wort', 'trials'


def programs() -> pathlib.Path:
  """The folder of initdb; skips the test where there is none."""
  found = shutil.which('initdb')
  folders = sorted(glob.glob('/usr/lib/postgresql/*/bin/initdb'))
  path = found or (folders[-1] if folders else None)
  if path is None:
    pytest.skip('initdb is not installed: apt-get install postgresql')
  return pathlib.Path(path).resolve().parent  # Of a link: the others lie beside it.


class Server:
  """A server that can be stopped and started again."""

  def __init__(self, folder: pathlib.Path):
    self.folder, self._bin = folder, programs()
    # It refuses to run as root.
    self._as = ['runuser', '-u', 'nobody', '--'] if os.geteuid() == 0 else []

  @property
  def url(self) -> str:
    return f'postgresql://{USER}@/{DATABASE}?host={self.folder}'

  def run(self, *command: str, **options):
    path = str(self._bin / command[0])
    subprocess.run(
      [*self._as, path, *command[1:]], check=True, capture_output=True, cwd='/',
      **options,
    )  # fmt: skip

  def create(self):
    if self._as:
      of = pwd.getpwnam('nobody')
      os.chown(self.folder, of.pw_uid, of.pw_gid)
    secret = self.folder / 'password'
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    self.run(
      'initdb', '-D', f'{self.folder}/data', '-U', USER, '-A', 'scram-sha-256', '-E',
      'UTF8', '--locale=C.UTF-8', '--no-sync', f'--pwfile={secret}',
    )  # fmt: skip
    secret.unlink()
    self.start()
    env = {**os.environ, 'PGPASSWORD': PASSWORD}
    self.run('createdb', '-h', str(self.folder), '-U', USER, DATABASE, env=env)

  def start(self):
    options = f"-c listen_addresses='' -k {self.folder} -c fsync=off"
    log = f'{self.folder}/log'
    self.run(
      'pg_ctl', '-D', f'{self.folder}/data', '-w', '-l', log, '-o', options, 'start'
    )

  def stop(self):
    self.run('pg_ctl', '-D', f'{self.folder}/data', '-w', '-m', 'fast', 'stop')


@contextlib.contextmanager
def server() -> Iterator[Server]:
  """A new one, which is stopped at the end."""
  programs()
  # Short: the path of a socket has at most 107 bytes.
  with tempfile.TemporaryDirectory(prefix='pg-', dir='/tmp') as folder:
    os.chmod(folder, 0o755)
    found = Server(pathlib.Path(folder))
    try:
      found.create()
      yield found
    finally:
      if (found.folder / 'data' / 'postmaster.pid').exists():
        found.stop()
