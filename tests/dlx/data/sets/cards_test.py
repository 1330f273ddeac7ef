"""Cards of own sets: what is looked up by name, and what a damaged one is told as."""

import contextvars
import hashlib
import json
from typing import Any

import numpy as np
from PIL import Image
import pytest

from dlx.data.formats import files
from dlx.data.prepare import corpus, pictures, sentences, table
from dlx.data.sets import cards, characters, images, tables
from dlx.data.sets.sentences import sentences as by_name
from dlx.errors import ConfigError, DataError
from tests.dlx.data.edited import edited


@pytest.fixture
def pets(tmp_path, monkeypatch):
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path / 'data'))
  for k in range(2):
    for i in range(2):
      path = tmp_path / 'pets' / 'ab'[k] / f'{i}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.new('RGB', (2, 2), (k, i, 0)).save(path)
  return pictures.prepare(tmp_path / 'pets', 'pets', size=2, test=0.5).card


def test_found_in_the_folder_or_as_the_folder(pets, monkeypatch):
  assert cards.find('pets', pets.folder.parent).facts == pets.facts
  assert cards.find('pets', pets.folder).facts == pets.facts
  assert cards.find('cats') is None and cards.find('../data/pets') is None
  monkeypatch.delenv('DLX_DATA_DIR')
  assert cards.find('pets') is None
  assert images.images('pets').shape == (28, 28, 1)  # A folder in MNIST's format.


def test_another_kind_is_refused_and_names_are_listed(pets):
  with pytest.raises(ConfigError, match="'pets' holds labelled images, not a table"):
    tables.tabular('pets')
  with pytest.raises(ConfigError, match="'pets' holds labelled images, not a text"):
    characters.characters('pets')


def test_the_data_folder_of_a_context(pets, monkeypatch):
  folder = pets.folder.parent
  monkeypatch.setenv('DLX_DATA_DIR', '/nowhere')

  def inside():
    files.look_in(folder)
    return images.images('pets').num_classes

  assert contextvars.copy_context().run(inside) == 2
  assert images.images('pets').num_classes == 10
  assert images.images('pets').name == 'pets'


def test_recalled_from_a_run_without_the_folder(pets, monkeypatch):
  data = images.images('pets')
  record = json.loads(json.dumps({'train': data.train.read(None).origin}))
  monkeypatch.setenv('DLX_DATA_DIR', '/nowhere')
  with cards.recall(record):
    known = images.images('pets')
    assert (known.shape, known.class_names) == (data.shape, data.class_names)
    assert (known.mean, known.std) == (data.mean, data.std)
    with pytest.raises(DataError, match='dataset pets .train. not found'):
      known.train.read(None)
  assert images.images('pets').num_classes == 10
  record['train']['card'].pop('mean')
  with pytest.raises(DataError, match="config.json: data.train: .* .no 'mean'."):
    with cards.recall(record):
      pass


def test_a_card_that_changed_since_the_build_is_refused(pets):
  data = images.images('pets')
  edited(pets, lambda text: text['facts'].update(mean=[0.5, 0.5, 0.5]))
  with pytest.raises(DataError, match='says other than when the experiment was built'):
    data.train.read(None)


@pytest.mark.parametrize(
  ('change', 'message'),
  (
    (lambda text: text.update(format=2), 'format is 2, not 1'),
    (lambda text: text.pop('facts'), "no 'facts'"),
    (lambda text: text['facts'].update(kind='films'), "no 'films'"),
    (lambda text: text['facts']['sizes'].update(train=0), 'sizes are'),
    (lambda text: text['facts']['sizes'].update(other=1), 'splits are'),
    (lambda text: text['facts'].update(sizes={'test': 2}), 'splits are'),
    (lambda text: text['files'].update({'../../x': {}}), 'files are'),
    (lambda text: text['facts']['sizes'].pop('test'), 'splits are'),
    (lambda text: text['facts'].pop('classes'), "no 'classes'"),
    (lambda text: text['facts'].update(classes=['a', 1]), 'classes is'),
    (lambda text: text['facts'].update(classes=['a']), 'classes and their counts'),
    (
      lambda text: text['facts'].update(counts={'train': [2, 0], 'test': [1, 1]}),
      "class 'b' has no example to train on",
    ),
    (lambda text: text['facts']['counts'].update(train=[1, 2]), 'and their counts'),
    (lambda text: text['facts']['counts'].update(test=[3, -1]), 'and their counts'),
    (
      lambda text: text['facts']['fields']['label'].update(dtype='float32'),
      'label is float32',
    ),
    (lambda text: text['facts'].update(mean=[0, 0]), 'mean is'),
    (lambda text: text['facts'].update(mean=[0, 0, float('nan')]), 'mean is'),
    (lambda text: text['facts'].update(std=[1, 0, 1]), 'std is'),
    (lambda text: text['facts'].update(max_value='x'), 'could not convert'),
    (lambda text: text['facts']['fields']['image'].update(shape=[2, 2]), 'an example'),
    (lambda text: text['facts']['fields'].update({'../x': {}}), "no 'shape'"),
    (
      lambda text: text['facts']['fields']['image'].update(dtype='object'),
      'a field is object',
    ),
  ),
)
def test_a_card_that_is_none(pets, change, message):
  edited(pets, change)
  with pytest.raises(DataError, match=f'card.json: is no card .*{message}'):
    cards.find('pets')


def test_no_json(pets):
  (pets.folder / cards.FILE).write_text('{')
  with pytest.raises(DataError, match='is no card of a prepared set'):
    images.images('pets')


def test_damaged_rows(pets):
  path = pets.folder / 'train' / 'image.npy'
  whole = path.read_bytes()
  source = images.images('pets').train
  assert cards.damaged(pets) is None
  path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
  with pytest.raises(DataError, match='image.npy: sha256 is not that of its card'):
    source.read(None)
  assert 'sha256' in (cards.damaged(pets) or '')
  path.write_bytes(whole[:-1])
  with pytest.raises(DataError, match=f'has {len(whole) - 1} bytes, not {len(whole)}'):
    source.read(None)
  path.unlink()
  with pytest.raises(DataError, match='cannot be read'):
    source.read(None)


def replaced(card, path: str, rows: np.ndarray):
  """Other rows, of which the card knows the sum."""
  file = card.folder / path
  with file.open('wb') as opened:
    np.save(opened, rows, allow_pickle=True)
  raw = file.read_bytes()
  known = {'bytes': len(raw), 'sha256': hashlib.sha256(raw).hexdigest()}
  edited(card, lambda text: text['files'].update({path: known}))


def test_pickles_are_never_read(pets):
  replaced(pets, 'train/image.npy', np.array([{}, {}], object))
  with pytest.raises(DataError, match='image.npy: is no array'):
    images.images('pets').train.read(None)


def test_labels_of_a_strange_set_are_checked(pets):
  replaced(pets, 'train/label.npy', np.array([0, 2], np.int32))
  with pytest.raises(DataError, match='expected labels 0 to 1, found 2 in row 1'):
    images.images('pets').train.read(None)


def test_a_class_that_was_emptied(pets):
  replaced(pets, 'train/label.npy', np.array([0, 0], np.int32))
  message = "train/label.npy: class 'a' has 2 example.s., 1 by its card.json: remove"
  with pytest.raises(DataError, match=message):
    images.images('pets').train.read(None)
  replaced(pets, 'train/label.npy', np.array([-1, 0], np.int32))
  with pytest.raises(DataError, match='expected labels 0 to 1, found -1 in row 0'):
    images.images('pets').train.read(None)


def test_numbers_that_were_changed(tmp_path, monkeypatch):
  """A missing number is one; an inf, or a target that is missing, is none."""
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path))
  path = tmp_path / 'own.csv'
  path.write_text('a,y\n' + ''.join(f'{i * i},{i}\n' for i in range(10)))
  card: Any = table.prepare(path, 'rows', target='y').card
  features = np.array(np.load(card.folder / 'train/features.npy'))
  target = np.array(np.load(card.folder / 'train/target.npy'))
  source = cards.source(card, 'train')
  features[3] = np.nan
  replaced(card, 'train/features.npy', features)
  assert np.isnan(source.read(None).data['features']).sum() == 1
  features[2] = -np.inf
  replaced(card, 'train/features.npy', features)
  with pytest.raises(DataError, match='features.npy: row 2 .* holds an inf: mend'):
    source.read(None)
  features[2] = 0
  replaced(card, 'train/features.npy', features)
  monkeypatch.setattr(files, '_ROWS', 3)  # By parts.
  target[7] = np.nan
  replaced(card, 'train/target.npy', target)
  with pytest.raises(DataError, match='train/target.npy: row 7 .* a NaN or inf: mend'):
    source.read(None)


def test_tokens_that_no_character_has(tmp_path, monkeypatch):
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path))
  (tmp_path / 'own.txt').write_text('ab' * 500)
  card: Any = corpus.prepare([tmp_path / 'own.txt'], 'own').card
  token = np.array(np.load(card.folder / 'train/token.npy'))
  token[4] = 2
  replaced(card, 'train/token.npy', token)
  with pytest.raises(DataError, match='expected tokens 0 to 1, found 2 in row 4'):
    cards.source(card, 'train').read(None)


def test_columns_that_do_not_fit(tmp_path, monkeypatch):
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path))
  path = tmp_path / 'own.csv'
  path.write_text(
    'a,b,y\n' + ''.join(f'{i * i},{"pq"[i % 2]},{i}\n' for i in range(10))
  )
  card: Any = table.prepare(path, 'rows', target='y').card
  whole = (card.folder / cards.FILE).read_text()
  for change, message in (
    (lambda facts: facts['columns'].pop(), 'columns are'),
    (lambda facts: facts['columns'][1].update(values=['p']), 'columns are'),
    (lambda facts: facts['columns'][1].pop('name'), "no 'name'"),
    (lambda facts: facts['columns'][0].update(date=1), 'date is 1'),
    (lambda facts: facts['columns'][1].update(date=True), 'date is True'),
    (lambda facts: facts.update(missing=[0]), 'missing is'),
    (lambda facts: facts.update(missing=[0, 0, 'x']), 'missing is'),
  ):
    edited(card, lambda text, change=change: change(text['facts']))
    with pytest.raises(DataError, match=f'card.json: is no card .*{message}'):
      cards.find('rows')
    (card.folder / cards.FILE).write_text(whole)


def test_cards_of_other_kinds(tmp_path, monkeypatch):
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path / 'data'))
  path = tmp_path / 'own.csv'
  path.write_text('a,y\n' + ''.join(f'{i * i},{i}\n' for i in range(10)))
  rows: Any = table.prepare(path, 'rows', target='y').card
  for change, message in (
    (lambda text: text['facts'].update(median=[]), 'median is'),
    (lambda text: text['facts'].update(target_std=0), 'target_std is 0'),
    (lambda text: text['facts'].update(feature_names=['a', 'b']), 'feature_names is'),
    (lambda text: text['facts'].update(baseline={'accuracy': 1}), 'baseline is'),
    (lambda text: text['facts'].update(baseline={}), 'not enough values'),
  ):
    whole = (rows.folder / cards.FILE).read_text()
    edited(rows, change)
    with pytest.raises(DataError, match=message):
      tables.tabular('rows')
    (rows.folder / cards.FILE).write_text(whole)
  path.write_text('ab' * 500)
  text = corpus.prepare([path], 'text').card
  for vocabulary in ('', 7, ['a', 'b']):
    edited(text, lambda card, v=vocabulary: card['facts'].update(vocabulary=v))
    with pytest.raises(DataError, match='vocabulary is'):
      characters.characters('text')


@pytest.mark.parametrize(
  ('change', 'message'),
  (
    ({'length_counts': [0, 0, 6]}, 'length_counts do not sum up'),
    ({'length_counts': [-1, 8]}, 'length_counts do not sum up'),
    ({'lengths': [1, 2]}, 'lengths are .1, 2.'),
    ({'lengths': []}, 'lengths are ..'),
    ({'lengths': [2, 2]}, 'lengths are .2, 2.'),
    ({'vocabulary_size': 2}, 'vocabulary_size is 2'),
    ({'vocabulary_size': '9'}, 'vocabulary_size is 9'),
    ({'sizes': {'train': 7, 'test': 2}}, 'splits are'),
    ({'fields': {'text': {'shape': [3, 3], 'dtype': 'uint8'}}}, 'fields are .*text'),
  ),
)
def test_cards_of_sentences(tmp_path, monkeypatch, change, message):
  monkeypatch.setenv('DLX_DATA_DIR', str(tmp_path / 'data'))
  lines = ''.join(f'{"ny"[i % 2]}\tw {i}\n' for i in range(10))
  (tmp_path / 'own.tsv').write_text('y\tx\n' + lines)
  card = sentences.prepare([tmp_path / 'own.tsv'], 'own', text='x', label='y').card
  assert card.facts['sizes'] == {'train': 7, 'validation': 1, 'test': 2}
  assert by_name('own').length_counts == (0, 7)
  edited(card, lambda text: text['facts'].update(change))
  with pytest.raises(DataError, match=f'card.json: is no card .*{message}'):
    by_name('own')


def test_rows_are_mapped_and_not_read(pets):
  found = images.images('pets').train.read(None).data['image']
  assert isinstance(found, np.memmap) and not found.flags.writeable
