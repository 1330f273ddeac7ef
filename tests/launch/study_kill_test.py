"""A study that is killed at random ends as one that was not: real processes."""

import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FORK = pathlib.Path(__file__).with_name('study_for_kills.py')
KILLS = 5


def start(workdir, cache):
  command = [sys.executable, '-m', 'launch.train', f'--exp={FORK}']
  command += [f'--workdir={workdir}', f'--compile_cache={cache}']
  env = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
  with open(f'{workdir}.log', 'ab') as log:
    return subprocess.Popen(
      command, cwd=ROOT, env=env, stdout=log, stderr=log, start_new_session=True
    )


def found(workdir):
  """All that it says, but for the clock and the command."""
  record = json.loads((workdir / 'study.json').read_text())
  for run in record['runs'].values():
    del run['seconds']
  del record['argv'], record['git']
  figures = {p.name: p.read_bytes() for p in (workdir / 'figures').iterdir()}
  lines = {}
  for path in sorted((workdir / 'runs').glob('*/metrics.jsonl')):
    lines[path.parent.name] = [
      {k: v for k, v in json.loads(line).items() if k != 'time'}
      for line in path.read_text().splitlines()
    ]
  return record, (workdir / 'table.md').read_bytes(), figures, lines


def log_of(workdir):
  return pathlib.Path(f'{workdir}.log').read_text()[-2000:]


@pytest.mark.slow
def test_killed_at_random(tmp_path):
  cache, whole, killed = (tmp_path / name for name in ('cache', 'whole', 'killed'))
  assert start(whole, cache).wait(timeout=600) == 0, log_of(whole)
  # With compiled programs: what the killed one takes.
  again = tmp_path / 'again'
  begun = time.monotonic()
  assert start(again, cache).wait(timeout=600) == 0, log_of(again)
  length = time.monotonic() - begun
  rng = random.Random(0)
  kills = 0
  while kills < KILLS:
    process = start(killed, cache)
    try:
      status = process.wait(timeout=rng.uniform(0.15, 0.5) * length)
      assert status == 0, log_of(killed)
      break  # Finished before: started again it trains nothing.
    except subprocess.TimeoutExpired:
      os.killpg(process.pid, signal.SIGKILL)
      process.wait()
      kills += 1
  process = start(killed, cache)
  assert process.wait(timeout=600) == 0, log_of(killed)
  assert kills >= 2
  assert found(killed) == found(whole) == found(again)


@pytest.mark.slow
@pytest.mark.parametrize('sent', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(sent, tmp_path):
  workdir, cache = tmp_path / 'w', tmp_path / 'cache'
  process = start(workdir, cache)
  deadline = time.monotonic() + 300
  saved = lambda: list(workdir.glob('together/*/checkpoints/5*'))
  while not saved() and process.poll() is None and time.monotonic() < deadline:
    time.sleep(0.01)
  os.kill(process.pid, sent)
  assert process.wait(timeout=300) == 42, log_of(workdir)
  assert 'the same command goes on' in log_of(workdir)
  process = start(workdir, cache)
  assert process.wait(timeout=600) == 0, log_of(workdir)
  assert json.loads((workdir / 'study.json').read_text())['finished']
