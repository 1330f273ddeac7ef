"""Picture files, streamed: two processes read as one does; killed runs go on. Slow.

python -m pytest -m slow -s tests/launch/machine/multihost_pictures_test.py
"""

import os
import pathlib
import signal

from absl.testing import absltest
import pytest

from launch import data
from tests.dlx.data.pictures import photographs
from tests.launch import processes

pytestmark = pytest.mark.slow

STEPS, BATCH = 24, 4
TRAIN = 18  # Pictures: an epoch ends within a batch, and no save is at its end.


class PicturesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    pictures = photographs.folder(self.folder / 'photographs', train=TRAIN, val=6)
    self.set = f'--data_dir={self.folder / "data"}'
    command = ['data', 'images', str(pictures), '--keep=files', '--name=streets']
    self.assertEqual(data.main([*command, '--size=16', self.set]), 0)

  def flags(self, *more: str) -> tuple[str, ...]:
    return (
      self.set,
      '--exp=imagenet_resnet50',
      '--config.dataset=streets',
      '--config.blocks=1,1',
      '--config.width=2',
      '--config.flip=true',
      f'--config.num_steps={STEPS}',
      f'--config.batch_size={BATCH}',
      '--config.log_every_steps=1',
      '--config.eval_every_steps=8',
      '--config.save_every_steps=4',
      *more,
    )

  def test_two_processes_read_what_one_does(self):
    wide = ('--config.compute_dtype=float64', '--config.param_dtype=float64')
    runs = []
    for n in (2, 1):
      flags = self.flags('--config.stream_workers=1', *wide)
      runs.append(self.folder / f'run.{n}')
      processes.finish(self.folder, runs[-1].name, n, 4 // n, *flags, experiment=())
    difference = processes.largest_difference(*runs)
    print(f'figures differ by {difference:.1e}')
    self.assertLess(difference, 1e-9)
    prints = [processes.result(run)['dataset'] for run in runs]
    self.assertEqual(*prints)

  def test_killed_within_an_epoch_it_goes_on_bit_for_bit(self):
    for workers in (0, 1):
      flags = self.flags(f'--config.stream_workers={workers}')
      straight, broken = (f'{name}.{workers}' for name in ('straight', 'broken'))
      processes.finish(self.folder, straight, 1, 1, *flags, experiment=())
      for number, step in ((signal.SIGKILL, 6), (signal.SIGTERM, 15)):
        with processes.train(self.folder, broken, 1, 1, *flags, experiment=()) as group:
          group.until(processes.reached(self.folder / broken, step))
          os.kill(group.processes[0].pid, number)
          status = group.wait()[0]
        self.assertEqual(status, 42 if number == signal.SIGTERM else -number)
      processes.finish(self.folder, broken, 1, 1, *flags, experiment=())
      runs = [self.folder / name for name in (straight, broken)]
      self.assertEqual(*(processes.result(run)['fingerprint'] for run in runs))
      self.assertEqual(*map(processes.lines, runs))


if __name__ == '__main__':
  absltest.main()
