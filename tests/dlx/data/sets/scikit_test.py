"""scikit-learn's bundled sets and their seeded splits."""

import hashlib
from typing import Any

import numpy as np
import pytest

from dlx.data.sets import scikit


def every_digit() -> Any:
  from sklearn.datasets import load_digits

  return load_digits()


def test_digits_split_is_stratified_and_complete():
  whole_set = every_digit()
  train, test = scikit.digits('train'), scikit.digits('test')
  assert train.data['image'].shape == (1437, 8, 8, 1)
  assert test.data['image'].shape == (360, 8, 8, 1)
  assert train.data['image'].dtype == np.uint8 and train.data['label'].dtype == np.int32
  share = np.bincount(whole_set.target) / 1797
  # Stratified: each class within one image of its share.
  assert (abs(np.bincount(test.data['label']) - 360 * share) < 1).all()
  # Every image once: the two splits together are the whole set, and share none.
  both = np.concatenate([train.data['image'], test.data['image']]).reshape(1797, -1)
  whole = whole_set.data.astype(np.uint8)
  order = lambda rows: rows[np.lexsort(rows.T)]
  np.testing.assert_array_equal(order(both), order(whole))


def test_digits_keep_their_values():
  whole_set = every_digit()
  image = scikit.digits('train').data['image']
  assert (image.min(), image.max()) == (0, 16)
  rows = scikit.split_indices(1797, 360, whole_set.target)['train']
  np.testing.assert_array_equal(image[..., 0], whole_set.images[rows])


def test_the_split_never_changes():
  # Pinned: another split would make every published figure incomparable.
  rows = scikit.split_indices(100, 20, np.arange(100) % 4)
  got = hashlib.sha256(rows['test'].astype('<i8').tobytes()).hexdigest()
  assert got[:16] == 'b4ca726289a73418'
  assert sorted([*rows['train'], *rows['test']]) == list(range(100))
  labels = scikit.digits('test').data['label']
  assert (
    hashlib.sha256(labels.astype('<i4').tobytes()).hexdigest()[:16]
    == 'c8a9cf10e14a8679'
  )


def test_the_data_folder_is_not_looked_at():
  loaded = scikit.digits('test', '/nowhere')
  assert loaded.origin['kind'] == 'embedded' and loaded.origin['size'] == 360
  assert loaded.origin['package'].startswith('scikit-learn ')


@pytest.mark.parametrize(
  ('name', 'shape'),
  [('wine', (178, 13)), ('breast_cancer', (569, 30)), ('diabetes', (442, 10))],
)
def test_tables(name, shape):
  features, target = scikit.table(name)
  assert features.shape == shape and target.shape == shape[:1]
  # As measured, not scaled by all rows: no column has mean 0.
  assert (abs(features.mean(axis=0)) > 1e-4).all()


def test_photographs():
  loaded = scikit.photographs()
  assert loaded.data['image'].shape == (2, 427, 640, 3)
  assert loaded.data['image'].dtype == np.uint8
  # A temple and a flower: colour photographs, not blank ones.
  assert (loaded.data['image'].std(axis=(1, 2)) > 20).all()
