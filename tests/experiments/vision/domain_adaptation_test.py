"""domain_adaptation: what each method reads of the target, and what it changes."""

import dataclasses
import functools

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from experiments.vision import domain_adaptation

SMALL = dataclasses.replace(domain_adaptation.SMALL, batch_size=8, dropout=0.0)


@functools.cache
def loaded():
  """The first batch of both domains, NumPy."""
  data = domain_adaptation.build(SMALL).train_data
  arrays = jax.tree.map(jnp.asarray, data.load().data)
  return data.get(arrays, jnp.int32(0))


@functools.cache
def run(method, strength=1.0, other_target=False, steps=2):
  """The state after some steps on one batch."""
  config = dataclasses.replace(SMALL, method=method, strength=strength)
  made = domain_adaptation.build(config)
  batch = dict(loaded())
  if other_target:
    batch['target/image'] = 255 - batch['target/image']
  state, step = made.init(jax.random.key(0)), jax.jit(made.train_step)
  for _ in range(steps):
    state, sums = step(state, batch)
  return state, sums


def assert_equal(one, two):
  jax.tree.map(np.testing.assert_array_equal, one, two)


def differ(one, two):
  pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
  return any((np.asarray(a) != np.asarray(b)).any() for a, b in pairs)


class DomainAdaptationTest(absltest.TestCase):
  def test_no_label_of_the_target_is_in_a_batch(self):
    self.assertEqual(set(loaded()), {'source/image', 'source/label', 'target/image'})

  def test_the_baseline_does_not_see_the_target(self):
    one, _ = run('source_only')
    assert_equal(one.params, run('source_only', other_target=True)[0].params)
    self.assertEqual(set(one.model_state), {'source'})

  def test_adabn_learns_as_the_baseline_but_keeps_statistics_of_the_target(self):
    one, other = run('adabn')[0], run('adabn', other_target=True)[0]
    for state in (one, other):
      assert_equal(state.params, run('source_only')[0].params)
      assert_equal(
        state.model_state['source'], run('source_only')[0].model_state['source']
      )
    self.assertTrue(differ(one.model_state['target'], other.model_state['target']))
    self.assertTrue(differ(one.model_state['target'], one.model_state['source']))

  def test_without_strength_the_net_learns_as_the_baseline(self):
    for method in ('dann', 'coral'):
      found, _ = run(method, strength=0.0)
      # XLA may add in another order.
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        found.params['net'],
        run('source_only')[0].params['net'],
      )

  def test_with_strength_target_images_reach_the_net(self):
    for method in ('dann', 'coral'):
      one, sums = run(method)
      other, _ = run(method, other_target=True)
      self.assertTrue(differ(one.params['net'], other.params['net']), method)
      mean = {name: float(x.total / x.count) for name, x in sums.items()}
      total = mean['label_loss'] + mean['domain_loss']
      np.testing.assert_allclose(mean['loss'], total, rtol=1e-5)

  def test_domains_of_other_sizes_and_colours(self):
    config = dataclasses.replace(SMALL, dataset='mnist_blended')
    made = domain_adaptation.build(config)
    state = jax.eval_shape(made.init, jax.random.key(0))
    self.assertEqual(state.params['net']['conv_0']['kernel'].shape, (3, 3, 3, 4))
    image = jax.ShapeDtypeStruct((5, 28, 28, 3), jnp.uint8)
    found = jax.eval_shape(made.functions['predict'].call, state, {'image': image})
    self.assertEqual(found['probabilities'].shape, (5, 10))

  def test_refusals(self):
    with self.assertRaisesRegex(ConfigError, 'source=.* a set of 10 classes'):
      domain_adaptation.build(dataclasses.replace(SMALL, source='letters:26'))
    with self.assertRaisesRegex(ConfigError, 'method=mmd'):
      dataclasses.replace(SMALL, method='mmd')


if __name__ == '__main__':
  absltest.main()
