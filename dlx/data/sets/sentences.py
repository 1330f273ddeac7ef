"""Labelled sentences by name: what `--config.dataset` of a text classifier takes.

Looking a name up reads nothing. What the shapes of a run depend on is declared, and
checked on load: how many sentences there are of each length, and a bound on the size of
the vocabulary, which is built from the training texts.
"""

import collections
import dataclasses
import functools
from typing import Any, Callable, Mapping, NamedTuple, Sequence

import jax
import numpy as np

from dlx.data.dataset import Loaded, Source
from dlx.data.formats import files, text
from dlx.data.sets import cards, grammar, registry
from dlx.data.sets.characters import FILE, of_facts
from dlx.data.text import vocabulary
from dlx.data.text.marked import Marked
from dlx.data.text.padded import Padded, Shifted
from dlx.errors import ConfigError, DataError

# What the numbers of tokens stand for.
Coder = vocabulary.Vocab | Padded | Shifted | Marked
TEXT_BYTES = 300  # Bytes of a sentence that are kept for the report, as UTF-8.

NAMES = ('negative', 'positive')

# fmt: off
# Sentences of 1, 2, 3, ... tokens in the published training files.
_SST2_SENTENCES = (
  0, 25, 70, 122, 124, 182, 171, 184, 217, 234, 233, 243, 256, 268, 299, 265, 276, 287,
  290, 258, 252, 256, 242, 234, 212, 189, 181, 189, 134, 129, 127, 130, 108, 94, 85, 61,
  44, 50, 32, 24, 37, 22, 18, 11, 17, 10, 3, 7, 8, 4, 3, 3,
)
_SST2_PHRASES = (
  4270, 7241, 7031, 5511, 4578, 4019, 3594, 3092, 2861, 2564, 2230, 2051, 1830, 1748,
  1560, 1388, 1265, 1182, 1040, 922, 860, 820, 741, 654, 572, 505, 460, 416, 335, 297,
  281, 253, 226, 166, 152, 108, 90, 91, 60, 55, 53, 34, 30, 24, 27, 17, 9, 11, 9, 7, 6,
  3,
)
# fmt: on


@dataclasses.dataclass(frozen=True)
class SentenceData:
  """What is known of a set of labelled sentences before it is read.

  Attributes:
    name: as in `--config.dataset`.
    train: source of `tokens` int32 [max_length], 0 after the end, and `label` int32 [].
    validation: likewise, and `text` uint8 [TEXT_BYTES], the sentence itself as UTF-8.
    test: likewise.
    class_names: one a class.
    vocabulary_size: bound on the numbers of tokens, padding and unknown included.
    length_counts: entry i is the number of training sentences of i + 1 tokens.
    lengths: of the buckets that suit the set, rising.
    max_length: tokens after which sentences are cut.
    vocabulary: data_dir -> the vocabulary; of words it reads the training texts.
  """

  name: str
  train: Source
  validation: Source
  test: Source
  class_names: tuple[str, ...]
  vocabulary_size: int
  length_counts: tuple[int, ...]
  lengths: tuple[int, ...]
  max_length: int
  vocabulary: Callable[[Any], Coder]


class _Spec(NamedTuple):
  """Of a set: reads (split, data_dir) -> `text` and `label`, and what is declared.

  `coder` is the vocabulary; None: words or characters, from the training texts.
  """

  name: str
  read: Callable[[str, Any], Loaded]
  sizes: Mapping[str, int]
  vocabulary_size: int
  length_counts: tuple[int, ...]
  lengths: tuple[int, ...]
  class_names: tuple[str, ...] = NAMES
  marks: bool = False
  characters: bool = False
  coder: Any = None


def sentences(
  name: str, *, phrases: bool = False, min_count: int = 1, max_length: int | None = None
) -> SentenceData:
  """A set of labelled sentences by name; reads nothing.

  Args:
    name: of the kind sentences, or that of a set of the user's own, by its card.
    phrases: sst2: train on GLUE's phrases of the training sentences; validation and
      test stay whole sentences.
    min_count: rarer training words, or characters, are unknown.
    max_length: tokens after which sentences are cut; None: none is.

  Raises:
    ConfigError: another name, phrases of a set without, or a `min_count` of one whose
      vocabulary stands in its card.
  """
  return _data(_spec(name, phrases), min_count, max_length)


class Texts(NamedTuple):
  """A set of labelled sentences before its sentences are cut into tokens.

  Attributes:
    read: (split, data_dir) -> `text`, a list of str, and `label`, int32 [N].
    sizes: of the splits.
    class_names: one a class.
  """

  read: Callable[[str, Any], Loaded]
  sizes: Mapping[str, int]
  class_names: tuple[str, ...]


def texts(name: str, *, phrases: bool = False) -> Texts:
  """What reads a set as texts; arguments and errors as of `sentences`."""
  spec = _spec(name, phrases)
  return Texts(spec.read, spec.sizes, spec.class_names)


def _spec(name: str, phrases: bool) -> _Spec:
  card = registry.check(name, 'sentences')
  if phrases and name != 'sst2':
    raise ConfigError(f'phrases=True is not allowed: {name} has none, use sst2.')
  if card is not None:
    return _own(card)
  return _grammar() if name == 'grammar' else _sst2(phrases)


def from_texts(
  name: str,
  texts: Mapping[str, Sequence[str]],
  labels: Mapping[str, Sequence[int]],
  *,
  lengths: Sequence[int] = (),
  min_count: int = 1,
  class_names: Sequence[str] = NAMES,
) -> SentenceData:
  """A set that lies in memory: texts and labels of train, validation and test.

  Args:
    name: for the record.
    texts: by split.
    labels: by split, numbers of classes from 0.
    lengths: of the buckets; none: one of all.
    min_count: rarer training words are unknown.
    class_names: one a class.
  """

  def read(split: str, data_dir: Any) -> Loaded:
    del data_dir
    label_N = np.asarray(labels[split])
    files.check_labels(label_N, len(class_names), f'{name}/{split}')
    return Loaded(
      {'text': list(texts[split]), 'label': label_N.astype(np.int32)},
      {'name': name, 'split': split, 'kind': 'generated', 'size': len(texts[split])},
    )

  counts = length_counts(texts['train'])
  longest = max(len(vocabulary.tokenise(t)) for part in texts.values() for t in part)
  spec = _Spec(
    name=name,
    read=read,
    sizes={split: len(part) for split, part in texts.items()},
    vocabulary_size=len(vocabulary.build(texts['train'])),
    length_counts=counts,
    lengths=tuple(lengths) or (longest,),
    class_names=tuple(class_names),
  )
  return _data(spec, min_count, None)


def _grammar() -> _Spec:
  def read(split: str, data_dir: Any) -> Loaded:
    del data_dir
    found = grammar.reviews(split)
    lines = (f'{r.label} {r.text}\n' for s in grammar.SIZES for r in grammar.reviews(s))
    registry.verify('grammar', ''.join(lines).encode())
    data = {
      'text': [r.text for r in found],
      'label': np.array([r.label for r in found], np.int32),
    }
    origin = {
      'name': 'grammar',
      'split': split,
      'kind': 'generated',
      'size': len(found),
    }
    return Loaded(data, origin)

  return _Spec(
    name='grammar',
    read=read,
    sizes=grammar.SIZES,
    vocabulary_size=len(grammar.words()) + len(vocabulary.SPECIAL),
    length_counts=length_counts([r.text for r in grammar.reviews('train')]),
    lengths=(9, grammar.MAX_TOKENS),
  )


def _sst2(phrases: bool) -> _Spec:
  def read(split: str, data_dir: Any) -> Loaded:
    return text.sst2(split, data_dir, phrases=phrases and split == 'train')

  return _Spec(
    name='sst2',
    read=read,
    sizes=text.SST2_COUNTS | ({'train': text.SST2_NUM_PHRASES} if phrases else {}),
    vocabulary_size=14818 if phrases else 14830,
    length_counts=_SST2_PHRASES if phrases else _SST2_SENTENCES,
    # The longest sentence, one of the test split, has 56 tokens.
    lengths=(3, 6, 11, 20, 56) if phrases else (12, 20, 30, 56),
  )


def _own(card: cards.Card) -> _Spec:
  facts = card.facts

  def read(split: str, data_dir: Any) -> Loaded:
    found = cards.source(card, split).read(data_dir)
    text_NL, label_N = found.data['text'], np.asarray(found.data['label'])
    return Loaded({'text': texts_of(text_NL), 'label': label_N}, found.origin)

  return _Spec(
    name=card.name,
    read=read,
    sizes=facts['sizes'],
    vocabulary_size=facts['vocabulary_size'],
    length_counts=tuple(facts['length_counts']),
    lengths=tuple(facts['lengths']),
    class_names=tuple(facts['classes']),
    marks=True,
    characters=facts.get('tokens') == 'characters',
    coder=coder_of(facts),
  )


def coder_of(facts: Mapping[str, Any]) -> Padded | Shifted | None:
  """The vocabulary of padded rows in a card; None: words or characters of the texts."""
  kind = facts.get('tokens')
  if kind == 'bpe':
    return Padded(of_facts(facts))
  return Shifted(of_facts(facts)) if kind == FILE else None


def length_counts(
  texts: Sequence[str], marks: bool = False, characters: bool = False
) -> tuple[int, ...]:
  """How many texts have 1, 2, 3, ... tokens; one without any counts as of 1."""
  form = marks, characters
  counts = collections.Counter(len(vocabulary.tokenise(t, *form)) or 1 for t in texts)
  return tuple(counts[n] for n in range(1, max(counts) + 1))


def _data(spec: _Spec, min_count: int, max_length: int | None) -> SentenceData:
  if min_count < 1:
    raise ConfigError(f'min_count={min_count} is not allowed: must be at least 1.')
  if min_count > 1 and spec.coder is not None:
    raise ConfigError(
      f'min_count={min_count} is not allowed: {spec.name} is cut into '
      f'{spec.coder.unit}s, all of which are known: leave it out.'
    )
  longest = spec.lengths[-1] if max_length is None else max_length
  if longest < 1:
    raise ConfigError(f'max_length={longest} is not allowed: must be at least 1.')

  def words(data_dir: Any = None) -> Coder:
    if spec.coder is not None:
      return spec.coder
    return _vocabulary(spec, min_count, spec.read('train', data_dir))

  def source(split: str) -> Source:
    shapes = {
      'tokens': jax.ShapeDtypeStruct((longest,), np.int32),
      'label': jax.ShapeDtypeStruct((), np.int32),
    }
    if split != 'train':
      shapes['text'] = jax.ShapeDtypeStruct((TEXT_BYTES,), np.uint8)
    read = functools.partial(_read, spec, split, min_count, longest)
    return Source(spec.name, split, shapes, spec.sizes[split], read)

  return SentenceData(
    name=spec.name,
    train=source('train'),
    validation=source('validation'),
    test=source('test'),
    class_names=spec.class_names,
    vocabulary_size=spec.vocabulary_size,
    length_counts=spec.length_counts,
    lengths=spec.lengths,
    max_length=longest,
    vocabulary=words,
  )


def _vocabulary(spec: _Spec, min_count: int, train: Loaded) -> Coder:
  if spec.coder is not None:
    return spec.coder
  texts = train.data['text']
  vocab = vocabulary.build(texts, min_count, spec.marks, spec.characters)
  if len(vocab) > spec.vocabulary_size:
    raise DataError(
      f'{spec.name}/train: expected a vocabulary of at most {spec.vocabulary_size} '
      f'words, found {len(vocab)}: replace the files by undamaged ones.'
    )
  return vocab


def _read(
  spec: _Spec, split: str, min_count: int, max_length: int, data_dir: Any
) -> Loaded:
  train = spec.read('train', data_dir)
  vocab = _vocabulary(spec, min_count, train)
  found = train if split == 'train' else spec.read(split, data_dir)
  texts = found.data['text']
  # A text of which nothing is left has one token, too.
  encoded = [list(vocab.encode(t)) or [vocabulary.UNKNOWN] for t in texts]
  data = {
    'tokens': vocabulary.collate(encoded, max_length),
    'label': found.data['label'],
  }
  unknown = sum(s.count(vocabulary.UNKNOWN) for s in encoded)
  if split != 'train':
    data['text'] = as_bytes(texts, TEXT_BYTES)
  return Loaded(
    data,
    {
      **found.origin,
      'vocabulary': len(vocab),
      'unknown_share': round(unknown / sum(map(len, encoded)), 6),
    },
  )


def as_bytes(texts: Sequence[str], width: int) -> np.ndarray:
  """UTF-8, uint8 [N, width], zeros after the end; what is longer is cut."""
  out_NL = np.zeros((len(texts), width), np.uint8)
  for row, sentence in zip(out_NL, texts, strict=True):
    # A letter that the end cuts in two is left out.
    kept = sentence.encode()[:width].decode(errors='ignore').encode()
    row[: len(kept)] = np.frombuffer(kept, np.uint8)
  return out_NL


def texts_of(text_NL: np.ndarray) -> list[str]:
  """Sentences from the field `text`."""
  return [bytes(row).rstrip(b'\0').decode() for row in np.asarray(text_NL, np.uint8)]
