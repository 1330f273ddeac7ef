"""A study of several processes is refused: real processes, one line each."""

import os
import subprocess
import sys

from tests import turns
from tests.launch import processes

# From Python: the processes have met, and each calls the study.
CALLED = """
import sys
import jax
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]))
from dlx import runs
from dlx.errors import ConfigError
from experiments.foundations import dropout_rate
config = dropout_rate.Config(num_steps=2)
declared, module = dropout_rate.study(config), dropout_rate.__name__
try:
  runs.study(declared, config, sys.argv[3], module=module)
except ConfigError as error:
  print(f'{jax.process_count()} processes: {error}')
"""


def test_by_the_command(tmp_path):
  command = ['launch.train', '--exp=dropout_rate', f'--workdir={tmp_path / "w"}']
  with processes.Group(command, 2, 1, tmp_path / 'log') as group:
    assert group.wait() == [2, 2]
    for log in group.logs:
      assert log.read_text().splitlines() == [
        'error: --multihost is not allowed with dropout_rate, a study: one process '
        'trains it, on all devices of its machine.'
      ]
  assert not (tmp_path / 'w').exists()


@turns.seldom(0)
def test_from_python(tmp_path):
  at = f'localhost:{processes.free_port()}'
  env = {**os.environ, 'PYTHONPATH': str(processes.ROOT), 'JAX_PLATFORMS': 'cpu'}
  started = [
    subprocess.Popen(
      [sys.executable, '-c', CALLED, at, str(i), str(tmp_path / 'w')],
      env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    for i in range(2)
  ]  # fmt: skip
  try:
    told = [process.communicate(timeout=300) for process in started]
  finally:
    for process in started:
      process.kill()
  for said, errors in told:
    assert said == (
      '2 processes: A study is not allowed with several processes: start one.\n'
    ), errors
  assert not (tmp_path / 'w').exists()
