"""Eight kinds of training through the real loop: a stop and a restart change no bit."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import shutil
import signal
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.run.checkpoint.checkpointer import Checkpointer
from dlx.run.evaluation import Evaluator
from dlx.run.loop import fit
from dlx.run.records.reporter import Reporter
from dlx.run.reopen import evaluate
from tests.dlx.run import kinds

STOP = 11  # No multiple of 4 steps a dispatch, nor of 5, 6 or 8 steps of an interval.


def lines(workdir):
  """metrics.jsonl without what is about time."""
  rows = map(
    json.loads, (pathlib.Path(workdir) / 'metrics.jsonl').read_text().split('\n')[:-1]
  )
  return [{k: v for k, v in row.items() if k != 'time'} for row in rows]


def result(workdir):
  return json.loads((pathlib.Path(workdir) / 'result.json').read_text())


class ContractTest(parameterized.TestCase):
  @parameterized.named_parameters(*[(name, name) for name in kinds.KINDS])
  def test_stop_and_restart_equal_the_straight_run(self, name):
    config = kinds.Small()
    straight, broken = self.create_tempdir().full_path, self.create_tempdir().full_path
    build = kinds.KINDS[name]
    whole = fit(build(config), config, straight, name=name)
    self.assertEqual(whole.status, 'finished')
    first = fit(build(config), config, broken, name=name, stop_at=STOP)
    self.assertEqual((first.status, first.step), ('stopped', STOP))
    self.assertFalse((pathlib.Path(broken) / 'result.json').exists())
    second = fit(build(config), config, broken, name=name)
    self.assertEqual(second.status, 'finished')
    self.assertEqual(result(broken)['fingerprint'], result(straight)['fingerprint'])
    self.assertEqual(lines(broken), lines(straight))
    self.assertEqual(second.metrics, whole.metrics)

  def test_lines_past_the_restored_step_are_replaced_not_doubled(self):
    config = kinds.Small()
    straight, broken = (self.create_tempdir().full_path for _ in range(2))
    fit(kinds.plateau_and_stop(config), config, straight)
    fit(kinds.plateau_and_stop(config), config, broken, stop_at=13)
    self.assertEqual(lines(broken)[-1]['step'], 12)
    shutil.rmtree(pathlib.Path(broken) / 'checkpoints' / '13')  # As if never saved.
    fit(kinds.plateau_and_stop(config), config, broken)
    self.assertEqual(lines(broken), lines(straight))

  def test_a_report_that_cannot_be_closed_loses_no_save(self):
    config = kinds.Small(num_steps=8)
    folder, closed = self.create_tempdir().full_path, []
    close, end = Checkpointer.close, Reporter.close

    def noted(checkpoints):
      close(checkpoints)
      closed.append(checkpoints.steps())

    def full(reporter):
      end(reporter)
      raise OSError('the disk is full')

    fails = mock.patch.object(Reporter, 'close', full)
    with fails, mock.patch.object(Checkpointer, 'close', noted):
      with self.assertRaisesRegex(OSError, 'the disk is full'):
        fit(kinds.classifier(config), config, folder, stop_at=5)
    self.assertEqual(closed, [[5]])
    fit(kinds.classifier(config), config, folder)

  def test_workdir_may_be_relative(self):
    config = kinds.Small(num_steps=8)
    with contextlib.chdir(self.create_tempdir().full_path):
      fit(kinds.classifier(config), config, 'runs/here', stop_at=5)
      done = fit(kinds.classifier(config), config, 'runs/here')
      found = evaluate(kinds.classifier(config), config, 'runs/here')
    self.assertEqual(found['val/loss'], done.metrics['val/loss'])

  def test_early_stop_ends_before_the_last_step(self):
    config = kinds.Small(num_steps=400, eval_every_steps=2, save_every_steps=None)
    outcome = fit(
      kinds.plateau_and_stop(config), config, self.create_tempdir().full_path
    )
    self.assertEqual(outcome.status, 'finished')
    self.assertLess(outcome.step, 400)
    self.assertTrue(bool(outcome.state.stop))

  def test_frozen_parameters_are_bytes_of_the_teacher_until_the_step(self):
    config = kinds.Small()
    experiment = kinds.teacher_then_unfreeze(config)
    teacher = kinds.Mlp().init(jax.random.key(9), jnp.zeros((1, 16)))['params']
    workdir = self.create_tempdir().full_path
    at = fit(experiment, config, workdir, stop_at=kinds.UNFREEZE).state
    np.testing.assert_array_equal(
      at.params['Dense_0']['kernel'], teacher['Dense_0']['kernel']
    )
    after = fit(experiment, config, workdir, stop_at=kinds.UNFREEZE + 1).state
    self.assertTrue(
      np.any(after.params['Dense_0']['kernel'] != teacher['Dense_0']['kernel'])
    )

  def test_resident_and_streamed_batches_of_two_shapes_give_equal_bits(self):
    # One is a loop over steps, the other single steps: XLA may round these two programs
    # differently (dispatch.py). This net is small enough that it does not.
    config = kinds.Small()
    prints = []
    for streamed in (True, False):
      workdir = self.create_tempdir().full_path
      fit(kinds.two_shapes(config, streamed), config, workdir)
      prints.append(result(workdir)['fingerprint'])
    self.assertEqual(*prints)

  def test_every_cut_of_the_loop_gives_equal_bits(self):
    prints = set()
    for config, stop in (
      (kinds.Small(steps_per_dispatch=4), 7),
      (kinds.Small(steps_per_dispatch=1), None),
      (kinds.Small(log_every_steps=3), None),
      (kinds.Small(eval_every_steps=None), None),
    ):
      workdir = self.create_tempdir().full_path
      experiment = kinds.queue_and_teacher(config)
      if stop:
        fit(experiment, config, workdir, stop_at=stop)
      fit(experiment, config, workdir)
      prints.add(result(workdir)['fingerprint'])
    self.assertLen(prints, 1)

  def test_member_of_a_vectorised_run_equals_the_run_alone_to_rounding(self):
    config = kinds.Small(eval_every_steps=None)
    together = kinds.vectorize(kinds.classifier(config), 3)
    many = fit(together, config, self.create_tempdir().full_path).state
    one = kinds.classifier(config)
    member = one._replace(init=lambda key: one.init(jax.random.fold_in(key, 2)))
    alone = fit(member, config, self.create_tempdir().full_path).state
    # 24 Adam steps of 0.01 in float32 (eps 1.2e-7): differences grow from rounding.
    for a, b in zip(jax.tree.leaves(many.params), jax.tree.leaves(alone.params)):
      np.testing.assert_allclose(a[2], b, atol=24 * 0.01 * 1e-3, rtol=0)

  def test_evaluate_gives_the_figures_of_the_run(self):
    config = kinds.Small()
    workdir = self.create_tempdir().full_path
    outcome = fit(kinds.classifier(config), config, workdir)
    again = evaluate(kinds.classifier(config), config, workdir)
    self.assertEqual(again['val/loss'], outcome.metrics['val/loss'])
    with self.assertRaisesRegex(ConfigError, 'has no checkpoint of step 7'):
      evaluate(kinds.classifier(config), config, workdir, step=7)

  def test_best_checkpoint_is_kept_beside_the_newest(self):
    config = kinds.Small(
      best_metric='val/loss',
      best_mode='min',
      num_steps=18,
      keep_checkpoints=1,
      save_every_steps=None,
      eval_every_steps=6,
    )
    workdir = self.create_tempdir().full_path
    fit(kinds.classifier(config), config, workdir)
    values = {
      row['step']: row['metrics']['loss']
      for row in lines(workdir)
      if row['split'] == 'val'
    }
    best = min(values, key=values.get)
    kept = {int(p.name) for p in (pathlib.Path(workdir) / 'checkpoints').iterdir()}
    self.assertEqual(kept, {best, 18})
    found = evaluate(kinds.classifier(config), config, workdir, step='best')
    self.assertEqual(found['val/loss'], values[best])

  def test_best_follows_its_own_evaluation_not_one_made_between(self):
    config = kinds.Small(
      best_metric='rare/loss',
      best_mode='min',
      num_steps=12,
      keep_checkpoints=1,
      save_every_steps=3,
      eval_every_steps=3,
    )
    experiment = kinds.classifier(config)
    evals = {**experiment.evals, 'rare': experiment.evals['val']._replace(every=6)}
    workdir = self.create_tempdir().full_path
    fit(experiment._replace(evals=evals), config, workdir)
    folder = pathlib.Path(workdir) / 'checkpoints'
    meta = {
      int(p.name): json.loads((p / 'meta' / 'metadata').read_text())['metrics']
      for p in folder.iterdir()
    }
    values = {
      r['step']: r['metrics']['loss'] for r in lines(workdir) if r['split'] == 'rare'
    }
    self.assertEqual(set(values), {6, 12})
    self.assertEqual(set(meta), {min(values, key=values.get), 12})
    self.assertEqual(
      {step: m['rare/loss'] for step, m in meta.items()},
      {step: values[step] for step in meta},
    )

  def test_best_of_members_is_their_mean(self):
    config = kinds.Small(best_metric='val/loss', best_mode='min', num_steps=12)
    workdir = self.create_tempdir().full_path
    fit(kinds.vectorize(kinds.classifier(config), 2), config, workdir)
    found = evaluate(
      kinds.vectorize(kinds.classifier(config), 2), config, workdir, step='best'
    )
    self.assertLen(found['val/loss'], 2)

  def test_another_environment_is_told(self):
    config = kinds.Small(num_steps=4)
    workdir = pathlib.Path(self.create_tempdir().full_path)
    fit(kinds.classifier(config), config, workdir, stop_at=2)
    record = json.loads((workdir / 'config.json').read_text())
    record['versions']['jax'] = '0.1.2'
    (workdir / 'config.json').write_text(json.dumps(record))
    told = io.StringIO()
    with contextlib.redirect_stderr(told):
      fit(kinds.classifier(config), config, workdir)
    self.assertRegex(told.getvalue(), 'Other than at the start: versions jax was 0.1.2')

  def test_finished_run_is_left_as_it_is(self):
    config = kinds.Small()
    workdir = self.create_tempdir().full_path
    done = fit(kinds.classifier(config), config, workdir)
    before = (pathlib.Path(workdir) / 'result.json').read_bytes()
    again = fit(kinds.classifier(config), config, workdir)
    self.assertEqual((again.status, again.metrics), ('finished', done.metrics))
    self.assertEqual((pathlib.Path(workdir) / 'result.json').read_bytes(), before)

  def test_another_config_is_refused_with_the_fields_named(self):
    config = kinds.Small()
    workdir = self.create_tempdir().full_path
    fit(kinds.classifier(config), config, workdir, stop_at=1)
    other = dataclasses.replace(config, seed=1, batch_size=16)
    with self.assertRaisesRegex(
      ConfigError, r'batch_size: 8 there, 16 here, seed: 0 there, 1 here'
    ):
      fit(kinds.classifier(other), other, workdir)

  @parameterized.parameters('best_metric', 'early_stop_metric')
  def test_metric_that_nothing_reports_is_refused_before_anything_is_written(
    self, field
  ):
    config = kinds.Small(**{field: 'val/accuracy'})
    workdir = self.create_tempdir().full_path
    with self.assertRaisesRegex(
      ConfigError, f'{field}=val/accuracy is not allowed: must be one of val/loss'
    ):
      fit(kinds.classifier(config), config, workdir)
    self.assertEmpty(list(pathlib.Path(workdir).iterdir()))

  def test_early_stopping_without_effect_is_refused(self):
    config = kinds.Small(early_stop_metric='val/loss')
    with self.assertRaisesRegex(ConfigError, 'would have no effect: give with_early'):
      fit(kinds.classifier(config), config, self.create_tempdir().full_path)

  def test_signal_during_an_evaluation_drops_it_and_the_next_start_makes_it(self):
    config = kinds.Small(best_metric='val/loss', best_mode='min')
    straight, broken = (self.create_tempdir().full_path for _ in range(2))
    fit(kinds.plateau_and_stop(config), config, straight)
    run, calls = Evaluator.run, []

    def interrupted_at_the_second(evaluator, state, interrupted):
      calls.append(int(state.step))
      if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGTERM)
      return run(evaluator, state, interrupted)

    with mock.patch.object(Evaluator, 'run', interrupted_at_the_second):
      outcome = fit(kinds.plateau_and_stop(config), config, broken)
    self.assertEqual((outcome.status, outcome.step), ('interrupted', 12))
    self.assertEqual(int(outcome.state.evaluated), 6)
    self.assertEqual([r['step'] for r in lines(broken) if r['split'] == 'val'], [6])
    with mock.patch.object(Evaluator, 'run', autospec=True, side_effect=run) as again:
      fit(kinds.plateau_and_stop(config), config, broken)
    self.assertEqual(again.call_count, 3)  # Steps 12, 18 and 24.
    self.assertEqual(lines(broken), lines(straight))
    self.assertEqual(result(broken)['fingerprint'], result(straight)['fingerprint'])

  def test_profiler_trace_of_some_steps_changes_no_bit(self):
    config = kinds.Small(num_steps=6, steps_per_dispatch=1)
    prints = []
    for steps in (None, (2, 4)):
      workdir = self.create_tempdir().full_path
      fit(kinds.classifier(config), config, workdir, trace_steps=steps)
      prints.append(result(workdir)['fingerprint'])
      traced = list(pathlib.Path(workdir).rglob('*.xplane.pb'))
      self.assertLen(traced, 0 if steps is None else 1)
    self.assertEqual(*prints)

  def test_evaluation_before_the_first_step(self):
    config = kinds.Small(eval_at_start=True, num_steps=6)
    workdir = self.create_tempdir().full_path
    fit(kinds.classifier(config), config, workdir)
    self.assertEqual(
      [(r['step'], r['split']) for r in lines(workdir)],
      [(0, 'val'), (5, 'train'), (6, 'train'), (6, 'val')],
    )


if __name__ == '__main__':
  absltest.main()
