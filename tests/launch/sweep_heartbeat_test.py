"""A worker of a sweep dies in a trial; another one goes on from its checkpoint."""

import json
import os
import signal
import subprocess
import sys
import time

import optuna
import pytest

from dlx.study.search.sampling import INDEX
from tests import turns

STALE = 3  # Seconds.
STEPS, SAVED = 6000, 20


def start(folder, **env):
  command = [sys.executable, '-m', 'launch.sweep', '--exp=softmax_regression']
  command += ['--sweep=config.lr=loguniform(1e-3,1)', '--metric=test/loss']
  command += ['--trials=1', f'--config.num_steps={STEPS}', '--config.batch_size=16']
  every = ('save_every_steps', 'log_every_steps', 'steps_per_dispatch')
  command += [f'--config.{name}={SAVED}' for name in every]
  command += [f'--workdir={folder / "w"}', f'--storage=sqlite:///{folder}/trials.db']
  command += [f'--heartbeat_seconds={STALE}', '--compile_cache=off']
  return subprocess.Popen(
    command, env={**os.environ, **env}, text=True, stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
  )  # fmt: skip


def saved(folder):
  """Steps of the checkpoints of the one run."""
  found = (folder / 'w' / 'runs').glob('*/checkpoints/*')
  return sorted(int(path.name) for path in found if path.name.isdecimal())


def wait_for(holds, process):
  end = time.monotonic() + 300
  while not holds():
    assert process.poll() is None, process.communicate()[0]
    assert time.monotonic() < end, 'it did not come'
    time.sleep(0.01)


@pytest.mark.usefixtures('optimised')
@turns.seldom(3)
def test_a_dead_workers_trial_goes_on_from_its_checkpoint(tmp_path):
  first = start(tmp_path)
  wait_for(lambda: saved(tmp_path), first)
  second = start(tmp_path)
  lines = iter(second.stdout.readline, '')
  assert any('Waiting for 1 trials of other workers.' in line for line in lines)
  first.send_signal(signal.SIGKILL)
  first.communicate()
  step = saved(tmp_path)[-1]
  assert step < STEPS, 'it was finished before it was killed'
  (log,) = (tmp_path / 'w' / 'runs').glob('*/metrics.jsonl')
  before = log.read_bytes().splitlines()
  said, _ = second.communicate(timeout=300)
  assert second.returncode == 0, said
  # The lines of the dead worker, seconds of the clock included, up to its checkpoint.
  after = log.read_bytes().splitlines()
  kept = [x for x in before if json.loads(x)['step'] <= step]
  assert len(kept) >= step // SAVED and after[: len(kept)] == kept
  steps = [json.loads(x)['step'] for x in after if json.loads(x)['split'] == 'train']
  assert steps == list(range(SAVED, STEPS + 1, SAVED))
  result = json.loads(log.with_name('result.json').read_text())
  assert result['step'] == STEPS
  record = json.loads((tmp_path / 'w' / 'sweep.json').read_text())
  assert record['finished'] and len(record['table']) == 1
  # One trial died, and one with its choices was told.
  storage = optuna.storages.RDBStorage(f'sqlite:///{tmp_path}/trials.db')
  (study,) = storage.get_all_studies()
  trials = storage.get_all_trials(study._study_id)
  storage.engine.dispose()
  assert [t.state.name for t in trials] == ['FAIL', 'COMPLETE']
  assert {t.user_attrs[INDEX] for t in trials} == {0}
  assert trials[0].params == trials[1].params
