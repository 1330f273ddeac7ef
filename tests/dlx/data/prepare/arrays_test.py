"""An .npz becomes a set of images or of rows; labels and numbers are checked."""

import zipfile

import numpy as np
import pytest

from dlx.data.formats import expansion
from dlx.data.prepare import arrays
from dlx.data.sets import images, tables
from dlx.errors import DataError

IMAGE = np.arange(10 * 4, dtype=np.uint8).reshape(10, 2, 2)
LABEL = np.arange(10) % 2


@pytest.fixture(autouse=True)
def data_folder(tmp_path, monkeypatch):
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path / 'data'))


def prepared(tmp_path, name='own', **kwargs):
  parts = {k: kwargs.pop(k) for k in list(kwargs) if isinstance(kwargs[k], np.ndarray)}
  np.savez(tmp_path / 'own.npz', **parts)
  return arrays.prepare(tmp_path / 'own.npz', name, **kwargs)


def test_images_as_keras_names_them(tmp_path):
  made = prepared(
    tmp_path, x_train=IMAGE[:6], y_train=LABEL[:6], x_test=IMAGE[6:], y_test=LABEL[6:]
  )
  assert made.card.facts['sizes'] == {'train': 6, 'test': 4}
  data = images.images('own')
  assert data.shape == (2, 2, 1) and data.class_names == ('0', '1')
  found = data.test.read(None).data
  np.testing.assert_array_equal(found['image'][..., 0], IMAGE[6:])
  np.testing.assert_array_equal(found['label'], LABEL[6:])
  assert data.mean[0] == pytest.approx(11.5 / 255)


def test_without_splits_and_with_names(tmp_path):
  made = prepared(tmp_path, image=IMAGE, labels=LABEL[:, None], classes=['cat', 'dog'])
  assert made.card.facts['counts'] == {'train': [4, 4], 'test': [1, 1]}
  assert images.images('own').class_names == ('cat', 'dog')


def test_rows_of_a_table(tmp_path):
  x = np.arange(20.0).reshape(10, 2) ** 2
  prepared(tmp_path, x=x, y=x[:, 0] + 1)
  data = tables.tabular('own', scale_target=True)
  assert data.feature_names == ('x0', 'x1') and data.num_classes is None
  assert data.baseline['rmse'] == pytest.approx(0, abs=1e-9)
  prepared(tmp_path, 'classes', x=x, y=LABEL)
  assert tables.tabular('classes').num_classes == 2
  prepared(tmp_path, 'numbers', x=x, y=np.arange(10), predict='numbers')
  assert tables.tabular('numbers').num_classes is None


def changed(x, index, value):
  x = np.array(x)
  x[index] = value
  return x


FLOATS = np.arange(20.0).reshape(10, 2)


@pytest.mark.parametrize(
  ('parts', 'message'),
  (
    ({'x': IMAGE}, 'has no y of the split train, but x'),
    ({'x': IMAGE, 'y': LABEL, 'z': LABEL}, "an array called 'z' is not allowed"),
    ({'x': IMAGE, 'image': IMAGE, 'y': LABEL}, "an array called 'image'"),
    ({'x': IMAGE, 'y': LABEL[:9]}, 'must have the same number of rows'),
    ({'x': IMAGE[:0], 'y': LABEL[:0]}, 'must have the same number of rows, at least 1'),
    ({'x': IMAGE / 255, 'y': LABEL}, r'x is float64 \[10, 2, 2\]: must be uint8'),
    ({'x': IMAGE[..., None, None], 'y': LABEL}, 'must be uint8'),
    (
      {'x': np.stack([IMAGE] * 2, -1), 'y': LABEL},
      r', 2\], of 2 channels: .* 1 or 3\.',
    ),
    (
      {'x': np.stack([IMAGE] * 3, 1), 'y': LABEL},
      r'channels come last: x\.transpose\(0, 2, 3, 1\)\.',
    ),
    ({'x': IMAGE, 'y': LABEL + 0.5}, 'y of images is float64'),
    ({'x': IMAGE, 'y': changed(LABEL, 3, -1)}, r'row 3 \(from 0\) has the label -1'),
    ({'x': IMAGE, 'y': changed(LABEL, 3, 3)}, "class '2' has 0 example"),
    ({'x': IMAGE, 'y': 0 * LABEL}, 'expected two classes or more, found 1'),
    ({'x': FLOATS, 'y': np.array(list('ababababab'))}, 'y is <U1'),
    ({'x': changed(FLOATS, (4, 1), np.nan), 'y': LABEL}, r'x: row 4 \(from 0\) holds'),
    (
      {'x': FLOATS, 'y': changed(FLOATS[:, 0], 5, np.inf)},
      r'y: row 5 \(from 0\) holds a NaN or inf',
    ),
    (
      {'x_train': IMAGE, 'y_train': LABEL, 'x_test': IMAGE[:, :1], 'y_test': LABEL},
      r'test: x has rows of \[1, 2\]',
    ),
    (
      {'x_train': IMAGE, 'y_train': LABEL, 'x_test': IMAGE[:1], 'y_test': LABEL[:1]},
      r'row 0 is also row 0 \(test\)',
    ),
    ({'x': IMAGE, 'y': LABEL.astype(object)}, 'is no .npz of numbers'),
  ),
)
def test_what_cannot_be_taken(tmp_path, parts, message):
  with pytest.raises(DataError, match=message):
    prepared(tmp_path, **parts)
  assert not (tmp_path / 'data' / 'own').exists()


def test_labels_beyond_the_names(tmp_path):
  message = r'row 1 \(from 0\) has the label 2: 2 classes have 0 to 1'
  with pytest.raises(DataError, match=message):
    prepared(tmp_path, x=IMAGE, y=changed(LABEL, 1, 2), classes=['a', 'b'])


def test_files_that_are_none(tmp_path, monkeypatch):
  path = tmp_path / 'own.npz'
  for content in (b'', b'text', b'PK\3\4' + b'\0' * 40):
    path.write_bytes(content)
    with pytest.raises(DataError, match='is no .npz of numbers'):
      arrays.prepare(path, 'own')
  with pytest.raises(DataError, match='other.npz: no such file'):
    arrays.prepare(tmp_path / 'other.npz', 'own')
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('x.npy', b'\0' * 100_000)
  monkeypatch.setattr(expansion, 'LARGE', 10_000)
  with pytest.raises(DataError, match='would become 100000: not unpacked'):
    arrays.prepare(path, 'own')
