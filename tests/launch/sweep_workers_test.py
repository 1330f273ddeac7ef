"""Three processes share a search on a real PostgreSQL; one of them is killed."""

import json
import os
import signal
import subprocess
import sys
import time

import optuna
import pytest

from dlx.study.search import address
from dlx.study.search.sampling import INDEX
from tests.launch import postgres

TRIALS, STALE = 40, 6


def command(url, workdir, *more):
  return [
    *(sys.executable, '-m', 'launch.sweep', '--exp=softmax_regression'),
    *(
      '--sweep=config.lr=loguniform(1e-3,1)',
      '--metric=test/loss',
      f'--trials={TRIALS}',
    ),
    *('--config.num_steps=2', '--config.batch_size=16'),
    f'--workdir={workdir}',
    *(f'--storage={url}', f'--heartbeat_seconds={STALE}', '--compile_cache=off', *more),
  ]


def start(url, workdir, *more, **env):
  return subprocess.Popen(
    command(url, workdir, *more), env={**os.environ, **env}, text=True,
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
  )  # fmt: skip


def view(server):
  """The storage, as Optuna alone reads it."""
  at = address.parse(server.url, postgres.PASSWORD)
  connect = {'connect_args': {'password': at.password}, 'pool_pre_ping': True}
  return optuna.storages.RDBStorage(at.url, engine_kwargs=connect)


def states(storage):
  """(state, index) of all trials of the one search."""
  studies = storage.get_all_studies()
  if not studies:
    return []
  found = storage.get_all_trials(studies[0]._study_id)
  return [(t.state.name, t.user_attrs.get(INDEX)) for t in found]


def wait_for(holds, seconds=600):
  end = time.monotonic() + seconds
  while not holds():
    assert time.monotonic() < end, 'it did not come'
    time.sleep(0.05)


def under_way(workdir):
  """Whether the worker with the password in its command has begun a run, no more."""
  return any(
    '***' in path.read_text() and not path.with_name('result.json').exists()
    for kind in ('runs', 'together')
    for path in workdir.glob(f'{kind}/*/config.json')
  )


@pytest.mark.slow
def test_forty_trials_each_exactly_once(tmp_path):
  with postgres.server() as server:
    shared = tmp_path / 'shared'
    secret = tmp_path / 'secret'
    secret.write_text(postgres.PASSWORD + '\n')
    quoted = postgres.PASSWORD.replace('%', '%25')
    url = server.url.replace('@', f':{quoted}@')
    # The password by each way that there is; two of them in one workdir.
    workers = [
      start(url, shared),
      start(server.url, shared, f'--storage_password_file={secret}'),
      start(server.url, tmp_path / 'own', DLX_STORAGE_PASSWORD=postgres.PASSWORD),
    ]
    storage = view(server)
    complete = lambda: sum(state == 'COMPLETE' for state, _ in states(storage))
    wait_for(lambda: complete() >= 6)
    wait_for(lambda: under_way(shared))
    workers[0].send_signal(signal.SIGKILL)
    # The database goes away for a while, and comes back.
    wait_for(lambda: complete() >= 15)
    server.stop()
    time.sleep(8)
    server.start()
    said = [worker.communicate(timeout=1200)[0] for worker in workers]
    assert [w.returncode for w in workers] == [-signal.SIGKILL, 0, 0], said
    found = states(storage)
    storage.remove_session()
    storage.engine.dispose()
  done = sorted(index for state, index in found if state == 'COMPLETE')
  assert done == list(range(TRIALS))
  assert {state for state, _ in found} <= {'COMPLETE', 'FAIL'}
  assert ('FAIL', None) not in found and len(found) > TRIALS  # Taken again.
  # Each was told once, by one worker; a line of the killed one may be lost.
  lines = [line.split() for text in said for line in text.splitlines()]
  ends = [words[0] for words in lines if words[1:2] == ['test/loss']]
  assert len(set(ends)) == len(ends) >= TRIALS - 8
  assert any('does not answer' in text for text in said[1:])
  for path in (shared, tmp_path / 'own'):
    record = json.loads((path / 'sweep.json').read_text())
    assert record['finished'] and len(record['table']) == TRIALS
  for path in tmp_path.rglob('*'):
    if path.is_file() and path != secret:
      data = path.read_bytes()
      assert postgres.PASSWORD.encode() not in data, path
      assert quoted.encode() not in data, path
  for text in said:
    assert postgres.PASSWORD not in text and quoted not in text


@pytest.mark.slow
def test_a_wrong_password_is_one_line_without_it(tmp_path):
  with postgres.server() as server:
    url = server.url.replace('@', ':falsch7@')
    worker = start(url, tmp_path / 'w')
    said, _ = worker.communicate(timeout=600)
  assert worker.returncode == 2
  assert said.count('\n') == 1 and 'falsch7' not in said
  assert 'password authentication failed' in said
