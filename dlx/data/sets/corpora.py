"""Texts for an encoder that learns without labels, by name, and labelled ones for it.

A corpus is any set that holds text:

a text         (pydoc, tiny_shakespeare, your own): its lines in order; a document ends
               at an empty line, so that some lines follow others
sentences      (grammar, sst2, your own): labels are left out
pairs of texts (multi30k, phrases, your own): the sources, for multi30k English

Byte pairs are learnt from its training split, once, when data are read: so the tokens
are a function of the set and the size of the vocabulary. Looking a name up reads at
most its card.
"""

import dataclasses
import functools
from typing import Any, Callable, Mapping, NamedTuple

import jax
import numpy as np

from dlx.data.batches.segments import FOLLOWS
from dlx.data.dataset import Loaded, Source
from dlx.data.sets import cards, registry, sentences, translation
from dlx.data.sets.characters import characters
from dlx.data.text import byte_pairs, vocabulary
from dlx.data.text.marked import MARKS, Marked
from dlx.errors import ConfigError, DataError

KINDS = ('characters', 'sentences', 'translation')
SPLITS = ('train', 'validation')
# Lines that are not empty. Of pydoc every version of Python has more: the first.
LINES = {
  'pydoc': {'train': 5800, 'validation': 450},
  'tiny_shakespeare': {'train': 29242, 'validation': 3536},
}
LEAST_TOKENS = len(MARKS) + byte_pairs.BYTES


@dataclasses.dataclass(frozen=True)
class Corpus:
  """What is known of a corpus before it is read.

  Attributes:
    name: as in `--config.dataset`.
    train: `token` int32 [L], PAD after the end, cut at L; of documents also `follows`
      bool [], whether the next text goes on with this one.
    validation: likewise.
    documents: whether texts follow each other.
    vocabulary_size: V, a bound on the tokens, those of MARKS included.
    vocabulary: data_dir -> the tokens, learnt from the training split unless it was
      read before.
  """

  name: str
  train: Source
  validation: Source
  documents: bool
  vocabulary_size: int
  vocabulary: Callable[[Any], Marked]


class _Read(NamedTuple):
  """Of a corpus: (split, data_dir) -> (texts, '' between documents; origin)."""

  read: Callable[[str, Any], tuple[list[str], Mapping[str, Any]]]
  sizes: Mapping[str, int | None]
  documents: bool = False


def corpus(
  name: str,
  *,
  vocabulary_size: int,
  max_length: int,
  phrases: bool = False,
  lines: int = 1,
) -> Corpus:
  """A corpus by name; reads at most its card.

  Args:
    name: of a text, of labelled sentences or of pairs.
    vocabulary_size: V; there are fewer tokens where the text has fewer pairs.
    max_length: L, tokens after which a text is cut.
    phrases: sst2: read GLUE's phrases of the training sentences.
    lines: of documents, lines in a row that are one text; a document may end within.

  Raises:
    ConfigError: no such set, or a number that is not allowed.
  """
  for field, value, least in (
    ('vocabulary_size', vocabulary_size, LEAST_TOKENS),
    ('max_length', max_length, 1),
    ('lines', lines, 1),
  ):
    if value < least:
      raise ConfigError(f'{field}={value} is not allowed: must be at least {least}.')
  found = _by_name(name, phrases)
  if lines > 1 and not found.documents:
    raise ConfigError(
      f'lines={lines} is not allowed: the texts of {name} do not follow each other: '
      'must be 1.'
    )
  learnt: list[Marked] = []

  def coder(data_dir: Any = None) -> Marked:
    if not learnt:  # Figures ask without knowing where the data lie.
      texts = found.read('train', data_dir)[0]
      learnt.append(_learnt(texts, vocabulary_size))
    return learnt[0]

  shapes = {'token': jax.ShapeDtypeStruct((max_length,), np.int32)}
  if found.documents:
    shapes[FOLLOWS] = jax.ShapeDtypeStruct((), np.bool_)

  def source(split: str) -> Source:
    size = found.sizes[split]
    size = None if size is None else size // lines
    read = functools.partial(_tokens, name, found, split, coder, max_length, lines)
    return Source(name, split, shapes, size, read)

  return Corpus(
    name=name,
    train=source('train'),
    validation=source('validation'),
    documents=found.documents,
    vocabulary_size=vocabulary_size,
    vocabulary=coder,
  )


def labelled(
  name: str, words: Corpus, *, max_length: int, phrases: bool = False
) -> sentences.SentenceData:
  """A set of labelled sentences in the tokens of a corpus; reads at most its card.

  How many sentences have how many of these tokens is not known before they are read:
  `length_counts` is empty, and batches have one length.

  Args:
    name: see `sentences.sentences`.
    words: whose tokens they are cut into.
    max_length: tokens after which sentences are cut.
    phrases: see `sentences.sentences`.

  Raises:
    ConfigError: no such set.
  """
  found = sentences.texts(name, phrases=phrases)

  def read(split: str, data_dir: Any) -> Loaded:
    loaded, coder = found.read(split, data_dir), words.vocabulary(data_dir)
    texts = loaded.data['text']
    data = {
      'tokens': _rows(texts, coder, max_length),
      'label': np.asarray(loaded.data['label'], np.int32),
    }
    if split != 'train':
      data['text'] = sentences.as_bytes(texts, sentences.TEXT_BYTES)
    return Loaded(data, {**loaded.origin, 'vocabulary': len(coder)})

  def source(split: str) -> Source:
    shapes = {
      'tokens': jax.ShapeDtypeStruct((max_length,), np.int32),
      'label': jax.ShapeDtypeStruct((), np.int32),
    }
    if split != 'train':
      shapes['text'] = jax.ShapeDtypeStruct((sentences.TEXT_BYTES,), np.uint8)
    return Source(
      name, split, shapes, found.sizes[split], functools.partial(read, split)
    )

  return sentences.SentenceData(
    name=name,
    **{split: source(split) for split in cards.SPLITS},
    class_names=found.class_names,
    vocabulary_size=words.vocabulary_size,
    length_counts=(),
    lengths=(max_length,),
    max_length=max_length,
    vocabulary=words.vocabulary,
  )


def _by_name(name: str, phrases: bool) -> _Read:
  card = None if name in registry.SETS else cards.find(name)
  kind = registry.SETS[name].kind if name in registry.SETS else card and card.kind
  if phrases or kind == 'sentences':
    found = sentences.texts(name, phrases=phrases)

    def of_sentences(split: str, data_dir: Any):
      loaded = found.read(split, data_dir)
      return list(loaded.data['text']), loaded.origin

    return _Read(of_sentences, found.sizes)
  if kind == 'translation':
    parts = {split: translation.texts(name, split) for split in SPLITS}

    def of_pairs(split: str, data_dir: Any):
      loaded = parts[split].read(data_dir)
      return sentences.texts_of(loaded.data['text']), loaded.origin

    return _Read(of_pairs, {split: part.size for split, part in parts.items()})
  whole = characters(name)  # Says which names there are.
  sizes: Mapping[str, int | None] = LINES.get(name) or dict.fromkeys(SPLITS)

  def of_text(split: str, data_dir: Any):
    loaded = getattr(whole, split).read(data_dir)
    read = whole.vocabulary.decode(loaded.data['token'])
    lines = [line.strip() for line in read.split('\n')]
    return _first(lines, sizes[split]), loaded.origin

  return _Read(of_text, sizes, documents=True)


def _first(lines: list[str], size: int | None) -> list[str]:
  """As many lines that are not empty, and the empty ones between them."""
  real = np.flatnonzero([bool(line) for line in lines])
  return lines if size is None or size >= len(real) else lines[: real[size - 1] + 1]


def _learnt(texts: list[str], vocabulary_size: int) -> Marked:
  """A line is a text of its own: no pair of tokens goes over its end."""
  size = vocabulary_size - len(MARKS)
  return Marked(byte_pairs.train('\n'.join(texts), size))


def _rows(texts: list[str], coder: Marked, max_length: int) -> np.ndarray:
  # A text of which nothing is left has one token, too.
  encoded = [coder.plain(line).tolist() or [vocabulary.UNKNOWN] for line in texts]
  return vocabulary.collate(encoded, max_length)


def _tokens(
  name: str,
  found: _Read,
  split: str,
  coder: Callable[[Any], Marked],
  max_length: int,
  lines: int,
  data_dir: Any,
) -> Loaded:
  texts, origin = found.read(split, data_dir)
  if not found.documents:
    data = {'token': _rows(texts, coder(data_dir), max_length)}
  else:
    document, number = [], 0
    for line in texts:
      number += not line
      document += [number] * bool(line)
    real = [line for line in texts if line]
    count = len(real) // lines
    if not count:
      raise DataError(
        f'{name}/{split}: has {len(real)} lines that are not empty: must have at least '
        f'lines={lines}.'
      )
    joined = [' '.join(real[i * lines : (i + 1) * lines]) for i in range(count)]
    last = [document[(i + 1) * lines - 1] for i in range(count)]
    first = [document[i * lines] for i in range(count)]
    follows = [a == b for a, b in zip(last, first[1:])] + [False]
    data = {
      'token': _rows(joined, coder(data_dir), max_length),
      FOLLOWS: np.array(follows),
    }
  more = {'size': len(data['token']), 'vocabulary': len(coder(data_dir))}
  return Loaded(data, {**origin, **more})
