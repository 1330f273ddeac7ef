"""What every file in experiments/ must hold; a new one joins by existing.

Of one experiment alone: `-k NAME`. Which tests of which experiments are slow, and what
an experiment costs: tiers.py and tests/README.md.
"""

import dataclasses
import gzip
import json
import pathlib
import struct

from absl.testing import absltest, parameterized
import numpy as np
import pytest

from dlx import experiment
from dlx.errors import ConfigError
from dlx.run import experiments_by_name
from dlx.run.loop import fit
from dlx.run.reopen import evaluate
from launch import checks
from tests.every_experiment import tiers
from tests.every_experiment.small import load, small

every = pytest.mark.parametrize('name', tiers.every())


@every
def test_docstring_has_the_command_and_config_the_fields_of_every_run(name):
  module = load(name)
  assert f'python -m launch.train --exp={name}\n' in f'{module.__doc__}\n'
  assert issubclass(module.Config, experiment.Config)
  assert module.Config.__dataclass_params__.frozen


@every
def test_default_is_traced_without_data_and_states_a_floor_or_why_not(name):
  module = load(name)
  built = module.build(module.Config())
  assert built.evals
  sums = checks.traced(module.build, module.Config())
  if isinstance(built.overfit, str):
    assert len(built.overfit.split()) > 3
  else:
    assert isinstance(built.overfit, experiment.Overfit)
    assert built.overfit.metric in sums


@pytest.mark.parametrize('name', tiers.every(expensive=True))
def test_stop_and_restart_equal_the_straight_run(name, tmp_path):
  config = small(name, num_steps=6, eval_every_steps=3)
  build, figures = load(name).build, tiers.figures(name)
  result = checks.restarted(build, config, tmp_path, figures)
  config = dataclasses.replace(config, steps_per_dispatch=1, log_every_steps=2)
  built, straight = build(config), tmp_path / 'straight'
  drawn = {path.stem for path in (straight / 'figures').glob('*')}
  assert drawn == set(built.figures if figures else ())
  if figures:
    check_evaluation(built, config, straight, result)


def check_evaluation(built, config, workdir, result):
  """The checkpoint gives the figures of the run: the same program on the same state."""
  found = evaluate(built, config, workdir)
  assert found
  for metric, value in found.items():
    np.testing.assert_allclose(value, result['metrics'][metric], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
  'name', [n for n in experiments_by_name.names() if not tiers.figures(n)]
)
def test_figures_and_evaluation_of_a_checkpoint(name, tmp_path):
  """Of those of which the test above leaves them out."""
  config = small(name, num_steps=2, eval_every_steps=None, log_every_steps=2)
  built = load(name).build(config)
  fit(built, config, tmp_path)
  assert {path.stem for path in (tmp_path / 'figures').glob('*')} == set(built.figures)
  result = json.loads((tmp_path / 'result.json').read_text())
  check_evaluation(built, config, tmp_path, result)


@every
def test_impossible_values_are_refused(name):
  config = load(name).Config()
  for field, value in (('batch_size', 0), ('lr', -1.0)):
    if hasattr(config, field):
      with pytest.raises(ConfigError, match=f'--config.{field}={value} is not'):
        dataclasses.replace(config, **{field: value})


def write_idx(path, array):
  """An idx file of unsigned bytes, the published form of MNIST, gzipped."""
  head = struct.pack(f'>HBB{array.ndim}I', 0, 8, array.ndim, *array.shape)
  path.write_bytes(gzip.compress(head + array.tobytes()))


def write_stripes(folder, sizes=(200, 50)):
  """A set in MNIST's format: the class of an image is the row of its stripe."""
  folder.mkdir(parents=True)
  rng = np.random.default_rng(0)
  for part, n in zip(('train', 't10k'), sizes, strict=True):
    label_B = rng.integers(0, 10, n).astype(np.uint8)
    image_BHW = rng.integers(0, 60, (n, 28, 28)).astype(np.uint8)
    rows_BR = 2 * label_B[:, None].astype(int) + np.arange(4)
    image_BHW[np.arange(n)[:, None], rows_BR] += 190
    write_idx(folder / f'{part}-images-idx3-ubyte.gz', image_BHW)
    write_idx(folder / f'{part}-labels-idx1-ubyte.gz', label_B)


class FolderInMnistFormatTest(parameterized.TestCase):
  @parameterized.parameters('fashion_mnist', 'a_set_nobody_knows')
  def test_trains_by_its_name(self, dataset):
    data_dir = pathlib.Path(self.create_tempdir().full_path)
    write_stripes(data_dir / dataset)
    config = load('cnn').Config(
      dataset=dataset,
      num_steps=60,
      features=(4,),
      dense=16,
      eval_every_steps=None,
      save_every_steps=None,
      lr=1e-2,
    )
    workdir = self.create_tempdir().full_path
    built = load('cnn').build(config)._replace(figures={})
    outcome = fit(built, config, workdir, data_dir=data_dir)
    # Ten classes, one a stripe: chance is 10 %.
    self.assertGreater(outcome.metrics['test/accuracy'], 0.8)
    found = json.loads((pathlib.Path(workdir) / 'result.json').read_text())['dataset']
    self.assertEqual([found[s]['size'] for s in ('train', 'test')], [200, 50])
    self.assertEqual({found[s]['kind'] for s in found}, {'raw'})


if __name__ == '__main__':
  absltest.main()
