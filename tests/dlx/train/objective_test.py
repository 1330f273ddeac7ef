"""Tests for dlx/train/objective.py."""

import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.train.objective import add_up, joined

A, B = jnp.array([1.0, 2.0]), jnp.array([10.0, 30.0])


def test_one_loss_has_no_name_of_its_own():
  total, terms = add_up(A, (2,), 'loss')
  np.testing.assert_array_equal(total, [1, 2])
  assert terms == {}


def test_weighted_losses_add_up_and_are_kept_without_their_weights():
  total, terms = add_up({'a': A, 'b': (0.5, B)}, (2,), 'loss')
  np.testing.assert_array_equal(total, [6, 17])
  np.testing.assert_array_equal(terms['a'], [1, 2])
  np.testing.assert_array_equal(terms['b'], [10, 30])
  total, terms = add_up({'l1': (2, 3.0)}, (), 'penalty')
  assert float(total) == 6 and float(terms['l1']) == 3


@pytest.mark.parametrize(
  ('found', 'shape', 'message'),
  [
    (jnp.float32(1), (2,), r'The loss has the shape \(\): must be \(2,\), one value'),
    (A[:, None], (2,), r'The loss has the shape \(2, 1\)'),
    ({'a': A, 'b': (1.0, A[:1])}, (2,), r"The loss 'b' has the shape \(1,\)"),
    ({}, (2,), 'The loss is empty'),
    ({'a': (A,)}, (2,), "The loss 'a' is a tuple of 1: must be a value, or"),
    ({'loss': A}, (2,), "The loss 'loss' is not allowed"),
    (A, (), r'The loss has the shape \(2,\): must be \(\), a scalar'),
  ],
)
def test_what_is_no_loss_is_named(found, shape, message):
  with pytest.raises(ConfigError, match=message):
    add_up(found, shape, 'loss')


def test_a_name_that_is_reported_twice_is_refused():
  assert joined({'a': 1}, {'b': 2}) == {'a': 1, 'b': 2}
  with pytest.raises(ConfigError, match="'a' is reported twice"):
    joined({'a': 1}, {'b': 2, 'a': 3})
