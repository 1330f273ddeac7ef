"""Two processes run what is not the language model as one does. Slow.

python -m pytest -m slow -s tests/launch/machine/multihost_experiments_test.py
"""

import os
import pathlib

from absl.testing import absltest
import pytest

from tests.launch import processes

pytestmark = pytest.mark.slow

FLOAT64 = ('--config.compute_dtype=float64', '--config.param_dtype=float64')


def files(workdir: pathlib.Path) -> set[str]:
  """Paths of a run's files, those of checkpoints and times of TensorBoard aside."""
  found = set()
  for folder, _, names in os.walk(workdir):
    where = pathlib.Path(folder).relative_to(workdir)
    if 'checkpoints' not in where.parts:
      found |= {str(where / name).partition('.tfevents.')[0] for name in names}
  return found


class ExperimentsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def finish(self, name: str, n: int, devices: int, *flags: str):
    flags += FLOAT64
    processes.finish(self.folder, name, n, devices, *flags, experiment=())

  def compare(self, name: str, *flags: str):
    """Two processes of two devices, and one of four."""
    runs = [self.folder / f'{name}.{n}' for n in (2, 1)]
    for n, run in zip((2, 1), runs, strict=True):
      self.finish(run.name, n, 4 // n, *flags)
    difference = processes.largest_difference(*runs)
    print(f'{name}: figures differ by {difference:.1e}')
    self.assertLess(difference, 1e-9)
    self.assertEqual(*(files(run) for run in runs))
    return runs

  def test_streamed_by_workers_with_pictures(self):
    runs = self.compare(
      'streamed',
      '--exp=cnn',
      '--config.stream=true',
      '--config.stream_workers=1',
      '--config.num_steps=12',
      '--config.log_every_steps=1',
      '--config.eval_every_steps=4',
      '--config.figure_every_steps=6',
    )
    self.assertTrue([name for name in files(runs[0]) if name.endswith('.png')])

  def test_warm_start(self):
    before = ('--exp=cnn', '--config.num_steps=8', '--config.features=8,8')
    self.finish('before', 1, 1, *before)
    runs = self.compare(
      'after',
      '--exp=transfer',
      '--config.features=8,8',
      f'--config.source.workdir={self.folder / "before"}',
      '--config.num_steps=8',
      '--config.log_every_steps=1',
    )
    origins = [processes.record(run)['warm_start'] for run in runs]
    self.assertEqual(*origins)
    self.assertEqual(origins[0]['step'], 8)


if __name__ == '__main__':
  absltest.main()
