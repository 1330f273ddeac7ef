"""The suite `pictures`: what its sides make. No time is asserted."""

import itertools

import numpy as np
import pytest

from dlx.data.pictures import decode
from dlx.data.pictures.crops import Box
from launch.benchmarks import decoding
from tests import turns


@pytest.fixture
def files(tmp_path):
  decoding.write_pictures(tmp_path, 16)
  return sorted(tmp_path.glob('train/*/*.jpg'))


def test_the_pictures(files, tmp_path):
  from PIL import Image

  assert len(files) == 14 and len(list(tmp_path.glob('test/*/*.jpg'))) == 2
  with Image.open(files[0]) as opened:
    assert (opened.size, opened.mode) == ((500, 375), 'RGB')


def test_decoders_give_the_pixels_of_a_run(files):
  raw, box = files[0].read_bytes(), Box(60, 31, 301, 280)
  want = decode.part(raw, lambda width, height: box, decoding.SIZE)
  for name, decoder in decoding.decoders().items():
    found = decoder(raw, box)
    assert found.dtype == np.uint8
    off = np.abs(found.astype(int) - want)
    # OpenCV's own resizing averages areas: another filter.
    assert off.mean() < 4 if 'resized' in name else off.max() == 0, name


def test_a_side_is_read_without_an_end_and_closed():
  ended = []

  def read():
    try:
      yield from itertools.repeat(5)
    finally:
      ended.append(True)

  found = decoding.rate(read, 3)
  assert found.wall > 0 and found.core > 0 and ended == [True]


@turns.seldom(22, files=('launch/benchmarks/decoding.py',))
def test_a_small_turn_of_every_side(monkeypatch):
  monkeypatch.setattr(decoding, 'BATCH', 2)
  told = []
  row = decoding.measure(16, 2, 1, say=told.append)
  sides = [*decoding.decoders(), 'dlx, threads', 'dlx, 2 workers']
  assert list(row['per_core'])[: len(sides)] == sides
  for found in (row['per_core'], row['per_second']):
    assert all(len(x) == 1 and x[0] > 0 for x in found.values())
  assert 'pillow' in row['versions'] and row['prepare_s'] > 0
  assert any(line.startswith('Pillow: ') for line in told)
