"""Slots through which workers hand over batches: their reuse, and what does not fit."""

import pickle

from absl.testing import absltest, parameterized
import ml_dtypes
import numpy as np

from dlx.data.batches import ring
from dlx.data.batches.ring import Layout, Ring


def batch(i, rows=3):
  return {'x': np.full((rows, 5), i, np.int16), 'y': np.array(i / 2), 'z': np.zeros(0)}


class RingTest(parameterized.TestCase):
  def opened(self, workers=2, at_once=1, slots=2, slot_bytes=4096):
    """The ring here, and as a worker has it: other memory maps of the same pages."""
    here = Ring(workers, at_once, slots, slot_bytes)
    self.addCleanup(here.close)
    there = pickle.loads(pickle.dumps(here))
    self.addCleanup(there.close)
    return here, there

  def check(self, found, i):
    for name, x in batch(i).items():
      np.testing.assert_array_equal(found[name], x, strict=True)

  def test_batches_come_as_they_went(self):
    here, there = self.opened()
    for i in range(20):
      layout = there.put(i, batch(i))
      self.assertIsInstance(layout, Layout)
      self.check(here.take(i, pickle.loads(pickle.dumps(layout))), i)

  def test_what_is_taken_is_a_copy(self):
    here, there = self.opened(workers=1, slots=1)
    first = here.take(0, there.put(0, batch(0)))
    here.take(1, there.put(1, batch(1)))
    self.check(first, 0)

  def test_a_slot_is_not_written_before_it_was_taken(self):
    here, there = self.opened()
    layouts = {i: there.put(i, batch(i)) for i in range(4)}  # Two slots of each.
    self.assertNotIn(None, layouts.values())
    self.assertIsNone(there.put(4, batch(4)))
    self.assertIsNone(there.put(5, batch(5)))
    self.check(here.take(0, layouts[0]), 0)
    self.assertIsNone(there.put(5, batch(5)))  # Of the other worker.
    layouts[4] = there.put(4, batch(4))
    for i in (1, 2, 3, 4):
      self.check(here.take(i, layouts[i]), i)

  def test_one_that_came_another_way_frees_its_slot(self):
    here, there = self.opened(workers=1, slots=1)
    self.assertIsNotNone(there.put(0, batch(0)))
    here.skip(0)
    self.assertIsNotNone(there.put(1, batch(1)))

  def test_what_does_not_fit_is_not_written(self):
    here, there = self.opened(workers=1)
    self.assertIsNone(there.put(0, {'x': np.zeros(4097, np.uint8)}))
    half = {'x': np.zeros(2, ml_dtypes.bfloat16)}  # Its dtype has no name of NumPy's.
    self.assertIsNone(there.put(0, half))
    self.check(here.take(0, there.put(0, batch(0))), 0)

  def test_some_at_once(self):
    # Two workers make three at once: 0 1 2, 6 7 8 and 3 4 5, 9 10 11.
    here, there = self.opened(workers=2, at_once=3, slots=4)
    layouts = {i: there.put(i, batch(i)) for i in (0, 1, 2, 6, 3, 4, 5, 9)}
    self.assertNotIn(None, layouts.values())
    self.assertIsNone(there.put(7, batch(7)))
    self.assertIsNone(there.put(10, batch(10)))
    self.check(here.take(0, layouts[0]), 0)
    layouts[7] = there.put(7, batch(7))
    for i in (1, 2, 3, 4, 5, 6, 7):
      self.check(here.take(i, layouts[i]), i)

  def test_of_declared_shapes_the_largest_counts(self):
    shapes = [{'x': np.zeros(n, np.float64), 'y': np.zeros((), bool)} for n in (1, 20)]
    self.assertEqual(ring.batch_bytes(shapes), 192 + 64)  # Each begins at 64 bytes.
    self.assertEqual(ring.batch_bytes([]), 0)


if __name__ == '__main__':
  absltest.main()
