"""Pairs of texts by name: what `--config.dataset` of an encoder-decoder takes.

reverse, sort   generated strings (strings.py), by characters
phrases         sentences of a grammar (phrases.py), English to German, by words
multi30k        captions, English to German (arXiv:1605.00459), by words

Any other name is that of a set of the user's own, by its card: `launch.data pairs`, by
words, characters, byte pairs or a tokenizer.json. Source and target have one
vocabulary. Looking a name up reads nothing; a vocabulary of words or characters is
built from the training texts.
"""

import dataclasses
import functools
from typing import Any, Callable, Mapping, NamedTuple

import jax
import numpy as np

from dlx.data.dataset import Loaded, Source
from dlx.data.formats import text
from dlx.data.sets import cards, phrases, registry, strings
from dlx.data.sets.characters import Characters
from dlx.data.sets.sentences import Coder, as_bytes, coder_of, texts_of
from dlx.data.text import vocabulary
from dlx.data.text.padded import Padded, Shifted
from dlx.errors import ConfigError, DataError

SIDES = ('source', 'target')


@dataclasses.dataclass(frozen=True)
class PairData:
  """What is known of a set of pairs before it is read.

  Attributes:
    name: as in `--config.dataset`.
    train: `source` int32 [S] and `target` int32 [T], PAD after the end; a target that
      was not cut has `end` behind it.
    validation: likewise.
    test: likewise.
    vocabulary_size: V: tokens are in [0, V), padding and `end` included.
    end: the token V - 1, which stands in no text.
    lengths: S and T.
    unit: what a token is: character, word or token (a byte pair).
    length_counts: entry i counts training pairs whose longer side has i + 1 tokens;
      None: not known.
    bucket_lengths: of batches of pairs of like length, which suit the set, rising.
    names: of the two sides, e.g. languages.
    vocabulary: data_dir -> text as tokens and back; of words it reads the training
      texts, unless a split was read before.
  """

  name: str
  train: Source
  validation: Source
  test: Source
  vocabulary_size: int
  end: int
  lengths: tuple[int, int]
  unit: str
  length_counts: tuple[int, ...] | None
  bucket_lengths: tuple[int, ...]
  names: tuple[str, str]
  vocabulary: Callable[[Any], Any]


class _Spec(NamedTuple):
  """Of a set: what reads it, and what is declared.

  Attributes:
    read: (split, data_dir) -> `source` and `target`, texts; of characters their tokens.
    sizes: of the splits.
    num_tokens: bound on the numbers of tokens.
    longest: tokens of the longest source and target.
    widths: bytes of them, as UTF-8.
    names: of the sides.
    coder: the vocabulary; None: the words of the training texts, or their characters.
    characters: whether it is these.
    length_counts: see PairData, of texts that are not cut; the end of a target counts.
    bucket_lengths: see PairData; none: one of all.
  """

  read: Callable[[str, Any], Loaded]
  sizes: Mapping[str, int]
  num_tokens: int
  longest: tuple[int, int]
  widths: tuple[int, int]
  names: tuple[str, str]
  coder: Padded | Shifted | None = None
  characters: bool = False
  length_counts: tuple[int, ...] | None = None
  bucket_lengths: tuple[int, ...] = ()


def translation(
  name: str, *, num_words: int | None = None, max_length: int | None = None
) -> PairData:
  """A set of pairs by name; reads at most its card.

  Args:
    name: of the kind translation, or that of a set of the user's own.
    num_words: of a vocabulary of words the most frequent, which are known; None: all.
    max_length: tokens after which sources and targets are cut; None: none is.

  Raises:
    ConfigError: another name, or a number of words of a set that has none.
  """
  spec = _spec(name)
  if num_words is not None and spec.coder is not None:
    raise ConfigError(
      f'num_words={num_words} is not allowed: {name} is cut into {spec.coder.unit}s, '
      'all of which are known: leave it out.'
    )
  for field, value in (('num_words', num_words), ('max_length', max_length)):
    if value is not None and value < 1:
      raise ConfigError(f'{field}={value} is not allowed: must be at least 1.')
  known = spec.num_tokens
  if num_words is not None:
    known = min(known, num_words + len(vocabulary.SPECIAL))
  most = max(spec.longest) + 1 if max_length is None else max_length
  lengths = min(spec.longest[0], most), min(spec.longest[1] + 1, most)

  built: list[Coder] = []

  def coder(data_dir: Any = None) -> Coder:
    if not built:  # Figures ask without knowing where the data lie.
      built.append(spec.coder or _words(name, spec, known, data_dir))
    return built[0]

  def source(split: str) -> Source:
    shapes = {
      side: jax.ShapeDtypeStruct((n,), np.int32) for side, n in zip(SIDES, lengths)
    }
    read = functools.partial(_read, spec, split, coder, known, lengths)
    return Source(name, split, shapes, spec.sizes[split], read)

  validation = source('validation')
  unit = 'character' if spec.characters else 'word'
  unit = unit if spec.coder is None else spec.coder.unit
  return PairData(
    name=name,
    train=dataclasses.replace(source('train'), held=validation),
    validation=validation,
    test=source('test'),
    vocabulary_size=known + 1,
    end=known,
    lengths=lengths,
    unit=unit,
    length_counts=spec.length_counts,
    bucket_lengths=_below(spec.bucket_lengths, max(lengths)),
    names=spec.names,
    vocabulary=coder,
  )


def texts(name: str, split: str) -> Source:
  """A split as people read it: `text`, the sources, and `target`, uint8 [L] of UTF-8.

  Raises:
    ConfigError: another name.
  """
  spec = _spec(name)
  fields = dict(zip(('text', 'target'), zip(SIDES, spec.widths)))

  def read(data_dir: Any) -> Loaded:
    found = spec.read(split, data_dir)
    data = {}
    for field, (side, width) in fields.items():
      x = found.data[side]
      x = (
        x if spec.coder is None or isinstance(x[0], str) else map(spec.coder.decode, x)
      )
      data[field] = as_bytes(list(x), width)
    return Loaded(data, found.origin)

  shapes = {k: jax.ShapeDtypeStruct((n,), np.uint8) for k, (_, n) in fields.items()}
  return Source(name, split, shapes, spec.sizes[split], read)


def _spec(name: str) -> _Spec:
  card = registry.check(name, 'translation')
  if card is not None:
    return _own(card)
  known = {'multi30k': _multi30k, 'phrases': _phrases}
  return known[name]() if name in known else _strings(name)


def _strings(task: str) -> _Spec:
  characters = '\0' + strings.SYMBOLS
  both = strings.LENGTH, strings.LENGTH
  return _Spec(
    read=lambda split, data_dir: strings.read(task, split),
    sizes=strings.SIZES,
    num_tokens=len(characters),
    longest=both,
    widths=both,
    names=('string', strings.TASKS[task]),
    coder=Padded(Characters(characters)),
  )


def _multi30k() -> _Spec:
  def read(split: str, data_dir: Any) -> Loaded:
    found = text.multi30k(split, data_dir)
    return Loaded(dict(zip(SIDES, (found.data['en'], found.data['de']))), found.origin)

  # Words and marks of the training files; the longest texts of all splits. In buckets
  # of 13, 17, 24 and 46 tokens 21 % are padding, in one of all 69 %.
  return _Spec(
    read,
    text.MULTI30K_COUNTS,
    25941,
    (41, 45),
    (205, 257),
    ('en', 'de'),
    length_counts=text.MULTI30K_LENGTH_COUNTS,
    bucket_lengths=(13, 17, 24, 46),
  )


def _phrases() -> _Spec:
  return _Spec(
    lambda split, data_dir: phrases.read(split),
    phrases.SIZES,
    phrases.NUM_TOKENS,
    phrases.LONGEST,
    phrases.WIDTHS,
    phrases.NAMES,
  )


def _own(card: cards.Card) -> _Spec:
  facts = card.facts

  def read(split: str, data_dir: Any) -> Loaded:
    found = cards.source(card, split).read(data_dir)
    return Loaded({s: texts_of(found.data[s]) for s in SIDES}, found.origin)

  first, second = facts['vocabulary_sizes']
  coder = coder_of(facts)
  (s_width,), (t_width,) = (card.shapes[side].shape for side in SIDES)
  return _Spec(
    read=read,
    sizes=facts['sizes'],
    # Of the words of both sides those that are alike are one.
    num_tokens=first if coder else first + second - len(vocabulary.SPECIAL),
    longest=tuple(facts['longest']),
    widths=(s_width, t_width),
    names=tuple(facts['languages']),
    coder=coder,
    characters=facts.get('tokens') == 'characters',
    # Sets that were prepared before 2026-12-01 lack them.
    length_counts=tuple(facts['length_counts']) if 'length_counts' in facts else None,
    bucket_lengths=tuple(facts.get('bucket_lengths', ())),
  )


def _below(lengths: tuple[int, ...], longest: int) -> tuple[int, ...]:
  """Buckets of texts that are cut at `longest`."""
  return (*(n for n in lengths if n < longest), longest)


def _words(name: str, spec: _Spec, known: int, data_dir: Any) -> vocabulary.Vocab:
  """The most frequent words, or characters, of both sides of the training texts."""
  train = spec.read('train', data_dir).data
  texts = [*train['source'], *train['target']]
  found = vocabulary.build(texts, 1, True, spec.characters)
  if len(found) > spec.num_tokens:
    raise DataError(
      f'{name}/train: expected a vocabulary of at most {spec.num_tokens} words, found '
      f'{len(found)}: replace the files by undamaged ones.'
    )
  return vocabulary.Vocab(found.words[:known], True, spec.characters)


def _read(
  spec: _Spec,
  split: str,
  coder: Callable[[Any], Any],
  end: int,
  lengths: tuple[int, int],
  data_dir: Any,
) -> Loaded:
  found = spec.read(split, data_dir)
  words, origin = coder(data_dir), dict(found.origin)
  coded = {}
  for side in SIDES:
    coded[side] = [
      list(words.encode(x)) if isinstance(x, str) else x for x in found.data[side]
    ]
    if isinstance(words, vocabulary.Vocab):
      unknown = sum(row.count(vocabulary.UNKNOWN) for row in coded[side])
      origin[f'unknown_share_{side}'] = round(unknown / sum(map(len, coded[side])), 6)
  coded['target'] = [[*row, end] for row in coded['target']]
  data = {s: vocabulary.collate(x, n) for (s, x), n in zip(coded.items(), lengths)}
  return Loaded(data, {**origin, 'vocabulary': len(words)})
