"""A set prepared by TFDS without TensorFlow, found and read by name."""

import json
import sys

import numpy as np
import pytest

from dlx.data.formats import tfds
from dlx.data.sets import images as catalog
from dlx.errors import DataError

SIZES = {'train': 12, 'test': 5}


def pixels(i: int) -> np.ndarray:
  return (np.arange(28 * 28).reshape(28, 28) * (i + 1) % 251).astype(np.uint8)


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """DIR with DIR/tiny/1.0.0, prepared as array_record."""
  import tensorflow_datasets

  class Tiny(tensorflow_datasets.core.GeneratorBasedBuilder):
    VERSION = tensorflow_datasets.core.Version('1.0.0')

    def _info(self):
      features = tensorflow_datasets.features
      return tensorflow_datasets.core.DatasetInfo(
        builder=self,
        features=features.FeaturesDict(
          {
            'image': features.Image(shape=(28, 28, 1)),
            'label': features.ClassLabel(num_classes=10),
          }
        ),
      )

    def _split_generators(self, dl_manager):
      del dl_manager
      return {name: self._generate_examples(n) for name, n in SIZES.items()}

    def _generate_examples(self, n):
      from PIL import Image

      for i in range(n):
        yield i, {'image': Image.fromarray(pixels(i)), 'label': i % 10}

  folder = tmp_path_factory.mktemp('tfds')
  Tiny(data_dir=str(folder), file_format='array_record').download_and_prepare()
  return folder


@pytest.fixture(autouse=True)
def nothing_elsewhere(tmp_path, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'default'))
  monkeypatch.delenv('DLX_DATA_DIR', raising=False)
  monkeypatch.setattr(tfds, 'can_download', lambda: False)


def test_read_by_name_without_tensorflow(prepared):
  data = catalog.images('tiny')
  for source in (data.train, data.test):
    loaded = source.read(prepared)
    n = SIZES[source.split]
    assert loaded.data['image'].shape == (n, 28, 28, 1)
    assert loaded.data['image'].dtype == np.uint8
    assert loaded.data['label'].dtype == np.int32
    # TFDS shuffles examples as it prepares them; each image knows its number.
    for image in loaded.data['image']:
      assert any((image[..., 0] == pixels(i)).all() for i in range(n))
    assert sorted(loaded.data['label']) == sorted(i % 10 for i in range(n))
    assert loaded.origin == {
      'name': 'tiny',
      'split': source.split,
      'kind': 'tfds',
      'path': str(prepared / 'tiny/1.0.0'),
      'size': n,
      'version': '1.0.0',
      'downloaded': False,
    }
  assert 'tensorflow' not in sys.modules


def test_found_in_the_default_folder(prepared, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(prepared))
  assert catalog.images('tiny').test.read(None).origin['size'] == 5


def test_raw_files_come_first(prepared):
  from tests.dlx.data.formats import idx_test

  images, labels = idx_test.small(3)
  folder = idx_test.write_set(prepared / 'tiny/raw', images, labels)
  try:
    assert catalog.images('tiny').train.read(prepared).origin['kind'] == 'raw'
  finally:
    for path in folder.iterdir():
      path.unlink()
    folder.rmdir()
  assert catalog.images('tiny').train.read(prepared).origin['kind'] == 'tfds'


def fake(folder, version: str, **info):
  place = folder / 'own' / version
  place.mkdir(parents=True)
  (place / 'dataset_info.json').write_text(json.dumps(info))
  return place


def test_the_highest_version_counts(tmp_path):
  assert tfds.find(tmp_path, 'own') is None
  for version in ('1.9.0', '1.10.0', '1.2.3'):
    fake(tmp_path, version, fileFormat='array_record')
  (tmp_path / 'own' / '2.0.0').mkdir()  # Not prepared: left by a run that was killed.
  found = tfds.find(tmp_path, 'own')
  assert found is not None and found.name == '1.10.0'


def test_tfrecord_is_refused_with_the_remedy(tmp_path):
  fake(tmp_path, '1.0.0')
  with pytest.raises(DataError, match=r'own/1.0.0: prepared as tfrecord.*array_record'):
    tfds.find(tmp_path, 'own')


def test_a_damaged_description(tmp_path):
  place = fake(tmp_path, '1.0.0')
  (place / 'dataset_info.json').write_text('{')
  with pytest.raises(DataError, match='dataset_info.json: cannot be read'):
    tfds.find(tmp_path, 'own')


def test_a_set_of_another_shape(prepared):
  place = tfds.find(prepared, 'tiny')
  assert place is not None
  shapes = dict(catalog.images('tiny').train.shapes)
  other = {**shapes, 'image': catalog.images('cifar10').train.shapes['image']}
  for want, split, bounds, message in (
    (other, 'train', [], r'expected shape \[32, 32, 3\], found \[28, 28, 1\]'),
    ({**shapes, 'mask': shapes['label']}, 'train', [], "no field 'mask'"),
    (shapes, 'validation', [], "no split 'validation', but"),
    (shapes, 'train', [('label', 9)], 'train: label: .* labels 0 to 8, found 9 in row'),
  ):
    with pytest.raises(DataError, match=message):
      tfds.read(place, 'tiny', split, want, bounds)


def test_a_truncated_record(prepared, tmp_path):
  import shutil

  shutil.copytree(prepared / 'tiny', tmp_path / 'tiny')
  (path,) = (tmp_path / 'tiny/1.0.0').glob('*train.array_record*')
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with pytest.raises(DataError, match=r'tiny/1.0.0: cannot be read.*prepare it again'):
    catalog.images('tiny').train.read(tmp_path)


class FakeTfds:
  """Stands in for the download, which needs TensorFlow and a network."""

  class core:
    class DatasetNotFoundError(Exception):
      pass

  def __init__(self, prepared, problem=None):
    self.prepared, self.problem, self.asked = prepared, problem, []

  def builder(self, name, **kwargs):
    self.asked.append((name, kwargs))
    if name != 'tiny':
      raise self.core.DatasetNotFoundError(name)
    return self

  data_dir = property(lambda self: str(self.prepared / 'tiny/1.0.0'))

  def download_and_prepare(self):
    if self.problem:
      raise self.problem


class TestDownload:
  def test_the_set_is_prepared_as_array_record(self, tmp_path, monkeypatch):
    stand_in = FakeTfds(tmp_path)
    monkeypatch.setitem(sys.modules, 'tensorflow_datasets', stand_in)
    place = tfds.download('tiny', tmp_path)
    assert str(place) == str(tmp_path / 'tiny/1.0.0')
    (asked,) = stand_in.asked
    assert asked[1] == {'data_dir': str(tmp_path), 'file_format': 'array_record'}

  def test_a_failure_is_one_line(self, tmp_path, monkeypatch):
    stand_in = FakeTfds(tmp_path, ConnectionError('no route\nto host'))
    monkeypatch.setitem(sys.modules, 'tensorflow_datasets', stand_in)
    with pytest.raises(DataError, match='tiny: TFDS could not download it: no route.$'):
      tfds.download('tiny', tmp_path)

  def test_only_where_tensorflow_is_installed(self, tmp_path, prepared, monkeypatch):
    calls = []

    def download(name, data_dir):
      calls.append(name)
      return tfds.find(prepared, 'tiny') if name == 'tiny' else None

    monkeypatch.setattr(tfds, 'download', download)
    with pytest.raises(DataError, match='Remedies'):
      catalog.images('tiny').train.read(tmp_path)
    assert not calls
    monkeypatch.setattr(tfds, 'can_download', lambda: True)
    assert catalog.images('tiny').train.read(tmp_path).origin['downloaded'] is True
    with pytest.raises(DataError, match='Remedies'):
      catalog.images('other').train.read(tmp_path)
    assert calls == ['tiny', 'other']
