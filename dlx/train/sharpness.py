"""Sharpness-aware minimisation: gradients where the loss near by is largest.

Flat minima generalise better, it is held (arXiv:2010.01412). A step costs two.
"""

from typing import Any

import jax
import jax.numpy as jnp

from dlx import optim
from dlx.state import Array, Batch, Key, Metrics, PyTree
from dlx.train import steps


def gradients(
  loss_fn: steps.LossFn,
  params: PyTree,
  model_state: PyTree,
  batch: Batch,
  rng: Key,
  *,
  radius: Array | float,
  frozen: PyTree | None = None,
  **options: Any,
) -> tuple[PyTree, PyTree, Metrics]:
  """`steps.gradients` at `params + radius g / |g|`, where g is the gradient here.

  Args:
    loss_fn, params, model_state, batch, rng: see `steps.gradients`; both passes see the
      same noise.
    radius: how far the parameters are moved, as a Euclidean norm of all; 0.05 in the
      paper. Where g is 0 they are not.
    frozen: tree of bools: these are not moved and count in no norm.
    options: of `steps.gradients`.

  Returns:
    The gradients there; model_state and metrics of the pass here.
  """
  here, new_state, metrics = steps.gradients(
    loss_fn, params, model_state, batch, rng, **options
  )
  if frozen is not None:
    here = steps.hold(frozen, here, jax.tree.map(jnp.zeros_like, here))
  norm = optim.global_norm(here)
  share = jnp.where(norm > 0, radius / jnp.where(norm > 0, norm, 1), 0)
  away = jax.tree.map(lambda p, g: (p + share * g).astype(p.dtype), params, here)
  grads, _, _ = steps.gradients(loss_fn, away, model_state, batch, rng, **options)
  return grads, new_state, metrics
