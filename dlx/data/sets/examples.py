"""A split of any set by its name, with its examples as a person has them."""

from typing import Mapping, NamedTuple

from dlx.data.dataset import Source
from dlx.data.sets import cards, columns, graphs, registry, translation
from dlx.data.sets.characters import characters
from dlx.data.sets.images import images, photographs
from dlx.data.sets.sentences import sentences
from dlx.errors import ConfigError


class Examples(NamedTuple):
  """A split, before it is read.

  Attributes:
    told: NAME:SPLIT, for messages.
    source: of `image` as read, `features` and columns as measured, `text`, `token` or a
      graph, with `label` or `target`; of pairs of texts both are UTF-8.
    classes: their names in order; () where the set has none.
    max_value: of images, the pixel that stands for 1.0.
    split: of a graph, the field that marks its nodes.
  """

  told: str
  source: Source
  classes: tuple[str, ...] = ()
  max_value: int = 255
  split: str = 'test'


def parse(text: str) -> tuple[str, str]:
  """(name, split) of NAME[:SPLIT]; without one the split is 'test'."""
  name, colon, split = text.rpartition(':')
  return (name, split) if colon and split in cards.SPLITS else (text, 'test')


def examples(name: str, split: str) -> Examples:
  """A split of a set; reads at most its card.

  Args:
    name: see dlx/data/sets/registry.py; NAME:K of a folder in MNIST format.
    split: train, validation or test.

  Raises:
    ConfigError: no such set or split.
  """
  plain = name.partition(':')[0]
  card = None if plain in registry.SETS else cards.find(plain)
  kind = registry.SETS[plain].kind if plain in registry.SETS else 'images'
  kind = card.kind if card else kind
  classes, max_value = tuple((card.facts.get('classes') or ()) if card else ()), 255
  parts: Mapping[str, Source | None]
  if kind == 'graphs':
    parts = dict.fromkeys(cards.SPLITS, graphs.graph(name, sparse=True).source)
  elif kind == 'photographs':
    parts = {'train': photographs()}
  elif kind == 'characters':
    text = characters(name)
    parts = {'train': text.train, 'validation': text.validation}
  elif kind == 'sentences':
    data = sentences(name)
    parts = {'train': data.train, 'validation': data.validation, 'test': data.test}
    classes = data.class_names
  elif kind == 'images':
    data = images(name)
    parts = {'train': data.train, 'validation': data.train.held, 'test': data.test}
    classes, max_value = data.class_names, data.max_value
  elif kind == 'translation':
    parts = {part: translation.texts(name, part) for part in cards.SPLITS}
  else:
    parts = columns.as_measured(name)
  there = {k: source for k, source in parts.items() if source is not None}
  if split not in there:
    raise ConfigError(
      f'dataset={name} has no split {split}: must be one of {", ".join(there)}.'
    )
  return Examples(f'{name}:{split}', there[split], classes, max_value, split)
