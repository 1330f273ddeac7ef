"""Tests for dlx/run/rehearsal.py: what fails in it has written and read nothing."""

import pathlib

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.dataset import Loaded
from dlx.errors import ConfigError
from dlx.experiment import Experiment, Field, Figure, Function
from dlx.run.checkpoint.checkpointer import Checkpointer
from dlx.run.dispatch import make_dispatch
from dlx.run.evaluation import Evaluator
from dlx.run.loop import fit
from dlx.run.rehearsal import rehearse
from dlx.state import create
from tests.dlx.run import kinds


def bug(*args, **options):
  raise ZeroDivisionError('a bug')


def other_evaluation(experiment, **changes):
  (name, evaluation), *_ = experiment.evals.items()
  return experiment._replace(evals={name: evaluation._replace(**changes)})


ROW = {'x': Field('row', (3,), 'float32')}
BUGS = {
  'evaluation': lambda e: other_evaluation(e, step=bug),
  'summary': lambda e: other_evaluation(e, summarize=bug),
  'after_eval': lambda e: e._replace(after_eval=bug),
  'figure': lambda e: e._replace(figures={'f': Figure(draw=str, compute=bug)}),
  'function': lambda e: e._replace(functions={'predict': Function(bug, ROW, ROW)}),
}


class BeforeTheFirstStepTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.config = kinds.Small(num_steps=6)
    self.experiment = kinds.classifier(self.config)
    self.workdir = pathlib.Path(self.create_tempdir().full_path) / 'run'

  def fails(self, experiment, error, message):
    """fit raises it, with nothing read or written; returns the error."""
    reads = []
    experiment.train_data.load = reads.append
    with self.assertRaisesRegex(error, message) as caught:
      fit(experiment, self.config, self.workdir)
    self.assertFalse(self.workdir.exists())
    self.assertEmpty(reads)
    return caught.exception

  @parameterized.parameters(*BUGS)
  def test_a_bug_is_raised_as_it_is_and_says_where(self, place):
    error = self.fails(BUGS[place](self.experiment), ZeroDivisionError, 'a bug')
    where = {'summary': 'evaluation'}.get(place, place)
    self.assertRegex('\n'.join(error.__notes__), f'{where}.* before the first step')

  def test_after_eval_keeps_the_state(self):
    changed = lambda state, scalars: state._replace(ema=scalars)
    broken = self.experiment._replace(after_eval=changed)
    self.fails(broken, ValueError, 'after_eval changes the state')

  def test_a_bug_with_batches_of_the_second_shape_alone(self):
    experiment = kinds.two_shapes(self.config)
    shorter = experiment.train_data.shapes[1]

    def train_step(state, batch):
      if jax.tree.map(jnp.shape, dict(batch)) == jax.tree.map(jnp.shape, dict(shorter)):
        raise ZeroDivisionError('a bug')
      return experiment.train_step(state, batch)

    self.assertNotEqual(*experiment.train_data.shapes)
    self.fails(experiment._replace(train_step=train_step), ZeroDivisionError, 'a bug')

  def test_a_figure_of_no_evaluation(self):
    for figure in (Figure(draw=str, eval='tset'), Figure(draw=str)):
      broken = self.experiment._replace(figures={'f': figure})
      self.fails(broken, ConfigError, "^Figure 'f' draws .* must be one of val")

  def test_a_batch_of_a_figure_needs_not_divide_the_mesh(self):
    data = kinds.Rolling(kinds.IMAGES, 3)
    figure = Figure(draw=str, compute=lambda state, key, batch: batch['x'], data=data)
    mesh = jax.sharding.AbstractMesh((4, 1), ('data', 'fsdp'))
    experiment = self.experiment._replace(figures={'f': figure})
    dispatch = make_dispatch(experiment, mesh)
    self.assertEqual(set(rehearse(experiment, self.config, dispatch).figures), {'f'})

  def test_a_float_that_would_be_added_up(self):
    def train_step(state, batch):
      state, sums = self.experiment.train_step(state, batch)
      return state, {**sums, 'share': jnp.mean(batch['y'] == 0)}

    message = "^The metric 'share' of train_step is a float"
    self.fails(self.experiment._replace(train_step=train_step), ConfigError, message)
    step = lambda state, batch: {'share': jnp.mean(batch['y'] == 0)}
    broken = other_evaluation(self.experiment, step=step)
    self.fails(broken, ConfigError, "^The metric 'share' of the evaluation 'val'")

  def test_sums_that_are_summarized_and_counts_may_be_bare(self):
    step = lambda state, batch: {'sum': batch['x'].sum(), 'count': jnp.int32(2)}
    summarize = lambda sums: {'loss': sums['sum'] / sums['count']}
    good = other_evaluation(self.experiment, step=step, summarize=summarize)
    outcome = fit(good, self.config, self.workdir)
    self.assertIn('val/loss', outcome.metrics)

  def test_a_function_gives_what_it_declares(self):
    function = Function(lambda state, inputs: {'y': inputs['x']}, ROW, ROW)
    broken = self.experiment._replace(functions={'predict': function})
    self.fails(broken, ConfigError, '^A function gives y, but declares x')

  def test_a_warm_start_that_sets_the_step(self):
    warm = lambda state: (state._replace(step=state.step + 500), {})
    with self.assertRaisesRegex(ConfigError, '^warm_start gives a state of step 500'):
      fit(self.experiment._replace(warm_start=warm), self.config, self.workdir)
    self.assertFalse((self.workdir / 'config.json').exists())


class NothingLostTest(absltest.TestCase):
  def test_a_crash_in_the_first_pass_of_an_evaluation_loses_no_step(self):
    config = kinds.Small(num_steps=6, save_every_steps=None)
    workdir = pathlib.Path(self.create_tempdir().full_path)
    experiment = kinds.classifier(config)
    run, Evaluator.run = Evaluator.run, bug
    try:
      with self.assertRaises(ZeroDivisionError):
        fit(experiment, config, workdir)
    finally:
      Evaluator.run = run
    files = Checkpointer(workdir / 'checkpoints', read_only=True)
    self.assertEqual(files.steps(), [6])
    files.close()
    # The evaluation is made up for, and nothing else: the same end.
    steps = []
    train_step = lambda *args: steps.append(1) or experiment.train_step(*args)
    again = fit(experiment._replace(train_step=train_step), config, workdir)
    whole = fit(experiment, config, self.create_tempdir().full_path)
    self.assertEqual(again.metrics['val/loss'], whole.metrics['val/loss'])
    self.assertLen(steps, 1)  # Traced, not run.

  def test_a_figure_whose_program_fails_costs_no_run(self):
    config = kinds.Small(num_steps=6)

    def compute(state, key, batch):
      return jax.pure_callback(bug, jax.ShapeDtypeStruct((), np.float32))

    figures = {'f': Figure(draw=str, compute=compute)}
    experiment = kinds.classifier(config)._replace(figures=figures)
    workdir = pathlib.Path(self.create_tempdir().full_path)
    self.assertEqual(fit(experiment, config, workdir).status, 'finished')
    self.assertTrue((workdir / 'result.json').exists())
    self.assertFalse((workdir / 'figures').exists())

  def test_a_figure_of_members_is_drawn_from_the_first(self):
    config = kinds.Small(num_steps=6)
    look = lambda state, key, batch: state.params['Dense_0']['bias'][0]
    figures = {'f': Figure(draw=str, compute=look)}
    experiment = kinds.classifier(config)._replace(figures=figures)
    many = kinds.vectorize(experiment, 2)
    workdir = pathlib.Path(self.create_tempdir().full_path)
    state = fit(many, config, workdir).state
    wanted = np.array(state.params['Dense_0']['bias'][0, 0])
    drawn = (workdir / 'figures' / 'f.txt').read_text()
    self.assertEqual(drawn, '(member 0 of 2)\n' + str(wanted))


class NoData(kinds.Rolling):
  """What a physics-informed net reads: nothing."""

  def __init__(self):
    super().__init__({'x': np.zeros((1, 1), np.float32)}, 1)
    self.shapes = ({},)

  def load(self, data_dir=None):
    return Loaded({}, {'name': 'none', 'kind': 'generated', 'size': 0})

  def array_shapes(self):
    return {}

  def get(self, arrays, step):
    return {}


class EmptyBatchTest(absltest.TestCase):
  def test_a_run_may_read_no_data(self):
    def train_step(state, batch):
      self.assertEmpty(batch)
      x = jax.random.uniform(jax.random.fold_in(state.rng, state.step), (4,))
      loss = kinds.one(((x - state.params) ** 2).sum())
      params = state.params + 0.1 * (x.mean() - state.params)
      return state._replace(params=params, step=state.step + 1), {'loss': loss}

    init = lambda key: create(jnp.zeros(()), (), key)
    config = kinds.Small(num_steps=6, batch_size=4)
    experiment = Experiment(init, train_step, NoData(), overfit=None)
    outcome = fit(experiment, config, self.create_tempdir().full_path)
    self.assertEqual(outcome.status, 'finished')
    assert outcome.state is not None
    self.assertGreater(float(outcome.state.params), 0)


if __name__ == '__main__':
  absltest.main()
