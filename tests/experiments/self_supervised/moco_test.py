"""MoCo: what a step does to the slow encoder and the queue, and what probes compare."""

import dataclasses

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.models.conv_encoder import EncoderConfig
from dlx.tasks.probes import ProbeConfig
from experiments.self_supervised import moco
from tests.same_bytes import same_bytes

SMALL = moco.Config(
  num_steps=6,
  batch_size=8,
  encoder=EncoderConfig(features=(8, 8), strides=(2, 2)),
  hidden=8,
  projection=4,
  queue=20,
  warmup_steps=0,
  probe=ProbeConfig(labels=60, test=40, few_per_class=2, few_draws=2, neighbours=3),
)


def start(config):
  built = moco.build(config)
  data = built.train_data
  arrays = {name: jnp.asarray(x) for name, x in data.load().data.items()}

  @jax.jit
  def step(state):
    return built.train_step(state, data.get(arrays, state.step))

  return built, jax.jit(built.init)(jax.random.key(0)), step


class MocoTest(parameterized.TestCase):
  def test_a_training_batch_holds_no_label(self):
    data = moco.build(SMALL).train_data
    self.assertEqual(set(data.shapes[0]), {'image'})
    self.assertEqual(set(data.load().data), {'image'})
    # The probes do have labels: the set itself is not without.
    self.assertIn('train_label', moco.build(SMALL).evals['probe'].data.shapes[0])

  def test_steps(self):
    _, state, step = start(SMALL)
    slow, queue = state.model_state['key_encoder'], state.model_state['queue']
    self.assertTrue(same_bytes(slow, state.params))
    first = state.params
    state, _ = step(state)
    # The average moves before the encoder does: the first step mixes equal weights.
    self.assertTrue(same_bytes(state.model_state['key_encoder'], first))
    self.assertFalse(same_bytes(state.params, first))
    second = state.params
    state, _ = step(state)
    for new, old, fast in zip(
      *map(jax.tree.leaves, (state.model_state['key_encoder'], first, second))
    ):
      np.testing.assert_allclose(new, 0.99 * old + 0.01 * fast, rtol=1e-5, atol=1e-7)
    old, new = (
      np.roll(q.keys_ND, -int(q.start), 0) for q in (queue, state.model_state['queue'])
    )
    np.testing.assert_array_equal(new[:4], old[16:])
    np.testing.assert_allclose(np.linalg.norm(new[4:], axis=1), 1, atol=1e-6)
    # Keys of two steps, and of different images.
    self.assertLen(np.unique(new, axis=0), 20)

  def test_micro_batches_do_not_change_the_gradient(self):
    states = []
    for parts in (1, 4):
      _, state, step = start(dataclasses.replace(SMALL, micro_batches=parts))
      states.append(step(state)[0])
    one, four = (jax.tree.leaves(s.opt_state) for s in states)
    for a, b in zip(one, four, strict=True):
      # Sums over 8 images of gradients of order 1 through layers of 72 products.
      np.testing.assert_allclose(a, b, atol=2e-5)

  def test_probes_stand_beside_the_encoder_of_step_0(self):
    probe = dataclasses.replace(SMALL.probe, labels=300, test=360)
    config = dataclasses.replace(SMALL, probe=probe)
    built, state, _ = start(config)
    evaluation = built.evals['knn']
    batch = {k: jnp.asarray(x) for k, x in evaluation.data.load().data.items()}
    find = jax.jit(lambda s: evaluation.summarize(evaluation.step(s, batch)))
    before = find(state)
    self.assertEqual(before['accuracy'], before['random_accuracy'])
    other = jax.jit(built.init)(jax.random.key(5))
    self.assertNotEqual(before['accuracy'], find(other)['accuracy'])
    # Weights move, the key of the state does not: that run's own first encoder.
    after = find(state._replace(params=other.params))
    self.assertEqual(before['random_accuracy'], after['random_accuracy'])
    self.assertEqual(before['pixels_accuracy'], after['pixels_accuracy'])
    self.assertEqual(after['accuracy'], find(other)['accuracy'])

  @parameterized.parameters(
    (dict(ema_decay=0.9), 'ema_decay=0.9 .* None: set momentum'),
    (dict(compute_dtype='float16'), 'compute_dtype=float16'),
    (dict(momentum=1.0), 'momentum=1.0'),
    (dict(temperature=0.0), 'temperature=0.0'),
  )
  def test_refused(self, fields, message):
    with self.assertRaisesRegex(ConfigError, message):
      moco.Config(**fields)

  @parameterized.parameters(
    (EncoderConfig, dict(strides=(2,)), 'strides=.* must be 4 numbers'),
    (EncoderConfig, dict(features=(12, 8, 8, 8)), 'features=.* multiples of groups=8'),
    (EncoderConfig, dict(features=()), 'features=.* multiples of groups=8'),
    (EncoderConfig, dict(groups=0), 'groups=0'),
    (ProbeConfig, dict(neighbours=2000), 'neighbours=2000 .* in .1, 1437.'),
    (ProbeConfig, dict(few_draws=1), 'few_draws=1'),
    (ProbeConfig, dict(l2=0.0), 'l2=0.0'),
  )
  def test_groups_refuse(self, group, fields, message):
    with self.assertRaisesRegex(ConfigError, f'{group.__name__}.{message}'):
      group(**fields)


if __name__ == '__main__':
  absltest.main()
