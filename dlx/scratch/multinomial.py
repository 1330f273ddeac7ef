"""Sampling of categories by weights, in two ways, with and without replacement.

Weights w_1 ... w_K >= 0 need not sum to 1: category k has probability w_k / sum(w).

Inverse of the distribution function: the weights are laid side by side on a line of
length sum(w), and the category at a uniform position is taken. Without replacement the
line is laid anew, without the category, for each draw.

  weights 1, 0, 3   line 0 [0: 0..1) [2: 1..4) 4   position 0.9 -> 0, position 1 -> 2

Gumbel: with independent u_k uniform on (0, 1) and G_k = -log(-log(u_k)), the index of
the largest log(w_k) + G_k has those probabilities (Gumbel 1954; arXiv:1411.0030), and
the n largest, in order, are n draws without replacement (arXiv:1903.06059). The reason:
-log(u_k) / w_k is the waiting time for the first event of rate w_k; events come first
by their rates, and given the first, the others wait as before. It takes no loop and no
sum, and needs logits alone: `jax.random.categorical` samples so.

>>> weights = np.array([1.0, 0.0, 3.0])
>>> draws = multinomial(weights, 10_000, np.random.default_rng(1), replacement=True)
>>> (np.bincount(draws) / 10_000).round(2).tolist()
[0.25, 0.0, 0.75]
>>> sorted(multinomial(weights, 2, np.random.default_rng(0)).tolist())
[0, 2]
"""

import numpy as np

METHODS = ('gumbel', 'inverse')


def multinomial(
  weights: np.ndarray,
  num_samples: int,
  rng: np.random.Generator,
  replacement: bool = False,
  method: str = 'gumbel',
) -> np.ndarray:
  """Draws categories; the arguments are those of `torch.multinomial`.

  Args:
    weights: [..., K], finite and not negative, each row with a sum above 0.
    num_samples: how many of each row, at least 0.
    rng: equal generators give equal draws; the two methods give others.
    replacement: whether a category may be drawn again.
    method: one of METHODS.

  Returns:
    [..., num_samples] in 0 ... K-1, in the order of the draws; never one of weight 0.

  Raises:
    ValueError: weights that are no weights; more samples without replacement than a
      row has categories of weight above 0.

  >>> multinomial(np.ones((2, 3)), 3, np.random.default_rng(1), method='inverse').shape
  (2, 3)
  >>> multinomial(np.array([1.0, 0.0]), 2, np.random.default_rng(0))
  Traceback (most recent call last):
  ValueError: 2 samples without replacement, but a row has 1 weights above 0.
  """
  weights = np.asarray(weights, np.float64)
  if method not in METHODS:
    raise ValueError(f'method={method!r} is not one of {", ".join(METHODS)}.')
  if not (np.isfinite(weights) & (weights >= 0)).all():
    raise ValueError('A weight is negative or not finite.')
  least = np.min((weights > 0).sum(-1), initial=weights.shape[-1])
  if least == 0:
    raise ValueError('A row has no weight above 0.')
  if num_samples > least and not replacement:
    raise ValueError(
      f'{num_samples} samples without replacement, but a row has {least} weights '
      'above 0.'
    )
  rows = weights.reshape(-1, weights.shape[-1])
  sample = by_gumbel if method == 'gumbel' else by_inverse
  drawn = [sample(row, num_samples, rng, replacement) for row in rows]
  return np.reshape(np.array(drawn, int), (*weights.shape[:-1], num_samples))


def by_inverse(
  weights: np.ndarray, num_samples: int, rng: np.random.Generator, replacement: bool
) -> np.ndarray:
  """Positions on a line of the weights; O(K + n log K), or O(K n) if not replaced.

  >>> by_inverse(np.array([0.0, 2.0, 0.0]), 4, np.random.default_rng(0), True).tolist()
  [1, 1, 1, 1]
  """
  if replacement:
    return at_positions(weights, rng.random(num_samples))
  left, drawn = weights.copy(), []
  for _ in range(num_samples):
    drawn.append(int(at_positions(left, rng.random(1))[0]))
    left[drawn[-1]] = 0
  return np.array(drawn, int)


def at_positions(weights: np.ndarray, u: np.ndarray) -> np.ndarray:
  """The category at each share u in [0, 1) of the line.

  A category holds its left end and not its right one, so that one of weight 0 holds
  nothing. u times the length may round up to the end: that is of the last category.

  >>> at_positions(np.array([1.0, 0.0, 3.0, 0.0]), np.array([0, 0.24, 0.25, 0.99]))
  array([0, 0, 2, 2])
  """
  ends = np.cumsum(weights / weights.max())  # Ratios count; no sum overflows.
  last = np.flatnonzero(weights)[-1]
  return np.minimum(np.searchsorted(ends, u * ends[-1], side='right'), last)


def by_gumbel(
  weights: np.ndarray, num_samples: int, rng: np.random.Generator, replacement: bool
) -> np.ndarray:
  """The largest of log-weights with Gumbel noise; with replacement for each anew.

  >>> by_gumbel(np.array([0.0, 2.0, 0.0]), 4, np.random.default_rng(0), True).tolist()
  [1, 1, 1, 1]
  """
  with np.errstate(divide='ignore'):
    logits = np.log(weights)  # -inf of weight 0, which noise does not move.
  if replacement:
    return np.argmax(logits + gumbel(rng, (num_samples, len(weights))), -1)
  return np.argsort(-(logits + gumbel(rng, (len(weights),))))[:num_samples]


def gumbel(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
  """Standard Gumbel noise, finite: -log of the exponential law, which is -log(u)."""
  tiny = np.finfo(np.float64).tiny
  return -np.log(np.maximum(rng.exponential(size=shape), tiny))
