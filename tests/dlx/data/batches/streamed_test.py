"""Tests of the streamed data sets."""

import contextlib
import functools

from absl.testing import parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.batches.choose import shuffled
from dlx.data.batches.resident import InOrder, Shuffled
from dlx.data.batches.streamed import InOrderStream, ShuffledStream, batches
from dlx.data.dataset import Loaded, Source
from dlx.errors import ConfigError

SHAPES = {
  'image': jax.ShapeDtypeStruct((4, 3), np.uint8),
  'label': jax.ShapeDtypeStruct((), np.int32),
}
ALL = slice(None)


def read(n, data_dir):
  del data_dir
  image = np.random.default_rng(0).integers(0, 256, (n, 4, 3), dtype=np.uint8)
  return Loaded(
    {'image': image, 'label': np.arange(n, dtype=np.int32)},
    {'name': 'toy', 'split': 'train', 'kind': 'generated'},
  )


class Read:
  """`read` of a given n, picklable."""

  def __init__(self, n):
    self.n = n

  def __call__(self, data_dir):
    return read(self.n, data_dir)


def source(n):
  return Source('toy', 'train', SHAPES, n, Read(n))


def test_without_shuffling_the_same_as_from_the_devices():
  resident = shuffled(source(7), batch_size=5, seed=3, shuffle=False)
  stream = shuffled(source(7), batch_size=5, seed=3, shuffle=False, stream=True)
  for step in range(4):
    found = stream.get(stream.load().data, step, ALL)
    wanted = resident.get(resident.load().data, jnp.int32(step))
    chex.assert_trees_all_equal(found, dict(wanted))
  assert found['label'].tolist() == [1, 2, 3, 4, 5]


class Scaled(ShuffledStream):
  """Changes what it was given, and adds to it."""

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    shapes = dict(self.shapes[0])
    shapes['image'] = jax.ShapeDtypeStruct(shapes['image'].shape, np.float32)
    self.shapes = (shapes,)

  def get(self, data, step, rows):
    batch = super().get(data, step, rows)
    batch['label'] += step
    scaled = batch['image'].astype(np.float32) / 255
    return {**batch, 'image': scaled, 'first': batch['image'][:1]}


class SameBatchesTest(parameterized.TestCase):
  @parameterized.parameters((10, 4), (3, 8), (1, 2), (300, 64))
  def test_shuffled(self, n, batch_size):
    make = functools.partial(shuffled, source(n), batch_size=batch_size, seed=5)
    on_device, on_host = make(), make(stream=True, workers=3)
    assert isinstance(on_device, Shuffled) and isinstance(on_host, ShuffledStream)
    self.assertEqual(on_host.num_workers, 3)
    data = on_host.load().data
    get = jax.jit(on_device.get)
    self.assertIsNone(on_host.num_batches(data))
    self.assertEqual(on_host.shapes, on_device.shapes)
    for step in (0, 1, 2, 1000, 2**31 - 1):
      batch = on_host.get(data, step, slice(0, batch_size))
      chex.assert_trees_all_equal(batch, dict(get(data, jnp.int32(step))))
      chex.assert_trees_all_equal_shapes_and_dtypes(batch, dict(on_host.shapes[0]))

  @parameterized.parameters((10, 4), (8, 4), (3, 8))
  def test_in_order(self, n, batch_size):
    on_device = InOrder(source(n), batch_size)
    on_host = InOrderStream(source(n), batch_size)
    data = on_host.load().data
    self.assertEqual(on_host.num_batches(data), on_device.num_batches(data))
    self.assertEqual(on_host.shapes, on_device.shapes)
    with batches(on_host, data, 0, None, ALL, num_workers=0) as got:
      got = list(got)
    self.assertLen(got, on_device.num_batches(data))
    for step, batch in enumerate(got):
      chex.assert_trees_all_equal(batch, on_device.get(data, jnp.int32(step)))
    with self.assertRaisesRegex(IndexError, 'a pass has'):
      on_host.get(data, len(got), ALL)

  @parameterized.parameters(False, True)
  def test_processes_concatenate(self, passes):
    if passes:
      dataset = InOrderStream(source(157), 8)
    else:
      dataset = ShuffledStream(source(50), 8, 1)
    data = dataset.load().data
    with contextlib.ExitStack() as stack:
      read_rows = lambda rows: stack.enter_context(
        batches(dataset, data, 0, 20, rows, num_workers=0)
      )
      whole = read_rows(slice(0, 8))
      parts = [read_rows(slice(i, i + 2)) for i in (0, 2, 4, 6)]
      for batch, *pieces in zip(whole, *parts, strict=True):
        joined = {k: np.concatenate([p[k] for p in pieces]) for k in batch}
        chex.assert_trees_all_equal(joined, batch)

  @parameterized.parameters(0, 1, 2)
  def test_number_of_workers_changes_nothing(self, workers):
    dataset = ShuffledStream(source(6000), 16, 3)  # 72 kB of images: shared memory.
    data = dataset.load().data
    step = None
    for start in (0, 9) if not workers else (9,):
      with batches(dataset, data, start, 20, slice(4, 12), num_workers=workers) as got:
        for step, batch in enumerate(got, start):
          self.assertTrue(all(type(x) is np.ndarray for x in batch.values()))
          chex.assert_trees_all_equal(batch, dataset.get(data, step, slice(4, 12)))
        self.assertEqual(step, 19)
        self.assertIsNone(next(got, None))

  def test_what_a_reader_keeps_stays_as_it_was(self):
    dataset = Scaled(source(600), 16, 3, num_workers=1)
    data = dataset.load().data
    with batches(dataset, data, 0, 60, slice(0, 16)) as got:
      kept = list(got)
    self.assertLen(kept, 60)
    for step, batch in enumerate(kept):
      chex.assert_trees_all_equal(batch, dataset.get(data, step, slice(0, 16)))

  def test_refuses_workers(self):
    with self.assertRaisesRegex(ConfigError, '^workers=-1 is not allowed'):
      shuffled(source(4), batch_size=2, seed=0, stream=True, workers=-1)
