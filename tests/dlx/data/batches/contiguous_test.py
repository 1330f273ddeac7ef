"""Continuing rows: every sentence once an epoch, whole, in one row, from its reset."""

import collections

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.batches import contiguous as lib
from dlx.data.dataset import Loaded, Source
from dlx.errors import ConfigError, DataError

N, WIDTH = 41, 9
LENGTHS = np.random.default_rng(1).integers(1, WIDTH + 1, N)
TOKENS = np.where(
  np.arange(WIDTH) < LENGTHS[:, None],
  100 * (1 + np.arange(N)[:, None]) + np.arange(WIDTH),
  0,
)
COUNTS = tuple(int((LENGTHS == n).sum()) for n in range(1, WIDTH + 1))
SHAPES = {
  'tokens': jax.ShapeDtypeStruct((WIDTH,), np.int32),
  'label': jax.ShapeDtypeStruct((), np.int32),
}


def read(data_dir):
  data = {'tokens': TOKENS.astype(np.int32), 'label': np.arange(N, dtype=np.int32)}
  return Loaded(
    data, {'name': 'words', 'split': 'train', 'kind': 'generated', 'size': N}
  )


SOURCE = Source('words', 'train', SHAPES, N, read)


def rows(**change):
  fields = dict(batch_size=4, window=3, seed=0, num_orders=2)
  return lib.Continuing(SOURCE, COUNTS, **{**fields, **change})


class ContinuingTest(parameterized.TestCase):
  @parameterized.parameters((4, 3), (1, 4), (4, WIDTH), (3, 1), (64, 2))
  def test_rows_read_every_sentence_once_and_whole(self, batch_size, window):
    data = rows(batch_size=batch_size, window=window)
    arrays = data.load().data
    get = jax.jit(data.get)
    orders = []
    for e in range(3):
      read_so_far = [[] for _ in range(batch_size)]
      ended = []
      for step in range(e * data.steps_per_epoch, (e + 1) * data.steps_per_epoch):
        batch = jax.tree.map(np.array, get(arrays, jnp.int32(step)))
        for i in range(batch_size):
          if batch['reset'][i]:
            self.assertEmpty(read_so_far[i])  # Nothing is cut off.
          length = batch['length'][i]
          tokens = batch['tokens'][i]
          self.assertTrue((tokens[length:] == 0).all())
          read_so_far[i] += tokens[:length].tolist()
          if batch['weight'][i]:
            label = int(batch['label'][i])
            wanted = TOKENS[label][: LENGTHS[label]].tolist()
            self.assertEqual(read_so_far[i], wanted)
            ended.append(label)
            read_so_far[i] = []
      self.assertEqual(collections.Counter(ended), collections.Counter(range(N)))
      self.assertFalse(any(read_so_far))
      orders.append(ended)
    # Two orders, then again.
    self.assertEqual(orders[0], orders[2])
    if batch_size < N:
      self.assertNotEqual(orders[0], orders[1])

  def test_few_rows_idle(self):
    data = rows(window=2)
    sentence = data.load().data['sentence']
    # Less than one sentence of 9 tokens, 5 windows, a row and an order.
    self.assertLessEqual((sentence < 0).sum(), 2 * 4 * 5)

  def test_arrays_and_batches_have_the_declared_shapes(self):
    data = rows()
    declared, found = data.array_shapes(), data.load().data
    self.assertEqual(declared.keys(), found.keys())
    for name, x in found.items():
      self.assertEqual((x.shape, x.dtype), (declared[name].shape, declared[name].dtype))
    batch = jax.eval_shape(data.get, declared, jax.ShapeDtypeStruct((), np.int32))
    self.assertEqual(
      {k: (x.shape, x.dtype) for k, x in batch.items()},
      {k: (x.shape, x.dtype) for k, x in data.shapes[0].items()},
    )

  def test_refuses(self):
    with self.assertRaisesRegex(ConfigError, 'window=0 is not allowed'):
      rows(window=0)
    wrong = (COUNTS[0] + 1, COUNTS[1] - 1, *COUNTS[2:])
    data = lib.Continuing(SOURCE, wrong, batch_size=4, window=3, seed=0)
    with self.assertRaisesRegex(DataError, 'sentences of 1 tokens'):
      data.load()


if __name__ == '__main__':
  absltest.main()
