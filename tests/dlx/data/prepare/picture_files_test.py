"""A folder of pictures as a set of its files: card, damage, repeats, batches."""

import shutil

import jax
import numpy as np
import pytest

from dlx.config import Config
from dlx.data.batches import choose
from dlx.data.batches.numbered import numbered
from dlx.data.batches.streamed import InOrderStream, ShuffledStream, batches
from dlx.data.pictures.crops import Crop
from dlx.data.pictures.files import PictureFiles
from dlx.data.prepare import inspect, picture_files
from dlx.data.sets import cards, images
from dlx.data.sources import of_classes, subset, unlabelled
from dlx.errors import ConfigError, DataError
from tests import turns
from tests.dlx.data.pictures.photographs import folder, write

ALL = slice(None)


@pytest.fixture(autouse=True)
def data_dir(tmp_path, monkeypatch):
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path / 'data'))
  return tmp_path / 'data'


@pytest.fixture
def prepared(tmp_path) -> images.ImageData:
  picture_files.prepare(folder(tmp_path / 'raw'), 'wild', size=16)
  return images.images('wild')


class TestPrepare:
  def test_the_card(self, prepared, tmp_path, data_dir):
    assert prepared.shape == (16, 16, 3) and prepared.max_value == 255
    assert prepared.class_names == ('n00000000', 'n00000001')
    assert (prepared.train.size, prepared.test.size) == (6, 4)
    assert prepared.crop == Crop()
    card = cards.find('wild')
    assert card is not None and card.pictures == str(tmp_path / 'raw')
    assert card.facts['decoded'] == {'short_side': 18}  # 16 * 8/7.
    assert max(p.stat().st_size for p in data_dir.rglob('*.npy')) < 1024
    assert cards.damaged(card) is None
    assert inspect.twins(card)[-1] == '  0 training row(s) stand in another split'
    shown = inspect.rows_of(card, 'train', 2)
    assert shown['image'].shape == (2, 16, 16, 3)
    # Mean and deviation are those of the middles of the training pictures.
    image = prepared.train.read(None).data['image'][:] / 255
    np.testing.assert_allclose(prepared.mean, image.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(prepared.std, image.std((0, 1, 2)), rtol=1e-12)

  def test_statistics_of_a_sample(self, tmp_path, monkeypatch):
    monkeypatch.setattr(picture_files, 'SAMPLE', 3)
    made = picture_files.prepare(folder(tmp_path / 'raw'), 'wild', size=8)
    assert 'Mean and deviation are of 3 of the training pictures.' in made.notes

  def test_one_channel(self, tmp_path):
    picture_files.prepare(folder(tmp_path / 'raw'), 'wild', size=8, grey=True)
    data = images.images('wild')
    assert data.shape == (8, 8, 1)
    assert data.test.read(None).data['image'][0].shape == (8, 8, 1)

  def test_a_data_folder_moves_with_its_pictures(self, data_dir, monkeypatch):
    picture_files.prepare(folder(data_dir / 'raw' / 'wild'), 'set', size=8)
    card = cards.find('set')
    assert card is not None and card.pictures == '../raw/wild'
    before = images.images('set').test.read(None).data['image'][:]
    moved = data_dir.with_name('moved')
    data_dir.rename(moved)
    monkeypatch.setenv('DLX_DATA_DIR', str(moved))
    after = images.images('set').test.read(None).data['image'][:]
    np.testing.assert_array_equal(before, after)

  def test_damaged_pictures(self, tmp_path, data_dir):
    raw = folder(tmp_path / 'raw')
    bad = raw / 'train' / 'n00000000' / '2.JPEG'
    bad.write_bytes(bad.read_bytes()[:-200])
    with pytest.raises(DataError, match=r'2\.JPEG: is no picture.*--skip_bad'):
      picture_files.prepare(raw, 'wild', size=8)
    assert list(data_dir.iterdir()) == []
    made = picture_files.prepare(raw, 'wild', size=8, skip_bad=True)
    assert made.card.facts['counts']['train'] == [2, 3]
    assert any('Left out' in note and '2.JPEG' in note for note in made.notes)
    loaded = images.images('wild').train.read(None).data
    paths = [loaded['image'].path(row)[-17:] for row in range(5)]
    assert paths[:2] == ['/n00000000/0.JPEG', '/n00000000/4.JPEG']
    assert loaded['label'].tolist() == [0, 0, 1, 1, 1]

  def test_repeats_are_files_of_equal_bytes(self, tmp_path):
    raw = folder(tmp_path / 'raw')
    shutil.copy(raw / 'val/n00000001/1.JPEG', raw / 'train/n00000000/9.JPEG')
    with pytest.raises(DataError, match='1 training row.* stand in another split'):
      picture_files.prepare(raw, 'wild', size=8)
    made = picture_files.prepare(raw, 'wild', size=8, repeats='drop')
    assert made.card.facts['counts']['train'] == [3, 3]
    paths = images.images('wild').train.read(None).data['image'].file_NL
    assert len(paths) == 6 and b'9.JPEG' not in paths.tobytes()

  def test_flat_validation_pictures_with_labels_beside(self, tmp_path):
    raw = folder(tmp_path / 'raw', val=0)
    for i in range(2):
      write(raw / 'val' / 'images' / f'val_{i}.JPEG', 20 + i)
    lines = [f'val_{i}.JPEG\tn0000000{1 - i}\t0\t0\t1\t1\n' for i in range(2)]
    (raw / 'val' / 'val_annotations.txt').write_text(''.join(lines))
    (raw / 'words.txt').write_text('n00000000\tcat, tom\nn00000001\tdog\n')
    picture_files.prepare(raw, 'tiny', size=8)
    data = images.images('tiny')
    assert data.class_names == ('cat', 'dog')
    assert data.test.read(None).data['label'].tolist() == [1, 0]

  def test_refuses(self, tmp_path, prepared, data_dir):
    raw = tmp_path / 'raw'
    with pytest.raises(ConfigError, match='--size=0'):
      picture_files.prepare(raw, 'other', size=0)
    with pytest.raises(ConfigError, match='wild is there already'):
      picture_files.prepare(raw, 'wild')
    np.savez(tmp_path / 'train-00000.npz', x=1)
    with pytest.raises(DataError, match='is no folder'):
      picture_files.prepare(tmp_path / 'train-00000.npz', 'other')
    with pytest.raises(ConfigError, match='without --keep=files'):
      images.images('wild_blended')
    card = data_dir / 'wild' / cards.FILE
    text = card.read_text()
    for old, new in (
      ('"short_side": 18', '"short_side": 15'),
      ('"pictures"', '"picture"'),
      ('"short_side"', '"side"'),
    ):
      card.write_text(text.replace(old, new))
      with pytest.raises(DataError, match='is no card of a prepared set'):
        images.images('wild')
    card.write_text(text)
    (raw / 'val/n00000000/0.JPEG').unlink()
    found = cards.find('wild')
    assert found is not None and '0.JPEG: cannot be read' in (
      cards.damaged(found) or ''
    )


class TestBatches:
  config = Config(batch_size=4, eval_batch_size=3, seed=5, num_steps=1)

  def split(self, data, **fields):
    config = Config(**{**self.config.__dict__, **fields})
    return choose.splits(data.train, data.test, config, by_class='label')

  def test_they_are_read_on_the_host_whatever_the_config_says(self, prepared):
    train, passes = self.split(prepared, stream=False)
    assert isinstance(train, ShuffledStream)
    assert isinstance(passes['test'], InOrderStream)
    shape = jax.ShapeDtypeStruct((4, 16, 16, 3), np.uint8)
    assert train.shapes[0]['image'] == shape
    loaded = train.load()
    assert isinstance(loaded.data['image'], PictureFiles)
    assert loaded.origin['kind'] == 'own' and loaded.origin['size'] == 6

  def test_a_batch_is_a_function_of_seed_and_step(self, prepared):
    train, _ = self.split(prepared)
    data = train.load().data
    get = lambda step, rows=ALL: train.get(data, step, rows)
    third = get(3)
    assert third['image'].shape == (4, 16, 16, 3) and third['label'].dtype == np.int32
    for rows in (slice(0, 2), slice(2, 4)):
      for field, x in get(3, rows).items():
        np.testing.assert_array_equal(x, third[field][rows])
    # 3 steps are two epochs: the same pictures, other parts of them.
    first, fourth = get(0), get(3)
    assert not (first['image'] == fourth['image']).all()
    with batches(train, data, 2, 5, ALL) as found:
      for step, batch in enumerate(found, 2):
        np.testing.assert_array_equal(batch['image'], get(step)['image'])
    other = self.split(prepared, seed=6)[0].get(data, 3, ALL)
    assert not (other['image'] == third['image']).all()

  @turns.seldom(21, files=('dlx/data/pictures/files.py',))
  def test_workers_make_the_same_batches(self, prepared):
    train, _ = self.split(prepared, stream_workers=2)
    assert isinstance(train, ShuffledStream) and train.num_workers == 2
    data = train.load().data
    with batches(train, data, 1, 7, ALL) as found:
      for step, batch in enumerate(found, 1):
        np.testing.assert_array_equal(
          batch['image'], train.get(data, step, ALL)['image']
        )

  def test_a_pass(self, prepared):
    _, passes = self.split(prepared, validation=0.5)
    assert list(passes) == ['validation', 'test']
    data = passes['test'].load().data
    last = passes['test'].get(data, 1, ALL)
    assert last['weight'].tolist() == [1, 0, 0]
    np.testing.assert_array_equal(last['image'][0], data['image'][3])
    held = passes['validation'].load().data['image']
    assert isinstance(held, PictureFiles) and len(held) == 3

  def test_workers_of_a_pass_are_for_many_pictures(self, prepared, monkeypatch):
    workers = lambda: self.split(prepared, stream_workers=3)[1]['test'].num_workers
    assert workers() == 0
    monkeypatch.setattr(choose, 'WORTH_WORKERS', 4)
    assert workers() == 3

  def test_parts_of_a_source_stay_files(self, prepared):
    for some in (
      subset(prepared.train, 3),
      of_classes(prepared.train, [1]),
      unlabelled(prepared.train),
    ):
      assert isinstance(some.read(None).data['image'], PictureFiles)
    stream = numbered(choose.training(prepared.train, self.config))
    data = stream.load().data
    batch = stream.get(data, 0, ALL)
    plain = choose.training(prepared.train, self.config)
    assert sorted(batch) == ['epoch', 'image', 'index', 'label']
    np.testing.assert_array_equal(batch['image'], plain.get(data, 0, ALL)['image'])

  def test_another_crop(self, prepared):
    crop = Crop(min_area=0.5, method='bicubic')
    data = images.with_crop(prepared, crop)
    assert data.crop == crop
    usual, other = (self.split(x)[0] for x in (prepared, data))
    get = lambda stream: stream.get(stream.load().data, 0, ALL)
    np.testing.assert_array_equal(get(usual)['label'], get(other)['label'])
    assert not (get(usual)['image'] == get(other)['image']).all()
    middles = [x.test.read(None).data['image'][:] for x in (prepared, data)]
    assert not (middles[0] == middles[1]).all()
    digits = images.images('digits')
    assert images.with_crop(digits, crop) is digits and digits.crop is None
