"""Slots in which workers hand over batches: their reuse, and what does not fit."""

import gc
import pickle
from unittest import mock

from absl.testing import absltest, parameterized
import jax
import ml_dtypes
import numpy as np

from dlx.data import room as room_lib
from dlx.data.batches import ring
from dlx.data.batches.ring import Layout, Ring


def batch(i, rows=3):
  return {'x': np.full((rows, 5), i, np.int16), 'y': np.array(i / 2), 'z': np.zeros(0)}


def write(there, i, what=None):
  """In a worker: the layout of batch i in the ring; None: no slot, or no room in it."""
  room = there.room(i)
  return None if room is None else there.put(room, batch(i) if what is None else what)


class RingTest(parameterized.TestCase):
  def opened(self, workers=2, at_once=1, slots=2, slot_bytes=4096):
    """The ring here, and as a worker has it: other memory maps of the same pages."""
    here = Ring(workers, at_once, slots, slot_bytes)
    self.addCleanup(here.close)
    there = pickle.loads(pickle.dumps(here))
    self.addCleanup(there.close)
    return here, there

  def check(self, found, i):
    self.assertEqual(list(found), list(batch(i)))
    for name, x in batch(i).items():
      np.testing.assert_array_equal(found[name], x, strict=True)
      self.assertIs(type(found[name]), np.ndarray)

  def test_batches_come_as_they_went(self):
    here, there = self.opened()
    for i in range(20):
      layout = write(there, i)
      self.assertIsInstance(layout, Layout)
      self.check(here.take(pickle.loads(pickle.dumps(layout))), i)

  def test_nothing_is_copied_after_it_was_made(self):
    here, there = self.opened()
    slot = there.room(0)
    with room_lib.made_by(slot.empty):
      made = room_lib.picked(np.arange(50, dtype=np.int32).reshape(10, 5), np.arange(3))
      row = room_lib.empty((), np.float64)
    row[...] = 3
    other = np.arange(7, dtype=np.int8)
    found = here.take(there.put(slot, {'row': row, 'other': other, 'made': made}))
    for name, x in {'row': row, 'made': made}.items():
      np.testing.assert_array_equal(found[name], x, strict=True)
      found[name][...] += 1  # The same pages: it shows on the other side.
      np.testing.assert_array_equal(found[name], x, strict=True)
    np.testing.assert_array_equal(found['other'], np.arange(7))
    found['other'][...] = 0
    np.testing.assert_array_equal(other, np.arange(7))

  def test_arrays_lie_where_devices_take_them_as_they_are(self):
    here, there = self.opened()
    what = {'a': np.zeros(3, np.uint8), 'b': np.zeros(5), 'c': np.zeros((), np.int32)}
    for x in here.take(write(there, 0, what)).values():
      self.assertEqual(x.__array_interface__['data'][0] % 64, 0)

  def test_a_slot_is_not_written_before_it_was_taken(self):
    here, there = self.opened()
    layouts = {i: write(there, i) for i in range(4)}  # Two slots of each.
    self.assertNotIn(None, layouts.values())
    self.assertIsNone(there.room(4))
    self.assertIsNone(there.room(5))
    self.check(here.take(layouts[0]), 0)
    self.assertIsNone(there.room(5))  # Of the other worker.
    layouts[4] = write(there, 4)
    for i in (1, 2, 3, 4):
      self.check(here.take(layouts[i]), i)

  @parameterized.parameters('batch', 'array', 'part', 'other dtype', 'on a device')
  def test_nor_while_anything_refers_to_its_arrays(self, what):
    here, there = self.opened(workers=1, slots=1)
    found = here.take(write(there, 0, {'x': np.arange(64, dtype=np.int32)}))
    kept = {
      'batch': lambda batch: batch,
      'array': lambda batch: batch['x'],
      'part': lambda batch: batch['x'][40:].reshape(2, -1)[1],
      'other dtype': lambda batch: batch['x'].view(np.uint8),
      'on a device': lambda batch: jax.device_put(batch['x'], jax.devices('cpu')[0]),
    }[what](found)
    before = jax.tree.map(np.array, kept)
    del found
    gc.collect()
    slot = there.room(1)
    # A device may have copied it; else it must be as it was.
    self.assertTrue(slot is None or what == 'on a device')
    if slot is not None:
      there.put(slot, {'x': np.zeros(64, np.int32)})
    jax.tree.map(np.testing.assert_array_equal, kept, before)
    del kept, slot
    gc.collect()
    if what != 'on a device':
      self.assertIsNotNone(write(there, 1))

  def test_nor_while_the_source_refers_to_them(self):
    here, there = self.opened(workers=1, slots=2)
    slot = there.room(0)
    kept = slot.empty((4,), np.int32)
    kept[:] = 7
    here.take(there.put(slot, {'x': kept}))
    del slot
    for i in range(1, 4):
      here.take(write(there, i, {'x': np.full(4, i, np.int32)}))
    np.testing.assert_array_equal(kept, [7] * 4)
    slot = there.room(4)
    layout = there.put(slot, {'x': kept})  # Of another slot: copied.
    np.testing.assert_array_equal(here.take(layout)['x'], [7] * 4)

  def test_a_reader_that_keeps_them_all_gets_copies(self):
    here, there = self.opened(workers=1, slots=4)
    with mock.patch.object(ring, 'LENT', 3):
      kept = [here.take(write(there, i)) for i in range(10)]
    for i, found in enumerate(kept):
      self.check(found, i)
    del kept[1]
    gc.collect()
    with mock.patch.object(ring, 'LENT', 3):
      kept += [here.take(write(there, i)) for i in range(10, 12)]
    for i, found in zip([0, *range(2, 12)], kept, strict=True):
      self.check(found, i)

  def test_what_does_not_fit_is_not_handed_over(self):
    here, there = self.opened(workers=1)
    self.assertIsNone(write(there, 0, {'x': np.zeros(4097, np.uint8)}))
    half = {'x': np.zeros(2, ml_dtypes.bfloat16)}  # Its dtype has no name of NumPy's.
    self.assertIsNone(write(there, 0, half))
    self.check(here.take(write(there, 0)), 0)

  def test_more_than_a_slot_is_made_elsewhere(self):
    _, there = self.opened(workers=1)
    slot = there.room(0)
    whole, more = slot.empty((4096,), np.uint8), slot.empty((1,), np.uint8)
    whole[:], more[:] = 1, 2
    np.testing.assert_array_equal(whole, np.ones(4096))
    self.assertIsNone(there.put(slot, {'whole': whole, 'more': more}))

  def test_some_at_once(self):
    # Two workers make three at once: 0 1 2, 6 7 8 and 3 4 5, 9 10 11.
    here, there = self.opened(workers=2, at_once=3, slots=4)
    layouts = {i: write(there, i) for i in (0, 1, 2, 6, 3, 4, 5, 9)}
    self.assertNotIn(None, layouts.values())
    self.assertIsNone(there.room(7))
    self.assertIsNone(there.room(10))
    self.check(here.take(layouts[0]), 0)
    layouts[7] = write(there, 7)
    for i in (1, 2, 3, 4, 5, 6, 7):
      self.check(here.take(layouts[i]), i)

  def test_of_declared_shapes_the_largest_counts(self):
    shapes = [{'x': np.zeros(n, np.float64), 'y': np.zeros((), bool)} for n in (1, 20)]
    self.assertEqual(ring.batch_bytes(shapes), 192 + 64)  # Each begins at 64 bytes.
    self.assertEqual(ring.batch_bytes([]), 0)


if __name__ == '__main__':
  absltest.main()
