"""Pictures in the files of known sets and in Parquet: tiny files, made by hand."""

import gzip
import io
import json
import pathlib
import pickle
import struct
import tarfile

import numpy as np
from PIL import Image
import pyarrow as pa
from pyarrow import parquet
import pytest
from scipy import io as scipy_io

from dlx.data.prepare import pictures
from dlx.data.sets import images
from dlx.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
  """The current folder is empty; sets go to its folder data."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('DLX_DATA_DIR', 'data')


def rows(name='own'):
  """By split, pixels and labels of a set."""
  data = images.images(name)
  found = {s.split: s.read(None).data for s in (data.train, data.test)}
  return {s: (np.asarray(x['image']), x['label'].tolist()) for s, x in found.items()}


def cifar(n=(5, 2), labels=(3, 0, 2, 1), changed=()):
  """The folder of a CIFAR-100 of a few images; its pixels."""
  where = pathlib.Path('cifar-100-python')
  where.mkdir(exist_ok=True)
  pixels = {}
  for split, count in zip(('train', 'test'), n, strict=True):
    pixels[split] = RNG.integers(0, 256, (count, 3, 32, 32)).astype(np.uint8)
    fine = [labels[i % len(labels)] for i in range(count)]
    batch = {b'data': pixels[split].reshape(count, -1), b'fine_labels': fine}
    batch[b'coarse_labels'] = [k // 2 for k in fine]
    batch |= dict(changed) if split == 'train' else {}
    (where / split).write_bytes(pickle.dumps(batch))
  meta = {b'fine_label_names': [b'apple', b'bear', b'bee', b'bus']}
  meta[b'coarse_label_names'] = [b'one', b'two']
  (where / 'meta').write_bytes(pickle.dumps(meta))
  return pixels


class TestCifar100:
  def test_by_hand(self):
    pixels = cifar()
    made = pictures.prepare('cifar-100-python', 'own')
    assert made.card.facts['classes'] == ['apple', 'bear', 'bee', 'bus']
    found = rows()
    for split, (image, label) in found.items():
      np.testing.assert_array_equal(image, pixels[split].transpose(0, 2, 3, 1))
      assert label == [3, 0, 2, 1, 3][: len(label)]

  def test_coarse_and_archive(self):
    cifar(labels=(3, 0))
    with tarfile.open('cifar-100-python.tar.gz', 'w:gz') as archive:
      archive.add('cifar-100-python')
    made = pictures.prepare('cifar-100-python.tar.gz', 'own', format='cifar100_coarse')
    assert made.card.facts['classes'] == ['one', 'two']
    assert rows()['train'][1] == [1, 0, 1, 0, 1]

  def test_code_in_a_pickle_is_never_run(self):
    class Evil:
      def __reduce__(self):
        return pathlib.Path.touch, (pathlib.Path('ran'),)

    cifar()
    pathlib.Path('cifar-100-python/train').write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match='is not allowed in data'):
      pictures.prepare('cifar-100-python', 'own')
    assert not pathlib.Path('ran').exists()

  @pytest.mark.parametrize(
    ('changed', 'message'),
    (
      ({b'fine_labels': [0, 1, 0, 1, 4]}, 'train: row 4 .from 0. has the label 4'),
      ({b'fine_labels': [0, 1]}, r'expected data uint8 \[2, 3072\], found .*\[5, 3072'),
      ({b'data': np.zeros((5, 3072))}, 'found float64'),
    ),
  )
  def test_what_cannot_be_taken(self, changed, message):
    cifar(changed=changed)
    with pytest.raises(DataError, match=message):
      pictures.prepare('cifar-100-python', 'own')

  def test_other_pickles_and_lacking_files(self):
    cifar()
    pathlib.Path('cifar-100-python/train').write_bytes(pickle.dumps([1]))
    with pytest.raises(DataError, match='train: not a file of CIFAR-100: it has no da'):
      pictures.prepare('cifar-100-python', 'own')
    pathlib.Path('cifar-100-python/meta').unlink()
    with pytest.raises(DataError, match='meta is missing: there is test, train'):
      pictures.prepare('cifar-100-python', 'own', format='cifar100')


def svhn(labels=(10, 1, 9), name='train_32x32.mat', **arrays):
  x = RNG.integers(0, 256, (32, 32, 3, len(labels))).astype(np.uint8)
  arrays = {'X': x, 'y': np.array(labels, np.uint8)[:, None], **arrays}
  scipy_io.savemat(name, arrays, do_compression=True)
  return x


class TestSvhn:
  def test_ten_is_the_digit_nought(self):
    x = svhn((10, *range(9, 0, -1)))
    svhn((2, 10), 'test_32x32.mat')
    pictures.prepare(['test_32x32.mat', 'train_32x32.mat'], 'own')
    image, label = rows()['train']
    assert label == [0, *range(9, 0, -1)] and rows()['test'][1] == [2, 0]
    np.testing.assert_array_equal(image[1], x[..., 1])
    data = images.images('own')
    assert (data.shape, data.num_classes) == ((32, 32, 3), 10)

  def test_damaged(self):
    svhn(name='test_32x32.mat')
    with pytest.raises(DataError, match='train_32x32.mat is missing'):
      pictures.prepare('.', 'own')
    for arrays, message in (
      ({'y': np.array([[0], [1], [2]])}, 'expected labels 1 to 10, found 0 in row 0'),
      ({'y': np.array([[1], [2]])}, r'expected X uint8 \[H, W, 3, 2\], .*found uint8'),
      ({'X': np.zeros((32, 32, 3, 3))}, 'found float64'),
    ):
      svhn(**arrays)
      with pytest.raises(DataError, match=message):
        pictures.prepare('.', 'own')
    raw = pathlib.Path('test_32x32.mat').read_bytes()
    for bad in (b'', b'no file', raw[: len(raw) // 2]):
      pathlib.Path('train_32x32.mat').write_bytes(bad)
      with pytest.raises(DataError, match='train_32x32.mat: no MATLAB file'):
        pictures.prepare('.', 'own')


class TestStl10:
  def made(self, labels=tuple(range(10, 0, -1))):
    image = RNG.integers(0, 256, (10, 96, 96, 3)).astype(np.uint8)
    for split in ('train', 'test'):
      raw = image.transpose(0, 3, 2, 1).tobytes()  # Column by column.
      pathlib.Path(f'{split}_X.bin').write_bytes(raw)
      pathlib.Path(f'{split}_y.bin').write_bytes(bytes(labels))
    return image

  def test_by_hand(self):
    image = self.made()
    made = pictures.prepare('.', 'own', repeats='keep')
    assert made.card.facts['classes'][::9] == ['airplane', 'truck']
    found, label = rows()['train']
    np.testing.assert_array_equal(found, image)
    assert label == list(range(9, -1, -1))
    small = pictures.prepare('.', 'small', size=32, grey=True, format='stl10').card
    assert small.facts['fields']['image']['shape'] == [32, 32, 1]

  def test_damaged(self):
    self.made((0, *range(1, 10)))
    with pytest.raises(
      DataError, match='train_y.bin: expected labels 1 to 10, found 0'
    ):
      pictures.prepare('.', 'own')
    self.made((1, 2, 3))
    with pytest.raises(
      DataError, match='train_X.bin: expected 82944 bytes, .* found 276480'
    ):
      pictures.prepare('.', 'own')
    pathlib.Path('train_y.bin').unlink()
    with pytest.raises(DataError, match='train_y.bin is missing'):
      pictures.prepare('.', 'own')


class TestEmnist:
  def made(self, name='emnist-letters', labels=(1, 26, 26), gz='.gz'):
    image = RNG.integers(0, 256, (len(labels), 3, 3)).astype(np.uint8)
    for split in ('train', 'test'):
      for part, x in (
        ('images-idx3', image.swapaxes(1, 2)),
        ('labels-idx1', np.array(labels, np.uint8)),
      ):
        head = struct.pack(f'>HBB{x.ndim}I', 0, 8, x.ndim, *x.shape)
        raw = head + np.ascontiguousarray(x).tobytes()
        raw = gzip.compress(raw) if gz else raw
        pathlib.Path(f'{name}-{split}-{part}-ubyte{gz}').write_bytes(raw)
    return image

  @pytest.mark.parametrize('gz', ('', '.gz'))
  def test_upright_and_by_their_characters(self, gz):
    image = self.made(gz=gz)
    mapping = ''.join(f'{k} {64 + k} {96 + k}\n' for k in range(1, 27))
    pathlib.Path('emnist-letters-mapping.txt').write_text(mapping)
    # Published as they are: rows in both splits stay.
    with pytest.raises(DataError, match="class 'B' has 0 example"):
      pictures.prepare('.', 'own')
    pathlib.Path('emnist-letters-mapping.txt').write_text('1 65 97\n26 90 122\n')
    made = pictures.prepare('.', 'own')
    assert made.card.facts['classes'] == ['A', 'Z']
    found, label = rows()['test']
    np.testing.assert_array_equal(found[..., 0], image)
    assert label == [0, 1, 1] and found.shape == (3, 3, 3, 1)
    assert '3 training row(s) stand in another split' in made.notes[0]
    with pytest.raises(DataError, match='stand in another split'):
      pictures.prepare('.', 'other', repeats='refuse')

  def test_without_a_mapping_and_damaged(self):
    self.made()
    assert pictures.prepare('.', 'own').card.facts['classes'] == ['1', '26']
    mapping = pathlib.Path('emnist-letters-mapping.txt')
    mapping.write_text('1 65\n')
    with pytest.raises(DataError, match='label 26 is not in emnist-letters-mapping'):
      pictures.prepare('.', 'other')
    mapping.write_text('1 65\n26\n')
    with pytest.raises(DataError, match='mapping.txt: line 2: expected a label'):
      pictures.prepare('.', 'other')
    self.made('emnist-digits')
    with pytest.raises(DataError, match='holds emnist-digits, emnist-letters: must be'):
      pictures.prepare('.', 'other')


def png(value) -> bytes:
  stream = io.BytesIO()
  Image.new('RGB', (2, 2), value).save(stream, 'PNG')
  return stream.getvalue()


def pictures_file(
  name='own.parquet', labels=(0, 1) * 3, raw=None, told=True, names='ab'
):
  """As Hugging Face's `datasets` writes it; pixels are (row, label, length of name)."""
  raw = raw or [png((i, int(k == 1), len(name))) for i, k in enumerate(labels)]
  image = [{'bytes': x, 'path': f'{i}.png'} for i, x in enumerate(raw)]
  table = pa.table({'image': image, 'label': list(labels), 'id': list(range(len(raw)))})
  if told:
    label = {'names': list(names), '_type': 'ClassLabel'}
    features = {'image': {'_type': 'Image'}, 'label': label}
    text = json.dumps({'info': {'features': features}})
    table = table.replace_schema_metadata({'huggingface': text})
  parquet.write_table(table, name)
  return name


class TestParquet:
  def test_classes_by_their_names_and_splits_by_those_of_files(self):
    pathlib.Path('d').mkdir()
    pictures_file('d/train-0.parquet')
    pictures_file('d/test-0.parquet', (1, 0))
    made = pictures.prepare('d', 'own', size=2)
    assert made.card.facts['classes'] == ['a', 'b']
    image, label = rows()['train']
    assert label == [0, 1] * 3
    assert image[:, 0, 0].tolist() == [[i, i % 2, 17] for i in range(6)]
    assert rows()['test'][1] == [1, 0]

  def test_one_file_and_a_column_by_its_name(self):
    pictures_file(labels=('x', 'y') * 5, told=False)
    with pytest.raises(
      ConfigError, match='--label is missing: own.parquet has .*, id:'
    ):
      pictures.prepare('own.parquet', 'own')
    made = pictures.prepare('own.parquet', 'own', size=2, label='label')
    assert made.card.facts['classes'] == ['x', 'y']
    assert made.card.facts['sizes'] == {'train': 8, 'test': 2}

  @pytest.mark.parametrize(
    ('make', 'kwargs', 'message'),
    (
      (lambda: pictures_file(raw=[png(0)] * 5 + [b'no']), {}, 'row 6: is no picture'),
      (lambda: pictures_file(raw=[png(0)] * 5 + [b'']), {}, 'row 6: is empty'),
      (
        lambda: pictures_file(raw=[png(0)] * 5 + [png(0)[:40]]),
        {},
        'own.parquet: row 6: is no picture that can be read',
      ),
      (lambda: pictures_file(labels=(0, 1, 2) * 2), {}, "'label': 2 is no class"),
      (lambda: pictures_file(labels=(0, 1, None) * 2), {}, 'row 3: has no class'),
      (
        lambda: pictures_file(),
        {'label': 'z'},
        '--label=z is not allowed: own.parquet',
      ),
      (
        lambda: [pictures_file('0.pq'), pictures_file('1.pq', names='ba')],
        {},
        '1.pq: has other columns or classes than 0.pq',
      ),
      (lambda: [pictures_file('0.pq'), '0.pq'], {}, '0.pq: is given twice'),
      (
        lambda: (
          parquet.write_table(pa.table({'y': [1]}), 'own.parquet') or 'own.parquet'
        ),
        {},
        'must have one column of pictures, as bytes, found none among y',
      ),
    ),
  )
  def test_what_cannot_be_taken(self, make, kwargs, message):
    with pytest.raises((ConfigError, DataError), match=message):
      pictures.prepare(make(), 'own', size=2, repeats='keep', **kwargs)
    assert not pathlib.Path('data/own').exists()

  def test_what_cannot_be_read_is_left_out(self):
    pictures_file(labels=(0, 1) * 4, raw=[png((i, 0, 0)) for i in range(7)] + [b'no'])
    made = pictures.prepare('own.parquet', 'own', size=2, skip_bad=True)
    assert sum(made.card.facts['sizes'].values()) == 7
    assert any(n.startswith('Left out: own.parquet: row 8: is no') for n in made.notes)


def test_imagenets_folders():
  for split, count in (('train', 3), ('val', 1)):
    for wnid in ('n01440764', 'n01443537'):
      for i in range(count):
        path = pathlib.Path('d', split, wnid, f'{wnid}_{i}.JPEG')
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (4, 2), (i * 50, count, len(path.parts))).save(path)
  made = pictures.prepare('d', 'own', size=2, repeats='keep')
  assert made.card.facts['classes'] == ['n01440764', 'n01443537']
  assert made.card.facts['sizes'] == {'train': 6, 'test': 2}
  for path in pathlib.Path('d/val').glob('*/*'):  # As it is published.
    path.rename(pathlib.Path('d/val', path.name))
  for folder in pathlib.Path('d/val').glob('n*[0-9]'):
    folder.rmdir()
  with pytest.raises(
    DataError, match='d/val: holds no folders: there must be one a cl'
  ):
    pictures.prepare('d', 'other')


class TestFlatImagenet:
  """Three training and two validation pictures, labelled as each source does."""

  @pytest.fixture(autouse=True)
  def pictures(self):
    self.files = {
      'train/n02012849/a.JPEG': 10,
      'train/n01440764/b.JPEG': 20,
      'train/n03126707/c.JPEG': 30,
    }
    val = 'val/ILSVRC2012_val_0000000{}.JPEG'
    self.files |= {val.format(i): 40 + 10 * i for i in (1, 2)}

  def make(self, texts=()):
    for name, value in self.files.items():
      path = pathlib.Path('imagenet', name)
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(png(value))
    for name, text in dict(texts).items():
      path = pathlib.Path('imagenet', name)
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(text)

  def labels(self):
    made = pictures.prepare(['imagenet'], 'own', size=1)
    return made.card.facts['classes'], rows()['test'][1]

  @pytest.mark.parametrize(
    'texts',
    (
      {
        'LOC_val_solution.csv': 'ImageId,PredictionString\n'
        'ILSVRC2012_val_00000002,n01440764 1 2 3 4 n01440764 5 6 7 8\n'
        'ILSVRC2012_val_00000001,n03126707 1 2 3 4\n'
      },
      {'imagenet_2012_validation_synset_labels.txt': 'n03126707\nn01440764\n'},
      {
        'val/val_annotations.txt': ''
        'ILSVRC2012_val_00000001.JPEG\tn03126707\t0\t1\n'
        'ILSVRC2012_val_00000002.JPEG\tn01440764\t0\t1\n'
      },
    ),
  )
  def test_labels_by_name_or_number(self, texts):
    self.make(texts)
    assert self.labels() == (['n01440764', 'n02012849', 'n03126707'], [2, 0])

  def test_numbers_and_words_of_the_devkit(self):
    from scipy import io

    data = 'ILSVRC2012_devkit_t12/data/'
    self.make({f'{data}ILSVRC2012_validation_ground_truth.txt': '7\n3\n'})
    fields = [('ILSVRC2012_ID', 'O'), ('WNID', 'O'), ('words', 'O')]
    synsets = np.array(
      [
        (3, 'n01440764', 'tench, Tinca tinca', 0),
        (5, 'n02012849', 'crane', 0),
        (7, 'n03126707', 'crane', 0),
        (1001, 'n00001740', 'entity', 2),
      ],
      [*fields, ('num_children', 'O')],
    )
    folder = pathlib.Path('imagenet/ILSVRC2012_devkit_t12/data')
    assert 'needs meta.mat' in self.refused()
    io.savemat(folder / 'meta.mat', {'synsets': synsets})
    names = ['tench', 'crane (n02012849)', 'crane (n03126707)']
    assert self.labels() == (names, [2, 0])

  def refused(self) -> str:
    with pytest.raises(DataError) as error:
      pictures.prepare(['imagenet'], 'own', size=1)
    assert not pathlib.Path('data/own').exists()
    return str(error.value)

  def test_words_of_kaggle_and_what_cannot_be_taken(self):
    self.make({'LOC_synset_mapping.txt': 'n01440764 tench, Tinca tinca\n'})
    assert 'holds no folders' in self.refused()
    name = 'imagenet_2012_validation_synset_labels.txt'
    self.make({name: 'n03126707\n'})
    assert 'has no label for ILSVRC2012_val_00000002.JPEG' in self.refused()
    self.make({name: 'n03126707\ntench\n'})
    assert "line 2: 'tench' is no class" in self.refused()
    self.make({name: 'n03126707\nn99999999\n'})
    assert "class 'n99999999' is not among those of training" in self.refused()
    self.make({name: 'n03126707\nn01440764\n'})
    assert self.labels() == (['tench', 'n02012849', 'n03126707'], [2, 0])
