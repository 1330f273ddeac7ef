"""A layer that turns the gradient round (Ganin and Lempitsky, arXiv:1409.7495)."""

import jax
import jax.numpy as jnp

from dlx.state import Array


@jax.custom_vjp
def reverse_gradient(x: Array, strength: Array | float) -> Array:
  """x itself; the gradient that comes back is multiplied by -strength.

  What follows learns to tell two domains apart, what comes before learns that it
  cannot.

  Args:
    x: any shape.
    strength: at least 0; it receives no gradient. 0: nothing comes back.
  """
  del strength
  return x


def _forward(x, strength):
  return x, jnp.asarray(strength)


def _backward(strength, g):
  return -strength.astype(g.dtype) * g, jnp.zeros_like(strength)


reverse_gradient.defvjp(_forward, _backward)


def ramp(progress: Array | float, gamma: float = 10.0) -> Array:
  """Strength from 0 to 1 over a run: 2 / (1 + exp(-gamma p)) - 1 (arXiv:1505.07818).

  The discriminator is noise at first, and so is what it would teach.

  Args:
    progress: p, share of the run that is done, in [0, 1].
    gamma: above 0; with 10 half the strength is there after 0.11 of the run.
  """
  return jnp.tanh(gamma * jnp.asarray(progress, jnp.float32) / 2)
