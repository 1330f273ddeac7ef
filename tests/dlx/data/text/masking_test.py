"""Rows of texts by hand, and what is hidden: shares, seeds, marks."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.text import byte_pairs, masking
from dlx.data.text.marked import HIDDEN, MARKS, Marked

TEXTS = jnp.asarray([[7, 8, 9], [5, 0, 0]], jnp.int32)
OTHERS = jnp.asarray([[6, 0, 0], [7, 8, 9]], jnp.int32)


class RowsTest(absltest.TestCase):
  def test_single_by_hand(self):
    token, segment = jax.jit(masking.single)(TEXTS)
    np.testing.assert_array_equal(token, [[2, 7, 8, 9, 3], [2, 5, 3, 0, 0]])
    np.testing.assert_array_equal(segment, np.zeros((2, 5)))

  def test_pair_by_hand(self):
    token, segment = jax.jit(masking.pair)(TEXTS, OTHERS)
    np.testing.assert_array_equal(
      token, [[2, 7, 8, 9, 3, 6, 3, 0, 0], [2, 5, 3, 7, 8, 9, 3, 0, 0]]
    )
    np.testing.assert_array_equal(
      segment, [[0, 0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1, 1, 0, 0]]
    )


class HideTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.size = 1000
    rng = np.random.default_rng(0)
    rows = rng.integers(len(MARKS), self.size, (400, 40))
    rows[:, 0], rows[:, 30], rows[:, 31:] = 2, 3, 0
    self.rows = jnp.asarray(rows, jnp.int32)
    self.hide = jax.jit(lambda s, x: masking.hide(s, x, self.size))
    self.seeds = jnp.arange(400, dtype=jnp.uint32)
    self.found = self.hide(self.seeds, self.rows)

  def test_round_of_the_share_is_predicted(self):
    # 29 tokens that are no mark: 15 % are 4.35.
    np.testing.assert_array_equal(self.found.counts_BM.sum(1), 4)
    self.assertEqual(self.found.position_BM.shape, (400, 6))
    taken = np.take_along_axis(np.asarray(self.rows), self.found.position_BM, 1)
    np.testing.assert_array_equal(taken, self.found.target_BM)
    counted = np.asarray(self.found.counts_BM) > 0
    self.assertTrue((taken[counted] >= len(MARKS)).all())
    for row in np.asarray(self.found.position_BM):
      self.assertLen(set(row.tolist()), 6)

  def test_80_10_10(self):
    counted = np.asarray(self.found.counts_BM) > 0
    shown = np.take_along_axis(
      np.asarray(self.found.token_BT), np.asarray(self.found.position_BM), 1
    )[counted]
    was = np.asarray(self.found.target_BM)[counted]
    hidden, same = (shown == HIDDEN).mean(), (shown == was).mean()
    # Of 1600 tokens the shares have deviations of 0.010 and 0.0075.
    self.assertAlmostEqual(hidden, 0.8, delta=0.04)
    self.assertAlmostEqual(same, 0.1, delta=0.03)
    self.assertTrue(((shown == HIDDEN) | (shown >= len(MARKS))).all())

  def test_what_is_not_predicted_stays(self):
    changed = np.asarray(self.found.token_BT != self.rows)
    self.assertLessEqual(changed.sum(1).max(), 4)
    self.assertFalse(changed[:, [0, 30, 31, 39]].any())

  def test_every_place_is_as_likely(self):
    counted = np.asarray(self.found.counts_BM) > 0
    times = np.bincount(np.asarray(self.found.position_BM)[counted], minlength=40)
    # 1600 over 29 places: 55, with a deviation of 7.
    self.assertBetween(times[1:30].min(), 25, 55)
    self.assertBetween(times[1:30].max(), 55, 90)

  def test_a_row_follows_from_its_seed_alone(self):
    order = np.random.default_rng(1).permutation(400)
    other = self.hide(self.seeds[order], self.rows[order])
    jax.tree.map(
      lambda a, b: np.testing.assert_array_equal(np.asarray(a)[order], b),
      self.found,
      other,
    )
    again = self.hide(self.seeds + 400, self.rows)
    self.assertGreater((again.position_BM != self.found.position_BM).mean(), 0.5)

  def test_short_rows(self):
    rows = jnp.zeros((400, 40), jnp.int32).at[:, :3].set(jnp.asarray([[2, 9, 3]]))
    np.testing.assert_array_equal(self.hide(self.seeds, rows).counts_BM.sum(1), 1)
    empty = rows.at[:, 1].set(3)
    found = self.hide(self.seeds, empty)
    np.testing.assert_array_equal(found.counts_BM, 0)
    np.testing.assert_array_equal(found.token_BT, empty)


class MarkedTest(absltest.TestCase):
  def test_text_there_and_back(self):
    coder = Marked(byte_pairs.train('the cat and the dog and the cow', 262))
    self.assertLen(coder, 5 + 262)
    for line in ('the cat', 'Zo\u00eb', ''):
      self.assertEqual(coder.decode(coder.encode(line)), line)
    found = coder.encode('the [MASK] and [MASK]')
    self.assertEqual((found == HIDDEN).sum(), 2)
    self.assertEqual(coder.decode(found), 'the [MASK] and [MASK]')
    self.assertEqual((coder.plain('the [MASK]') == HIDDEN).sum(), 0)
    self.assertEqual(coder.decode([2, *coder.encode('cat'), 3, 0]), 'cat')


if __name__ == '__main__':
  absltest.main()
