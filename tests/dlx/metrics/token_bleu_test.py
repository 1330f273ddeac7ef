"""BLEU of tokens in a jitted program: that of the host, which is sacrebleu's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import metrics
from dlx.metrics.translation import BleuCounts
from dlx.state import add

UNKNOWN = 1
sums_of = jax.jit(lambda *rows: metrics.token_bleu_sums(*rows, fill=0, unknown=UNKNOWN))
report = jax.jit(metrics.token_bleu)


def counted(found, target):
  """On the host; an unknown word is another one wherever it stands."""
  total = BleuCounts()
  for a, b in zip(found.tolist(), target.tolist(), strict=True):
    tokens = [x for x in a if x]
    reference = [x if x != UNKNOWN else f'unknown {i}' for i, x in enumerate(b) if x]
    total = total.plus(metrics.bleu_counts(tokens, [reference]))
  return total


def drawn(seed, size, rows=6, gaps=False):
  """Rows that share some n-grams, of 0 to 9 tokens."""
  rng = np.random.default_rng(seed)
  make = lambda width: (
    rng.integers(1, size, (rows, width))
    * (np.arange(width) < rng.integers(0, width + 1, (rows, 1)))
  )
  target, found = make(9), make(7)
  found[:3, :5] = target[:3, 1:6]
  if gaps:
    found[:, 2] = 0
  return found.astype(np.int32), target.astype(np.int32)


@pytest.mark.parametrize('size', [3, 5, 40])
def test_counts_and_score_are_those_of_the_host(size):
  for seed in range(8):
    found, target = drawn(seed, size, gaps=bool(seed % 2))
    sums, wanted = sums_of(found, target, np.ones(6)), counted(found, target)
    np.testing.assert_array_equal(sums['matches'], wanted.matches)
    np.testing.assert_array_equal(sums['totals'], wanted.totals)
    assert sums['length'] == wanted.length
    assert sums['reference_length'] == wanted.reference_length
    assert float(report(sums)) == pytest.approx(metrics.bleu(wanted), abs=1e-6)


def test_by_hand():
  row = lambda *tokens: np.array([[*tokens, 0, 0]], np.int32)
  # Of 5 tokens 4 stand in the reference, of 4 pairs 3, of 3 triples 2, of 2 fours 1.
  sums = sums_of(row(2, 3, 4, 5, 9), row(2, 3, 4, 5, 6, 7), np.ones(1))
  assert sums['matches'].tolist() == [4, 3, 2, 1]
  assert sums['totals'].tolist() == [5, 4, 3, 2]
  wanted = np.exp(1 - 6 / 5) * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
  assert float(report(sums)) == pytest.approx(wanted)
  # As often as in the reference, and nothing is an unknown word.
  sums = sums_of(row(2, 2, 2, UNKNOWN), row(2, 2, UNKNOWN), np.ones(1))
  assert sums['matches'].tolist() == [2, 1, 0, 0]


def test_rows_add_up_and_a_weight_of_0_counts_nothing():
  found, target = drawn(3, 5)
  weight = np.array([1, 1, 0, 1, 0, 1.0])
  whole = sums_of(found, target, weight)
  kept = weight > 0
  parts = [sums_of(found[r], target[r], np.ones(2)) for r in ([0, 1], [3, 5])]
  assert kept.sum() == 4
  for key, x in add(*parts).items():
    np.testing.assert_array_equal(x, whole[key])


def test_nothing_right_or_nothing_there_is_0():
  none, some = np.zeros((2, 5), np.int32), np.full((2, 5), 3, np.int32)
  for found, target in ((none, some), (some, none), (none, none), (some, some + 1)):
    assert report(sums_of(found, target, np.ones(2))) == 0
  # A search that broke down gives -1: tokens that match nothing.
  assert report(sums_of(jnp.full((2, 5), -1), some, np.ones(2))) == 0
  assert report(sums_of(some, some, np.ones(2))) == 1


if __name__ == '__main__':
  pytest.main([__file__])
