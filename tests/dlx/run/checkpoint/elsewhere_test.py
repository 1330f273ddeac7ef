"""Checkpoints on other meshes and by several processes; see elsewhere.py."""

import json
import pathlib
import socket
import subprocess
import sys

from absl.testing import absltest

from tests import simulated, turns

ROOT = pathlib.Path(__file__).parents[4]
SCRIPT = pathlib.Path(__file__).with_name('elsewhere.py')


def start(devices, *args):
  env = {**simulated.environment(devices), 'PYTHONPATH': str(ROOT)}
  return subprocess.Popen(
    [sys.executable, str(SCRIPT), *map(str, args)],
    cwd=ROOT,
    env=env,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def result(process):
  out, err = process.communicate(timeout=240)
  assert process.returncode == 0, err[-3000:]
  return json.loads(out.splitlines()[-1])


class ElsewhereTest(absltest.TestCase):
  @turns.seldom(0, 2)
  def test_saved_on_each_mesh_and_restored_on_all(self):
    found = result(start(8, 'meshes', self.create_tempdir().full_path))
    self.assertEqual(found['devices'], 8)
    self.assertGreater(found['split'], 3)
    self.assertEqual(found['wrong'], [])

  @turns.seldom(1, 2)
  def test_two_processes_agree_and_one_goes_on(self):
    folder = pathlib.Path(self.create_tempdir().full_path) / 'checkpoints'
    with socket.socket() as s:
      s.bind(('localhost', 0))
      port = s.getsockname()[1]
    processes = [start(2, 'pair', folder, port, i) for i in range(2)]
    first, second = (result(p) for p in processes)
    # 4 is not sound for process 1 alone, 5 for both.
    self.assertEqual(first['steps'], [4, 3, 3])
    self.assertEqual(second['steps'], first['steps'])
    self.assertTrue(first['equal'] and second['equal'])
    # Process 0 alone sets aside; each says what it has found itself.
    self.assertLen(first['notes'], 2)
    self.assertIn('4 is corrupt (another process could not read', first['notes'][0])
    self.assertIn('4.corrupt, going on from the one before', first['notes'][0])
    self.assertIn('5 is corrupt', first['notes'][1])
    self.assertIn('4 is corrupt here (meta/metadata does not', second['notes'][0])
    names = {p.name for p in folder.iterdir()}
    self.assertEqual(names, {'3', '4.corrupt', '5.corrupt', '6'})
    found = result(start(1, 'alone', folder))
    self.assertEqual(found, {'steps': [3, 6], 'step': 6, 'equal': True})


if __name__ == '__main__':
  absltest.main()
