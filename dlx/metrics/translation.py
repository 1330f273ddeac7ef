"""BLEU of texts (Papineni et al. 2002) from counts that add up; host, plain Python.

Equal to sacrebleu's corpus BLEU of its default tokens, `13a`, and smoothing, `exp`.
"""

from collections import Counter
import math
import re
from typing import Hashable, Mapping, NamedTuple, Sequence

from dlx.errors import ConfigError
from dlx.state import Metric

BLEU: Mapping[str, Metric] = {
  'bleu': Metric(
    'BLEU',
    'higher',
    'Geometric mean of the shares of n-grams, n from 1 to 4, that stand in a '
    'reference, lowered where the texts are too short.',
    '%',
    'share',
  )
}
ORDER = 4  # The longest n-grams.
SMOOTHING = ('exp', 'none')


class BleuCounts(NamedTuple):
  """What is counted of some sentences; those of two parts added are those of both.

  Attributes:
    matches: of n-grams that stand in a reference, n from 1 to ORDER.
    totals: of n-grams.
    length: tokens.
    reference_length: tokens of the references, for each sentence those of the one whose
      length is nearest, the shorter of two.
  """

  matches: tuple[int, ...] = (0,) * ORDER
  totals: tuple[int, ...] = (0,) * ORDER
  length: int = 0
  reference_length: int = 0

  def plus(self, other: 'BleuCounts') -> 'BleuCounts':
    """Those of both."""
    both = lambda a, b: tuple(x + y for x, y in zip(a, b, strict=True))
    return BleuCounts(
      both(self.matches, other.matches),
      both(self.totals, other.totals),
      self.length + other.length,
      self.reference_length + other.reference_length,
    )


def bleu_counts(
  tokens: Sequence[Hashable], references: Sequence[Sequence[Hashable]]
) -> BleuCounts:
  """Counts of one sentence.

  Args:
    tokens: of the sentence: words of `bleu_tokens`, or any.
    references: at least one, likewise.

  Raises:
    ConfigError: no reference.
  """
  if not references:
    raise ConfigError('references=() is not allowed: BLEU needs at least one.')
  own, most = _grams(tokens), Counter()
  for reference in references:
    most |= _grams(reference)  # The largest count of each n-gram.
  matches, totals = [0] * ORDER, [0] * ORDER
  for gram, count in own.items():
    totals[len(gram) - 1] += count
    matches[len(gram) - 1] += min(count, most[gram])
  lengths = [len(reference) for reference in references]
  nearest = min(lengths, key=lambda n: (abs(n - len(tokens)), n))
  return BleuCounts(tuple(matches), tuple(totals), len(tokens), nearest)


def _grams(tokens: Sequence[Hashable]) -> Counter:
  found = (
    tuple(tokens[i : i + n])
    for n in range(1, ORDER + 1)
    for i in range(len(tokens) - n + 1)
  )
  return Counter(found)


def bleu(counts: BleuCounts, smooth: str = 'exp') -> float:
  """BLEU in [0, 1]; 0 where no word of any sentence stands in a reference.

  Args:
    counts: of all sentences.
    smooth: 'exp': the k-th n without a match has 1 / 2^k matches; 'none': then it is 0.

  Raises:
    ConfigError: another smoothing.
  """
  if smooth not in SMOOTHING:
    raise ConfigError(
      f'smooth={smooth} is not allowed: must be {" or ".join(SMOOTHING)}.'
    )
  if not any(counts.matches):
    return 0.0
  logs, part = 0.0, 1.0
  for matches, total in zip(counts.matches, counts.totals, strict=True):
    if matches == 0 and smooth == 'exp' and total:
      part /= 2
      matches = part
    if matches == 0:  # No n-gram is so long, or none matches.
      return 0.0
    logs += math.log(matches / total) / ORDER
  short = counts.length < counts.reference_length
  penalty = 1 - counts.reference_length / counts.length if short else 0.0
  return math.exp(penalty + logs)


_ENTITIES = (('&quot;', '"'), ('&amp;', '&'), ('&lt;', '<'), ('&gt;', '>'))
_SPACED = (
  (re.compile(r'([\{-\~\[-\` -\&\(-\+\:-\@\/])'), r' \1 '),
  (re.compile(r'([^0-9])([\.,])'), r'\1 \2 '),
  (re.compile(r'([\.,])([^0-9])'), r' \1 \2'),
  (re.compile(r'([0-9])(-)'), r'\1 \2 '),
)


def bleu_tokens(text: str) -> list[str]:
  """Words and marks of a text, as mteval-v13a and sacrebleu's `13a` cut them."""
  text = text.rstrip().replace('<skipped>', '').replace('-\n', '').replace('\n', ' ')
  for entity, character in _ENTITIES:
    text = text.replace(entity, character)
  text = f' {text} '
  for pattern, replacement in _SPACED:
    text = pattern.sub(replacement, text)
  return text.split()


def corpus_bleu(
  texts: Sequence[str], references: Sequence[Sequence[str]], smooth: str = 'exp'
) -> float:
  """BLEU of texts, each with its references, in [0, 1]; 0 of no texts."""
  counts = BleuCounts()
  for text, those in zip(texts, references, strict=True):
    tokens = [bleu_tokens(reference) for reference in those]
    counts = counts.plus(bleu_counts(bleu_tokens(text), tokens))
  return bleu(counts, smooth)
