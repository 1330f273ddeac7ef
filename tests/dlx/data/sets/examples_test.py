"""Splits of any set by name, with examples as a person has them."""

import numpy as np
import pytest

from dlx.data.sets.examples import examples, parse
from dlx.data.sets.sentences import texts_of
from dlx.data.sources import read
from dlx.errors import ConfigError


@pytest.mark.parametrize(
  ('text', 'found'),
  [
    ('digits', ('digits', 'test')),
    ('digits:train', ('digits', 'train')),
    ('letters:26', ('letters:26', 'test')),
    ('letters:26:validation', ('letters:26', 'validation')),
    (':train', ('', 'train')),
    ('', ('', 'test')),
  ],
)
def test_name_and_split(text, found):
  assert parse(text) == found


def test_each_kind_raw():
  pictures = examples('digits', 'test')
  assert pictures.max_value == 16 and pictures.classes[3] == '3'
  assert read(pictures.source).data['image'].max() == 16
  table = read(examples('diabetes', 'test').source).data
  assert 19 <= table['features'][:, 0].min()  # Ages in years, not in deviations.
  assert np.median(table['target']) > 100
  assert set(examples('grammar', 'validation').source.shapes) >= {'text', 'label'}
  assert examples('karate_club', 'validation').split == 'validation'
  assert set(examples('pydoc', 'train').source.shapes) == {'token'}
  pairs = read(examples('sort', 'test').source).data
  texts, targets = texts_of(pairs['text']), texts_of(pairs['target'])
  assert targets[:20] == [''.join(sorted(x)) for x in texts[:20]]


@pytest.mark.parametrize(
  ('name', 'split', 'says'),
  [
    ('digits', 'validation', 'digits has no split validation: must be one of train, t'),
    ('sort', 'half', 'sort has no split half: must be one of train, validation, test'),
    ('a/b', 'test', 'must be letters, digits'),
  ],
)
def test_refused(name, split, says):
  with pytest.raises(ConfigError, match=says) as caught:
    examples(name, split)
  assert '\n' not in str(caught.value)
