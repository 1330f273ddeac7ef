"""Files of Hugging Face's tokenizers: round trips, unknown words, marks, bad files."""

import dataclasses
import json

import numpy as np
import pytest

from dlx.data.text import tokenizer_file as lib
from dlx.data.text.padded import Shifted
from dlx.errors import DataError

MARK = '<|end|>'
TEXTS = ('so it goes, and so it was.', ' caf\u00e9\n\n\t\U0001f600 ', 'a', '')


@pytest.fixture(scope='module')
def byte_pairs() -> bytes:
  """A tokenizer of byte pairs that would add marks, cut and fill up."""
  tokenizers = pytest.importorskip('tokenizers')
  made = tokenizers.Tokenizer(tokenizers.models.BPE())
  made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
  made.decoder = tokenizers.decoders.ByteLevel()
  trainer = tokenizers.trainers.BpeTrainer(
    vocab_size=270,
    special_tokens=[MARK],
    initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  made.train_from_iterator([TEXTS[0]] * 9, trainer)
  made.post_processor = tokenizers.processors.TemplateProcessing(
    single=f'{MARK} $A', special_tokens=[(MARK, 0)]
  )
  made.enable_truncation(3)
  made.enable_padding(length=50)
  return made.to_str(pretty=True).encode()


def words(**model) -> bytes:
  """A tokenizer of three words, written by hand."""
  vocab = {'[UNK]': 0, 'good': 1, 'film': 4}
  model = {'type': 'WordLevel', 'vocab': vocab, 'unk_token': '[UNK]', **model}
  space = {'type': 'Whitespace'}
  parts = dict.fromkeys(('truncation', 'padding', 'normalizer'))
  rest = dict.fromkeys(('post_processor', 'decoder'))
  return json.dumps(
    {'version': '1.0', **parts, 'added_tokens': [], 'pre_tokenizer': space, **rest}
    | {'model': model}
  ).encode()


def test_texts_come_back_whole_and_nothing_is_added(byte_pairs):
  found = lib.of_json(byte_pairs, 'tokenizer.json')
  assert len(found) == 270 and found.unit == 'token'
  for text in TEXTS:
    token_N = found.encode(text)
    assert token_N.dtype == np.int32
    assert found.decode(token_N) == text
  assert len(found.encode(TEXTS[0])) > 3  # The file would cut there.
  # Pairs were merged, and a mark is one token.
  assert len(found.encode(TEXTS[0])) < len(TEXTS[0])
  a, b = found.encode('so'), found.encode(' it')
  np.testing.assert_array_equal(found.encode(f'so{MARK} it'), [*a, 0, *b])
  # The same from what a card holds.
  again = lib.TokenizerFile(**json.loads(json.dumps(dataclasses.asdict(found))))
  assert again == found
  np.testing.assert_array_equal(again.encode(TEXTS[0]), found.encode(TEXTS[0]))


def test_what_is_no_token(byte_pairs):
  found = lib.of_json(byte_pairs, 'tokenizer.json')
  so = found.encode('so')
  assert found.decode([*so, -1, 270, *so]) == 'so\ufffd\ufffdso'
  assert found.decode([]) == ''
  with pytest.raises(DataError, match='Character 2 of the text is half of a surr'):
    found.encode('so\ud800')


def test_unknown_words_and_gaps():
  pytest.importorskip('tokenizers')
  found = lib.of_json(words(), 'w.json')
  assert len(found) == 5
  np.testing.assert_array_equal(found.encode('good dull film'), [1, 0, 4])
  assert found.decode([1, 2, 4]) == 'good\ufffdfilm'  # No word has the number 2.
  found = lib.of_json(words(unk_token='?'), 'w.json')
  np.testing.assert_array_equal(found.encode('good film'), [1, 4])
  with pytest.raises(DataError, match='A text has no tokens in this tokenizer .*UNK'):
    found.encode('dull film')


def test_behind_padding():
  pytest.importorskip('tokenizers')
  found = Shifted(lib.of_json(words(), 'w.json'))
  assert len(found) == 7 and found.unit == 'token'
  np.testing.assert_array_equal(found.encode('good film'), [3, 6])
  assert found.decode([3, 0, 6, 0, 0]) == 'good film'
  assert found.decode([1, 3]) == '\ufffdgood'


@pytest.mark.parametrize(
  ('raw', 'message'),
  (
    (b'', 'no tokenizer.json .* lies beside a model'),
    (b'\x80\x04K\x01.', 'no tokenizer.json'),  # A pickle.
    (b'[' * 100000, 'no tokenizer.json'),
    (b'[]', 'no tokenizer.json that can be read'),
    (b'{"version": "1.0"}', 'no tokenizer.json that can be read'),
    (words(type='Magic'), 'no tokenizer.json that can be read'),
    (words(vocab={}), 'has 0 tokens'),
    (words(vocab={'a': 1 << 30}), 'has 1073741825 tokens: must be in'),
  ),
)
def test_files_that_are_none(raw, message):
  pytest.importorskip('tokenizers')
  with pytest.raises(DataError, match=f'bad.json: .*{message}') as error:
    lib.of_json(raw, 'bad.json')
  assert '\n' not in str(error.value)


def test_what_is_too_large_or_damaged(monkeypatch):
  pytest.importorskip('tokenizers')
  found = lib.of_json(words(), 'w.json')
  for packed in ('?', 'AAAA', found.packed[:-8]):
    with pytest.raises(DataError, match='^The tokenizer of this set'):
      lib.TokenizerFile(packed, 5).encode('good')
  with pytest.raises(DataError, match='gives token 4, and its card tells of 3'):
    lib.TokenizerFile(found.packed, 3).encode('film')
  monkeypatch.setattr(lib, 'LARGEST', 20)
  with pytest.raises(DataError, match='damaged .more than 20 bytes'):
    lib.TokenizerFile(found.packed, 5).encode('good')
  with pytest.raises(DataError, match='w.json: has .* bytes: a tokenizer has at most'):
    lib.of_json(words(), 'w.json')


def test_the_library_that_is_not_installed(monkeypatch):
  def missing(name):
    raise ImportError(name)

  monkeypatch.setattr(lib.importlib, 'import_module', missing)
  with pytest.raises(DataError, match=r"w.json is read by .* -e '.\[tokenizers\]'"):
    lib.of_json(words(), 'w.json')
  found = lib.TokenizerFile('', 5)  # Its size is known without.
  assert len(found) == 5
