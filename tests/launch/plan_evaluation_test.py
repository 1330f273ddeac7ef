"""launch.plan counts the memory of evaluations, and says what to do about it."""

import importlib.util
import json
import pathlib

from absl.testing import absltest
import jax

from dlx.experiment import Config
from dlx.run import sharding
from dlx.run.dispatch import make_eval
from launch import plan
from launch.planning import advice, hardware, memory, page, program, sweep
from tests import turns
from tests.launch.plan_test import GIB, build, restore_settings_after


def target(memory_bytes):
  """Chips of so much memory; programs for them are compiled for this CPU."""
  found = hardware.parse('v5e:2x2')
  return found._replace(chip=found.chip._replace(memory=memory_bytes))


def made(built, memory_bytes=2**40, evaluate=True):
  devices = jax.devices()[:1]
  return program.make(built, target(memory_bytes), devices, 'data=1', None, evaluate)


class MemoryTest(absltest.TestCase):
  def test_an_evaluation_holds_the_state_all_data_and_its_own_work(self):
    built = build('mlp', eval_batch_size=300)
    found = made(built)
    (one,) = found.evaluations.values()
    self.assertEqual(list(found.evaluations), list(built.evals))
    self.assertIsNone(one.refusal)
    kinds = found.bytes_by_kind
    mesh = sharding.make_mesh('data=1', jax.devices()[:1])
    traced = program.trace(built, mesh, 'tpu')
    self.assertEqual(kinds['evaluation_data'], traced.beside)
    # 1437 images to train, 360 to test, 64 bytes and a label of 4 each.
    self.assertEqual(kinds['data'] + kinds['evaluation_data'], (1437 + 360) * 68)
    resident = sum(traced.given.values()) + traced.beside + kinds['program']
    # Besides: sums of metrics, and the number of the batch.
    (evaluation,) = built.evals.values()
    zeros, _, _ = make_eval(evaluation, mesh, traced.dispatch.state)
    sums = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(zeros()))
    more = one.peak_bytes - one.temporaries - one.program - resident
    self.assertEqual(more, sums + 4)
    # The hidden layer of the batch, at least.
    self.assertGreaterEqual(one.temporaries, 4 * 300 * 128)
    self.assertEqual(kinds['evaluation_programs'], one.program)
    self.assertEqual(sum(kinds.values()), found.peak_bytes)
    self.assertEqual(made(built, evaluate=False).evaluations, {})

  def test_it_must_fit_too(self):
    built = build('mlp', eval_batch_size=2**16)
    found = made(built)
    (one,) = found.evaluations.values()
    self.assertGreater(one.peak_bytes, 2 * found.peak_bytes)
    between = made(built, (one.peak_bytes + found.peak_bytes) // 2)
    self.assertFalse(between.fits)
    self.assertTrue(made(built, one.peak_bytes).fits)
    self.assertFalse(made(built, one.peak_bytes - 1).fits)
    text = page.as_text(between, target(1))
    self.assertIn('DOES NOT FIT', text)
    self.assertIn(f'evaluation test {page.gib(one.peak_bytes)}', text)

  def test_of_a_step_that_xla_refuses(self):
    built = build('mlp')
    refusal = memory.OutOfMemory(GIB, GIB // 2, None, 'too much')
    real, calls = program._compiled, []

    def first_is_refused(lowered, target):
      calls.append(lowered)
      return refusal if len(calls) == 1 else real(lowered, target)

    with absltest.mock.patch.object(program, '_compiled', first_is_refused):
      found = made(built)
    (one,) = found.evaluations.values()
    self.assertLen(calls, 2)
    self.assertFalse(found.fits)
    data = found.bytes_by_kind['evaluation_data']
    self.assertEqual(found.peak_bytes, GIB + data + one.program)
    self.assertLess(one.peak_bytes, GIB)

  def test_ranked_by_what_needs_most(self):
    row = lambda step, evaluation: {
      'batch_size': 8,
      'fits': False,
      'peak_bytes_per_device': step,
      'evaluations': {'test': {'peak_bytes_per_device': evaluation}},
      'bound_seconds': {'compute': 1.0},
      'mesh': {'data': 8},
    }
    rows = sweep.ranked([row(1, 9), row(7, 2), row(3, 8)])
    self.assertEqual([sweep.most_bytes(one) for one in rows], [7, 8, 9])
    self.assertRegex(page.sweep_table(rows), r'8 +7 B .*\n.*8 +8 B .*\n.*8 +9 B ')


class AdviceTest(absltest.TestCase):
  def edits(self, config, axes, peak, temporaries, step=0.0, state=1.0, **options):
    kinds = dict(parameters=state, optimiser=2 * state, ema=0, model_state=0, data=0)
    kinds = {k: v * GIB for k, v in {**kinds, 'temporaries': step}.items()}
    one = program.Evaluation(int(peak * GIB), int(temporaries * GIB), 0, None)
    found = advice.edits(
      config, axes, kinds, 16 * GIB, evaluations={'test': one}, **options
    )
    return found[0].flags if found else None

  def test_a_batch_of_evaluations_is_cut_where_it_alone_is_too_large(self):
    config = Config(batch_size=64, eval_batch_size=256)
    first = self.edits(config, {'data': 8}, peak=23, temporaries=20)
    self.assertEqual(first, '--config.eval_batch_size=128')  # 13 GiB of 16.
    first = self.edits(config, {'data': 8}, peak=43, temporaries=40)
    self.assertEqual(first, '--config.eval_batch_size=64')

  def test_both_are_cut(self):
    config = Config(batch_size=64, eval_batch_size=256)
    first = self.edits(config, {'data': 8}, peak=23, temporaries=20, step=36)
    self.assertEqual(first, '--config.micro_batches=4 --config.eval_batch_size=128')

  def test_a_state_that_is_too_large_is_divided_and_the_evaluation_is_left(self):
    config = Config(batch_size=64, eval_batch_size=256)
    first = self.edits(config, {'data': 8}, peak=16, temporaries=1, step=20, state=5)
    self.assertEqual(first, '--mesh=fsdp=8')

  def test_rows_of_it_stay_whole(self):
    config = Config(batch_size=64, eval_batch_size=24)
    self.assertIsNone(self.edits(config, {'data': 8}, peak=23, temporaries=20))

  def test_half_of_it(self):
    config = Config(eval_batch_size=12)
    edit = advice.Edit({'micro_batches': 2}, None, 0.0, 0.0)
    edit = advice.smaller_evaluation(edit, config)
    self.assertEqual(edit.fields, {'micro_batches': 2, 'eval_batch_size': 6})
    edit = advice.smaller_evaluation(edit, config)
    self.assertIsNone(advice.smaller_evaluation(edit, config))


class LauncherTest(absltest.TestCase):
  @turns.seldom(0)
  def test_too_large_an_evaluation_is_refused_with_a_size_that_fits(self):
    if importlib.util.find_spec('libtpu') is None:
      self.skipTest("nothing is compiled for TPUs: pip install 'dlx[tpu]'")
    restore_settings_after(self)
    out = pathlib.Path(self.create_tempdir().full_path) / 'plan.json'
    args = ('--exp=cnn', '--topology=v5e:2x2', f'--out={out}')
    large = f'--config.eval_batch_size={2**24}'
    self.assertEqual(plan.main(['plan', *args, large]), plan.DOES_NOT_FIT)
    found = json.loads(out.read_text())
    limit = found['limit_bytes_per_device']
    self.assertLess(found['peak_bytes_per_device'], limit)
    self.assertGreater(found['evaluations']['test']['peak_bytes_per_device'], limit)
    last = found['advice'][-1]
    self.assertTrue(last['fits'])
    self.assertRegex(last['flags'], r'^--config\.eval_batch_size=\d+$')
    status = plan.main(['plan', *args, last['flags']])
    self.assertEqual(status, 0)


if __name__ == '__main__':
  absltest.main()
