"""Penalties on the size of weights, for `supervised(..., penalty=)`.

penalty=lambda params, sown: {'l2': (config.l2, losses.l2(params))}
"""

from typing import Callable

import jax
import jax.numpy as jnp

from dlx.precision import at_least_float32
from dlx.state import Array, Metric, PyTree

# The declaration of `l2` where an experiment reports it.
L2 = Metric(
  'Half the squared weights',
  None,
  'Half the sum of the squares of all kernels, without its weight in the loss.',
)


def kernels(params: PyTree) -> PyTree:
  """True for leaves of rank 2 and more: kernels, not biases, scales and shifts."""
  return jax.tree.map(lambda p: jnp.ndim(p) > 1, params)


def l1(params: PyTree, mask: Callable[[PyTree], PyTree] = kernels) -> Array:
  """Sum of the absolute values of the weights that the mask chooses.

  Its gradient is the sign, 0 at 0; weights that are exactly 0 need
  `optim.proximal_l1`.
  """
  # The derivative of jnp.abs is 1 at 0 in jax 0.11.
  return _total(params, mask, lambda x: (x * jax.lax.stop_gradient(jnp.sign(x))).sum())


def l2(params: PyTree, mask: Callable[[PyTree], PyTree] = kernels) -> Array:
  """Half the sum of squares of the weights that the mask chooses.

  Its gradient is the weight: `(decay, l2)` is a weight decay of `decay` for gradient
  descent, with or without momentum. For Adam it is not, as the gradient of the penalty
  is divided by the root of the second moment, too (arXiv:1711.05101).
  """
  return _total(params, mask, lambda x: 0.5 * jnp.square(x).sum())


def _total(params, mask, one) -> Array:
  chosen = zip(jax.tree.leaves(params), jax.tree.leaves(mask(params)), strict=True)
  parts = [one(at_least_float32(p)) for p, c in chosen if c]
  return sum(parts, start=jnp.zeros((), jnp.float32))
