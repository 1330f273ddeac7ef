"""What a run takes from another run, and what a wrong one is told."""

import json
import pathlib
import shutil
from unittest import mock

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.run import reopen, warm_start
from dlx.run.checkpoint import files
from dlx.run.loop import fit
from dlx.state import leaves_by_path
from tests.dlx.run import kinds
from tests.same_bytes import same_bytes


class WarmStartTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.config = kinds.Small(num_steps=6, ema_decay=0.9)
    cls.path = cls.create_tempdir(cls()).full_path
    cls.outcome = fit(kinds.two_players(cls.config), cls.config, cls.path)

  def test_leaves_are_those_of_the_other_run(self):
    params = self.outcome.state.params
    shapes = jax.eval_shape(lambda: params)
    found, origin = warm_start.restore(self.path, shapes)
    self.assertTrue(same_bytes(found, params))
    part, _ = warm_start.restore(self.path, shapes['d'], prefix='params/d')
    self.assertTrue(same_bytes(part, params['d']))
    ema, _ = warm_start.restore(self.path, shapes['g'], prefix='ema')
    self.assertTrue(same_bytes(ema, self.outcome.state.ema))
    self.assertFalse(same_bytes(ema, params['g']))
    result = json.loads((pathlib.Path(self.path) / 'result.json').read_text())
    self.assertEqual(origin['fingerprint'], result['fingerprint'])
    self.assertEqual(origin['step'], 6)
    self.assertLen(origin['digest'], 64)

  def test_a_run_that_drops_what_is_read_is_followed(self):
    params = self.outcome.state.params
    experiment = kinds.two_players(self.config)
    readers = (
      lambda path: warm_start.restore(path, params)[1]['step'],
      lambda path: reopen.evaluate(experiment, self.config, path),
    )
    scores = self.outcome.metrics.items()
    scores = {name: value for name, value in scores if not name.startswith('train/')}
    real, expected = files.read_meta, (7, scores)
    for read, wanted in zip(readers, expected, strict=True):
      path = pathlib.Path(self.create_tempdir().full_path) / 'run'
      shutil.copytree(self.path, path)

      def meanwhile(at, folder=path / 'checkpoints'):
        if at.name == '6' and at.exists():
          (folder / '6').rename(folder / '7')
        return real(at)

      with mock.patch.object(files, 'read_meta', meanwhile):
        self.assertEqual(read(path), wanted)

  def test_an_order_of_names_that_jit_would_sort_is_kept(self):
    params = self.outcome.state.params
    backwards = {'g': params['g'], 'd': params['d']}
    found, _ = warm_start.restore(self.path, backwards)
    for name, leaf in leaves_by_path(found).items():
      np.testing.assert_array_equal(leaf, leaves_by_path(params)[name], name)

  def test_wrong_runs_are_refused_in_one_line(self):
    params = jax.tree.map(jnp.zeros_like, self.outcome.state.params)
    other = {**params, 'd': jax.tree.map(lambda x: jnp.zeros((2, 2)), params['d'])}
    for wanted, where, message in (
      (params, '/nowhere', 'holds no run'),
      (other, self.path, r'is of another program: state/params/d/.* is .*here'),
      ({'e': params['d']}, self.path, 'state/params/e/.* missing there'),
    ):
      with self.assertRaisesRegex(ConfigError, message) as caught:
        warm_start.restore(where, wanted)
      self.assertNotIn('\n', str(caught.exception))
    with self.assertRaisesRegex(ConfigError, 'no checkpoint of step 5: there are 6'):
      warm_start.restore(self.path, params, step=5)

  def test_flipped_bits_are_found(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    config = kinds.Small(num_steps=2)
    out = fit(kinds.two_players(config), config, folder)
    changed = 0
    for path in (folder / 'checkpoints' / '2' / 'arrays').rglob('*'):
      if path.is_file() and '/d/' in str(path) and path.stat().st_size > 8:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        changed += 1
    if not changed:
      self.skipTest('this Orbax keeps no file for each array')
    with self.assertRaisesRegex(ConfigError, 'is corrupt'):
      warm_start.restore(folder, out.state.params)

  def test_the_origin_stands_in_config_json_and_resume_reads_nothing(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    config, calls = kinds.Small(num_steps=4), []
    base = kinds.two_players(config)

    def warm(state):
      calls.append(1)
      found, origin = warm_start.restore(self.path, state.params)
      return state._replace(params=found), origin

    fit(base._replace(warm_start=warm), config, folder, stop_at=2)
    fit(base._replace(warm_start=warm), config, folder)
    self.assertLen(calls, 1)
    record = json.loads((folder / 'config.json').read_text())['warm_start']
    self.assertEqual((record['path'], record['step']), (self.path, 6))

  def test_after_a_refused_warm_start_the_corrected_command_runs(self):
    folder, config = self.create_tempdir().full_path, kinds.Small(num_steps=2)
    base = kinds.two_players(config)

    def warm(state):
      return state, warm_start.restore('/nowhere', state.params)[1]

    with self.assertRaisesRegex(ConfigError, 'holds no run'):
      fit(base._replace(warm_start=warm), config, folder)
    other = kinds.Small(num_steps=3)  # Refused if config.json had been left.
    self.assertEqual(fit(kinds.two_players(other), other, folder).status, 'finished')


if __name__ == '__main__':
  absltest.main()
