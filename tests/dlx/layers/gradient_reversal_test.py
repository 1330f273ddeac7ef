"""Gradient reversal: the identity forward, the gradient turned round backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.layers.gradient_reversal import ramp, reverse_gradient


@pytest.mark.parametrize('strength', [0.0, 0.5, 1.0])
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_identity_forward_and_reversed_backward(strength, dtype):
  x = jnp.arange(6, dtype=dtype).reshape(2, 3)
  strength = jnp.float32(strength)
  y, back = jax.vjp(reverse_gradient, x, strength)
  np.testing.assert_array_equal(y, x)
  gradient, of_strength = back(2 * jnp.ones_like(y))
  assert gradient.dtype == dtype and of_strength == 0
  np.testing.assert_array_equal(gradient, jnp.full_like(x, -2 * strength))


def test_two_players_by_hand():
  # f = (d (w x))^2 with w = 2, d = 3, x = 1: df/dd = 24, df/dw = 36, turned round.
  f = lambda w, d: (d * reverse_gradient(w, 0.5)) ** 2
  assert jax.grad(f, (0, 1))(2.0, 3.0) == (-18.0, 24.0)


def test_ramp():
  p = np.linspace(0, 1, 11)
  np.testing.assert_allclose(ramp(p), 2 / (1 + np.exp(-10 * p)) - 1, atol=1e-6)
