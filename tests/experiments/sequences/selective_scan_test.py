"""Sequences of `selective_scan` against their definitions; what the net is asked."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.models.sequence_mixer import MIXERS, SequenceMixer
from experiments.sequences import selective_scan as lib


class TasksTest(parameterized.TestCase):
  def test_induction_asks_for_what_followed_the_mark(self):
    keys = jax.random.split(jax.random.key(0), 500)
    found = jax.jit(jax.vmap(lambda key: lib.induction(key, 9, 5)))(keys)
    places, after = set(), set()
    for row, (target,) in zip(np.asarray(found['symbols']), found['target']):
      first, last = np.flatnonzero(row == 5)
      self.assertEqual(last, 8)
      self.assertEqual(row[first + 1], target)
      self.assertLess(target, 5)
      places.add(int(first))
      after.add(int(target))
    # The mark never stands where its own second coming would be what follows.
    self.assertEqual(places, set(range(7)))
    self.assertEqual(after, set(range(5)))

  def test_copying_asks_for_all_items_in_their_order(self):
    keys = jax.random.split(jax.random.key(0), 500)
    found = jax.jit(jax.vmap(lambda key: lib.copying(key, 8, 3, 2)))(keys)
    places = set()
    for row, target in zip(np.asarray(found['symbols']), np.asarray(found['target'])):
      np.testing.assert_array_equal(row[-2:], 4)  # The marks: answer now.
      at = np.flatnonzero(row < 3)
      np.testing.assert_array_equal(row[at], target)
      self.assertTrue((np.delete(row[:-2], at) == 3).all())
      places.add(tuple(at.tolist()))
    # All 15 pairs of the 6 places.
    self.assertLen(places, 15)


class MixerTest(parameterized.TestCase):
  @parameterized.parameters(*MIXERS)
  def test_logits_of_the_last_steps_and_their_past(self, mixer):
    model = SequenceMixer(6, 3, mixer, depth=1, features=8, last=2)
    symbols = jnp.arange(10).reshape(2, 5) % 6
    variables = jax.jit(lambda: model.init(jax.random.key(0), symbols, train=True))()
    call = jax.jit(lambda x: model.apply(variables, x, train=False))
    logits = call(symbols)
    self.assertEqual(logits.shape, (2, 2, 3))
    # The first of the two does not see the last symbol, the second does.
    changed = call(symbols.at[:, -1].add(-1))
    np.testing.assert_array_equal(changed[:, 0], logits[:, 0])
    self.assertTrue((changed[:, 1] != logits[:, 1]).all())


if __name__ == '__main__':
  absltest.main()
