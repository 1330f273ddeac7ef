"""What a person gives becomes the declared array, or is refused in one line."""

import datetime
import re

import numpy as np
from PIL import Image
import pytest

from dlx.data.sets.characters import Characters
from dlx.data.text.vocabulary import Vocab
from dlx.errors import ConfigError
from dlx.experiment import Field
from dlx.run import given

GREY = Field('image', (2, 2, 1), 'uint8', 16)
COLOUR = Field('image', (1, 2, 3), 'uint8')
TOKENS = Field('tokens', ('length',), 'int32')
WORDS = Vocab(('<pad>', '<unk>', 'good', 'film'))
ROW = Field('row', (2,), 'float32')
LABEL = Field('label', (), 'int32', names=('cat', 'dog'))
SEED = Field('seed', (), 'uint32')
AGE = Field('column', (), 'float32')
TOWN = Field('column', (), 'int32', names=('Bern', 'Basel'))
ROOMS = Field('column', (), 'int32', names=('2', '10'))
SOLD = Field('column', (), 'float32', since=20787.0)  # 2026-11-30.


@pytest.fixture
def grey(tmp_path):
  """A picture of 2 x 2 grey pixels."""
  path = tmp_path / 'grey.png'
  Image.fromarray(np.array([[0, 255], [127, 16]], np.uint8)).save(path)
  return path


def test_a_picture_has_the_pixels_of_the_data(grey):
  # 16 stands for white: 127 / 255 * 16 = 7.97, 16 / 255 * 16 = 1.004.
  rows, many = given.read('image', GREY, str(grey))
  assert not many and rows.dtype == np.uint8
  np.testing.assert_array_equal(rows[0, :, :, 0], [[0, 16], [8, 1]])
  with Image.open(grey) as picture:
    rows, many = given.read('image', GREY, [picture, grey])
  assert many and rows.shape == (2, 2, 2, 1)
  np.testing.assert_array_equal(rows[0], rows[1])


@pytest.mark.parametrize('mode', ['RGB', 'RGBA', 'P', 'CMYK', 'L'])
def test_pictures_of_other_modes(tmp_path, mode):
  picture = Image.new('RGB', (2, 1), (255, 255, 255)).convert(mode)
  rows, _ = given.read('image', COLOUR, picture)
  np.testing.assert_array_equal(rows, np.full((1, 1, 2, 3), 255))


def test_a_turned_picture_is_upright(tmp_path):
  pixels = np.array([[[255, 0, 0]], [[0, 0, 255]]], np.uint8)  # 2 high, 1 wide.
  exif = Image.Exif()
  exif[0x0112] = 8  # Turn by 90 degrees to the left.
  path = tmp_path / 'turned.png'
  Image.fromarray(pixels).save(path, exif=exif)
  rows, _ = given.read('image', COLOUR, path)
  np.testing.assert_array_equal(rows[0, 0], [[255, 0, 0], [0, 0, 255]])


def test_another_size_is_refused_or_resized(tmp_path):
  path = tmp_path / 'large.png'
  Image.fromarray(np.full((6, 4), 255, np.uint8)).save(path)
  with pytest.raises(ConfigError, match=r'has 4 x 6 pixels: must have 2 x 2; resize'):
    given.read('image', GREY, path)
  rows, _ = given.read('image', GREY, path, resize=True)
  np.testing.assert_array_equal(rows, np.full((1, 2, 2, 1), 16))


@pytest.mark.parametrize(
  ('field', 'value', 'rows', 'many'),
  [
    (GREY, [[1, 2], [3, 4]], [[[[1], [2]], [[3], [4]]]], False),
    (GREY, np.zeros((3, 2, 2), int), np.zeros((3, 2, 2, 1)), True),
    (GREY, np.zeros((3, 2, 2, 1), int), np.zeros((3, 2, 2, 1)), True),
    (TOKENS, 'Good bad film', [[2, 1, 3]], False),
    (TOKENS, ['good film', 'a b'], [[2, 3], [1, 1]], True),
    (TOKENS, [2, 3], [[2, 3]], False),
    (TOKENS, [[2, 3], [3, 2]], [[2, 3], [3, 2]], True),
    (ROW, [1, 2], [[1, 2]], False),
    (ROW, [[1, 2], [3, 4]], [[1, 2], [3, 4]], True),
    (LABEL, 'dog', [1], False),
    (LABEL, ['dog', '0'], [1, 0], True),
    (LABEL, 1, [1], False),
    (SEED, [2**32 - 1, 0], [2**32 - 1, 0], True),
    (AGE, 3, [3], False),
    (AGE, [3, float('nan')], [3, np.nan], True),
    (TOWN, ' Basel ', [2], False),
    (TOWN, ['Bern', 'NA', None, float('nan'), 'Chur'], [1, 0, 0, 0, 0], True),
    (TOWN, np.array(['Basel', 'Bern']), [2, 1], True),
    (TOWN, np.array([2, 0, 1], np.int32), [2, 0, 1], True),  # Codes.
    (ROOMS, [10, '10', 2.0, '2.0', 1], [2, 2, 1, 1, 0], True),  # Numbers are names.
    (ROOMS, np.int64(2), [1], False),
  ],
)
def test_by_hand(field, value, rows, many):
  found = given.read('x', field, value, vocabulary=WORDS)
  assert found.many == many and found.rows.dtype == field.dtype
  np.testing.assert_array_equal(found.rows, rows)


def test_rows_of_other_lengths_stand_apart():
  for value in (['good', 'good film'], [[2], [2, 3]]):
    rows, many = given.read('x', TOKENS, value, vocabulary=WORDS)
    assert many and [row.tolist() for row in rows] == [[2], [2, 3]]


@pytest.mark.parametrize(
  ('field', 'value', 'says'),
  [
    (GREY, np.zeros((2, 2)), 'float64 .* whole numbers in [0, 16]'),
    (GREY, [[0, 17], [0, 0]], 'from 0 to 17 .* whole numbers in [0, 16]'),
    (GREY, np.zeros((3, 3, 1), int), 'shape (3, 3, 1) .* uint8 [2, 2, 1]'),
    (GREY, np.zeros((0, 2, 2, 1), int), 'shape (0, 2, 2, 1) '),
    (GREY, '/none/a.png', '/none/a.png: no such file'),
    (GREY, __file__, 'is no picture'),
    (GREY, Image.new('I;16', (2, 2)), 'more than 8 bits'),
    (TOKENS, [4], 'whole numbers in [0, 3]'),
    (TOKENS, [], 'shape (0,) '),
    (ROW, [1, float('nan')], 'NaN or inf'),
    (ROW, [[1, 2], [3]], 'must be numbers (row, float32 [2])'),
    (ROW, 'a', "x='a' is not allowed: must be numbers"),
    (LABEL, 2, 'whole numbers in [0, 1]'),
    (LABEL, 'cow', 'must be one of cat, dog'),
    (SEED, -1, 'whole numbers in [0, 4294967295]'),
    (SEED, 0.5, 'whole numbers'),
    (AGE, float('inf'), 'x holds inf: must be finite'),
    (AGE, 'old', "x='old' is not allowed: must be numbers"),
    (TOWN, 3, 'x=3 is not allowed: must be one of Bern, Basel, or a code in [0, 2]'),
    (TOWN, -1, 'a code in [0, 2]'),
    (TOWN, [], 'x has no rows'),
    (TOWN, [['Bern'], ['Basel']], 'must be a word or number a row'),
    (TOWN, [['Bern'], 'Basel'], "x=['Bern'] is not allowed"),
  ],
)
def test_refused(field, value, says):
  says = re.escape(says).replace(r'\ \.\*\ ', ' .* ')
  with pytest.raises(ConfigError, match=says) as caught:
    given.read('x', field, value, vocabulary=WORDS)
  assert '\n' not in str(caught.value) and str(caught.value).startswith('x')


def test_a_text_without_a_vocabulary():
  with pytest.raises(ConfigError, match='states no vocabulary'):
    given.read('x', TOKENS, 'good')


def test_an_empty_text():
  with pytest.raises(ConfigError, match='is an empty text'):
    given.read('x', TOKENS, ['a', ''], vocabulary=Characters('a'))


@pytest.mark.parametrize(
  ('value', 'want'),
  (
    ('2026-12-02', 2),
    (' 2026-11-30T13:00+01:00 ', 0.5),
    (datetime.date(2026, 11, 29), -1),
    (datetime.datetime(2026, 11, 30, 6), 0.25),
    (np.datetime64('2026-12-01T12'), 1.5),
    (20788, 1),
    (20787 + 1 / 1440, 1 / 1440),  # A minute, of float32 days since 1970 none.
    (
      ['2026-11-30', '', None, 20788, np.datetime64('NaT', 'D')],
      [0, *[np.nan] * 2, 1, np.nan],
    ),
    (np.array(['2026-11-30T00:01', 'NaT'], 'datetime64[ns]'), [1 / 1440, np.nan]),
    (np.array(['1970-01-01', '2026-11-30']), [-20787, 0]),
    ([20787, 20787.5], [0, 0.5]),
    (np.array([20787, np.nan]), [0, np.nan]),
  ),
)
def test_dates_count_from_the_day_of_their_field(value, want):
  rows, many = given.read('sold', SOLD, value)
  assert many == isinstance(want, list) and rows.dtype == np.float32
  np.testing.assert_allclose(rows, np.atleast_1d(np.float32(want)), rtol=1e-6)


@pytest.mark.parametrize(
  ('field', 'value', 'says'),
  (
    (SOLD, 'soon', "x='soon' is not allowed: must be a date, e.g. 2026-11-30 or "),
    (SOLD, ['2026-11-30', '2026-02-30'], "x='2026-02-30' is not allowed: must be a da"),
    (SOLD, '20787', "x='20787' is not allowed: must be a date"),
    (SOLD, [['2026-11-30'], ['2026-11-30', '2026-11-30']], 'must be a date'),
    (SOLD, [['2026-11-30']], 'is not allowed: must be'),
    (SOLD, np.inf, 'x holds inf'),
    (SOLD, [], 'x: shape (0,) is not allowed'),
    (SOLD, datetime.time(12), 'must be a date'),
    (AGE, '2026-11-30', "x='2026-11-30' is not allowed: must be numbers"),
  ),
)
def test_what_is_no_date(field, value, says):
  with pytest.raises(ConfigError, match=re.escape(says)) as caught:
    given.read('x', field, value)
  assert '\n' not in str(caught.value)


def test_one_seed_gives_each_row_its_own():
  seeds = given.spread(np.uint32(3), 8)
  assert seeds.dtype == np.uint32 and len(set(seeds)) == 8
  np.testing.assert_array_equal(given.spread(np.uint32(3), 3), seeds[:3])
  assert not set(seeds) & set(given.spread(np.uint32(4), 8))


@pytest.mark.parametrize(
  ('default', 'right', 'wrong', 'says'),
  [
    (3, [4], [0.5, 'x', True, None], 'a whole number'),
    (0.5, [1, 0.25], ['x', False, None], 'a number'),
    (None, [None, 3, 0.5], ['x', True], 'a number, or none'),
    (True, [False], [1, 'x'], 'true or false'),
    ('ddim', ['ddpm'], [1, None], 'a word'),
  ],
)
def test_options(default, right, wrong, says):
  for value in right:
    given.check_option('steps', default, value)
  for value in wrong:
    with pytest.raises(ConfigError, match=f'steps={value} is not .* must be {says}'):
      given.check_option('steps', default, value)


def test_a_word_that_training_did_not_have_is_told(caplog):
  given.read('town', TOWN, ['Chur', 'Bern', 'Chur'])
  assert "town: training had no 'Chur' (2 row(s)): taken as missing." in caplog.text
  assert given.described({'x': TOWN, 'y': AGE, 'z': SOLD}) == (
    'x (column, one of 2 words), y (column, float32), z (column, date)'
  )
  caplog.clear()
  given.read('town', TOWN, ['Bern', '', '?'])
  assert not caplog.text
