"""What a run goes on with, and what it refuses, through the loop; bits are compared."""

import dataclasses
import json
import pathlib

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.run.loop import fit
from dlx.run.records import agreement
from tests.dlx.run import kinds

FREELY = {
  'eval_batch_size': 7,
  'log_every_steps': 3,
  'save_every_steps': 2,
  'figure_every_steps': 5,
  'eval_at_start': True,
  'keep_checkpoints': 4,
  'best_metric': 'val/loss',
  'best_mode': 'min',
  'steps_per_dispatch': 1,
  'stream': True,
  'stream_workers': 1,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(kinds.Small):
  num_steps: int = 8
  scheduled: bool = False


def build(config: Config):
  """The classifier, whose step depends on the length of the run where scheduled."""
  experiment = kinds.classifier(config)
  if not config.scheduled:
    return experiment

  def train_step(state, batch):
    new, metrics = experiment.train_step(state, batch)
    share = 1 - state.step / config.num_steps
    move = lambda a, b: a + jnp.float32(share) * (b - a)
    return new._replace(params=jax.tree.map(move, state.params, new.params)), metrics

  return experiment._replace(train_step=train_step)


class GoingOnTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.create_tempdir().full_path) / 'run'

  def fit(self, config, workdir=None, **options):
    experiment = options.pop('experiment', None) or build(config)
    return fit(experiment, config, workdir or self.workdir, **options)

  def fingerprint(self, workdir=None):
    found = json.loads(((workdir or self.workdir) / 'result.json').read_text())
    return found['fingerprint']

  def straight(self, config):
    workdir = pathlib.Path(self.create_tempdir().full_path) / 'straight'
    self.fit(config, workdir)
    return self.fingerprint(workdir)

  def test_fields_that_decide_no_bit(self):
    self.assertEqual(set(FREELY), set(agreement.FREE))
    config = Config()
    self.fit(config, stop_at=5)
    # The toy reads no stream; what is changed here is the field alone.
    self.fit(dataclasses.replace(config, **FREELY))
    self.assertEqual(self.fingerprint(), self.straight(config))
    record = json.loads((self.workdir / 'config.json').read_text())
    self.assertEqual(record['config']['keep_checkpoints'], 4)

  def test_evaluations_may_move_where_nothing_follows_them(self):
    config = Config()
    self.fit(config, stop_at=5)
    moved = dataclasses.replace(config, eval_every_steps=4)
    self.fit(moved)
    self.assertEqual(self.fingerprint(), self.straight(config))
    with self.assertRaisesRegex(ConfigError, 'eval_every_steps: 4 there, 3 here'):
      other = dataclasses.replace(config, eval_every_steps=3)
      same = build(other)._replace(after_eval=lambda state, scalars: state)
      self.fit(other, experiment=same)

  def test_a_longer_run_of_which_no_step_knows_the_length(self):
    config, longer = Config(), Config(num_steps=11)
    self.assertEqual(self.fit(config).status, 'finished')
    self.assertEqual(self.fit(longer).step, 11)
    self.assertEqual(self.fingerprint(), self.straight(longer))
    with self.assertRaisesRegex(ConfigError, 'num_steps: 11 there, 8 here'):
      self.fit(config)

  def test_a_longer_run_with_a_schedule_must_be_asked_for(self):
    config, longer = Config(scheduled=True), Config(scheduled=True, num_steps=11)
    self.fit(config, stop_at=5)
    with self.assertRaisesRegex(ConfigError, 'num_steps=11 is more than the 8 .*--ext'):
      self.fit(longer)
    self.assertEqual(self.fit(longer, extend=True).step, 11)
    self.assertNotEqual(self.fingerprint(), self.straight(longer))

  def test_fresh_moves_what_was_there_aside(self):
    config = Config()
    self.fit(config)
    first = self.fingerprint()
    other = dataclasses.replace(config, seed=5)
    self.assertEqual(self.fit(other, fresh=True).status, 'finished')
    self.assertNotEqual(self.fingerprint(), first)
    self.assertEqual(self.fingerprint(self.workdir.with_name('run.before_1')), first)

  def test_other_data_under_the_same_name(self):
    config = Config()
    self.fit(config, stop_at=5)
    other = build(config)
    loaded = other.train_data.load()
    origin = {**loaded.origin, 'sha256': 'another'}
    other.train_data.load = lambda data_dir=None: loaded._replace(origin=origin)
    with self.assertRaisesRegex(ConfigError, 'train.sha256 was None, is another'):
      self.fit(config, experiment=other)
    outcome = self.fit(config, experiment=other, data_changed=True)
    self.assertEqual(outcome.status, 'finished')

  def test_settings_that_decide_bits_are_recorded(self):
    self.fit(Config())
    record = json.loads((self.workdir / 'config.json').read_text())
    self.assertEqual(record['jax']['enable_x64'], jax.config.read('jax_enable_x64'))
    self.assertIn('threefry_partitionable', record['jax'])
    # This file, by the module of the Config.
    self.assertEqual(record['source']['main'], __name__)
    self.assertEqual(record['experiment'], __file__)
    kept = self.workdir / 'source' / f'{__name__}.py'
    self.assertEqual(kept.read_text(), pathlib.Path(__file__).read_text())


if __name__ == '__main__':
  absltest.main()
