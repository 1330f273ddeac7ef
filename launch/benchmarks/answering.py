"""How soon and how fast a trained model answers, in processes of its own."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from typing import Any, Mapping

from dlx.errors import ConfigError

EXP = 'cnn'
ROWS = (1, 8, 64)  # Images of one warm call.
CALLS = 50

# One process: opens, answers once, then many times. Its clock starts where that of the
# parent did, before Python itself.
_CHILD = """
import json, statistics, sys, time
workdir, rows, calls = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
since = lambda: time.time() - float(sys.argv[4])
told = {'python_s': since()}
import dlx
run = dlx.open(workdir)
told['opened_s'] = since()
import numpy as np
shape = run.functions['predict'].inputs['image'].shape
images = lambda n: np.zeros((n, *shape), np.uint8)
run.predict(image=images(1)[0])
told['first_answer_s'], told['first_answer_cpu_s'] = since(), time.process_time()
told['warm_ms'] = {}
for n in rows:
  batch = images(n)
  run.predict(image=batch)
  spent = []
  for _ in range(calls):
    start = time.perf_counter()
    run.predict(image=batch)
    spent.append(1e3 * (time.perf_counter() - start))
  told['warm_ms'][n] = statistics.median(spent)
print(json.dumps(told))
"""


def ask(workdir: Any, environ: Mapping[str, str], calls: int = CALLS) -> dict[str, Any]:
  """Opens a run in a new process and calls `predict`.

  Args:
    workdir: of a run whose model takes images.
    environ: variables of the process.
    calls: of which a median is taken.

  Returns:
    Seconds since its start: `python_s`, `opened_s`, `first_answer_s`; until the last
    those of all its threads, `first_answer_cpu_s`, which a busy machine changes little;
    milliseconds of a warm call by the number of images, `warm_ms`.

  Raises:
    ConfigError: it failed; the message has its last line.
  """
  words = [os.fspath(workdir), json.dumps(ROWS), str(calls), repr(time.time())]
  return json.loads(_run([sys.executable, '-c', _CHILD, *words], environ))


def measure(environ: Mapping[str, str], say=print) -> dict[str, Any]:
  """The row of --suite=call: `cnn` on digits, without and with compiled programs."""
  with tempfile.TemporaryDirectory() as folder:
    workdir = pathlib.Path(folder, 'run')
    fields = ['--config.num_steps=20', '--config.eval_every_steps=none']
    train = [
      sys.executable,
      '-m',
      'launch.train',
      f'--exp={EXP}',
      f'--workdir={workdir}',
    ]
    _run([*train, *fields], environ)
    row: dict[str, Any] = {'workload': f'call {EXP}'}
    cache = {
      'JAX_COMPILATION_CACHE_DIR': str(pathlib.Path(folder, 'cache')),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '-1',
    }
    for name in ('cold', 'cached'):
      row[name] = found = ask(workdir, {**environ, **cache})
      warm = ', '.join(f'{n}: {ms:.2f}' for n, ms in found['warm_ms'].items())
      say(
        f'{name}: first answer {found["first_answer_s"]:.2f} s after the start '
        f'(Python {found["python_s"]:.2f}, opened {found["opened_s"]:.2f}; '
        f'{found["first_answer_cpu_s"]:.2f} s of CPU); '
        f'milliseconds of a warm call by images: {warm}'
      )
  return row


def _run(command: list[str], environ: Mapping[str, str]) -> str:
  done = subprocess.run(
    command, capture_output=True, text=True, env={**os.environ, **environ}
  )
  if done.returncode:
    last = (done.stderr.strip() or 'nothing').splitlines()[-1]
    raise ConfigError(f'{" ".join(command[:4])} failed: {last}')
  return done.stdout
