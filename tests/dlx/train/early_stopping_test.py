"""Tests for dlx/train/early_stopping.py: scripted curves, then through the loop."""

import contextlib
import io
import json
import pathlib

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.dataset import Loaded, Resident
from dlx.errors import ConfigError
from dlx.experiment import Eval, Experiment
from dlx.run import reopen
from dlx.run.loop import fit
from dlx.state import Mean, create
from dlx.train.early_stopping import early_stopping, held, with_early_stopping
from tests.dlx.run import kinds


class Nothing(Resident):
  """One row of nothing."""

  shapes = (
    {
      'x': jax.ShapeDtypeStruct((1,), np.float32),
      'weight': jax.ShapeDtypeStruct((1,), np.float32),
    },
  )

  def load(self, data_dir=None):
    return Loaded(
      {}, {'name': 'nothing', 'split': 'train', 'kind': 'generated', 'size': 1}
    )

  def array_shapes(self):
    return {}

  def get(self, arrays, step):
    return {'x': jnp.zeros(1), 'weight': jnp.ones(1)}

  def num_batches(self, data):
    return 1


def scripted(curve) -> Experiment:
  """The parameter counts steps; the loss after step i is curve[i - 1]."""
  values = jnp.asarray(curve, jnp.float32)

  def init(key):
    return create({'w': jnp.zeros(())}, (), key, model_state={'seen': jnp.zeros(())})

  def train_step(s, batch):
    del batch
    new = s._replace(
      step=s.step + 1,
      params={'w': s.params['w'] + 1},
      model_state={'seen': s.model_state['seen'] + 1},
    )
    return new, {'loss': Mean(jnp.ones(()), jnp.ones(()))}

  def evaluate(s, batch):
    return {'loss': Mean(values[s.step - 1], batch['weight'].sum())}

  return Experiment(init, train_step, Nothing(), {'val': Eval(evaluate, Nothing())})


def run(curve, folder, config=None, stops=(), **kwargs):
  config = config or kinds.Small(
    num_steps=len(curve), eval_every_steps=1, save_every_steps=3, log_every_steps=2
  )
  for stop in stops:
    fit(
      early_stopping(scripted(curve), 'val/loss', **kwargs),
      config,
      folder,
      stop_at=stop,
    )
  return fit(early_stopping(scripted(curve), 'val/loss', **kwargs), config, folder)


class EarlyStoppingTest(parameterized.TestCase):
  @parameterized.parameters(
    # Curve, patience, min_delta, step of the stop, step of the best.
    ([5, 4, 3, 4, 5, 6, 7, 8], 2, 0.0, 5, 3),
    ([5, 4, 3, 4, 2, 6, 7, 8], 2, 0.0, 7, 5),
    ([5, 4, 4, 4, 1, 1, 1, 1], 2, 0.0, 4, 2),
    ([5, 4.9, 4.8, 4.7, 1], 2, 0.5, 3, 1),
  )
  def test_scripted_curve(self, curve, patience, min_delta, stop, best):
    out = run(
      curve, self.create_tempdir().full_path, patience=patience, min_delta=min_delta
    )
    self.assertEqual((out.status, out.step), ('finished', stop))
    self.assertEqual(float(out.state.params['w']), best)
    self.assertEqual(float(out.state.model_state['seen']), best)

  def test_a_person_is_told_that_it_stopped_and_why(self):
    curve, said = [5, 4, 3, 4, 5, 6, 7, 8], io.StringIO()
    config = kinds.Small(
      num_steps=8,
      eval_every_steps=1,
      log_every_steps=2,
      early_stop_metric='val/loss',
      early_stop_patience=2,
    )
    experiment = with_early_stopping(scripted(curve), config)
    with contextlib.redirect_stderr(said):
      out = fit(experiment, config, self.create_tempdir().full_path)
    self.assertEqual(out.step, 5)
    told = 'Stopped early at step 5: val/loss improves no longer.\n'
    self.assertIn(told, said.getvalue())
    self.assertIn('The weights are those of the best val/loss, 3.\n', said.getvalue())

  def test_without_restore_the_last_weights_stay(self):
    out = run(
      [1, 2, 3, 4, 5], self.create_tempdir().full_path, patience=2, restore_best=False
    )
    self.assertEqual((out.step, float(out.state.params['w'])), (3, 3.0))

  def test_a_curve_that_improves_runs_to_the_end_and_restores_nothing(self):
    out = run([4, 3, 2, 3], self.create_tempdir().full_path, patience=2)
    self.assertEqual((out.step, float(out.state.params['w'])), (4, 4.0))
    self.assertFalse(bool(out.state.stop))

  def test_max_mode(self):
    out = run([1, 5, 4, 3, 9], self.create_tempdir().full_path, patience=2, mode='max')
    self.assertEqual((out.step, float(out.state.params['w'])), (4, 2.0))

  def test_survives_a_restart_in_the_middle_of_its_patience(self):
    curve = [5, 4, 3, 4, 5, 6, 7, 8, 9, 9]
    folders = [pathlib.Path(self.create_tempdir().full_path) for _ in range(2)]
    whole = run(curve, folders[0], patience=4)
    broken = run(curve, folders[1], patience=4, stops=(4, 6))
    self.assertEqual(broken.step, whole.step)
    prints = [json.loads((f / 'result.json').read_text()) for f in folders]
    self.assertEqual(prints[0]['fingerprint'], prints[1]['fingerprint'])
    self.assertEqual(prints[0]['metrics'], prints[1]['metrics'])
    self.assertTrue(prints[0]['stopped_early'])

  def test_own_after_eval_and_warm_start_go_on(self):
    config = kinds.Small(num_steps=6)
    base = kinds.plateau_and_stop(config)
    warm = lambda s: (s._replace(params=jax.tree.map(jnp.zeros_like, s.params)), {})
    out = fit(
      early_stopping(base._replace(warm_start=warm), 'val/loss'),
      config,
      self.create_tempdir().full_path,
      stop_at=6,
    )
    self.assertEqual(float(out.state.opt_state.best), float(out.state.best.value))

  @parameterized.parameters(
    # Curve; what w ends as; the words.
    ([5, 4, 3, 4, 5, 6], 3, 'those of the best val/loss, 3'),
    (
      [5, 3, 4],
      3,
      'those of the last step; the best val/loss, 3, was of other weights',
    ),
    ([np.nan] * 5, 2, 'those of the last step, since val/loss was never finite'),
    ([-np.inf, np.nan, 3, 4], 2, 'those of the last step, since val/loss was never'),
  )
  def test_says_which_weights_a_finished_run_holds(self, curve, w, words):
    config = kinds.Small(
      num_steps=len(curve), eval_every_steps=1, early_stop_metric='val/loss'
    )
    folder = pathlib.Path(self.create_tempdir().full_path)
    out = run(curve, folder, config, patience=2)
    self.assertEqual(float(out.state.params['w']), w)
    self.assertStartsWith(
      json.loads((folder / 'result.json').read_text())['weights'], words
    )

  def test_says_it_of_members_of_one_program_too(self):
    """They keep in model_state whether they diverged, around what was put back."""
    wrapped = early_stopping(scripted([2.0, 1.0]), 'val/loss', patience=1)
    state = wrapped.init(jax.random.key(0))
    for value in (2.0, 3.0):
      state = wrapped.after_eval(state, {'val/loss': jnp.float32(value)})
    joint = state._replace(model_state=(state.model_state, jnp.zeros(1, bool)))
    self.assertEqual(held(joint, 'val/loss'), 'those of the best val/loss, 2')
    moved = joint._replace(params={'w': joint.params['w'] + 1})
    self.assertStartsWith(held(moved, 'val/loss'), 'those of the last step; the best')

  def test_a_best_metric_that_was_never_finite(self):
    config = kinds.Small(num_steps=2, eval_every_steps=1, best_metric='val/loss')
    folder = pathlib.Path(self.create_tempdir().full_path)
    fit(scripted([np.nan, np.inf]), config, folder)
    self.assertEqual(
      json.loads((folder / 'result.json').read_text())['weights'],
      'those of the last step; kept as the best: none, since val/loss was never finite',
    )
    with self.assertRaisesRegex(
      ConfigError, 'best checkpoint, as val/loss was not finite at any step that was'
    ):
      reopen.evaluate(scripted([np.nan, 1]), config, folder, step='best')

  def test_nan_is_no_improvement(self):
    wrapped = early_stopping(scripted([1.0]), 'val/loss', patience=1)
    state = wrapped.init(jax.random.key(0))
    new = wrapped.after_eval(state, {'val/loss': jnp.float32(jnp.nan)})
    self.assertTrue(bool(new.stop))
    chex.assert_trees_all_equal(new.best.value, state.best.value)

  @parameterized.parameters(
    ({'metric': 'test/loss'}, 'SPLIT one of val'),
    ({'metric': 'val/loss', 'patience': 0}, 'early_stop_patience=0'),
    ({'metric': 'val/loss', 'mode': 'best'}, 'early_stop_mode=best'),
  )
  def test_refuses(self, kwargs, message):
    with self.assertRaisesRegex(ConfigError, message):
      early_stopping(scripted([1.0]), **kwargs)

  def test_unknown_name_in_a_known_split(self):
    wrapped = early_stopping(scripted([1.0]), 'val/accuracy')
    with self.assertRaisesRegex(ConfigError, 'must be one of val/loss'):
      wrapped.after_eval(wrapped.init(jax.random.key(0)), {'val/loss': jnp.zeros(())})


if __name__ == '__main__':
  absltest.main()
