"""Byte pairs: by hand, against a slow reference, and any bytes come back."""

import collections
import random

import numpy as np
import pytest

from dlx.data.sets.characters import pydoc_text
from dlx.data.text import byte_pairs, words
from dlx.data.text.byte_pairs import BytePairs, pieces, train
from dlx.errors import ConfigError, DataError

TEXT = pydoc_text()[:30_000]


def slow_merges(text: str, size: int) -> list[tuple[int, int]]:
  """The same, with all pairs counted anew for every merge."""
  parts = [list(piece.encode()) for piece in pieces(text)]
  merges = []
  while 256 + len(merges) < size:
    counts = collections.Counter(p for part in parts for p in zip(part, part[1:]))
    if not counts or max(counts.values()) < 2:
      break
    best = min(counts, key=lambda pair: (-counts[pair], pair))
    parts = [slow_merge(part, best, 256 + len(merges)) for part in parts]
    merges.append(best)
  return merges


def slow_merge(part, pair, new):
  """By the text of the tokens: no loop of ours."""
  row, found = list(part), []
  while row:
    two = tuple(row[:2]) == pair
    found.append(new if two else row[0])
    row = row[2:] if two else row[1:]
  return found


def slow_encode(merges, text: str) -> list[int]:
  """Every merge over the whole of every piece, in the order of learning."""
  found = []
  for piece in pieces(text):
    part = list(piece.encode('utf-8', 'surrogateescape'))
    for i, pair in enumerate(merges):
      part = slow_merge(part, pair, 256 + i)
    found += part
  return found


def test_pieces_by_hand():
  text = "It's  2 cats_x,\n\n  ok \u00e9t\u00e9\u00b2\t"
  found = ['It', "'", 's', ' ', ' 2', ' cats', '_', 'x', ',', '\n\n ', ' ok']
  assert pieces(text) == [*found, ' \u00e9t\u00e9\u00b2', '\t']


def test_merges_by_hand():
  # Of `abab abab`: ab 4 times, (ab, ab) twice, and a space before it once.
  found = train('abab\nabab', 300)
  assert found.merges == ((97, 98), (256, 256))
  assert found.encode('abab ab').tolist() == [257, 32, 256]
  assert len(found) == 258
  # Overlapping pairs count, and are merged from the left.
  assert train('aaaaa', 257).merges == ((97, 97),)
  assert train('aaaaa', 257).encode('aaaaa').tolist() == [256, 256, 97]
  # Of equal counts the smaller tokens.
  assert train('cd\nab\ncd\nab', 257).merges == ((97, 98),)
  assert train('no pair', 999).merges == ()


def test_as_the_slow_reference():
  found = train(TEXT, 400)
  assert list(found.merges) == slow_merges(TEXT, 400)
  text = TEXT[:3000]
  assert found.encode(text).tolist() == slow_encode(found.merges, text)


def test_as_the_slow_reference_on_few_letters():
  rng = random.Random(0)
  for _ in range(60):
    text = ''.join(rng.choice('aab \n') for _ in range(rng.randrange(80)))
    found = train(text, 280)
    assert list(found.merges) == slow_merges(text, 280), text
    assert found.encode(text).tolist() == slow_encode(found.merges, text), text


def test_learning_again_gives_the_same_and_a_prefix():
  assert train(TEXT, 300) == train(TEXT, 300)
  assert train(TEXT, 350).merges[:44] == train(TEXT, 300).merges


def test_any_bytes_come_back():
  found, rng = train(TEXT, 400), np.random.default_rng(0)
  for size in (0, 1, 7, 500):
    data = rng.bytes(size)
    text = byte_pairs.from_bytes(data)
    assert byte_pairs.to_bytes(text) == data
    assert found.decode_bytes(found.encode(text)) == data
  for text in ('', '\U0001f600 na\u00efve \u4f60\u597d', '\x00\x1f\u2028', TEXT):
    assert found.decode(found.encode(text)) == text
  assert len(found.encode(TEXT)) < 0.55 * len(TEXT)


def test_what_is_no_text_is_shown_as_such():
  found = train('caf\u00e9 ' * 3, 256)
  token_N = found.encode('\u00e9')
  assert found.decode(token_N[:1]) == '\ufffd'
  assert found.decode([97, -1, 256, 98]) == 'a\ufffd\ufffdb'
  with pytest.raises(DataError, match='Character 1 of the text is half'):
    found.encode('a\ud800')


def test_refused():
  with pytest.raises(ConfigError, match='vocab_size=255 is not allowed'):
    train('a', 255)
  for merges in (((97, 256),), ((97, 98), (97, 98)), ((-1, 98),)):
    with pytest.raises(ConfigError, match='Merges of byte pairs'):
      BytePairs(merges)


def test_words_by_hand():
  found = words.build('to be or not to be', 4)
  assert found.known == (' be', ' not', ' or')
  token_N = found.encode('to be or what')
  assert token_N.tolist() == [0, 1, 3, 0]
  assert found.decode(token_N) == '\ufffd be or\ufffd'
  whole = words.build('to be or not to be', 99)
  assert whole.decode(whole.encode('to be')) == 'to be' and len(whole) == 6
  with pytest.raises(ConfigError, match='vocab_size=1 is not allowed'):
    words.build('a', 1)
