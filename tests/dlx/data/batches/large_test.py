"""Sets that are larger than a limit are read on the host: equal bits, little memory."""

import pickle
import tracemalloc

import jax
import numpy as np
import pytest

from dlx.config import Config
from dlx.data.batches import choose
from dlx.data.batches.resident import InOrder, Shuffled
from dlx.data.batches.streamed import ShuffledStream, batches
from dlx.data.batches.workers import SharedBatches, WholeBatches
from dlx.data.lazy import Picked, pick
from dlx.data.prepare import draft, pictures
from dlx.data.sets import images
from dlx.data.sources import of_arrays, subset


def made(tmp_path, monkeypatch, size: int, pixels: int):
  """A set of own pictures: `size` to train on, a quarter as many to test."""
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path))
  rng = np.random.default_rng(0)
  with draft.draft('own', tmp_path) as new:
    for split, n in (('train', size), ('test', size // 4)):
      image = new.new(split, 'image', (n, pixels, pixels, 3), np.uint8)
      for start in range(0, n, 1024):
        part = image[start : start + 1024]
        part[...] = rng.integers(0, 256, part.shape, np.uint8)
      new.add(split, label=np.arange(n, dtype=np.int32) % 2)
    notes: list[str] = []
    new.finish('images', pictures.image_facts(new, 'ab', 'own', notes), {})
  return images.images('own')


def test_batches_are_those_of_a_set_that_fits(tmp_path, monkeypatch):
  data = made(tmp_path, monkeypatch, 40, 2)
  config = Config(batch_size=16, eval_batch_size=8, validation=0.25, seed=7)
  split = lambda: choose.splits(data.train, data.test, config, by_class='label')
  resident, passes = split()
  assert isinstance(resident, Shuffled) and isinstance(passes['test'], InOrder)
  # 30 of the 40 training rows are left, of 12 bytes and a label of 4; 10 are held out.
  monkeypatch.setattr(choose, 'RESIDENT_BYTES', 30 * 16)
  assert isinstance(split()[0], Shuffled)
  monkeypatch.setattr(choose, 'RESIDENT_BYTES', 30 * 16 - 1)
  assert isinstance(split()[0], ShuffledStream)
  assert isinstance(split()[1]['test'], InOrder)
  monkeypatch.setattr(choose, 'RESIDENT_BYTES', 0)
  streamed, of_host = split()
  pairs = [(resident, streamed), *zip(passes.values(), of_host.values(), strict=True)]
  assert list(of_host) == ['validation', 'test']
  for on_device, on_host in pairs:
    arrays, mapped = on_device.load().data, on_host.load().data
    assert isinstance(mapped['image'], Picked | np.memmap)
    get = jax.jit(on_device.get)
    with batches(on_host, mapped, 0, 2, slice(None)) as found:
      for step, batch in enumerate(found):
        want = get(arrays, np.int32(step))
        assert set(batch) == set(want)
        for field, x in batch.items():
          np.testing.assert_array_equal(x, want[field])


@pytest.mark.parametrize('stream', (False, True))
def test_a_batch_that_is_larger_than_the_set_is_told(stream, caplog):
  source = of_arrays({'x': np.arange(3)})
  load = lambda batch: choose.shuffled(
    source, batch_size=batch, seed=0, stream=stream
  ).load()
  load(3)
  assert not caplog.text
  load(4)
  assert 'own/train has 3 examples, fewer than a batch of 4, which' in caplog.text
  assert 'batch_size=3 or less takes each once' in caplog.text


def test_rows_of_mapped_files_stay_there(tmp_path, monkeypatch):
  data = made(tmp_path, monkeypatch, 40, 2)
  image = data.train.read(None).data['image']
  assert isinstance(image, np.memmap)
  found = pick(image, np.array([5, 3, 8]))
  assert (found.shape, found.dtype, found.ndim, len(found)) == (
    (3, 2, 2, 3), np.uint8, 4, 3
  )  # fmt: skip
  np.testing.assert_array_equal(found[np.array([1, 0])], image[[3, 5]])
  again = pick(found, np.array([2, 2]))
  assert isinstance(again, Picked)
  np.testing.assert_array_equal(np.asarray(again), image[[8, 8]])
  np.testing.assert_array_equal(np.asarray(found, np.float32), image[[5, 3, 8]])
  part = subset(data.train, 4, by_class='label').read(None).data
  assert isinstance(part['image'], Picked)
  assert np.bincount(np.asarray(part['label'])).tolist() == [2, 2]
  # Worker processes get the name of the file.
  shared = SharedBatches(WholeBatches(None, {'x': found}, 0, 1, slice(None)))  # type: ignore[arg-type]
  sent = pickle.loads(shared.payload).data['x']
  assert isinstance(sent.base, np.memmap) and image[5].tobytes() not in shared.payload
  np.testing.assert_array_equal(np.asarray(sent), np.asarray(found))
  plain = subset(of_arrays({'x': np.arange(6)}), 4).read(None).data['x']
  assert isinstance(plain, np.ndarray)


@pytest.mark.slow
def test_a_hundred_megabytes_take_a_few(tmp_path, monkeypatch):
  data = made(tmp_path, monkeypatch, 8192, 64)
  monkeypatch.setattr(choose, 'RESIDENT_BYTES', 1 << 20)
  config = Config(batch_size=64, validation=0.1)
  train, passes = choose.splits(data.train, data.test, config, by_class='label')
  image = np.load(tmp_path / 'own/train/image.npy', mmap_mode='r')
  tracemalloc.start()  # Knows of NumPy's arrays, and not of mapped files.
  try:
    loaded = train.load().data
    steps = 8192 // 64
    seen = np.zeros(2)
    with batches(train, loaded, 0, steps, slice(None)) as found:
      for batch in found:
        seen += np.bincount(batch['label'], minlength=2)
    tested = passes['test'].load().data
    with batches(passes['test'], tested, 0, None, slice(None)) as found:
      rows = sum(batch['weight'].sum() for batch in found)
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert image.nbytes > 100e6 and rows == 2048 and seen.sum() == 8192
  # Batches of 64 and of 256 pictures are 0.8 and 3.1 MB, of which six are in flight.
  assert peak < 30e6, peak
  first = loaded['image'].rows[:1]
  np.testing.assert_array_equal(loaded['image'][:1], image[first])
