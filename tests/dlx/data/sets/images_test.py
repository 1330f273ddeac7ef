"""Data sets by name: what is declared, lookup order, and errors."""

import pathlib
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest

from dlx.data.formats import tfds
from dlx.data.sets import images, registry
from dlx.errors import ConfigError, DataError
from tests.dlx.data import real_data
from tests.dlx.data.formats import idx_test


@pytest.fixture
def nothing_elsewhere(tmp_path, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'default'))
  monkeypatch.delenv('DLX_DATA_DIR', raising=False)
  monkeypatch.setattr(tfds, 'can_download', lambda: False)


def check_declared(data: images.ImageData, data_dir):
  """Both splits, read, after comparing them with what is declared."""
  splits = []
  for source in (data.train, data.test):
    loaded = source.read(data_dir)
    got = {
      k: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for k, v in loaded.data.items()
    }
    assert got == source.shapes
    n = len(loaded.data['label'])
    assert loaded.origin['size'] == n and source.size in (None, n)
    assert loaded.data['image'].max() <= data.max_value
    assert sorted(set(loaded.data['label'].tolist())) == list(range(data.num_classes))
    splits.append(loaded)
  return splits


def check_statistics(data: images.ImageData, train):
  image = train.data['image'].reshape(-1, data.shape[2])
  # Moments from counts of the values: exact integers, no copy of the set as float64.
  for c in range(data.shape[2]):
    count = np.bincount(image[:, c], minlength=256)
    value = np.arange(256) / data.max_value
    mean = (count * value).sum() / len(image)
    var = (count * (value - mean) ** 2).sum() / len(image)
    assert data.mean[c] == pytest.approx(mean, rel=1e-12)
    assert data.std[c] == pytest.approx(np.sqrt(var), rel=1e-12)


class TestDeclared:
  @pytest.mark.parametrize('name', [*registry.names('images'), 'own'])
  def test_looking_up_reads_nothing_and_can_be_pickled(self, name, monkeypatch):
    monkeypatch.setattr(pathlib.Path, 'open', None)
    monkeypatch.setenv('DLX_DATA_DIR', '/nowhere')
    data = images.images(name)
    assert data.train.shapes['image'].shape == data.shape
    assert len(data.class_names) == data.num_classes == 10
    assert len(data.mean) == len(data.std) == data.shape[2]
    read = pickle.loads(pickle.dumps(data.train.read))
    assert read.args == data.train.read.args

  def test_sizes(self):
    size = lambda name: (images.images(name).train.size, images.images(name).test.size)
    assert size('digits') == (1437, 360)
    assert size('mnist') == (60000, 10000)
    assert size('cifar10') == (50000, 10000)
    # A folder of this name may hold any set in MNIST's format.
    assert size('fashion_mnist') == size('own') == (None, None)

  @pytest.mark.parametrize('name', ['', '../mnist', 'a b', 'a/b', '.hidden', '~', '-x'])
  def test_names_that_are_no_folder(self, name):
    with pytest.raises(ConfigError, match='dataset='):
      images.images(name)

  @pytest.mark.parametrize('name', ['wine', 'california_housing', 'cora', 'sst2'])
  def test_names_of_other_sets(self, name):
    with pytest.raises(ConfigError, match='holds .*, not labelled images'):
      images.images(name)


class TestDigits:
  def test_as_stored(self):
    data = images.images('digits').as_stored()
    image = np.arange(17, dtype=np.uint8).reshape(1, 17, 1, 1)
    found = (data.to_unit(image) - np.float32(data.mean)) / np.float32(data.std)
    np.testing.assert_allclose(found, image, rtol=1e-6)

  def test_declared(self, nothing_elsewhere):
    data = images.images('digits')
    train, _ = check_declared(data, None)
    check_statistics(data, train)


class TestFolders:
  @pytest.mark.parametrize('name', ['fashion_mnist', 'own-set'])
  def test_any_folder_in_mnist_format(self, tmp_path, nothing_elsewhere, name):
    for split, n in (('train', 30), ('test', 20)):
      idx_test.write_set(tmp_path / name, *idx_test.small(n), split=split)
    train, _ = check_declared(images.images(name), tmp_path)
    assert train.origin['kind'] == 'raw' and train.origin['size'] == 30

  def test_a_folder_of_more_classes(self, tmp_path, nothing_elsewhere):
    image, label = idx_test.small(30)
    label[4] = 46
    idx_test.write_set(tmp_path / 'signs', image, label, split='train')
    with pytest.raises(
      DataError,
      match='labels 0 to 9, found 46 in row 4 .*for K classes dataset=signs:K',
    ):
      images.images('signs').train.read(tmp_path)
    data = images.images('signs:47')
    assert (data.name, data.num_classes, data.class_names[-1]) == ('signs', 47, '46')
    assert data.train.read(tmp_path).data['label'][4] == 46

  @pytest.mark.parametrize('name', ['mnist:47', 'own:1', 'own:257', 'own:', 'own:x'])
  def test_a_number_of_classes_that_cannot_be(self, name):
    with pytest.raises(ConfigError, match=f'dataset={name} is not allowed'):
      images.images(name)

  @pytest.mark.parametrize('name', ['MNIST', 'FashionMNIST'])
  def test_torchvisions_folders(self, tmp_path, nothing_elsewhere, name):
    idx_test.write_set(tmp_path / name / 'raw', *idx_test.small(), split='test')
    known = {'MNIST': 'mnist', 'FashionMNIST': 'fashion_mnist'}[name]
    if known == 'mnist':
      with pytest.raises(DataError, match='not the published file'):
        images.images(known).test.read(tmp_path)
    else:
      assert images.images(known).test.read(tmp_path).origin['size'] == 7

  def test_emnist_is_turned_upright(self, tmp_path, nothing_elsewhere):
    upright, label = idx_test.small()
    idx_test.write_set(tmp_path / 'emnist-digits', upright.swapaxes(1, 2), label)
    found = images.images('emnist-digits').train.read(tmp_path)
    np.testing.assert_array_equal(found.data['image'][..., 0], upright)
    assert found.origin['transposed']

  def test_the_environment_names_the_folder(
    self, tmp_path, nothing_elsewhere, monkeypatch
  ):
    idx_test.write_set(tmp_path / 'own', *idx_test.small())
    monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path))
    assert images.images('own').train.read(None).origin['size'] == 7

  def test_another_size_than_declared(self, tmp_path, nothing_elsewhere, monkeypatch):
    from dlx.data.formats import checksums

    monkeypatch.delitem(checksums.FILES, 'mnist')
    idx_test.write_set(tmp_path / 'mnist', *idx_test.small())
    with pytest.raises(
      DataError, match=r'mnist \(train\): expected 60000 images, found 7'
    ):
      images.images('mnist').train.read(tmp_path)


@pytest.mark.usefixtures('nothing_elsewhere')
class TestMissing:
  @pytest.mark.parametrize('name', ['mnist', 'fashion_mnist', 'cifar10', 'own'])
  @pytest.mark.parametrize('split', ['train', 'test'])
  def test_one_line_with_three_remedies(self, tmp_path, name, split):
    for data_dir in (None, tmp_path, tmp_path / 'nowhere'):
      with pytest.raises(DataError) as caught:
        getattr(images.images(name), split).read(data_dir)
      text = str(caught.value)
      assert '\n' not in text
      for part in (name, split, '--data_dir', 'DLX_DATA_DIR', 'TFDS', 'dlx[tfds]'):
        assert part in text
      assert 'dataset=digits' in text
      raw = 'cifar-10-batches-bin' if name == 'cifar10' else 'images-idx3-ubyte'
      assert raw in text

  def test_an_unknown_name_lists_the_known_ones(self):
    with pytest.raises(DataError, match='digits, mnist, fashion_mnist, cifar10'):
      images.images('mnits').train.read(None)


def test_photographs():
  source = images.photographs()
  image = source.read(None).data['image']
  assert image.shape == (source.size, *source.shapes['image'].shape)


def test_lookup_and_embedded_reads_import_nothing_heavy():
  # Reading an embedded set imports scikit-learn and what that needs, nothing more.
  code = """
import sys
from dlx.data.formats import planetoid, text
from dlx.data.sets import images, registry, tables
[images.images(n) for n in registry.names('images')]
heavy = 'tensorflow tensorflow_datasets torch matplotlib sklearn scipy PIL'.split()
assert not [m for m in heavy if m in sys.modules], sys.modules.keys()
images.images('digits').train.read(None)
assert not [m for m in heavy[:4] if m in sys.modules]
"""
  root = pathlib.Path(__file__).resolve().parents[4]
  subprocess.run([sys.executable, '-c', code], check=True, cwd=root)


class TestPublished:
  def test_mnist(self):
    folder = real_data.folder('mnist')
    data = images.images('mnist')
    train, _ = check_declared(data, folder)
    check_statistics(data, train)

  def test_cifar10(self):
    folder = real_data.folder('cifar-10-batches-bin')
    data = images.images('cifar10')
    train, test = check_declared(data, folder)
    check_statistics(data, train)
    assert np.bincount(train.data['label']).tolist() == [5000] * 10
    assert all(f['verified'] for f in train.origin['files'])
    # The first training image is a frog, the first test image a cat.
    assert data.class_names[train.data['label'][0]] == 'frog'
    assert data.class_names[test.data['label'][0]] == 'cat'
