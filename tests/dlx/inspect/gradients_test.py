"""Tests for dlx/inspect/gradients.py: the three labels, and what stands still."""

import jax
import jax.numpy as jnp
import pytest

from dlx.inspect import gradients
from dlx.state import create


@pytest.mark.parametrize(
  ('norm', 'label'),
  [
    (0.0, 'zero'),
    (9.99e-8, 'vanishing'),
    (1e-7, ''),
    (1.0, ''),
    (100.0, ''),
    (100.1, 'exploding'),
    (float('inf'), 'not finite'),
    (float('nan'), 'not finite'),
  ],
)
def test_labels_at_their_bounds(norm, label):
  assert gradients.label(norm) == label


@pytest.mark.parametrize(
  ('norms', 'label'),
  [
    ([0, 0, 0], 'zero'),
    ([0, 0.1, 0.2], ''),  # A residual branch that begins at 0.
    ([1e-9, 1, 1], 'vanishing'),
    ([0, 1e-9, 1], 'vanishing'),
    ([500, 1, 1], ''),  # One step.
    ([500, 500, 500, 1, 1], 'exploding'),
    ([500] * 10 + [1] * 90, 'exploding'),  # The first ten steps count.
  ],
)
def test_labels_over_steps(norms, label):
  assert gradients.of_steps('w', norms).label == label


def test_tensors_are_those_that_a_step_watches():
  norms = [{'gradients/a/kernel': 1.0, 'other/b': 0.0}, {'gradients/a/kernel': 3.0}]
  (found,) = gradients.tensors(norms)
  assert found == gradients.Tensor('a/kernel', 1.0, 2.0, 3.0, '')


def test_unmoved_is_bit_for_bit():
  params = {'a': jnp.array([1.0]), 'b': jnp.array([0.0])}
  first = create(params, (), jax.random.key(0), model_state={'n': jnp.zeros(2)})
  # 0 and -0 are equal, and not the same bytes.
  last = first._replace(params={'a': params['a'] + 0, 'b': -params['b']})
  assert gradients.unmoved(first, last) == {'params': ['a'], 'model_state': ['n']}


def test_long_lists_are_cut():
  assert gradients.listed(list('abcdef')) == 'a, b, c, d and 2 more'
  assert gradients.listed(list('ab')) == 'a, b'
