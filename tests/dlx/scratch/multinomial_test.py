"""Draws by both methods have the probabilities of the weights, and those of JAX."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dlx.scratch import multinomial as lesson
from dlx.scratch.multinomial import METHODS, multinomial

N, M = 100_000, 30_000  # Draws with replacement; pairs without.
# Not normalised, with weights of 0 at the ends and inside, over three decades.
WEIGHTS = np.array([0.0, 5.0, 0.03, 0.0, 20.0, 1.0, 7.0, 0.0])
SEEN = WEIGHTS > 0


def rng(seed=0):
  return np.random.default_rng(seed)


def counts(drawn):
  found = np.bincount(drawn, minlength=len(WEIGHTS))
  assert found[~SEEN].sum() == 0
  return found[SEEN]


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('method', METHODS)
def test_probabilities_are_those_of_the_weights(method, seed):
  drawn = multinomial(WEIGHTS, N, rng(seed), replacement=True, method=method)
  expected = N * WEIGHTS[SEEN] / WEIGHTS.sum()
  assert stats.chisquare(counts(drawn), expected).pvalue > 0.01


@pytest.mark.parametrize('method', METHODS)
def test_distribution_is_that_of_jax(method):
  drawn = multinomial(WEIGHTS, N, rng(3), replacement=True, method=method)
  theirs = jax.random.categorical(jax.random.key(0), jnp.log(WEIGHTS), shape=(N,))
  table = np.stack([counts(drawn), counts(np.asarray(theirs))])
  assert stats.chi2_contingency(table).pvalue > 0.01


@pytest.mark.parametrize('method', METHODS)
def test_pairs_without_replacement(method):
  # The second draw is by the weights that are left: P(i, j) = p_i p_j / (1 - p_i).
  weights = np.array([1.0, 2.0, 4.0, 0.0])
  drawn = multinomial(np.tile(weights, (M, 1)), 2, rng(), method=method)
  p = weights / weights.sum()
  pairs = list(itertools.permutations(range(3), 2))
  expected = [M * p[i] * p[j] / (1 - p[i]) for i, j in pairs]
  found = [np.sum((drawn == pair).all(-1)) for pair in pairs]
  assert sum(found) == M
  assert stats.chisquare(found, expected).pvalue > 0.01


@pytest.mark.parametrize('method', METHODS)
def test_all_categories_once(method):
  drawn = multinomial(np.tile(WEIGHTS, (50, 1)), SEEN.sum(), rng(), method=method)
  assert (np.sort(drawn, -1) == np.flatnonzero(SEEN)).all()
  assert len({tuple(row) for row in drawn.tolist()}) > 10


@pytest.mark.parametrize('replacement', [True, False])
@pytest.mark.parametrize('method', METHODS)
def test_scale_counts_for_nothing_and_rows_are_apart(method, replacement):
  draw = lambda w: multinomial(w, 3, rng(5), replacement, method)
  # A power of two rounds nothing; the sum of the large ones overflows.
  for scale in (2.0**-60, 2.0**1019):
    np.testing.assert_array_equal(draw(WEIGHTS * scale), draw(WEIGHTS))
  # The first row does not depend on the second.
  first = draw(np.stack([WEIGHTS, WEIGHTS]))[0]
  np.testing.assert_array_equal(first, draw(np.stack([WEIGHTS, WEIGHTS[::-1]]))[0])
  assert draw(np.ones((2, 1, 4))).shape == (2, 1, 3)
  assert draw(np.ones((0, 4))).shape == (0, 3)
  assert multinomial(WEIGHTS, 0, rng(), replacement, method).shape == (0,)


@pytest.mark.parametrize('method', METHODS)
def test_weights_whose_ratio_underflows_are_all_drawn(method):
  drawn = multinomial(np.array([1e-300, 1e300, 1.0]), 3, rng(), method=method)
  assert drawn.tolist() == [1, 2, 0]


def test_positions_at_the_ends_of_categories():
  weights = np.array([0.0, 1.0, 0.0, 3.0])
  at = lesson.at_positions(weights, np.array([0.0, np.nextafter(0.25, 0), 0.25]))
  assert at.tolist() == [1, 1, 3]


def test_a_position_that_rounds_to_the_end():
  weights = np.array([0.1, 0.2, 0.0])
  assert lesson.at_positions(weights, np.array([np.nextafter(1, 0), 1.0])).tolist() == (
    [1, 1]
  )


def test_gumbel_noise_is_gumbel():
  assert stats.kstest(lesson.gumbel(rng(), (N,)), 'gumbel_r').pvalue > 0.01


@pytest.mark.parametrize(
  ('weights', 'n', 'told'),
  [
    ([1, 0, 2], 3, '3 samples without replacement, but a row has 2'),
    ([[1, 2], [0, 0]], 1, 'no weight above 0'),
    ([1, -1], 1, 'negative or not finite'),
    ([1, np.inf], 1, 'negative or not finite'),
    ([1, np.nan], 1, 'negative or not finite'),
    ([], 1, 'no weight above 0'),
  ],
)
def test_errors(weights, n, told):
  with pytest.raises(ValueError, match=told):
    multinomial(np.array(weights), n, rng())
  with pytest.raises(ValueError, match="'alias' is not one of gumbel, inverse"):
    multinomial(np.ones(2), 1, rng(), method='alias')
