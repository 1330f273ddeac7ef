"""Tests for dlx/data/batches/prefetch.py: a thread makes elements ahead of use."""

import threading

from absl.testing import absltest, parameterized

from dlx.data.batches.prefetch import Ahead


class Source:
  """Counts up to `stop`, then raises `error`; says what was made and where."""

  def __init__(self, stop: int, error: BaseException | None = None):
    self.made, self.stop, self.closed = 0, stop, 0
    self.error = error or StopIteration()
    self.threads = set()
    self.changed = threading.Condition()

  def __next__(self):
    with self.changed:
      self.threads.add(threading.current_thread())
      self.changed.notify_all()
      if self.made == self.stop:
        raise self.error
      self.made += 1
      return self.made - 1

  def close(self):
    self.closed += 1

  def wait(self, made: int) -> bool:
    with self.changed:
      return self.changed.wait_for(lambda: self.made >= made, timeout=30)


class AheadTest(parameterized.TestCase):
  @parameterized.parameters(1, 2, 7)
  def test_all_in_order_made_by_another_thread(self, depth):
    source = Source(5)
    self.assertEqual(list(Ahead(source, depth)), [0, 1, 2, 3, 4])
    self.assertEqual(source.closed, 1)
    self.assertNotIn(threading.current_thread(), source.threads)

  def test_runs_ahead_by_the_depth_and_one(self):
    source = Source(100)
    with Ahead(source, 3) as ahead:
      self.assertTrue(source.wait(4))
      self.assertEqual(next(ahead), 0)
      self.assertTrue(source.wait(5))
      self.assertEqual(source.made, 5)

  def test_an_error_comes_after_what_was_made_before_it_and_again(self):
    source = Source(2, ValueError('broken'))
    ahead = Ahead(source)
    self.assertEqual([next(ahead), next(ahead)], [0, 1])
    for _ in range(2):
      with self.assertRaisesRegex(ValueError, 'broken'):
        next(ahead)
    ahead.close()
    self.assertEqual(source.closed, 1)

  @parameterized.parameters(0, 1, 4)
  def test_close_ends_the_thread_and_the_source(self, taken):
    source, before = Source(100), threading.active_count()
    ahead = Ahead(source)
    for _ in range(taken):
      next(ahead)
    ahead.close()
    ahead.close()
    self.assertEqual((source.closed, threading.active_count()), (1, before))
    self.assertLess(source.made, taken + 5)
    with self.assertRaises(StopIteration):
      next(ahead)

  def test_close_does_not_wait_for_a_source_that_hangs(self):
    going_on = threading.Event()

    def hangs():
      going_on.wait()
      yield 0

    ahead = Ahead(hangs())
    with self.assertLogs(level='WARNING'):
      ahead.close(patience_s=0.05)
    going_on.set()
    ahead.close()
    with self.assertRaises(StopIteration):
      next(ahead)

  def test_close_after_the_end(self):
    source = Source(1)
    ahead = Ahead(source)
    self.assertEqual(list(ahead), [0])
    ahead.close()
    self.assertEqual(list(ahead), [])


if __name__ == '__main__':
  absltest.main()
