"""English sentences and their German translations, made by a grammar.

What a word becomes depends on words far from it: articles and adjectives on the gender
of a noun and its case, the place of the verb on what begins the sentence and on the
tense, in which the participle goes to the end.

  Today the old man has seen a small dog.
  Heute hat der alte Mann einen kleinen Hund gesehen.

No sentence stands there twice, within a split or in two of them.
"""

import functools
from typing import NamedTuple

import numpy as np

from dlx.data.dataset import Loaded
from dlx.data.sets import registry

SIZES = {'train': 10000, 'validation': 500, 'test': 1000}
NAMES = ('en', 'de')
# Words and marks of the training texts; of the longest sentences the words and bytes.
NUM_TOKENS, LONGEST, WIDTHS = 149, (10, 10), (59, 63)


class _Noun(NamedTuple):
  english: str
  german: str
  gender: int  # Masculine, feminine, neuter.


class _Verb(NamedTuple):
  english: str
  german: str
  participle: str
  past: str  # The German participle.


NOUNS = tuple(
  _Noun(english, german, gender)
  for gender, pairs in enumerate(
    (
      'man Mann,dog Hund,bird Vogel,teacher Lehrer,tree Baum,fish Fisch,ball Ball',
      'woman Frau,cat Katze,flower Blume,door Tür,bridge Brücke,lamp Lampe',
      'child Kind,horse Pferd,girl Mädchen,house Haus,book Buch,ship Schiff,car Auto',
    )
  )
  for english, german in (pair.split() for pair in pairs.split(','))
)
ADJECTIVES = tuple(
  tuple(pair.split())
  for pair in (
    'small klein,old alt,young jung,red rot,big groß,new neu,black schwarz,white weiß,'
    'beautiful schön,strange seltsam'
  ).split(',')
)
VERBS = tuple(
  _Verb(*words.split())
  for words in (
    'sees sieht seen gesehen,finds findet found gefunden,buys kauft bought gekauft,'
    'paints malt painted gemalt,hears hört heard gehört,'
    'draws zeichnet drawn gezeichnet,'
    'carries trägt carried getragen,shows zeigt shown gezeigt,loves liebt loved geliebt'
  ).split(',')
)
ADVERBS = tuple(
  tuple(pair.split())
  for pair in 'today heute,often oft,sometimes manchmal,now jetzt,here hier'.split(',')
)
# By definite or not, subject or object, then gender: the article, and the ending of an
# adjective behind it.
ARTICLES = {
  ('the', False): ('der', 'die', 'das'),
  ('the', True): ('den', 'die', 'das'),
  ('a', False): ('ein', 'eine', 'ein'),
  ('a', True): ('einen', 'eine', 'ein'),
}
ENDINGS = {
  ('the', False): ('e', 'e', 'e'),
  ('the', True): ('en', 'e', 'e'),
  ('a', False): ('er', 'e', 'es'),
  ('a', True): ('en', 'e', 'es'),
}


def phrase(
  article: str, adjective: int | None, noun: int, is_object: bool
) -> tuple[str, str]:
  """A noun with what stands before it, English and German.

  Args:
    article: the or a.
    adjective: its place in ADJECTIVES; None: without one.
    noun: its place in NOUNS.
    is_object: accusative in place of nominative.
  """
  english, german, gender = NOUNS[noun]
  form = article, is_object
  both = [article], [ARTICLES[form][gender]]
  if adjective is not None:
    plain, stem = ADJECTIVES[adjective]
    both[0].append(plain)
    both[1].append(stem + ENDINGS[form][gender])
  return ' '.join([*both[0], english]), ' '.join([*both[1], german])


def sentence(
  subject: tuple[str, str],
  verb: int,
  thing: tuple[str, str],
  *,
  perfect: bool = False,
  adverb: int | None = None,
  first: bool = False,
) -> tuple[str, str]:
  """A sentence, English and German.

  Args:
    subject: what `phrase` gives, a nominative.
    verb: its place in VERBS.
    thing: the object, an accusative.
    perfect: has seen in place of sees.
    adverb: its place in ADVERBS; None: without one.
    first: whether the adverb begins the sentence.
  """
  english, german, participle, past = VERBS[verb]
  when, wann = ('', '') if adverb is None else ADVERBS[adverb]
  act = f'has {participle}' if perfect else english
  ours = (
    [when, subject[0], act, thing[0]] if first else [subject[0], act, thing[0], when]
  )
  finite, last = ('hat', past) if perfect else (german, '')
  if adverb is not None and first:  # The verb stays in the second place.
    theirs = [wann, finite, subject[1], thing[1], last]
  else:
    theirs = [subject[1], finite, wann, thing[1], last]
  return _written(ours), _written(theirs)


def _written(parts: list[str]) -> str:
  text = ' '.join(part for part in parts if part)
  return f'{text[0].upper()}{text[1:]}.'


@functools.lru_cache(maxsize=1)
def _pairs() -> list[tuple[str, str]]:
  """All pairs; adjectives and adverbs in half of the phrases and sentences."""
  rng, total = np.random.default_rng(0), sum(SIZES.values())
  found: dict[tuple[str, str], None] = {}
  drawn = lambda count: int(rng.integers(count))

  def some_phrase(is_object: bool) -> tuple[str, str]:
    adjective = drawn(len(ADJECTIVES)) if drawn(2) else None
    return phrase(('the', 'a')[drawn(2)], adjective, drawn(len(NOUNS)), is_object)

  while len(found) < total:
    pair = sentence(
      some_phrase(False),
      drawn(len(VERBS)),
      some_phrase(True),
      perfect=bool(drawn(2)),
      adverb=drawn(len(ADVERBS)) if drawn(2) else None,
      first=bool(drawn(2)),
    )
    found.setdefault(pair)
  return list(found)


def read(split: str) -> Loaded:
  """`source` and `target` of a split, lists of texts.

  Raises:
    ValueError: another split.
  """
  if split not in SIZES:
    raise ValueError(f'phrases/{split}: must be one of {[*SIZES]}.')
  every, splits = _pairs(), list(SIZES)
  registry.verify('phrases', '\n'.join('\t'.join(pair) for pair in every).encode())
  start = sum(SIZES[s] for s in splits[: splits.index(split)])
  english, german = zip(*every[start : start + SIZES[split]])
  origin = {'name': 'phrases', 'split': split, 'kind': 'generated',
            'size': SIZES[split]}  # fmt: skip
  return Loaded({'source': list(english), 'target': list(german)}, origin)
