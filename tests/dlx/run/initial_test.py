"""What a run begins with of another run, in hand-made trees; what is refused."""

import dataclasses
import json
import os
import pathlib

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.run import initial
from dlx.run.checkpoint.checkpointer import Checkpointer
from dlx.run.loop import fit
from dlx.run.records import command
from dlx.state import create, leaves_by_path
from dlx.train import early_stopping
from tests.dlx.run import kinds
from tests.same_bytes import same_bytes

F32, BF16 = jnp.float32, jnp.bfloat16
KEY = jax.random.key(0)


def ones(value, *shape, dtype=F32):
  return jnp.full(shape, value, dtype)


def net(value, classes=3, dtype=F32):
  """11 numbers of the trunk and head, and 2 of what another name has."""
  return {
    'trunk': {'kernel': ones(value, 4, 2, dtype=dtype)},
    'head': {'kernel': ones(value, classes, dtype=dtype)},
  }


def stats(value):
  return {'batch_stats': {'trunk': {'mean': ones(value, 2)}}}


class InitialTest(parameterized.TestCase):
  def run_with(self, params, name='run', saved=(5,), config=(), **parts):
    """A workdir with checkpoints of a state, the first of them the best."""
    folder = initial.absolute(self.create_tempdir().full_path) / name
    folder.mkdir(exist_ok=True)
    config = {'seed': 0, **dict(config)}
    record = {'experiment': 'other', 'config': config}
    (folder / 'config.json').write_text(json.dumps(record))
    files = Checkpointer(folder / 'checkpoints', keep=9, note=self.fail)
    state = create(params, {'mu': params}, KEY, **parts)
    for i, step in enumerate(saved):
      at = jax.tree.map(lambda x, i=i: x + i, state._replace(rng=ones(0)))
      files.save(step, at._replace(rng=KEY), {}, {'val/loss': 1.0 + i})
    files.close()
    return str(folder)

  def take(self, state, text, skip=()):
    return initial.source(text, skip).take(state)

  def test_parameters_by_name_and_shape(self):
    there = {**net(2.0, classes=5), 'old': {'bias': ones(2.0, 7)}}
    here = {**net(1.0), 'new': ones(1.0, 2, 2)}
    path = self.run_with(there, model_state=stats(2.0))
    fresh = create(here, {'mu': net(0.0)}, KEY, model_state=stats(1.0))
    state, origin = self.take(fresh, path)
    wanted = fresh._replace(
      params={**here, 'trunk': {'kernel': ones(2.0, 4, 2)}}, model_state=stats(2.0)
    )
    self.assertTrue(same_bytes(state._replace(rng=()), wanted._replace(rng=())))
    self.assertEqual(origin['step'], 5)
    self.assertEqual((origin['path'], origin['experiment']), (path, 'other'))
    self.assertLen(origin['digest'], 64)
    counts = {row: (origin[row]['arrays'], origin[row]['numbers']) for row in
              ('taken', 'left_out', 'new', 'cast')}  # fmt: skip
    self.assertEqual(
      counts, {'taken': (2, 10), 'left_out': (1, 7), 'new': (2, 7), 'cast': (0, 0)}
    )
    self.assertEqual(origin['left_out']['names'], ['params/old/bias'])
    self.assertEqual(
      origin['new']['names'], ['params/head/kernel (3, there 5)', 'params/new']
    )
    new = 'params/head/kernel (3, there 5), params/new'
    told = [
      f'--init_from={path}:5, parameters of other',
      '  taken: 2 arrays, 10 numbers',
      '  left out (there alone): 1 arrays, 7 numbers: params/old/bias',
      f'  newly made: 2 arrays, 7 numbers: {new}',
    ]
    self.assertEqual(initial.told(origin), told)

  @parameterized.parameters('head/kernel', 'head/.*', 'head*', '*ead/[k]ernel')
  def test_a_head_that_is_left_new(self, pattern):
    path = self.run_with(net(2.0))
    state, origin = self.take(create(net(1.0), (), KEY), path, pattern)
    self.assertTrue(same_bytes(state.params['head'], net(1.0)['head']))
    self.assertTrue(same_bytes(state.params['trunk'], net(2.0)['trunk']))
    self.assertEqual(origin['new']['names'], ['params/head/kernel (skipped)'])
    self.assertEqual(origin['left_out']['arrays'], 0)

  def test_the_average_is_what_is_taken(self):
    path = self.run_with(net(2.0), ema=net(4.0))
    state, origin = self.take(create(net(1.0), (), KEY, ema=net(1.0)), path, 'head/.*')
    self.assertTrue(origin['averaged'])
    self.assertIn(', averaged parameters of other', initial.told(origin)[0])
    # The average of this run begins where its parameters do.
    self.assertTrue(same_bytes(state.ema, state.params))
    self.assertEqual(float(state.params['trunk']['kernel'][0, 0]), 4)
    self.assertEqual(float(state.params['head']['kernel'][0]), 1)

  def test_the_average_of_one_player_and_a_copy_that_is_no_average(self):
    d = {'layer': ones(3.0, 6)}
    path = self.run_with({'g': net(2.0), 'd': d}, ema=net(4.0))
    params = {'g': net(1.0), 'd': {'layer': ones(1.0, 6)}}
    kept = {'slow': params['g'], 'anchor': net(7.0), 'd': {'mean': ones(1.0, 2)}}
    fresh = create(params, (), KEY, ema=params['g'], model_state=kept)
    state, _ = self.take(fresh, path)
    self.assertTrue(same_bytes(state.params, {'g': net(4.0), 'd': d}))
    self.assertTrue(same_bytes(state.ema, net(4.0)))
    self.assertTrue(same_bytes(state.model_state, {**kept, 'slow': net(4.0)}))

  def test_statistics_of_players_and_of_no_other_part(self):
    parts = lambda x: {'g': {'mean': ones(x, 2)}, 'judge': {'mean': ones(x, 2)}}
    path = self.run_with({'g': net(2.0)}, model_state=parts(2.0))
    fresh = create({'g': net(1.0)}, (), KEY, model_state=parts(1.0))
    state, origin = self.take(fresh, path)
    mixed = {'g': parts(2.0)['g'], 'judge': parts(1.0)['judge']}
    self.assertTrue(same_bytes(state.model_state, mixed))
    self.assertEqual(origin['left_out']['arrays'], 0)

  def test_other_dtypes_are_cast_and_told(self):
    with jax.enable_x64(True):
      path = self.run_with(net(1 + 2**-30, dtype=jnp.float64))
    state, origin = self.take(create(net(1.0, dtype=BF16), (), KEY), path)
    self.assertTrue(same_bytes(state.params, net(1.0, dtype=BF16)))
    self.assertEqual((origin['cast']['arrays'], origin['cast']['numbers']), (2, 11))
    self.assertIn('  cast: 2 arrays, 11 numbers: params/head', initial.told(origin)[-1])
    # Whole numbers are no floats: nothing fits.
    with self.assertRaisesRegex(ConfigError, 'no parameter there'):
      self.take(create(net(1, dtype=jnp.int32), (), KEY), path)

  def test_steps_of_the_other_run(self):
    metric = {'best_metric': 'val/loss', 'best_mode': 'min'}
    path = self.run_with(net(2.0), saved=(5, 8), config=metric)
    for text, step, value in (
      ('', 8, 3),
      (':latest', 8, 3),
      (':best', 5, 2),
      (':5', 5, 2),
    ):
      state, origin = self.take(create(net(1.0), (), KEY), path + text)
      self.assertEqual(origin['step'], step)
      self.assertTrue(same_bytes(state.params, net(float(value))))

  def test_early_stopping_remembers_what_was_taken(self):
    path = self.run_with(net(2.0))
    fresh = create(net(1.0), (), KEY)
    weights = {'params': fresh.params, 'model_state': (), 'ema': ()}
    best = early_stopping.Best(ones(9.0), ones(0), weights)
    state, _ = self.take(fresh._replace(best=best), path)
    self.assertTrue(same_bytes(state.best.weights['params'], net(2.0)))

  def test_what_is_refused(self):
    path = self.run_with(net(2.0))
    odd = {'arm': ones(1.0, 3)}
    for params, text, skip, message in (
      (net(1.0), f'{path}:best', '', 'kept no best .* use --init_from=.*:latest'),
      (net(1.0), f'{path}:6', '', 'has no checkpoint of step 6: there are 5'),
      (net(1.0), f'{path}x', '', '^--init_from=.*x holds no run'),
      (
        net(1.0),
        path,
        'hed/.*',
        '^--init_skip=hed.* must match .* such as head/kernel',
      ),
      (net(1.0), path, '*', 'all that would fit is in --init_skip'),
      (odd, path, '', r'there head/kernel \(3\), here arm \(3\)'),
      ((), path, '', 'no parameter there .*here none'),
    ):
      source = initial.source(text, skip)
      state = create(params, (), KEY)
      shapes = jax.eval_shape(lambda s=state: s)
      for read, given in ((source.check, shapes), (source.take, state)):
        with self.assertRaisesRegex(ConfigError, message) as caught:
          read(given)
        self.assertNotIn('\n', str(caught.exception))
    for text, skip, message in (
      ('runs/a:bset', '', 'must be WORKDIR or WORKDIR:STEP'),
      (':best', '', 'must be WORKDIR or WORKDIR:STEP'),
      (None, 'head', '--init_skip=head is not allowed without --init_from=WORKDIR'),
    ):
      with self.assertRaisesRegex(ConfigError, message):
        initial.source(text, skip)

  def test_a_checkpoint_that_is_damaged(self):
    path = self.run_with(net(2.0))
    meta = pathlib.Path(path) / 'checkpoints' / '5' / 'meta' / 'metadata'
    meta.write_text(meta.read_text().replace('"step": 5', '"step": 6'))
    with self.assertRaisesRegex(ConfigError, 'is corrupt .*digest'):
      initial.source(path).check(create(net(1.0), (), KEY))

  def test_addresses_with_colons(self):
    for text, workdir, step in (
      ('gs://bucket/run', 'gs://bucket/run', 'latest'),
      ('gs://bucket/run:best', 'gs://bucket/run', 'best'),
      ('/a:b/run:12', '/a:b/run', 12),
      (pathlib.Path('/a'), '/a', 'latest'),
    ):
      source = initial.source(text)
      self.assertEqual((source.workdir, source.step), (workdir, step))
    self.assertIsNone(initial.source(None))
    self.assertEqual(initial.source('/a', ' a,b'.strip()).skip, ('a', 'b'))


class RunTest(absltest.TestCase):
  """Through the loop: a classifier with another number of outputs."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = pathlib.Path(cls.create_tempdir(cls()).full_path)
    cls.config = kinds.Small(num_steps=4, eval_every_steps=4, save_every_steps=2)
    cls.other = cls.root / 'other'
    fit(kinds.classifier(cls.config), cls.config, cls.other)

  def fit(self, name, **options):
    config = dataclasses.replace(self.config, seed=1)
    return fit(kinds.classifier(config), config, self.root / name, **options)

  def fingerprint(self, name):
    return json.loads((self.root / name / 'result.json').read_text())['fingerprint']

  def test_killed_moved_and_gone_on_with(self):
    moved = self.root / 'moved'
    (self.root / 'copy').symlink_to(self.other)
    asked = f'{self.root}/copy:2'
    self.fit('straight', init_from=asked)
    self.fit('alone')
    self.assertNotEqual(self.fingerprint('straight'), self.fingerprint('alone'))
    self.fit('stopped', init_from=asked, stop_at=3)
    os.rename(self.root / 'copy', moved)
    record = json.loads((self.root / 'stopped/config.json').read_text())['init_from']
    self.assertEqual((record['asked'], record['step'], record['skip']), (2, 2, []))
    for options, message in (
      (
        {'init_from': f'{moved}:2'},
        'moved:2 is not allowed: .* began with --.*copy:2: ',
      ),
      ({'init_from': f'{self.root}/copy'}, 'copy:latest is not allowed: the run in'),
      ({'init_from': asked, 'init_skip': 'x,y'}, r'copy:2 --init_skip=x,y is not'),
    ):
      with self.assertRaisesRegex(ConfigError, message):
        self.fit('stopped', **options)
    with self.assertRaisesRegex(ConfigError, 'copy:2 is not allowed: .* began without'):
      self.fit('alone', init_from=asked)
    self.assertEqual(self.fit('stopped', init_from=asked).status, 'finished')
    self.assertEqual(self.fingerprint('stopped'), self.fingerprint('straight'))
    self.fit('left_out', init_from=f'{moved}:2', stop_at=2)
    self.fit('left_out')  # Not asked for again: goes on.
    self.assertEqual(self.fingerprint('left_out'), self.fingerprint('straight'))

  def test_a_refused_start_leaves_nothing(self):
    with self.assertRaisesRegex(ConfigError, 'holds no run'):
      self.fit('never', init_from='/nowhere')
    self.assertFalse((self.root / 'never').exists())
    with self.assertRaisesRegex(ConfigError, 'is the --workdir itself'):
      self.fit('other', init_from=self.other, fresh=True)
    self.assertTrue((self.other / 'result.json').exists())

  def test_the_experiments_own_warm_start_comes_after(self):
    config, seen = self.config, []

    def warm(state):
      seen.append(np.asarray(jax.tree.leaves(state.params)[0]))
      return state, {'own': 1}

    experiment = kinds.classifier(config)._replace(warm_start=warm)
    fit(experiment, config, self.root / 'both', init_from=self.other, stop_at=1)
    record = json.loads((self.root / 'both/config.json').read_text())
    self.assertEqual(record['warm_start'], {'own': 1})
    leaves, _ = initial.read(self.other, 'latest', lambda there: {
      name: jax.ShapeDtypeStruct(shape, dtype)
      for name, (dtype, shape) in there.items()
      if name.startswith('state/params')
    })  # fmt: skip
    first = next(iter(leaves_by_path(experiment.init(KEY).params)))
    np.testing.assert_array_equal(seen[0], leaves[f'state/params/{first}'])


class CommandTest(absltest.TestCase):
  def test_a_new_run_from_a_run_that_cannot_go_on(self):
    argv = ['x', '--exp=cnn', '--workdir', 'a', '--config.num_steps=9', '--extend']
    argv += ['--fresh', '--stop_at=3', '--init_from=b', '--init_skip', 'c', '--mesh=d']
    found = command.from_parameters(argv, 'a')
    words = 'python -m launch.train --exp=cnn --config.num_steps=9 --mesh=d'
    self.assertEqual(found, f'{words} --workdir=a_longer --init_from=a'.split())
    kept = ['--exp=cnn', '--workdir', 'a', '--config.num_steps=9', '--extend']
    kept += ['--init_from=b', '--init_skip', 'c', '--mesh=d']
    self.assertEqual(command.reproduce(argv)[3:], kept)


if __name__ == '__main__':
  absltest.main()
