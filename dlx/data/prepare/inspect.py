"""What is looked up in the rows of a set of the user's own."""

import collections

import numpy as np

from dlx.data.prepare import rows
from dlx.data.sets import cards


def rows_of(card: cards.Card, split: str, most: int) -> dict[str, np.ndarray]:
  """Up to `most` rows of a split, evenly through it."""
  base = card.folder.parent if card.folder else None
  data = cards.source(card, split).read(base).data
  size = card.facts['sizes'][split]
  at = np.linspace(0, size - 1, min(most, size)).astype(int)
  return {field: np.asarray(x[at]) for field, x in data.items()}


def twins(card: cards.Card) -> list[str]:
  """How many rows have equal inputs, within splits and between them, a line each."""
  if card.kind in ('characters', 'graphs', 'series'):
    return []
  base = card.folder.parent if card.folder else None
  splits = {s: cards.source(card, s).read(base).data for s in card.facts['sizes']}
  if card.pictures is not None:
    splits = {s: cards.stored(card, s) for s in splits}
  found = []
  for split, data in splits.items():
    counts = collections.Counter(rows.digests(data))
    found.append(f'  {split}: {sum(counts.values()) - len(counts)} row(s) stand twice')
  between = len(rows.repeats(splits))
  return [*found, f'  {between} training row(s) stand in another split']
