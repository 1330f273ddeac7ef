"""Parts of a train step, as pure functions that experiments compose.

A loss here is a function

  loss_fn(params, model_state, batch, rng) -> (loss, (model_state, metrics))

whose `loss` is a Mean: the weighted sum over the examples of the batch and the sum of
the weights. Because sums add up, the gradient of k micro-batches is that of the batch.
"""

from typing import Any, Callable

import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
import optax

from dlx.optim import copies
from dlx.precision import at_least_float32
from dlx.state import (
  Array,
  Batch,
  Key,
  Mean,
  Metrics,
  PyTree,
  TrainState,
  leaves_by_path,
)

LossFn = Callable[[PyTree, PyTree, Batch, Key], tuple[Mean, tuple[PyTree, Metrics]]]


def watch(tree: PyTree, name: str) -> PyTree:
  """Names the leaves of an intermediate tree, so that the NaN guard can report it.

  The identity, without a cost in the compiled program. When a run turns non-finite,
  the replay looks at batch, metrics, watched trees in their order, and state.
  """
  paths, treedef = jax.tree_util.tree_flatten_with_path(tree)
  named = []
  for path, leaf in paths:
    path = jax.tree_util.keystr(path, simple=True, separator='/')
    named.append(checkpoint_name(leaf, f'{name}/{path}'))
  return jax.tree.unflatten(treedef, named)


def strided(batch: Batch, k: int) -> Batch:
  """[B, ...] -> [k, B/k, ...]: micro-batch m holds the rows m, m+k, m+2k, ...

  Strided, so that each micro-batch lies on all devices that the batch lies on.
  """
  split = lambda x: x.reshape((x.shape[0] // k, k) + x.shape[1:]).swapaxes(0, 1)
  return jax.tree.map(split, batch)


def gradients(
  loss_fn: LossFn,
  params: PyTree,
  model_state: PyTree,
  batch: Batch,
  rng: Key,
  *,
  micro_batches: int = 1,
  scale: Array | float = 1.0,
) -> tuple[PyTree, PyTree, Metrics]:
  """Gradient of the mean loss of a batch, accumulated over micro-batches.

  Equal to the gradient of the whole batch to rounding, unless examples see each other
  (batch norm, in-batch negatives) or noise (dropout is keyed by micro-batch).
  Gradients and sums accumulate in at least float32.

  Args:
    loss_fn: see the module's docstring.
    params: differentiated.
    model_state: passed on from micro-batch to micro-batch.
    batch: leaves [B, ...].
    rng: key of this step; micro-batch m gets `fold_in(rng, m)`.
    micro_batches: k, a divisor of B.
    scale: the loss is multiplied by it before and the gradient divided after, so that
      float16 does not underflow (arXiv:1710.03740).

  Returns:
    (gradients in the dtypes of params, float32 at least, new model_state, metrics and
    'loss').
  """
  # Gradients accumulate at least in float32, whatever the parameters are kept in.
  wide = lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32))

  def one(model_state, batch, rng):
    def total(params):
      loss, aux = loss_fn(params, model_state, batch, rng)
      return loss.total * jnp.asarray(scale, loss.total.dtype), (loss, aux)

    grads, (loss, (state, metrics)) = jax.grad(total, has_aux=True)(params)
    return grads, like(state, model_state), {'loss': loss, **metrics}

  if micro_batches == 1:
    grads, model_state, metrics = one(model_state, batch, jax.random.fold_in(rng, 0))
  else:

    def body(carry, micro):
      sums, model_state = carry
      m, rows = micro
      grads, model_state, metrics = one(model_state, rows, jax.random.fold_in(rng, m))
      sums = jax.tree.map(lambda a, g: a + g.astype(a.dtype), sums, grads)
      return (sums, model_state), metrics

    micro = (jnp.arange(micro_batches), strided(batch, micro_batches))
    (grads, model_state), metrics = jax.lax.scan(
      body, (jax.tree.map(wide, params), model_state), micro
    )
    metrics = jax.tree.map(lambda x: x.sum(0), metrics)
  # All weights 0 (an empty batch): the gradient is 0, not 0/0.
  count = jnp.maximum(metrics['loss'].count, jnp.finfo(jnp.float32).tiny)
  divisor = count * jnp.asarray(scale, count.dtype)
  # Not back to float16: what the scale has kept above underflow would be lost again.
  grads = jax.tree.map(
    lambda g, p: (g / divisor.astype(jnp.promote_types(g.dtype, jnp.float32))).astype(
      jnp.promote_types(p.dtype, jnp.float32)
    ),
    grads,
    params,
  )
  return watch(grads, 'gradients'), model_state, metrics


def update(
  tx: optax.GradientTransformation, grads: PyTree, opt_state: PyTree, params: PyTree
) -> tuple[PyTree, PyTree]:
  """One optimiser step: (new params, new opt_state) in unchanged dtypes.

  Raises:
    ConfigError: parameters narrower than float32, and `tx` keeps no float32 copy.
  """
  copies.check(params, opt_state)
  updates, new_state = tx.update(grads, opt_state, params)
  return optax.apply_updates(params, updates), like(new_state, opt_state)


def apply(
  tx: optax.GradientTransformation,
  state: TrainState,
  grads: PyTree,
  *,
  ema_decay: Array | float | None = None,
  **changes: Any,
) -> TrainState:
  """The state after this step: parameters, optimiser, average, and `step` + 1.

  Args:
    tx: of `state.opt_state`.
    grads: of `state.params`.
    ema_decay: of `state.ema`, which `initial_average` began; None: none is kept.
    changes: other fields of the state that this step changes, e.g. model_state.
  """
  params, opt_state = update(tx, grads, state.opt_state, state.params)
  ema = state.ema
  if ema_decay is not None:
    ema = average(ema, params, ema_decay, state.step)
  return state._replace(
    step=state.step + 1, params=params, opt_state=opt_state, ema=ema, **changes
  )


def initial_average(params: PyTree, ema_decay: Array | float | None) -> PyTree:
  """`state.ema` before step 0: `wide_copy` of the parameters, () where none is kept."""
  return () if ema_decay is None else wide_copy(params)


def wide_copy(params: PyTree) -> PyTree:
  """A copy with floats of float32 at least: where a slow average of them begins.

  In bfloat16 a decay of 0.999 is 1, and the average would stand still.
  """
  return jax.tree.map(lambda p: jnp.copy(at_least_float32(p)), params)


def average(ema: PyTree, params: PyTree, decay: Array | float, step: Array) -> PyTree:
  """EMA of parameters after step `step` (counted from 0).

  The decay starts low and rises to `decay`: min(decay, (1 + step) / (10 + step)), so
  that the average forgets the initialisation.

  Raises:
    ConfigError: `ema` is narrower than float32.
  """
  copies.check_average(ema)
  count = step.astype(jnp.float32)
  d = jnp.minimum(decay, (1 + count) / (10 + count))
  mix = lambda e, p: e + (1 - d).astype(e.dtype) * (p.astype(e.dtype) - e)
  return jax.tree.map(mix, ema, params)


def never_reached(decay: float, num_steps: int) -> str:
  """A line on a decay that `average` does not reach in a run; '' where it does."""
  highest = num_steps / (num_steps + 9)  # At the last step, num_steps - 1.
  if decay <= highest:
    return ''
  return (
    f'--config.ema_decay={decay} is never reached: the decay rises as '
    f'(1 + t) / (10 + t) to {highest:.4g} in {num_steps} steps, and every value above '
    'gives the same run.'
  )


def where(condition: Array, new: PyTree, old: PyTree) -> PyTree:
  """`new` where the scalar condition holds, else `old`, leaf by leaf.

  Freezing until a step: `where(state.step >= n, new, old)` over the parameters and
  over their moments, so that the structure of the state never changes.
  """
  return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def hold(frozen: PyTree, new: PyTree, old: PyTree) -> PyTree:
  """`old` where the tree of bools (or traced scalars) `frozen` says so, else `new`.

  Args:
    frozen: same structure as `new`, or a prefix of it.
  """
  keep = lambda f, a, b: jax.tree.map(lambda x, y: jnp.where(f, y, x), a, b)
  return jax.tree.map(keep, frozen, new, old)


def like(new: PyTree, old: PyTree) -> PyTree:
  """`new` in the dtypes of `old`: the state keeps its dtypes (batch norm under x64)."""
  return jax.tree.map(
    lambda a, b: a if a.dtype == b.dtype else a.astype(b.dtype), new, old
  )


def all_finite(tree: PyTree) -> Array:
  """Whether every float in the tree is finite, as one bool."""
  checks = [
    jnp.isfinite(x).all()
    for x in jax.tree.leaves(tree)
    if jnp.issubdtype(x.dtype, jnp.inexact)
  ]
  return jnp.stack(checks).all() if checks else jnp.ones((), bool)


def first_non_finite(tree: PyTree) -> tuple[str, Any] | None:
  """Path and value of the first leaf with a NaN or inf; host, for error messages."""
  for path, leaf in leaves_by_path(tree).items():
    if jnp.issubdtype(leaf.dtype, jnp.inexact) and not bool(jnp.isfinite(leaf).all()):
      return path, leaf
  return None
