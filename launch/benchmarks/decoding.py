"""How fast JPEG files become batches of random parts, beside decoders and PyTorch.

A side is what gives rows without an end. Its rate is counted by the clock, and by the
CPU seconds of this process and its workers: the images that one core makes in a second,
whatever else the machine does.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import itertools
import multiprocessing
import os
import pathlib
import statistics
import tempfile
import time
from typing import Any, Callable, Iterator, NamedTuple

import numpy as np

from dlx.data.pictures.crops import Box, Crop, random_box

WIDTH, HEIGHT = 500, 375  # Of ImageNet's pictures: the size that most of them have.
SIZE = 224
BATCH = 64
WORKERS = 2
PACKAGES = 'pillow simplejpeg imagecodecs opencv-python-headless torchvision'.split()
TORCH = f'torch DataLoader, torchvision, {WORKERS} workers'

Reader = Callable[[], Iterator[int]]  # Rows of each of its batches, without an end.
Decoder = Callable[[bytes, Box], np.ndarray]  # A file, its part -> uint8 [S, S, 3].


class Rate(NamedTuple):
  """Images a second: by the clock, and of CPU time."""

  wall: float
  core: float


def write_pictures(folder: pathlib.Path, count: int):
  """JPEGs of 500 x 375 pixels, parts of two photographs: train/CLASS and test/CLASS."""
  from PIL import Image
  from sklearn.datasets import load_sample_images

  photographs = load_sample_images().images
  random = np.random.default_rng(0)
  for i in range(count):
    whole = photographs[i % 2]
    scale = random.uniform(0.7, 1.0)
    height, width = (int(scale * n) for n in whole.shape[:2])
    top, left = (
      random.integers(0, n - m + 1) for n, m in zip(whole.shape, (height, width))
    )
    cut = Image.fromarray(whole[top : top + height, left : left + width])
    path = folder / ('test' if i % 8 == 7 else 'train') / f'class_{i % 3}' / f'{i}.jpg'
    path.parent.mkdir(parents=True, exist_ok=True)
    quality = int(random.integers(85, 96))
    cut.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path, quality=quality)


def decoders() -> dict[str, Decoder]:
  """By name what decodes a file and resizes its part; of what is installed.

  All but the last give the same pixels: each decodes by libjpeg-turbo, and Pillow
  resizes.
  """
  from PIL import Image

  def resized(image: Any) -> np.ndarray:
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR))

  def cut(array: np.ndarray, box: Box) -> np.ndarray:
    left, top, width, height = (int(n) for n in box[:4])
    return array[top : top + height, left : left + width]

  def pillow(raw: bytes, box: Box) -> np.ndarray:
    with Image.open(io.BytesIO(raw), formats=('JPEG',)) as opened:
      opened.load()
      left, top, width, height = box[:4]
      return resized(opened.crop((left, top, left + width, top + height)))

  def by(decode: Callable[[bytes], np.ndarray]) -> Decoder:
    return lambda raw, box: resized(Image.fromarray(cut(decode(raw), box)))

  found: dict[str, Decoder] = {'Pillow': pillow}
  if (lib := _library('simplejpeg')) is not None:
    found['simplejpeg'] = by(lib.decode_jpeg)
  if (lib := _library('imagecodecs')) is not None:
    found['imagecodecs'] = by(lib.jpeg8_decode)
  if (cv2 := _library('cv2')) is not None:
    cv2.setNumThreads(1)
    decode = lambda raw: cv2.imdecode(
      np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR_RGB
    )
    found['OpenCV'] = by(decode)
    found['OpenCV, resized by it'] = lambda raw, box: cv2.resize(
      cut(decode(raw), box), (SIZE, SIZE), interpolation=cv2.INTER_AREA
    )
  return found


def _library(name: str) -> Any:
  """A module that is not a dependency; None: it is not installed."""
  known = importlib.util.find_spec(name) is not None
  return importlib.import_module(name) if known else None


def _alone(decoder: Decoder, paths: list[pathlib.Path]) -> Reader:
  """One thread that reads files, decodes parts of them and stacks batches."""

  def read() -> Iterator[int]:
    crop, place = Crop(flip=False), itertools.count()
    every = itertools.cycle(paths)
    while True:
      batch = np.empty((BATCH, SIZE, SIZE, 3), np.uint8)
      for row in range(BATCH):
        box = random_box(crop, 0, next(place), WIDTH, HEIGHT)
        batch[row] = decoder(next(every).read_bytes(), box)
      yield len(batch)

  return read


def _dlx(source: Any, arrays: Any, workers: int) -> Reader:
  from dlx.data.batches import streamed

  def read() -> Iterator[int]:
    data = streamed.ShuffledStream(source, BATCH, 0, num_workers=workers)
    with streamed.batches(data, arrays, 0, None, slice(0, BATCH)) as found:
      for batch in found:
        yield len(batch['label'])

  return read


def _torch(folder: pathlib.Path) -> Reader | None:
  """torchvision's ImageFolder and transforms; None: it is not installed."""
  if importlib.util.find_spec('torchvision') is None:
    return None
  utils = importlib.import_module('torch.utils.data')
  folders = importlib.import_module('torchvision.datasets')
  transforms = importlib.import_module('torchvision.transforms')
  recipe = transforms.Compose(
    [
      transforms.RandomResizedCrop(SIZE),
      transforms.RandomHorizontalFlip(),
      transforms.PILToTensor(),
    ]
  )
  data = folders.ImageFolder(str(folder / 'train'), recipe)

  def read() -> Iterator[int]:
    loader = utils.DataLoader(
      data,
      BATCH,
      # No gap between epochs.
      sampler=utils.RandomSampler(data, replacement=True, num_samples=2**24),
      num_workers=WORKERS,
      # A copy of a process that has started JAX may never answer: new ones start.
      multiprocessing_context='spawn',
    )
    for _, label in loader:
      yield len(label)

  return read


def _cpu_seconds() -> float:
  """Of this process and of the workers that it has now."""
  total, tick = time.process_time(), os.sysconf('SC_CLK_TCK')
  for child in multiprocessing.active_children():
    fields = pathlib.Path(f'/proc/{child.pid}/stat').read_text().rpartition(')')[2]
    user, system = fields.split()[11:13]
    total += (int(user) + int(system)) / tick
  return total


def rate(read: Reader, batches: int) -> Rate:
  """Of so many batches after the first ones, which start what reads."""
  found = read()
  for _ in range(2 * WORKERS):
    next(found)
  start, cpu = time.perf_counter(), _cpu_seconds()
  rows = sum(next(found) for _ in range(batches))
  rates = Rate(rows / (time.perf_counter() - start), rows / (_cpu_seconds() - cpu))
  found.close()  # type: ignore  # A generator, which ends its workers.
  return rates


def _versions() -> dict[str, str]:
  found = {}
  for name in PACKAGES:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      found[name] = importlib.metadata.version(name)
  return found


def measure(count: int, batches: int, rounds: int, say=print) -> dict[str, Any]:
  """The row of --suite=pictures.

  Args:
    count: pictures.
    batches: of one turn of a side.
    rounds: turns of each side, one after the other.
  """
  from dlx.data.prepare import picture_files
  from dlx.data.sets import cards

  with tempfile.TemporaryDirectory() as base:
    folder, data_dir = pathlib.Path(base, 'pictures'), pathlib.Path(base, 'data')
    write_pictures(folder, count)
    start = time.perf_counter()
    made = picture_files.prepare(folder, 'own', data_dir, size=SIZE, repeats='keep')
    row: dict[str, Any] = {
      'workload': f'{count} JPEGs of {WIDTH} x {HEIGHT}, parts of {SIZE}',
      'prepare_s': time.perf_counter() - start,
      'versions': _versions(),
    }
    source = cards.source(made.card, 'train')
    arrays = source.read(data_dir).data
    paths = sorted(folder.glob('train/*/*.jpg'))
    sides = {name: _alone(x, paths) for name, x in decoders().items()}
    sides |= {
      'dlx, threads': _dlx(source, arrays, 0),
      f'dlx, {WORKERS} workers': _dlx(source, arrays, WORKERS),
    }
    torch = _torch(folder)
    if torch is None:
      say(f'{TORCH} is left out: torchvision is not installed.')
    else:
      sides[TORCH] = torch
    rates: dict[str, list[Rate]] = {side: [] for side in sides}
    for _ in range(rounds):
      for side, read in sides.items():
        rates[side].append(rate(read, batches))
  row['per_core'] = {side: [x.core for x in found] for side, found in rates.items()}
  row['per_second'] = {side: [x.wall for x in found] for side, found in rates.items()}
  for side, found in row['per_core'].items():
    share = [a / b for a, b in zip(found, row['per_core']['Pillow'], strict=True)]
    say(
      f'{side}: {statistics.median(found):.0f} images/s a core, '
      f'{statistics.median(share):.2f} of Pillow alone; '
      f'{statistics.median(row["per_second"][side]):.0f} images/s'
    )
  return row
