"""A column of numbers becomes a series: steps by dates, parts, and what is refused."""

import pathlib

import numpy as np
import pytest

from dlx.data.prepare import series
from dlx.data.sets import cards
from dlx.data.sets import series as sets
from dlx.errors import ConfigError, DataError
from tests.dlx.data.edited import edited

VALUES = [3.25, 1.0, -2.5, 4.0, 0.1, 5.0, 9.0, 2.0, 6.0, 5.5]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
  """The current folder is empty; sets go to its folder data."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('DLX_DATA_DIR', 'data')


def written(dates=None, values=VALUES, path='own.csv'):
  rows = [str(x) for x in values]
  head = 'sold'
  if dates is not None:
    rows = [f'{day},{x}' for day, x in zip(dates, rows, strict=True)]
    head = 'when,sold'
  pathlib.Path(path).write_text('\n'.join([head, *rows]) + '\n')
  return path


def days(step, unit='D', start='2024-02-27', n=10):
  at = np.datetime64(start, unit) + step * np.arange(n)
  return [str(x) for x in at]


def months(step, day='15', n=10):
  return [f'{m}-{day}' for m in days(step, 'M', '2023-11', n)]


def ends_of_months(n):
  first = np.datetime64('2023-12', 'M') + np.arange(n)
  return [str(x) for x in first.astype('datetime64[D]') - np.timedelta64(1, 'D')]


@pytest.mark.parametrize(
  ('dates', 'step', 'period'),
  (
    (days(1, 'm', '2024-02-28T20:30', 100), 'minute', 60),
    (days(1, 'h', '2024-02-28T20', 100), 'hour', 24),
    ([x + ':00Z' for x in days(6, 'h', '2024-02-28T20', 100)], '6 hours', 1),
    (days(1, n=100), 'day', 7),
    (days(2, n=100), '2 days', 1),
    (days(7, n=100), 'week', 52),
    (days(1, 'M', '2023-11', 100), 'month', 12),
    (months(2, n=100), '2 months', 1),
    (months(3, n=100), 'quarter', 4),
    (ends_of_months(100), 'month', 12),
    (days(1, 'Y', '1898', 100), 'year', 1),
  ),
)
def test_step_and_period_are_told_by_the_dates(dates, step, period):
  made = series.prepare(written(dates, VALUES * 10), 'own')
  assert (made.card.facts['step'], made.card.facts['period']) == (step, period)
  assert bool(made.notes) == (period == 1)


def test_a_usual_period_longer_than_the_part_for_training():
  with pytest.raises(ConfigError, match='--period=12 is not allowed: .* has 6 numbers'):
    series.prepare(written(days(1, 'M', '2023-11')), 'own')


def test_the_numbers_and_their_parts():
  made = series.prepare(written(days(1)), 'own', period=2, unit='pieces')
  assert made.notes == []
  found = sets.series('own')
  assert found.value_N.tolist() == VALUES
  assert (found.unit, found.step, found.period) == ('pieces', 'day', 2)
  cut = sets.windows(found, 2, 1)
  seen = np.array(VALUES[:6])
  assert cut.mean == pytest.approx(seen.mean()) and cut.std == pytest.approx(seen.std())
  test = cut.sources['test'].read(None)
  np.testing.assert_allclose(
    test.data['future'][:, 0], (np.array(VALUES[8:]) - cut.mean) / cut.std, rtol=1e-6
  )
  np.testing.assert_array_equal(cut.past_NW['test'], [[9.0, 2.0], [2.0, 6.0]])
  origin = test.origin
  assert (origin['kind'], origin['split'], origin['size']) == ('own', 'test', 2)
  # A run knows the series without its folder.
  with cards.recall({'test': origin}):
    pathlib.Path('data').rename('away')
    assert sets.series('own').value_N.tolist() == VALUES


def test_columns_that_are_chosen():
  path = pathlib.Path('own.csv')
  rows = [f'{1000 + i},x,{v},{i}' for i, v in enumerate(VALUES)]
  path.write_text('code,note,sold,other\n' + '\n'.join(rows))
  with pytest.raises(ConfigError, match='--target is missing: .* note, sold, other'):
    series.prepare('own.csv', 'own')
  made = series.prepare('own.csv', 'own', target='sold', leave_out=['code'])
  assert made.card.facts['unit'] == 'sold' and made.card.facts['step'] == 'step'
  assert made.notes == [
    'No period of a step is known: 1, so that the period before is the number before; '
    'give --period.'
  ]
  # Four digits may be years.
  as_years = series.prepare('own.csv', 'years', target='sold')
  assert as_years.card.facts['step'] == 'year'
  # The only column is one of numbers, whatever they look like.
  alone = series.prepare(written(None, range(1990, 2000)), 'alone')
  assert alone.card.facts['values'].startswith('1990.0 1991.0')


def test_files_follow_each_other():
  paths = [
    written(days(1), path='a.csv'),
    written(days(1, 'D', '2024-03-08'), path='b.csv'),
  ]
  made = series.prepare(paths, 'own')
  assert made.card.facts['sizes'] == {'train': 20}
  assert sets.series('own').value_N.tolist() == VALUES * 2
  with pytest.raises(
    DataError, match="a.csv: line 2, column 'when': '2024-02-27' is not"
  ):
    series.prepare(paths[::-1], 'other')


def changed(rows, at, value):
  return [value if i == at else x for i, x in enumerate(rows)]


@pytest.mark.parametrize(
  ('dates', 'values', 'kwargs', 'message'),
  (
    (None, changed(VALUES, 3, 'x'), {}, "line 5, column 'sold': 'x' is no number"),
    (None, changed(VALUES, 2, 'NA'), {}, "line 4, column 'sold': 'NA' is no number"),
    (None, changed(VALUES, 0, 'inf'), {}, "line 2, column 'sold': 'inf' is no number"),
    (None, VALUES[:9], {}, 'has 9 rows, must have 10 to 32768'),
    (None, [1] * 6 + VALUES[:4], {}, 'the first 6 numbers, .* are all 1: there is'),
    (days(1), VALUES, {'period': 0}, '--period=0 is not allowed'),
    (days(1), VALUES, {'period': 7}, '--period=7 is not allowed: .* has 6 numbers'),
    (days(1), VALUES, {'target': 'y'}, '--target=y is not allowed: own.csv has'),
    (days(1), VALUES, {'date': 'y'}, '--date=y is not allowed: own.csv has'),
    (days(1), VALUES, {'leave_out': ['y']}, '--leave_out=y is not allowed'),
    (
      days(1),
      VALUES,
      {'date': 'when', 'target': 'when'},
      'it is the date, or left out',
    ),
    (
      changed(days(1), 4, '2.3.2024'),
      VALUES,
      {'date': 'when', 'period': 1},
      "line 6, column 'when': '2.3.2024' is no date: must be as 2026, 2026-11, ",
    ),
    (
      changed(days(1), 4, '2024-03-01'),
      VALUES,
      {'period': 1},
      "line 6, .* '2024-03-01' is not after '2024-03-01' of the row before: sort",
    ),
    (
      [*days(1, n=5), *days(1, 'D', '2024-03-06', 5)],
      VALUES,
      {'period': 1},
      "line 7, .* '2024-03-06' is 4 days after the row before, .* are 1 or less: give",
    ),
  ),
)
def test_what_cannot_be_taken(dates, values, kwargs, message):
  with pytest.raises((ConfigError, DataError), match=message) as raised:
    series.prepare(written(dates, values), 'own', **kwargs)
  assert '\n' not in str(raised.value)
  assert not pathlib.Path('data/own').exists()


@pytest.mark.parametrize(
  ('change', 'message'),
  (
    ({'values': '1 2 3'}, 'values are not as many finite numbers'),
    ({'values': ' '.join(['nan'] * 10)}, 'values are not as many finite numbers'),
    ({'values': [1.0]}, "has no attribute 'split'"),
    ({'values': 'a'}, 'could not convert'),
    ({'unit': 3}, 'unit and step is'),
    ({'period': 0}, 'period is 0'),
    ({'sizes': {'train': 1 << 16}}, 'sizes are'),
  ),
)
def test_cards_that_are_none(change, message):
  card = series.prepare(written(), 'own').card
  edited(card, lambda text: text['facts'].update(change))
  with pytest.raises(DataError, match=message):
    sets.series('own')


def test_a_card_of_other_numbers_than_its_rows():
  card = series.prepare(written(), 'own').card
  other = card.facts['values'].replace('3.25', '3.26')
  edited(card, lambda text: text['facts'].update(values=other))
  test = sets.windows(sets.series('own'), 2, 1).sources['test']
  with pytest.raises(DataError, match='own: its card says other numbers than its rows'):
    test.read(None)
