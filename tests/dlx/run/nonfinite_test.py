"""The NaN guard: names step and tensor, saves nothing bad, keeps the last good one."""

import pathlib

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import losses, metrics
from dlx.errors import NonFiniteError
from dlx.run.loop import fit
from dlx.run.nonfinite import explain, watched
from dlx.run.records.json_files import read_json
from dlx.state import Mean, create
from dlx.train import steps
from tests.dlx.run import kinds

BAD = 13  # The step, counted from 0, that goes wrong; saves are at 8 and 16.


def broken(config, where):
  """A classifier that turns non-finite in step BAD, in one of four places."""
  base = kinds.classifier(config)
  model = kinds.Mlp()

  class Poisoned(kinds.Rolling):
    def get(self, arrays, step):
      batch = super().get(arrays, step)
      if where == 'batch':
        x = batch['x'].at[3, 1, 2, 0].set(jnp.where(step == BAD, jnp.nan, 0.5))
        batch = {**batch, 'x': x}
      return batch

  def train_step(s, b):
    bad = s.step == BAD
    poison = lambda x, here: jnp.where(bad & (where == here), jnp.inf, x)

    def loss(p):
      logits = model.apply({'params': p}, b['x'])
      value = kinds.cross_entropy(logits, b['y']).mean()
      # A finite loss whose gradient is not: the root of 0.
      edge = jnp.sqrt(
        jnp.where(bad & (where == 'gradients'), 0.0, 1.0)
        * jnp.abs(p['Dense_1']['bias']).sum()
      )
      return value + 0.0 * edge

    value, grads = jax.value_and_grad(loss)(s.params)
    grads = steps.watch(grads, 'gradients')
    params = jax.tree.map(lambda p, g: p - 0.1 * g, s.params, grads)
    params = {
      **params,
      'Dense_0': {
        **params['Dense_0'],
        'bias': poison(params['Dense_0']['bias'], 'state'),
      },
    }
    return s._replace(step=s.step + 1, params=params), {
      'loss': Mean(poison(value, 'loss'), jnp.ones(()))
    }

  def init(key):
    s = base.init(key)
    bias = jnp.full_like(s.params['Dense_1']['bias'], 0.1)
    return s._replace(
      params={**s.params, 'Dense_1': {**s.params['Dense_1'], 'bias': bias}}
    )

  return base._replace(
    init=init,
    train_step=train_step,
    after_eval=after_eval,
    train_data=Poisoned(kinds.IMAGES, config.batch_size),
  )


def after_eval(s, metrics):
  """Changes the parameters, so that the replay must go through evaluations too."""
  shrunk = jax.tree.map(
    lambda p: p * (1 - 1e-3 * jnp.tanh(metrics['val/loss'])), s.params
  )
  return s._replace(params=shrunk)


class NonFiniteTest(parameterized.TestCase):
  @parameterized.parameters(
    ('batch', r'in the batch, x is the first .*NaN; 1 of 128 values'),
    ('loss', r'in the metrics, loss/total is the first .*inf.*The batch is finite'),
    ('gradients', r'in the gradients, gradients/Dense_1/bias is the first'),
    ('state', r'in the new state, params/Dense_0/bias is the first .*8 of 8'),
  )
  def test_names_the_step_and_the_first_tensor(self, where, sentence):
    config = kinds.Small()
    workdir = pathlib.Path(self.create_tempdir().full_path)
    with self.assertRaisesRegex(NonFiniteError, f'Step {BAD}: {sentence}') as caught:
      fit(broken(config, where), config, workdir)
    self.assertIn('last good checkpoint is that of step 8', str(caught.exception))
    # 6: before the first evaluation.
    kept = sorted(p.name for p in (workdir / 'checkpoints').iterdir())
    self.assertEqual(kept, ['6', '8'])
    if where == 'gradients':
      self.assertRegex(
        str(caught.exception), r'The first operation that made one: \w+, at nonf'
      )
    self.assertFalse((workdir / 'result.json').exists())

  def test_before_the_first_save_the_replay_starts_at_the_beginning(self):
    config = kinds.Small(
      save_every_steps=None, eval_every_steps=None, steps_per_dispatch=1
    )
    workdir = pathlib.Path(self.create_tempdir().full_path)
    with self.assertRaisesRegex(
      NonFiniteError, f'Step {BAD}: in the metrics.*No checkpoint had been saved'
    ):
      fit(broken(config, 'loss'), config, workdir)
    self.assertEmpty(list((workdir / 'checkpoints').iterdir()))

  @parameterized.parameters(
    (kinds.Small(), 2),  # Evaluates after 6 and 12 steps, saves after 8.
    (kinds.Small(eval_at_start=True, save_every_steps=None), 3),
  )
  def test_the_replay_goes_through_the_evaluations_before(self, config, count):
    base = kinds.classifier(config)

    def train_step(s, b):
      new, sums = base.train_step(s, b)
      bad = (s.step == BAD) & (s.model_state['evaluations'] == count)
      loss = sums['loss']._replace(total=jnp.where(bad, jnp.nan, sums['loss'].total))
      return new, {'loss': loss}

    experiment = base._replace(
      init=lambda key: base.init(key)._replace(
        model_state={'evaluations': jnp.int32(0)}
      ),
      train_step=train_step,
      after_eval=lambda s, metrics: s._replace(
        model_state={'evaluations': s.model_state['evaluations'] + 1}
      ),
    )
    with self.assertRaisesRegex(
      NonFiniteError, f'Step {BAD}: in the metrics, loss/total'
    ):
      fit(experiment, config, self.create_tempdir().full_path)

  def test_a_state_broken_by_the_last_step_is_not_saved(self):
    config = kinds.Small(num_steps=BAD + 1, save_every_steps=None)
    workdir = pathlib.Path(self.create_tempdir().full_path)
    with self.assertRaisesRegex(
      NonFiniteError, f'Step {BAD}: in the new state, params/Dense_0/bias'
    ):
      fit(broken(config, 'state'), config, workdir)
    # The one before the first evaluation.
    self.assertEqual([p.name for p in (workdir / 'checkpoints').iterdir()], ['6'])

  @parameterized.parameters(1, 4)
  def test_names_a_label_out_of_range(self, micro_batches):
    def train_step(s, b):
      def loss_fn(p, model_state, b, rng):
        loss = metrics.mean(losses.softmax_cross_entropy(b['x'] @ p['w'], b['y']))
        return loss, (model_state, {})

      grads, _, sums = steps.gradients(
        loss_fn, s.params, (), b, s.rng, micro_batches=micro_batches
      )
      return s._replace(params=grads), sums

    state = create({'w': jnp.ones((2, 3))}, (), jax.random.key(0))
    label = jnp.array([0, 1, 2, 0, 1, 3, 2, 0], jnp.uint8)
    batch = {'x': jnp.ones((8, 2)), 'y': label, 'kind': jnp.full(8, 9)}
    after, _ = train_step(state, batch)
    found = explain(4, batch, train_step, state, after)
    self.assertStartsWith(found, 'Step 4: in the metrics, loss/total is the first')
    self.assertEndsWith(found, ' y is 3 in row 5 of the batch: must be in [0, 3).')

  def test_debug_names_the_line_of_a_nan_that_is_masked(self):
    config = kinds.Small(num_steps=4, eval_every_steps=None, save_every_steps=None)
    base = kinds.classifier(config)

    def train_step(s, b):
      new, sums = base.train_step(s, b)
      hidden = jnp.log(jnp.where(s.step == 2, -1.0, 1.0))  # Nobody sees it.
      loss = sums['loss']._replace(total=jnp.where(s.step == 2, 1.0, hidden))
      return new, {'loss': loss}

    masked, folders = base._replace(train_step=train_step), []
    for experiment, debug in ((masked, False), (base, False), (base, True)):
      folders.append(pathlib.Path(self.create_tempdir().full_path))
      out = fit(experiment, config, folders[-1], debug=debug)
      self.assertEqual(out.status, 'finished')
    with self.assertRaisesRegex(
      NonFiniteError, 'Step 2: the first operation that makes a NaN: log, at nonfinite_'
    ):
      fit(masked, config, self.create_tempdir().full_path, debug=True)
    bits = [read_json(f / 'result.json')['fingerprint'] for f in folders[1:]]
    self.assertEqual(bits[0], bits[1])  # Looking changes nothing.

  @pytest.mark.slow
  def test_without_jit(self):
    config = kinds.Small(num_steps=2, eval_every_steps=None, batch_size=4)
    with jax.disable_jit():
      out = fit(kinds.classifier(config), config, self.create_tempdir().full_path)
    self.assertEqual((out.status, out.step), ('finished', 2))

  def test_jax_debug_nans_ends_in_the_line(self):
    config = kinds.Small(save_every_steps=None, eval_every_steps=None)
    with jax.debug_nans(True):
      with self.assertRaisesRegex(
        NonFiniteError, f'(?s)nan.*Step {BAD}: in the batch, x is the first'
      ):
        fit(broken(config, 'batch'), config, self.create_tempdir().full_path)

  def test_watched_values_are_those_of_the_step(self):
    config = kinds.Small()
    experiment = broken(config, None)
    state = experiment.init(jax.random.key(0))
    batch = experiment.train_data.get(kinds.IMAGES, 0)
    found = watched(experiment.train_step, state, batch)
    self.assertEqual(
      list(found),
      [
        f'gradients/{layer}/{leaf}'
        for layer in ('Dense_0', 'Dense_1')
        for leaf in ('bias', 'kernel')
      ],
    )
    new, _ = experiment.train_step(state, batch)
    moved = state.params['Dense_0']['kernel'] - new.params['Dense_0']['kernel']
    np.testing.assert_allclose(
      0.1 * found['gradients/Dense_0/kernel'], moved, atol=1e-6
    )


if __name__ == '__main__':
  absltest.main()
