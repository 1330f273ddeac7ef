"""What every file in experiments/ must hold; a new one joins by existing."""

import dataclasses
import gzip
import importlib
import json
import pathlib
import struct

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from dlx import experiment
from dlx.errors import ConfigError
from dlx.run.dispatch import get_batch
from dlx.run.loop import evaluate, fit
from dlx.state import ratios
from launch.flags import experiments_by_name
from tests.every_experiment.fields import with_known

NAMES = experiments_by_name.names()


def load(name):
  return importlib.import_module(experiments_by_name.module_name(name))


# Of experiments that have such fields: less work for evaluations and figures.
LESS = {
  'judge.num_samples': 32,
  'sampler.num_steps': 3,
  'probe.labels': 200,
  'probe.test': 64,
}
# And nets that compile faster, where a test does not ask how well they learn.
SHALLOW = {'num_layers': 2, 'unet.channels': (16,)}


def short(name, shallow=False, **fields):
  """The default config, but for six steps with a save in the middle."""
  config = load(name).Config
  defaults = {'num_steps': 6, 'log_every_steps': 2, 'eval_every_steps': 3}
  less = {**LESS, **SHALLOW} if shallow else LESS
  return with_known(config(**{**defaults, 'batch_size': 16, **fields}), less)


class ExperimentTest(parameterized.TestCase):
  @parameterized.parameters(*NAMES)
  def test_docstring_has_the_command_and_config_the_fields_of_every_run(self, name):
    module = load(name)
    self.assertIn(f'python -m launch.train --exp={name}\n', f'{module.__doc__}\n')
    self.assertTrue(issubclass(module.Config, experiment.Config))
    self.assertTrue(module.Config.__dataclass_params__.frozen)

  @parameterized.parameters(*NAMES)
  def test_default_builds_without_data_and_a_step_keeps_the_state(self, name):
    built = load(name).build(load(name).Config())
    state = jax.eval_shape(lambda: built.init(jax.random.key(0)))
    for shapes in built.train_data.shapes:
      new, metrics = jax.eval_shape(built.train_step, state, shapes)
      chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
    self.assertTrue(built.evals)
    for split, evaluation in built.evals.items():
      sums = jax.eval_shape(evaluation.step, state, evaluation.data.shapes[0])
      found = jax.eval_shape(evaluation.summarize, sums)
      shapes = {getattr(x, 'shape', None) for x in found.values()}
      self.assertIn(state.stop.shape, shapes, f'{split} reports no number')
    if built.overfit is None:
      self.assertIn('overfit', load(name).__doc__)
    else:
      self.assertIn(built.overfit[0], metrics)

  @parameterized.parameters(*NAMES)
  def test_one_repeated_batch_is_learnt(self, name):
    config = short(name, num_steps=300)
    built = load(name).build(config)
    if built.overfit is None:
      self.skipTest('says why in its docstring')
    metric, floor = built.overfit
    data = jax.tree.map(jnp.asarray, built.train_data.load().data)
    batch = get_batch(
      built.train_data, data, jnp.int32(0), built.train_data.shape_id(0)
    )
    step = jax.jit(built.train_step, donate_argnums=0)
    state, least = built.init(jax.random.key(config.seed)), np.inf
    for _ in range(config.num_steps):
      state, sums = step(state, batch)
      value = float(np.mean(ratios(sums)[metric]))
      least = min(least, value if np.isfinite(value) else np.inf)
      if least <= floor:
        break
    self.assertLessEqual(least, floor)

  @parameterized.parameters(*NAMES)
  def test_stop_and_restart_equal_the_straight_run(self, name):
    built = load(name).build(short(name, shallow=True))
    prints = []
    # One step a dispatch, straight; then dispatches of three steps, two and one.
    for steps, log, stops in ((1, 2, []), (4, 6, [3, 5])):
      config = short(name, shallow=True, steps_per_dispatch=steps, log_every_steps=log)
      workdir = self.create_tempdir().full_path
      runs = built._replace(figures={}) if stops else built
      for stop in [*stops, None]:
        fit(runs, config, workdir, stop_at=stop)
      found = json.loads((pathlib.Path(workdir) / 'result.json').read_text())
      prints.append(found['fingerprint'])
      if not stops:
        self.check_figures_and_evaluation(built, config, workdir, found)
    self.assertEqual(*prints)

  def check_figures_and_evaluation(self, built, config, workdir, result):
    """Every figure was drawn, and the checkpoint gives the figures of the run."""
    drawn = {p.stem for p in (pathlib.Path(workdir) / 'figures').glob('*')}
    self.assertEqual(drawn, set(built.figures))
    found = evaluate(built, config, workdir)
    self.assertTrue(found)
    for metric, value in found.items():
      # The same program on the same state.
      np.testing.assert_allclose(value, result['metrics'][metric], rtol=1e-5, atol=1e-6)

  @parameterized.parameters(*NAMES)
  def test_impossible_values_are_refused(self, name):
    config = load(name).Config()
    for field, value in (('batch_size', 0), ('lr', -1.0)):
      if hasattr(config, field):
        with self.assertRaisesRegex(ConfigError, f'--config.{field}={value} is not'):
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
