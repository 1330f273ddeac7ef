"""How fast pictures become a set and a set batches, beside Pillow and a plain loop.

Beside them PyTorch's DataLoader and Hugging Face's datasets, where they are installed.
"""

from concurrent import futures
import contextvars
import importlib
import importlib.util
import itertools
import os
import pathlib
import statistics
import tempfile
import time
from typing import Any, Callable, Iterator, Mapping

import numpy as np

SIZE = 64  # Pixels of a side of the prepared images.
BATCH = 128
TORCH, DATASETS = 'torch DataLoader, 2 workers', 'Hugging Face datasets'

Reader = Callable[[int], Iterator[int]]  # Number of batches -> the rows of each.


def write_pictures(folder: pathlib.Path, count: int):
  """JPEGs of 96 x 128 pixels in three folders, drawn by seed 0."""
  from PIL import Image

  random = np.random.default_rng(0)
  for i in range(count):
    coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    path = folder / f'class_{i % 3}' / f'{i}.jpg'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize((128, 96)).save(path, quality=90)


def pillow_alone(folder: pathlib.Path, threads: int) -> np.ndarray:
  """The same pictures decoded, cut and resized by Pillow alone: uint8 [N, S, S, 3]."""
  from PIL import Image, ImageOps

  def one(path):
    with Image.open(path) as opened:
      image = opened.convert('RGB')
    return np.asarray(ImageOps.fit(image, (SIZE, SIZE), Image.Resampling.BICUBIC))

  with futures.ThreadPoolExecutor(threads) as pool:
    return np.stack(list(pool.map(one, sorted(folder.glob('*/*.jpg')))))


def readers(data_dir: pathlib.Path, name: str) -> dict[str, Reader]:
  """By name what reads so many batches of a prepared set."""
  from dlx.data.batches import streamed
  from dlx.data.formats import files
  from dlx.data.sets import images

  files.look_in(data_dir)
  source = images.images(name).train
  arrays = source.read(data_dir).data
  whole = {field: np.array(x) for field, x in arrays.items()}
  size = len(whole['label'])

  def plain(count: int) -> Iterator[int]:
    random = np.random.default_rng(0)
    for _ in range(count):
      index = random.integers(0, size, BATCH)
      yield len({field: x[index] for field, x in whole.items()}['label'])

  def dlx(workers: int):
    def read(count: int) -> Iterator[int]:
      data = streamed.ShuffledStream(source, BATCH, 0, num_workers=workers)
      with streamed.batches(data, arrays, 0, count, slice(0, BATCH)) as found:
        for batch in found:
          yield len(batch['label'])

    return read

  mapped = {field: str(x.filename) for field, x in arrays.items()}
  sides: dict[str, Reader] = {
    'plain loop': plain,
    'dlx, threads': dlx(0),
    'dlx, 2 workers': dlx(2),
  }
  if _has('torch'):
    sides[TORCH] = _torch(mapped)
  if _has('datasets'):
    sides[DATASETS] = _datasets(mapped, data_dir / 'as_arrow')
  return sides


def _has(library: str) -> bool:
  return importlib.util.find_spec(library) is not None


def missing() -> list[str]:
  """A line for each side whose library is not installed."""
  how = {TORCH: ('torch', "'.[bench]'"), DATASETS: ('datasets', 'datasets')}
  return [
    f'{side} is left out: {library} is not installed (pip install {name}).'
    for side, (library, name) in how.items()
    if not _has(library)
  ]


class Examples:
  """Examples of .npy files by number; each process maps the files for itself."""

  def __init__(self, paths: Mapping[str, str]):
    self._paths, self._mapped = dict(paths), None

  def __getstate__(self):
    return {'_paths': self._paths, '_mapped': None}

  def _arrays(self) -> dict[str, np.ndarray]:
    if self._mapped is None:
      self._mapped = {k: np.load(x, mmap_mode='r') for k, x in self._paths.items()}
    return self._mapped

  def __len__(self) -> int:
    return len(self._arrays()['label'])

  def __getitem__(self, i: int) -> dict[str, np.ndarray]:
    return {name: np.array(x[i]) for name, x in self._arrays().items()}


def _torch(paths: Mapping[str, str]) -> Reader:
  """A map-style set and the DataLoader's own collation."""
  lib = importlib.import_module('torch.utils.data')  # Not a dependency.

  def read(count: int) -> Iterator[int]:
    # A copy of a process that has started JAX may never answer: new ones are started.
    loader = lib.DataLoader(
      Examples(paths),
      BATCH,
      shuffle=True,
      num_workers=2,
      multiprocessing_context='spawn',
      persistent_workers=True,
    )
    every = itertools.chain.from_iterable(itertools.repeat(loader))
    for batch in itertools.islice(every, count):
      yield len(batch['label'])

  return read


def _datasets(paths: Mapping[str, str], folder: pathlib.Path) -> Reader:
  """The same rows as Arrow, an Array3D a picture, read as NumPy, shuffled anew."""
  lib = importlib.import_module('datasets')  # Not a dependency.
  examples = Examples(paths)
  image = examples[0]['image']
  features = lib.Features(
    {'image': lib.Array3D(image.shape, 'uint8'), 'label': lib.Value('int32')}
  )
  lib.disable_progress_bars()
  data = lib.Dataset.from_generator(
    lambda: map(examples.__getitem__, range(len(examples))),
    features=features,
    cache_dir=str(folder),
  ).with_format('numpy')

  def read(count: int) -> Iterator[int]:
    each = (data.shuffle(seed=i).iter(batch_size=BATCH) for i in itertools.count())
    for batch in itertools.islice(itertools.chain.from_iterable(each), count):
      yield len(batch['label'])

  return read


def rate(batches: Iterator[int], first: int) -> float:
  """Rows a second of the batches after the first ones, which start what reads.

  Up to the last batch: that workers end takes seconds, once in a run.
  """
  for _ in range(first):
    next(batches)
  start = end = time.perf_counter()
  rows = 0
  for count in batches:
    rows += count
    end = time.perf_counter()
  return rows / (end - start)


def measure(count: int, batches: int, rounds: int, say=print) -> dict[str, Any]:
  """The row of --suite=data.

  Args:
    count: pictures that are prepared.
    batches: of one turn of a reader, the first tenth not counted.
    rounds: turns of each side, one after the other.
  """
  from dlx.data.prepare import pictures

  with tempfile.TemporaryDirectory() as base:
    folder, data_dir = pathlib.Path(base, 'pictures'), pathlib.Path(base, 'data')
    write_pictures(folder, count)
    threads = os.cpu_count() or 1
    prepared, alone = [], []
    for i in range(rounds):
      start = time.perf_counter()
      pictures.prepare(folder, f'own_{i}', data_dir, size=SIZE, repeats='keep')
      prepared.append(time.perf_counter() - start)
      start = time.perf_counter()
      pillow_alone(folder, threads)
      alone.append(time.perf_counter() - start)
    ratios = [a / b for a, b in zip(prepared, alone)]
    row: dict[str, Any] = {
      'workload': f'{count} pictures, images of {SIZE}',
      'prepare_s': prepared,
      'pillow_s': alone,
      'prepare_ratio': statistics.median(ratios),
      'rates': {},
    }
    say(f'prepare: {row["prepare_ratio"]:.2f} of the time of Pillow alone')
    # In a context of its own, which alone knows this folder of sets.
    sides = contextvars.copy_context().run(readers, data_dir, 'own_0')
    for line in missing():
      say(line)
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
      for side, read in sides.items():
        rates[side].append(rate(read(batches), batches // 10))
    for side, found in rates.items():
      row['rates'][side] = found
      share = [a / b for a, b in zip(found, rates['plain loop'])]
      say(
        f'{side}: {statistics.median(found):.0f} images/s, '
        f'{statistics.median(share):.2f} of the plain loop'
      )
  return row
