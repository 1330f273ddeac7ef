"""Tests for dlx/train/supervised.py: what config switches on in the short path."""

import dataclasses

from absl.testing import absltest, parameterized
import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlx import losses, metrics, optim
from dlx.errors import ConfigError, NonFiniteError
from dlx.experiment import Config
from dlx.run.loop import fit
from dlx.train.supervised import supervised
from tests.dlx.run import kinds


class Net(nn.Module):
  """Dense, optional batch norm and dropout, in the dtypes of the config."""

  dtype: str = 'float32'
  param_dtype: str = 'float32'
  batch_norm: bool = False
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x_BHWC, *, train):
    kwargs = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    x_BF = nn.Dense(8, **kwargs)(x_BHWC.reshape(x_BHWC.shape[0], -1))
    if self.batch_norm:
      x_BF = nn.BatchNorm(not train, **kwargs)(x_BF)
    x_BF = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x_BF))
    return nn.Dense(3, **kwargs)(x_BF).astype(
      jnp.promote_types(self.dtype, jnp.float32)
    )


def cross_entropy(logits, batch):
  return losses.softmax_cross_entropy(logits, batch['y'])


def make(
  tx=None,
  scale=1.0,
  augment=None,
  frozen=None,
  eval_loss=None,
  batch_norm=False,
  dropout=0.0,
  batch_size=8,
  radius=None,
  **fields,
):
  config = Config(batch_size=batch_size, **fields)
  model = Net(config.compute_dtype, config.param_dtype, batch_norm, dropout)
  return config, supervised(
    config,
    model=model,
    inputs='x',
    tx=tx or optax.sgd(0.1),
    augment=augment,
    frozen=frozen,
    radius=radius,
    loss=lambda logits, b: scale * cross_entropy(logits, b),
    eval_loss=eval_loss,
    train_data=kinds.Rolling(kinds.IMAGES, batch_size),
    eval_data={'test': kinds.Rolling(kinds.IMAGES, 16, passes=True)},
    metrics=lambda logits, b, w: {'accuracy': metrics.accuracy(logits, b['y'], w)},
  )


def run(experiment, steps=3):
  state = jax.jit(experiment.init)(jax.random.key(0))
  step, sums = jax.jit(experiment.train_step), None
  for i in range(steps):
    batch = experiment.train_data.get(kinds.IMAGES, i)
    state, sums = step(state, batch)
  return state, sums


class SupervisedTest(parameterized.TestCase):
  def test_a_step_is_the_textbook_step(self):
    _, experiment = make()
    state, sums = run(experiment, 1)
    start = experiment.init(jax.random.key(0))
    batch = experiment.train_data.get(kinds.IMAGES, 0)
    loss = lambda p: optax.softmax_cross_entropy_with_integer_labels(
      Net().apply({'params': p}, batch['x'], train=False), batch['y']
    ).mean()
    value, grads = jax.value_and_grad(loss)(start.params)
    wanted = jax.tree.map(lambda p, g: p - 0.1 * g, start.params, grads)
    chex.assert_trees_all_close(state.params, wanted, atol=1e-6)
    self.assertAlmostEqual(
      float(sums['loss'].total / sums['loss'].count), float(value), places=5
    )
    self.assertEqual(int(state.step), 1)

  @parameterized.parameters(2, 4)
  def test_micro_batches_equal_one_large_batch(self, k):
    whole, _ = run(make()[1])
    parts, _ = run(make(micro_batches=k)[1])
    # Three steps of 0.1 times gradients of order 1: rounding of sums of 8.
    chex.assert_trees_all_close(whole.params, parts.params, atol=3 * 8 * 1.2e-7)

  def test_clipping_bounds_the_update(self):
    norm = lambda a, b: float(optax.tree.norm(jax.tree.map(lambda x, y: x - y, a, b)))
    _, free = make(scale=100.0)
    start = free.init(jax.random.key(0)).params
    self.assertGreater(norm(run(free, 1)[0].params, start), 0.1)
    clipped, _ = run(make(scale=100.0, clip_norm=0.5)[1], 1)
    self.assertAlmostEqual(norm(clipped.params, start), 0.1 * 0.5, places=5)
    by_value, _ = run(make(scale=100.0, clip_value=1e-3)[1], 1)
    for a, b in zip(jax.tree.leaves(by_value.params), jax.tree.leaves(start)):
      self.assertLessEqual(float(jnp.abs(a - b).max()), 0.1 * 1e-3 * 1.001 + 1e-7)

  def test_ema_follows_and_evaluation_uses_it(self):
    config, experiment = make(ema_decay=0.5)
    state, _ = run(experiment, 2)
    one, _ = run(experiment, 1)
    start = experiment.init(jax.random.key(0))
    # Decay min(0.5, (1 + t) / (10 + t)): 1/10 at step 0, 2/11 at step 1.
    mix = lambda d: lambda e, p: d * e + (1 - d) * p
    ema = jax.tree.map(mix(0.1), start.ema, one.params)
    ema = jax.tree.map(mix(2 / 11), ema, state.params)
    chex.assert_trees_all_close(state.ema, ema, atol=1e-6)
    batch = experiment.evals['test'].data.get(kinds.IMAGES, 0)
    with_ema = experiment.evals['test'].step(state, batch)
    moved = state._replace(params=jax.tree.map(jnp.zeros_like, state.params))
    chex.assert_trees_all_equal(with_ema, experiment.evals['test'].step(moved, batch))

  def test_evaluation_reports_a_loss_of_its_own(self):
    """Of one evaluation both losses: what training smooths is no cross-entropy."""
    _, plain = make()
    _, doubled = make(scale=2.0, eval_loss=cross_entropy)
    state = jax.jit(plain.init)(jax.random.key(0))
    batch = plain.evals['test'].data.get(kinds.IMAGES, 0)
    wanted, found = (
      x.evals['test'].step(state, batch)['loss'] for x in (plain, doubled)
    )
    np.testing.assert_array_equal(found.total, wanted.total)

  def test_batch_statistics_move_in_training_only(self):
    _, experiment = make(batch_norm=True)
    state, _ = run(experiment)
    start = experiment.init(jax.random.key(0))
    chex.assert_trees_all_equal_shapes_and_dtypes(state, start)
    mean = lambda s: s.model_state['batch_stats']['BatchNorm_0']['mean']
    self.assertGreater(float(jnp.abs(mean(state) - mean(start)).max()), 0)

  def test_dropout_is_keyed_by_step(self):
    _, experiment = make(dropout=0.5, tx=optax.sgd(0.0))
    state = experiment.init(jax.random.key(0))
    batch = experiment.train_data.get(kinds.IMAGES, 0)
    _, first = experiment.train_step(state, batch)
    _, again = experiment.train_step(state, batch)
    _, later = experiment.train_step(state._replace(step=jnp.int32(1)), batch)
    chex.assert_trees_all_equal(first, again)
    self.assertNotEqual(float(first['loss'].total), float(later['loss'].total))

  def test_augmentation_is_not_changed_by_micro_batches(self):
    augment = lambda key, b: {**b, 'x': b['x'] + jax.random.normal(key, b['x'].shape)}
    whole, _ = run(make(augment=augment)[1], 1)
    parts, _ = run(make(augment=augment, micro_batches=4)[1], 1)
    plain, _ = run(make()[1], 1)
    chex.assert_trees_all_close(whole.params, parts.params, atol=8 * 1.2e-7)
    kernel = lambda s: np.asarray(s.params['Dense_0']['kernel'])
    self.assertGreater(np.abs(kernel(whole) - kernel(plain)).max(), 1e-3)

  def test_frozen_parameters_keep_their_bytes(self):
    frozen = optim.by_path('Dense_0/.*')
    _, experiment = make(tx=optax.adam(0.1), frozen=frozen)
    start = experiment.init(jax.random.key(0)).params
    params = run(experiment)[0].params
    chex.assert_trees_all_equal(params['Dense_0'], start['Dense_0'])
    self.assertGreater(
      float(jnp.abs(params['Dense_1']['kernel'] - start['Dense_1']['kernel']).max()), 0
    )

  def test_bfloat16_computes_narrow_and_keeps_float32_parameters(self):
    _, experiment = make(compute_dtype='bfloat16', batch_norm=True)
    state, sums = run(experiment)
    self.assertEqual(
      {x.dtype for x in jax.tree.leaves(state.params)}, {jnp.dtype('float32')}
    )
    self.assertEqual(sums['loss'].total.dtype, jnp.float32)
    jaxpr = str(
      jax.make_jaxpr(experiment.train_step)(
        state, experiment.train_data.get(kinds.IMAGES, 0)
      )
    )
    self.assertIn('bf16[8,8]', jaxpr)
    wide, _ = run(make(batch_norm=True)[1])
    # Three steps of 0.1; gradients are right to bfloat16's 2**-8, times a few layers.
    chex.assert_trees_all_close(state.params, wide.params, atol=3 * 0.1 * 4 * 2**-8)


class Float16Test(absltest.TestCase):
  def test_matches_float32_where_nothing_overflows(self):
    state, sums = run(make(compute_dtype='float16')[1])
    wide, _ = run(make()[1])
    chex.assert_trees_all_close(state.params, wide.params, atol=3 * 0.1 * 4 * 2**-11)
    self.assertEqual(float(sums['skipped'].total), 0.0)

  def test_overflow_skips_the_step_and_halves_the_scale(self):
    _, experiment = make(
      compute_dtype='float16',
      scale=1e4,
      batch_norm=True,
      tx=optax.adam(0.1),
      ema_decay=0.9,
    )
    start = jax.jit(experiment.init)(jax.random.key(0))
    scale = float(start.opt_state['loss_scale'].scale)
    state, sums = jax.jit(experiment.train_step)(
      start, experiment.train_data.get(kinds.IMAGES, 0)
    )
    self.assertEqual(float(sums['skipped'].total), 1.0)
    self.assertEqual(float(sums['loss'].count), 0.0)
    for name in ('params', 'model_state', 'ema'):
      chex.assert_trees_all_equal(getattr(state, name), getattr(start, name))
    chex.assert_trees_all_equal(state.opt_state['tx'], start.opt_state['tx'])
    self.assertEqual(float(state.opt_state['loss_scale'].scale), scale / 2)
    self.assertEqual(int(state.step), 1)

  def test_training_goes_on_once_the_scale_fits(self):
    _, experiment = make(compute_dtype='float16', scale=1e3, tx=optax.sgd(1e-4))
    state, sums = run(experiment, 20)
    self.assertEqual(float(sums['skipped'].total), 0.0)
    self.assertLess(float(state.opt_state['loss_scale'].scale), 2.0**15)

  def test_a_loss_that_is_always_nan_ends_the_run(self):
    """As in float32, once the scale is 1: 2**15 was halved by each of steps 0 to 14."""
    config, experiment = make(compute_dtype='float16', scale=jnp.nan, num_steps=20)
    with self.assertRaisesRegex(NonFiniteError, 'Step 15: in the metrics, loss/total'):
      fit(experiment, config, self.create_tempdir().full_path)


class Heard(nn.Module):
  """x * scale, with noise by a stream of its own, and what it sows."""

  @nn.compact
  def __call__(self, x_BF, *, train):
    scale = self.param('scale', nn.initializers.constant(2.0), ())
    y_BF = x_BF * scale
    self.sow('losses', 'square', jnp.square(y_BF).mean())
    if train:
      y_BF += jax.random.normal(self.make_rng('noise'), ())
    return y_BF


HEARD = {'x': np.array([[1.0], [3.0], [1.0], [3.0]], np.float32)}


def heard(config=None, **changes):
  return supervised(
    config or Config(batch_size=4),
    model=Heard(),
    inputs='x',
    tx=optax.sgd(0.1),
    rngs=('noise',),
    train_data=kinds.Rolling(HEARD, 4),
    eval_data={'test': kinds.Rolling(HEARD, 4, passes=True)},
    **{
      'loss': lambda y_BF, batch: 0 * y_BF[:, 0],
      'metrics': lambda y_BF, batch, w: {},
      **changes,
    },
  )


class PenaltyTest(absltest.TestCase):
  def penalised(self, config=None):
    return heard(
      config,
      penalty=lambda params, sown: {
        'l1': (0.5, jnp.abs(params['scale'])),
        'square': sown['losses']['square'][0],
      },
    )

  def test_a_penalty_sees_parameters_and_sown_values(self):
    experiment = self.penalised()
    state = experiment.init(jax.random.key(0))
    self.assertEqual(state.model_state, {})  # What is sown is no state.
    new, sums = experiment.train_step(state, HEARD)
    mean = lambda name: float(sums[name].total / sums[name].count)
    # scale is 2: (2 x)^2 is 4, 36, 4, 36, on average 20; |2| counts half.
    self.assertEqual((mean('l1'), mean('square'), mean('loss')), (2.0, 20.0, 21.0))
    # The gradient by scale: 0.5 and 2 * 2 * mean(x^2) = 20.
    self.assertAlmostEqual(float(new.params['scale']), 2 - 0.1 * 20.5, places=5)
    self.assertEqual(jax.tree.structure(new), jax.tree.structure(state))

  def test_micro_batches_do_not_add_penalties_up(self):
    experiment = self.penalised(Config(batch_size=4, micro_batches=2))
    state = experiment.init(jax.random.key(0))
    new, sums = jax.jit(experiment.train_step)(state, HEARD)
    self.assertAlmostEqual(float(sums['l1'].total / sums['l1'].count), 2.0, places=6)
    self.assertAlmostEqual(float(new.params['scale']), 2 - 0.1 * 20.5, places=5)

  def test_a_single_penalty_has_a_name_and_is_left_out_of_evaluations(self):
    experiment = heard(penalty=lambda params, sown: 3 * params['scale'])
    state = experiment.init(jax.random.key(0))
    _, sums = experiment.train_step(state, HEARD)
    self.assertEqual(float(sums['penalty'].total / sums['penalty'].count), 6.0)
    self.assertIn('penalty', experiment.metrics)
    found = experiment.evals['test'].step(state, {**HEARD, 'weight': np.ones(4)})
    self.assertEqual(set(found), {'loss'})
    self.assertEqual(float(found['loss'].total), 0.0)

  def test_a_stream_of_random_numbers_by_name(self):
    first = heard(loss=lambda y_BF, batch: y_BF[:, 0])
    state = first.init(jax.random.key(0))
    loss = lambda state: float(first.train_step(state, HEARD)[1]['loss'].total)
    self.assertEqual(loss(state), loss(state))
    self.assertNotEqual(loss(state), loss(state._replace(step=jnp.int32(1))))

  def test_a_loss_that_is_not_one_value_an_example_is_named(self):
    experiment = heard(loss=lambda y_BF, batch: y_BF)
    state = experiment.init(jax.random.key(0))
    message = r'The loss has the shape \(4, 1\): must be \(4,\), one value an example'
    with self.assertRaisesRegex(ConfigError, message):
      experiment.train_step(state, HEARD)


class CurvesTest(parameterized.TestCase):
  def curves(self, tx, **fields):
    found = {}
    for micro_batches in (1, 4):
      _, experiment = make(tx, curves=True, micro_batches=micro_batches, **fields)
      _, sums = run(experiment, 2)
      found[micro_batches] = {
        name: (float(sums[name].total), float(sums[name].count))
        for name in ('learning_rate', 'gradient_norm', 'update_ratio')
      }
    return found

  def test_micro_batches_count_once(self):
    found = self.curves(optim.sgd(optim.step_decay(0.1, 1, 0.5)))
    self.assertAlmostEqual(found[1]['learning_rate'][0], 0.05, places=6)
    for name, (total, count) in found[1].items():
      self.assertEqual((count, found[4][name][1]), (1, 1))
      self.assertAlmostEqual(found[4][name][0], total, places=5)

  def test_off_by_default_and_of_no_effect_on_the_parameters(self):
    plain, sums = run(make()[1], 2)
    self.assertEqual(set(sums), {'loss', 'accuracy'})
    watched, sums = run(make(curves=True)[1], 2)
    self.assertNotIn('learning_rate', sums)  # optax.sgd's is not known.
    chex.assert_trees_all_close(plain.params, watched.params, rtol=1e-6)

  def test_frozen_gradients_count_in_no_norm(self):
    _, sums = run(
      make(curves=True, frozen=lambda p: jax.tree.map(lambda _: True, p))[1]
    )
    self.assertEqual(float(sums['gradient_norm'].total), 0.0)
    self.assertEqual(float(sums['update_ratio'].total), 0.0)

  def test_a_skipped_step_of_float16_counts_nothing(self):
    fields = {'compute_dtype': 'float16', 'scale': 1e4, 'curves': True}
    _, sums = run(make(optim.sgd(0.1), **fields)[1], 1)
    for name in ('learning_rate', 'gradient_norm', 'update_ratio'):
      self.assertEqual((float(sums[name].total), float(sums[name].count)), (0, 0))


class ConfigTest(parameterized.TestCase):
  @parameterized.parameters(
    ('num_steps', 0, r'in \[1, 2\*\*31\)'),
    ('num_steps', 2**31, r'in \[1, 2\*\*31\)'),
    ('batch_size', -1, 'at least 1'),
    ('clip_norm', 0.0, 'above 0'),
    ('ema_decay', 1.0, r'in \(0, 1\)'),
    ('compute_dtype', 'int8', 'one of float32'),
    ('micro_batches', 7, 'a divisor of'),
    ('best_metric', 'accuracy', 'SPLIT/NAME'),
    ('seed', -1, r'in \[0, 2\*\*31\)'),
    ('save_every_steps', 0, 'at least 1, or None'),
    ('best_mode', 'most', 'max or min'),
  )
  def test_impossible_values_are_named(self, field, value, allowed):
    with self.assertRaisesRegex(
      ValueError, rf'--config.{field}={value} is not allowed: must be .*{allowed}'
    ):
      Config(**{field: value})

  def test_is_frozen_and_keyword_only(self):
    with self.assertRaises(dataclasses.FrozenInstanceError):
      Config().seed = 1
    with self.assertRaises(TypeError):
      Config(1)


if __name__ == '__main__':
  absltest.main()
