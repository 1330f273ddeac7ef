"""What of airbench stands in the experiment: rates, groups, blocks by size."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from experiments.vision import cifar_speedrun
from experiments.vision.cifar_speedrun import Config, channels_for, rates

PUBLISHED = Config(channels=(64, 256, 256), batch_size=1024, num_steps=100)


class SpeedrunTest(parameterized.TestCase):
  def test_rates_are_those_of_airbench(self):
    # There: lr = 11.5 / (1024 (1 + 1 / (1 - 0.85))) of the summed loss, decay 1024
    # times 0.0153 over the same.
    kilo = 1024 * (1 + 1 / 0.15)
    rate, decay = rates(PUBLISHED)
    self.assertAlmostEqual(rate, 1024 * 11.5 / kilo)
    self.assertAlmostEqual(decay, 1024 * 0.0153 / kilo)
    half = rates(Config(batch_size=512))
    self.assertAlmostEqual(half[0] / rate, 0.5)

  def test_groups_learn_at_their_rates_and_decay_alike(self):
    config = Config(num_steps=100, batch_size=1024, lookahead_every=None)
    tx = cifar_speedrun.optimiser(config)
    names = ('block1_norm1', 'whiten', 'head')
    leaf = {'block1_norm1': 'bias', 'whiten': 'bias', 'head': 'kernel'}
    params = {name: {leaf[name]: jnp.array([[2.0]])} for name in names}

    def move(slope, at):
      """Of the first update, where the schedule is at a step."""
      grads = jax.tree.map(lambda p: jnp.full_like(p, slope), params)
      state = jax.tree.map(
        lambda x: jnp.full_like(x, at) if x.dtype == jnp.int32 else x, tx.init(params)
      )
      moves = tx.update(grads, state, params)[0]
      return {name: float(moves[name][leaf[name]][0, 0]) for name in names}

    rate, decay = rates(config)
    nesterov = 1 + 0.85
    still, pulled = move(0.0, 23), move(1.0, 23)  # The peak of the triangle.
    for name in names:
      self.assertAlmostEqual(still[name], -nesterov * decay * 2, places=5)
    found = {name: (still[name] - pulled[name]) / nesterov / rate for name in names}
    np.testing.assert_allclose(found['block1_norm1'], 64, rtol=1e-3)
    np.testing.assert_allclose([found['whiten'], found['head']], 1, rtol=1e-3)
    # The first layer's bias stands still after three tenths of the run.
    self.assertEqual(move(1.0, 30)['whiten'], 0)
    self.assertNotEqual(move(1.0, 29)['whiten'], 0)

  @parameterized.parameters((32, 3), (28, 3), (64, 3), (16, 2), (8, 1), (4, 1))
  def test_blocks_by_the_size_of_images(self, size, blocks):
    self.assertLen(channels_for(PUBLISHED, size), blocks)


if __name__ == '__main__':
  absltest.main()
