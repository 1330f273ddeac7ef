"""Sets that come with scikit-learn: no file of the user's, no network.

Splits are scikit-learn's train_test_split with random_state 0, stratified by class
where there are classes, so that they are the same in every run.
"""

import importlib.metadata
import pathlib
from typing import Any

import numpy as np

from dlx.data.dataset import Loaded
from dlx.data.sets import registry

SPLIT_SEED = 0
DIGITS_SIZES = {'train': 1437, 'test': 360}
NUM_PHOTOGRAPHS = 2
PHOTOGRAPH_SHAPE = (427, 640, 3)
TABLES = ('wine', 'breast_cancer', 'diabetes')


def split_indices(size: int, num_test: int, classes_N=None) -> dict[str, np.ndarray]:
  """Row numbers of 'train' and 'test', shuffled by SPLIT_SEED.

  Args:
    size: rows in all.
    num_test: rows of the test split.
    classes_N: class of each row, to stratify by; None: not stratified.
  """
  from sklearn.model_selection import train_test_split

  train, test = train_test_split(
    np.arange(size), test_size=num_test, random_state=SPLIT_SEED, stratify=classes_N
  )
  return {'train': np.asarray(train), 'test': np.asarray(test)}


def origin(name: str, split: str, size: int) -> dict[str, Any]:
  """What `Loaded.origin` says of an embedded set."""
  version = importlib.metadata.version('scikit-learn')
  return {
    'name': name,
    'split': split,
    'kind': 'embedded',
    'size': size,
    'package': f'scikit-learn {version}',
  }


def digits(split: str, data_dir: Any = None) -> Loaded:
  """Handwritten digits: `image` uint8 [N, 8, 8, 1] in 0..16, `label` int32 [N].

  Stratified split: 1437 train, 360 test.
  """
  del data_dir
  from sklearn.datasets import load_digits

  table: Any = load_digits()
  image_NHW, label_N = table.images.astype(np.uint8), table.target.astype(np.int32)
  registry.verify('digits', image_NHW, label_N)
  rows = split_indices(len(table.target), DIGITS_SIZES['test'], table.target)[split]
  data = {'image': image_NHW[rows][..., None], 'label': label_N[rows]}
  return Loaded(data, origin('digits', split, len(rows)))


def table(name: str) -> tuple[np.ndarray, np.ndarray]:
  """Features f64 [N, F] as measured and target [N] of one of TABLES, all rows."""
  from sklearn import datasets

  bunch: Any
  if name == 'wine':
    bunch = datasets.load_wine()
  elif name == 'breast_cancer':
    bunch = datasets.load_breast_cancer()
  elif name == 'diabetes':
    # scaled=True would standardise by all rows, those of the test split too.
    bunch = datasets.load_diabetes(scaled=False)
  else:
    raise ValueError(name)
  features_NF = bunch.data.astype(np.float64)
  registry.verify(name, features_NF, bunch.target.astype(np.float64))
  return features_NF, bunch.target


def photographs(split: str = 'train', data_dir: Any = None) -> Loaded:
  """Two photographs, a temple and a flower: `image` uint8 [2, 427, 640, 3]."""
  del data_dir
  from sklearn.datasets import load_sample_images

  bunch: Any = load_sample_images()
  # Of the files: libraries unpack them with other roundings.
  files = sorted(map(pathlib.Path, bunch.filenames))
  registry.verify('photographs', *(file.read_bytes() for file in files))
  data = {'image': np.stack(bunch.images).astype(np.uint8)}
  return Loaded(data, origin('photographs', split, NUM_PHOTOGRAPHS))
