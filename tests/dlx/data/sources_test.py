"""Tests for dlx/data/sources.py: a split that is held out, a source that is sorted."""

import jax
import numpy as np
import pytest

from dlx.data.dataset import Loaded, Source
from dlx.data.sources import held_out, read, sorted_by
from dlx.errors import ConfigError, DataError


def source(labels, size=True):
  label = np.asarray(labels, np.int32)
  data = {'label': label, 'row': np.arange(len(label), dtype=np.int32)}
  scalar = jax.ShapeDtypeStruct((), np.int32)
  origin = {'name': 'set', 'split': 'train', 'kind': 'generated', 'size': len(label)}
  return Source(
    'set',
    'train',
    {'label': scalar, 'row': scalar},
    len(label) if size else None,
    lambda data_dir: Loaded(data, origin),
  )


LABELS = [0] * 60 + [1] * 30 + [2] * 10


def rows(part):
  return read(part).data['row']


@pytest.mark.parametrize('by_class', [None, 'label'])
@pytest.mark.parametrize('known', [True, False])
def test_both_parts_are_the_whole_and_share_nothing(by_class, known):
  train, held = held_out(source(LABELS, known), 0.2, by_class=by_class)
  assert (train.split, held.split) == ('train', 'validation')
  assert (train.size, held.size) == ((80, 20) if known else (None, None))
  assert sorted([*rows(train), *rows(held)]) == list(range(100))
  assert read(held).origin == {
    'name': 'set',
    'split': 'validation',
    'kind': 'generated',
    'size': 20,
    'held_out': 0.2,
    'split_seed': 0,
  }


def test_each_class_gives_its_share():
  data = lambda share: read(held_out(source(LABELS), share, by_class='label')[1]).data
  np.testing.assert_array_equal(np.bincount(data(0.2)['label']), [12, 6, 2])
  # 15 %: 9, 4.5 and 1.5 examples, rounded so that they are 15.
  counts = np.bincount(data(0.15)['label'])
  assert counts.sum() == 15 and counts[0] == 9
  assert counts[1] in (4, 5) and counts[2] in (1, 2)
  # Not by the order of the source.
  assert set(data(0.2)['row']) != set(np.r_[:12, 60:66, 90:92])


def test_a_smaller_part_lies_in_a_larger_and_a_seed_changes_both():
  held = lambda share, seed=0: set(
    rows(held_out(source(LABELS), share, seed, by_class='label')[1]).tolist()
  )
  assert held(0.1) < held(0.2)
  assert held(0.2) == held(0.2)
  assert held(0.2, 1) != held(0.2)


def test_one_example_at_least_is_held_out_and_one_is_left():
  train, held = held_out(source([0, 1, 1]), 0.01)
  assert (train.size, held.size) == (2, 1)
  assert len(rows(held)) == 1
  with pytest.raises(DataError, match='of 3 examples leaves none'):
    read(held_out(source([0, 1, 1], size=False), 0.9)[0])
  with pytest.raises(DataError, match='leaves none'):
    read(held_out(source([0, 1, 1]), 0.9)[0])


@pytest.mark.parametrize('share', [0, 1, -0.5])
def test_an_impossible_share_is_refused(share):
  with pytest.raises(ConfigError, match=f'share={share} is not allowed'):
    held_out(source(LABELS), share)


def test_sorted_by_a_field_equal_ones_keep_their_order():
  found = sorted_by(source([2, 0, 1, 0, 2, 0]), 'label')
  assert found.size == 6
  loaded = read(found)
  assert loaded.data['label'].tolist() == [0, 0, 0, 1, 2, 2]
  assert loaded.data['row'].tolist() == [1, 3, 5, 2, 0, 4]
  assert loaded.origin['sorted_by'] == 'label'


def test_sorted_by_what_is_no_number_is_refused():
  with pytest.raises(ConfigError, match='number an example: label, row'):
    sorted_by(source(LABELS), 'image')
