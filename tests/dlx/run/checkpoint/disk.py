"""Run by disk_test under `unshare -Urm`, where it may mount a small disk.

A run is stopped, meets a full disk and a read-only one, and goes on. Prints one JSON
object.
"""

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[4]
FORK = ROOT / 'tests' / 'launch' / 'fork_for_kills.py'


class Disk:
  """A tmpfs."""

  def __init__(self, folder):
    folder.mkdir()
    self.folder, self.filler = folder, folder / 'filler'
    self._mount('-t', 'tmpfs', '-o', 'size=8m', 'none')

  def _mount(self, *args):
    subprocess.run(['mount', *args, str(self.folder)], check=True)

  def fill(self, leave):
    """Leaves so many bytes."""
    self.filler.unlink(missing_ok=True)
    free = os.statvfs(self.folder)
    self.filler.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - leave)))

  def set_read_only(self, read_only):
    self._mount('-o', f'remount,{"ro" if read_only else "rw"}')


def train(workdir, *more):
  """[exit status, stderr] of a session."""
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'launch.train',
      f'--exp={FORK}',
      f'--workdir={workdir}',
      '--config.num_steps=60',
      '--config.eval_every_steps=20',
      *more,
    ],
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    timeout=240,
  )
  return [done.returncode, done.stderr]


def verify(workdir):
  """What launch.checkpoint says of every checkpoint."""
  done = subprocess.run(
    [sys.executable, '-m', 'launch.checkpoint', 'verify', str(workdir)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=240,
  )
  return done.stdout


def lines(workdir):
  rows = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [{k: v for k, v in json.loads(row).items() if k != 'time'} for row in rows]


def main(folder):
  folder = pathlib.Path(folder)
  straight = folder / 'straight'
  found = {'straight': train(straight)}
  disk = Disk(folder / 'disk')
  workdir = disk.folder / 'run'
  found['begun'] = train(workdir, '--stop_at=25')
  for name, leave in (('full', 0), ('nearly', 60_000)):
    disk.fill(leave)
    found[name] = train(workdir)
  found['verified'] = verify(workdir)
  disk.filler.unlink()
  disk.set_read_only(True)
  found['read_only'] = train(workdir)
  disk.set_read_only(False)
  found['ended'] = train(workdir)
  found['lines_equal'] = lines(workdir) == lines(straight)
  ends = [json.loads((w / 'result.json').read_text()) for w in (workdir, straight)]
  found['bits_equal'] = ends[0]['fingerprint'] == ends[1]['fingerprint']
  found['left'] = sorted(p.name for p in (workdir / 'checkpoints').iterdir())
  print(json.dumps(found))


if __name__ == '__main__':
  main(sys.argv[1])
