"""A folder of pictures becomes a set: hand-computed pixels, splits and statistics."""

import os
import pathlib

import numpy as np
from PIL import Image
import pytest

from dlx.data.batches.choose import splits
from dlx.data.prepare import folders, picture_sources, pictures
from dlx.data.sets import cards, images
from dlx.errors import ConfigError, DataError
from dlx.experiment import Config

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture(autouse=True)
def no_other_data(tmp_path, monkeypatch):
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path / 'data'))


def picture(path: pathlib.Path, value=0, size=(2, 2), mode='RGB', **saved):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new(mode, size, value).save(path, **saved)


def folder(
  tmp_path, counts, value=lambda k, i: (40 * k, i, 0), prefix=''
) -> pathlib.Path:
  """Of classes a, b, ...; pictures of one colour each."""
  for k, count in enumerate(counts):
    for i in range(count):
      name = f'{"abc"[k]}/{i}.png'
      picture(tmp_path / 'pets' / prefix / name, value(k, i))
  return tmp_path / 'pets'


def found(where) -> folders.Found:
  return folders.find(where, picture_sources.SUFFIXES, 'picture')


def left(tmp_path) -> list[str]:
  data = tmp_path / 'data'
  return sorted(p.name for p in data.iterdir()) if data.exists() else []


def of_pixels(pixels, mode) -> Image.Image:
  return Image.fromarray(np.array(pixels, np.uint8), mode if mode != 'RGBA' else None)


class TestDecode:
  def decoded(self, tmp_path, image, name='x.png', size=1, grey=False, **saved):
    path = tmp_path / name
    image.save(path, **saved)
    return pictures.decode(path, size, 'stretch', grey).tolist()

  def test_modes(self, tmp_path):
    one = lambda mode, value: Image.new(mode, (1, 1), value)
    found = lambda image, **kw: self.decoded(tmp_path, image, **kw)
    assert found(one('RGB', (1, 2, 3))) == [[[1, 2, 3]]]
    assert found(one('L', 7)) == [[[7, 7, 7]]]
    assert found(one('L', 7), grey=True) == [[[7]]]
    assert found(one('1', 1)) == [[[255, 255, 255]]]
    # Nothing shows the white behind, half of 0 half of it: (255 * 127 + ...) / 255.
    assert found(one('RGBA', (9, 9, 9, 0))) == [[[255, 255, 255]]]
    assert found(one('LA', (0, 127))) == [[[128, 128, 128]]]
    assert found(one('RGBA', (9, 8, 7, 255))) == [[[9, 8, 7]]]
    assert found(one('I;16', 65535)) == [[[255, 255, 255]]]
    assert found(one('I;16', 256)) == [[[1, 1, 1]]]
    palette = one('RGB', (10, 20, 30)).convert('P', palette=Image.Palette.ADAPTIVE)
    assert found(palette) == [[[10, 20, 30]]]
    assert found(palette, transparency=0) == [[[255, 255, 255]]]
    cmyk = found(one('CMYK', (255, 0, 0, 0)), name='x.tif')
    assert cmyk == [[[0, 255, 255]]]

  def test_the_first_frame_and_upright(self, tmp_path):
    first, second = Image.new('RGB', (1, 1), RED), Image.new('RGB', (1, 1), BLUE)
    moving = self.decoded(
      tmp_path, first, 'x.gif', save_all=True, append_images=[second]
    )
    assert moving == [[list(RED)]]
    beside = of_pixels([[RED, BLUE]], 'RGB').resize((2, 2), Image.Resampling.NEAREST)
    exif = Image.Exif()
    exif[0x0112] = 6  # Is shown turned clockwise: what is left comes to the top.
    turned = self.decoded(tmp_path, beside, 'x.webp', 2, lossless=True, exif=exif)
    assert turned == [[list(RED)] * 2, [list(BLUE)] * 2]

  def test_fits(self, tmp_path):
    strip = of_pixels([[RED, BLUE, BLUE, RED]], 'RGB').resize(
      (4, 2), Image.Resampling.NEAREST
    )
    strip.save(tmp_path / 'x.png')
    fit = lambda how, size: pictures.decode(tmp_path / 'x.png', size, how, False)
    assert fit('crop', 2).tolist() == [[list(BLUE)] * 2] * 2
    padded = fit('pad', 4)
    assert padded[0].max() == 0 and padded[3].max() == 0
    assert padded[1].tolist() == [list(RED), list(BLUE), list(BLUE), list(RED)]
    stretched = fit('stretch', 4)
    assert stretched.shape == (4, 4, 3)
    assert stretched[0].tolist() == [list(RED), list(BLUE), list(BLUE), list(RED)]


class TestPrepare:
  def test_split_statistics_and_look_up(self, tmp_path):
    made = pictures.prepare(folder(tmp_path, [10, 5]), 'pets', size=2)
    facts = made.card.facts
    assert facts['sizes'] == {'train': 12, 'test': 3}
    assert facts['counts'] == {'train': [8, 4], 'test': [2, 1]}
    data = images.images('pets')
    assert (data.class_names, data.shape, data.max_value) == (
      ('a', 'b'),
      (2, 2, 3),
      255,
    )
    train, test = data.train.read(None), data.test.read(None)
    assert train.data['image'].shape == (12, 2, 2, 3)
    assert len(test.data['label']) == data.test.size == 3
    # Of training alone: eight pictures of 0 and four of 40 in the first channel.
    assert data.mean[0] == pytest.approx(40 / 3 / 255)
    assert data.std[0] == pytest.approx(40 / 255 * np.sqrt(2 / 9))
    assert (data.mean[2], data.std[2]) == (0, 1)
    second = train.data['image'][:, 0, 0, 1] / 255
    assert data.mean[1] == pytest.approx(second.mean())
    assert train.origin['card']['classes'] == ['a', 'b']
    assert left(tmp_path) == ['pets']

  def test_equal_bytes_whatever_the_threads_and_another_split_by_seed(self, tmp_path):
    where = folder(tmp_path, [10, 5])
    cards_ = [
      pictures.prepare(where, name, size=2, workers=workers, seed=seed).card
      for name, workers, seed in (('p', 1, 0), ('q', 4, 0), ('r', 1, 1))
    ]
    assert cards_[0].files == cards_[1].files
    assert cards_[0].files != cards_[2].files

  def test_given_splits_stay_and_validation_is_reported(self, tmp_path):
    for i, part in enumerate(('train', 'val', 'test')):
      folder(tmp_path, [3, 2], lambda k, j, i=i: (k, j, i), prefix=part)
    card = pictures.prepare(tmp_path / 'pets', 'pets', size=2).card
    assert card.facts['sizes'] == {'train': 5, 'validation': 5, 'test': 5}
    data = images.images('pets')
    config = Config(num_steps=1)
    _, passes = splits(data.train, data.test, config, by_class='label')
    assert list(passes) == ['validation', 'test']
    held = passes['validation'].load(None).data['image']
    assert (held[..., 2] == 1).all()
    share = Config(num_steps=1, validation=0.4)
    _, passes = splits(data.train, data.test, share, by_class='label')
    assert (passes['validation'].load(None).data['image'][..., 2] == 0).all()

  def test_validation_alone_is_the_test_split(self, tmp_path):
    for i, part in enumerate(('Training', 'dev')):
      folder(tmp_path, [3, 2], lambda k, j, i=i: (k, j, i), prefix=part)
    made = pictures.prepare(tmp_path / 'pets', 'pets', size=2)
    assert made.card.facts['sizes'] == {'train': 5, 'test': 5}
    assert any('validation split is the test split' in note for note in made.notes)

  def test_classes_that_are_numbers_are_in_their_order(self, tmp_path):
    for name in ('2', '10'):
      for i in range(2):
        picture(tmp_path / 'pets' / name / f'{i}.png', (int(name), i, 0))
    assert found(tmp_path / 'pets').classes == ['2', '10']

  def test_names_in_other_scripts_and_in_none(self, tmp_path):
    names = ['\u732b', '\u0441\u043e\u0432\u0430', os.fsdecode(b'\xff')]
    for k, name in enumerate(names):
      for i in range(2):
        picture(tmp_path / 'pets' / name / f'{name} {i}.png', (k, i, 0))
    card = pictures.prepare(tmp_path / 'pets', 'pets', size=2).card
    assert card.facts['classes'] == sorted(names)
    assert images.images('pets').class_names == tuple(sorted(names))

  def test_repeats(self, tmp_path):
    folder(tmp_path, [3, 2], lambda k, i: (k, i, 0), prefix='train')
    folder(tmp_path, [1, 1], lambda k, i: (k, 2 if k == 0 else 9, 0), prefix='test')
    where = tmp_path / 'pets'
    message = r'1 training row.*train/a/2.png is also .*test/a/0.png \(test\)'
    with pytest.raises(DataError, match=message):
      pictures.prepare(where, 'pets', size=2)
    assert left(tmp_path) == []
    kept = pictures.prepare(where, 'kept', size=2, repeats='keep')
    assert kept.card.facts['sizes'] == {'train': 5, 'test': 2}
    dropped = pictures.prepare(where, 'dropped', size=2, repeats='drop')
    assert dropped.card.facts['counts']['train'] == [2, 2]
    image = images.images('dropped').train.read(None).data['image']
    assert image[:, 0, 0, :2].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]

  def test_bad_pictures_are_refused_or_left_out(self, tmp_path):
    where = folder(tmp_path, [4, 4])
    (where / 'a' / '0.png').write_text('text')
    with pytest.raises(DataError, match=r'a/0.png: is no picture .*--skip_bad'):
      pictures.prepare(where, 'pets', size=2)
    made = pictures.prepare(where, 'pets', size=2, skip_bad=True)
    sizes = made.card.facts['sizes']
    assert sum(sizes.values()) == 7
    assert any('a/0.png' in note for note in made.notes)
    assert (
      images.images('pets').train.read(None).data['image'].shape[0] == sizes['train']
    )

  @pytest.mark.filterwarnings('ignore')  # As where a warning is no error.
  def test_too_many_pixels_are_not_unpacked(self, tmp_path, monkeypatch):
    where = folder(tmp_path, [2, 2])
    picture(where / 'a' / '2.png', size=(11, 10))
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    with pytest.raises(
      DataError, match=r'a/2.png: .*110 pixels.* exceeds limit of 100'
    ):
      pictures.prepare(where, 'pets', size=2)

  def test_links_lead_nowhere_else(self, tmp_path):
    where = folder(tmp_path, [2, 2])
    inside = where / 'a' / '2.png'
    inside.symlink_to(where / 'a' / '1.png')
    assert len(found(where).files) == 5
    picture(tmp_path / 'other.png')
    for name, target in (
      ('out.png', tmp_path / 'other.png'),
      ('circle', where / 'a'),
      ('loop.png', where / 'a' / 'loop.png'),
    ):
      link = where / 'a' / name
      link.symlink_to(target)
      with pytest.raises(DataError, match=f'a/{name}: is a link'):
        found(where)
      link.unlink()
    (where / 'c').symlink_to(where / 'a')
    with pytest.raises(DataError, match='pets/c: is a link'):
      found(where)

  def test_what_fails_leaves_nothing_and_half_a_set_is_none(
    self, tmp_path, monkeypatch
  ):
    where = folder(tmp_path, [2, 2])

    def interrupted(*args):
      raise KeyboardInterrupt

    with monkeypatch.context() as patched:
      patched.setattr(pictures, 'image_facts', interrupted)
      with pytest.raises(KeyboardInterrupt):
        pictures.prepare(where, 'pets', size=2)
    assert left(tmp_path) == []
    card = pictures.prepare(where, 'pets', size=2).card
    card.folder.rename(tmp_path / 'data' / '.pets.killed')
    assert cards.find('pets') is None and cards.every() == []

  @pytest.mark.parametrize(
    ('arguments', 'message'),
    (
      ({'name': 'mnist'}, '--name=mnist is not allowed: dlx has'),
      ({'name': '../x'}, '--name=../x is not allowed'),
      ({'size': 0}, '--size=0'),
      ({'fit': 'x'}, '--fit=x is not allowed: must be one of crop, pad, stretch'),
      ({'repeats': 'x'}, '--repeats=x is not allowed'),
      ({'test': 0.0}, '--test=0.0'),
    ),
  )
  def test_wrong_arguments(self, tmp_path, arguments, message):
    where = folder(tmp_path, [2, 2])
    with pytest.raises(ConfigError, match=message):
      pictures.prepare(where, **{'name': 'pets', **arguments})

  def test_a_name_that_is_taken(self, tmp_path):
    where = folder(tmp_path, [2, 2])
    pictures.prepare(where, 'pets', size=2)
    before = (tmp_path / 'data' / 'pets' / 'card.json').read_bytes()
    with pytest.raises(ConfigError, match='is there already: remove it'):
      pictures.prepare(where, 'pets', size=1)
    assert (tmp_path / 'data' / 'pets' / 'card.json').read_bytes() == before
