"""BLEU: by hand, sacrebleu's numbers, additivity, extremes."""

import math

import pytest

from dlx import metrics
from dlx.errors import ConfigError
from dlx.metrics.translation import BleuCounts

# `corpus_bleu(texts, references)` of sacrebleu 2.6.0, over 100, with smooth_method exp
# and none. 2000 drawn corpora agreed to 1e-15 with either, 2026-11-30.
SACREBLEU = [
  (
    ['The cat sat on the mat.'],
    [['The cat sat on a mat.']],
    (0.488923022435, 0.488923022435),
  ),
  (
    ['It costs $5.50, e-mail 10-20 of them!', 'A 2nd one.'],
    [
      ['It costs $5.50; e-mail 10-15 of them!', 'It cost 5.50 dollars.'],
      ['A second one.', 'The 2nd one.'],
    ],
    (0.391271145018, 0.391271145018),
  ),
  (['the the the the'], [['the cat']], (0.159735776062, 0.0)),
  (
    ['So &quot;he&quot; said'],
    [['So "he" said nothing at all .']],
    (0.449328964117, 0.449328964117),
  ),
  (['no match here'], [['something else entirely']], (0.0, 0.0)),
]


@pytest.mark.parametrize(('texts', 'references', 'wanted'), SACREBLEU)
def test_is_sacrebleu(texts, references, wanted):
  for smooth, value in zip(('exp', 'none'), wanted, strict=True):
    found = metrics.corpus_bleu(texts, references, smooth)
    assert found == pytest.approx(value, abs=1e-11)


def test_by_hand():
  # Of 5 words 4 stand in the reference, of 4 pairs 3, of 3 triples 2, of 2 fours 1.
  counts = metrics.bleu_counts('a b c d x'.split(), ['a b c d e f'.split()])
  assert counts == BleuCounts((4, 3, 2, 1), (5, 4, 3, 2), 5, 6)
  wanted = math.exp(1 - 6 / 5) * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
  assert metrics.bleu(counts) == pytest.approx(wanted)
  # A word counts as often as in the reference that has it most often.
  counts = metrics.bleu_counts(['a'] * 4, [['a'], ['a', 'a', 'b']])
  assert counts.matches == (2, 1, 0, 0)
  assert counts.reference_length == 3  # The nearest to 4; of 3 and 5 the shorter.
  assert metrics.bleu_counts([1] * 4, [[1] * 5, [1] * 3]).reference_length == 3


def test_perfect_is_one_and_counts_add_up():
  texts = ['one two three four five', 'six seven eight nine', 'ten eleven']
  same = [[text] for text in texts]
  assert metrics.corpus_bleu(texts, same) == pytest.approx(1)
  counts = [metrics.bleu_counts(t.split(), [t.split()]) for t in texts]
  forwards = counts[0].plus(counts[1]).plus(counts[2])
  assert forwards == counts[2].plus(counts[0].plus(counts[1]))
  assert metrics.bleu(forwards) == metrics.corpus_bleu(texts, same)


def test_extremes():
  assert metrics.corpus_bleu([], []) == 0
  assert metrics.corpus_bleu([''], [['a word']]) == 0
  assert metrics.corpus_bleu(['a word'], [['']]) == 0
  assert metrics.corpus_bleu(['a b'], [['a b']]) == 0  # No four words, as sacrebleu.
  with pytest.raises(ConfigError, match='at least one'):
    metrics.bleu_counts(['a'], [])
  with pytest.raises(ConfigError, match='smooth=floor is not allowed: must be exp or'):
    metrics.bleu(BleuCounts(), 'floor')
  with pytest.raises(ValueError, match='shorter|longer'):
    metrics.corpus_bleu(['a'], [])
