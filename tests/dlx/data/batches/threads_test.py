"""Elements that threads make ahead."""

import threading

from absl.testing import absltest, parameterized

from dlx.data.batches.threads import Threaded


class Slow:
  """Elements that are begun in order and end in the reverse: each waits for the next.

  Attributes:
    begun: numbers of those that were begun.
  """

  def __init__(self, count, at_once):
    self.count, self.at_once, self.begun = count, at_once, []
    self.ended = [threading.Event() for _ in range(count)]

  def __len__(self):
    return self.count

  def __getitem__(self, i):
    self.begun.append(i)
    if i % self.at_once != self.at_once - 1 and i + 1 < self.count:
      assert self.ended[i + 1].wait(60)
    self.ended[i].set()
    return i


class ThreadedTest(parameterized.TestCase):
  @parameterized.parameters((1, 1), (3, 3), (2, 2))
  def test_in_order_however_they_end(self, threads, ahead):
    source = Slow(12, threads)
    self.assertEqual(list(Threaded(source, threads, ahead)), list(range(12)))

  def test_no_more_than_so_many_are_begun(self):
    source = Slow(50, 1)
    made = Threaded(source, 4, 3)
    for i in range(10):
      self.assertEqual(next(made), i)
    made.close()
    self.assertLessEqual(len(source.begun), 10 + 3)

  def test_a_failure_comes_at_its_place(self):
    class Failing(Slow):
      def __getitem__(self, i):
        if i == 2:
          raise ValueError('two')
        return i

    made = Threaded(Failing(9, 1), 2, 4)
    self.assertEqual([next(made), next(made)], [0, 1])
    with self.assertRaisesRegex(ValueError, 'two'):
      next(made)

  def test_after_close_there_is_nothing(self):
    made = Threaded(Slow(9, 1), 2, 2)
    made.close()
    self.assertEqual(list(made), [])


if __name__ == '__main__':
  absltest.main()
