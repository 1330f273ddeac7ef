"""Film reviews from a small grammar, labelled by what they say in the end.

Word order decides the label: a negation turns the one adjective after it, of two
opposite clauses the main one counts ("A , but B" says B, "A , although B" says A). Two
orders of the same words have different labels, so that a bag of words cannot tell them
apart. Labels: 0 negative, 1 positive, as many of each.
"""

import functools
from typing import NamedTuple

import numpy as np

SIZES = {'train': 1600, 'validation': 400, 'test': 400}
MAX_TOKENS = 18

GOOD = tuple(
  'good great charming clever funny warm brilliant moving fresh gripping'.split()
)
BAD = tuple('bad dull awful clumsy boring cold stale painful lifeless silly'.split())
NOUNS = tuple(
  'film plot cast acting script story music ending dialogue direction humour'.split()
)
VERBS = ('is', 'was', 'seems', 'feels', 'looks')
DEGREES = ('very', 'quite', 'really', 'rather', 'truly')
NEGATIONS = ('not', 'never', 'hardly')
DENIALS = ('nobody called', 'no one would call', 'you could not call')
CLAIMS = ('everyone called', 'many would call', 'you could call')
OPENERS = ('i think', 'they say', 'in short ,', 'this time')


class Review(NamedTuple):
  """One sentence and its label, 0 or 1."""

  text: str
  label: int


def words() -> frozenset[str]:
  """Every word that a review can hold."""
  parts = (*GOOD, *BAD, *NOUNS, *VERBS, *DEGREES, *NEGATIONS)
  phrases = (*DENIALS, *CLAIMS, *OPENERS, 'the , but although')
  return frozenset(w for phrase in (*parts, *phrases) for w in phrase.split())


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
  return options[rng.integers(len(options))]


def _clause(rng: np.random.Generator, positive: bool) -> str:
  """One statement of the wanted sentiment, negated in four cases of ten."""
  negated = rng.random() < 0.4
  adjective = _pick(rng, GOOD if positive != negated else BAD)
  noun = f'the {_pick(rng, NOUNS)}'
  if rng.random() < 0.3:
    return f'{_pick(rng, DENIALS if negated else CLAIMS)} {noun} {adjective}'
  middle = [_pick(rng, NEGATIONS)] if negated else []
  if rng.random() < 0.5:
    middle.append(_pick(rng, DEGREES))
  return ' '.join([noun, _pick(rng, VERBS), *middle, adjective])


def review(rng: np.random.Generator, label: int) -> Review:
  """One sentence with the wanted label."""
  says = functools.partial(_clause, rng)
  positive = bool(label)
  kind = rng.random()
  if kind < 0.35:
    text = says(positive)
    if rng.random() < 0.5:
      text = f'{_pick(rng, OPENERS)} {text}'
  elif kind < 0.6:
    text = f'{says(not positive)} , but {says(positive)}'
  elif kind < 0.8:
    text = f'although {says(not positive)} , {says(positive)}'
  else:
    text = f'{says(positive)} , although {says(not positive)}'
  return Review(text, label)


@functools.lru_cache(maxsize=4)
def reviews(split: str, seed: int = 0) -> tuple[Review, ...]:
  """The sentences of 'train', 'validation' or 'test', a pure function of the seed.

  No sentence occurs twice, within a split or in two of them.
  """
  rng = np.random.default_rng(seed)
  found: dict[str, Review] = {}
  total = sum(SIZES.values())
  while len(found) < total:
    # The label follows the count, so that each split holds as many of both.
    new = review(rng, len(found) % 2)
    found.setdefault(new.text, new)
  start = 0
  for name, size in SIZES.items():
    if name == split:
      return tuple(found.values())[start : start + size]
    start += size
  raise ValueError(f'split={split!r}: must be one of {", ".join(SIZES)}.')
