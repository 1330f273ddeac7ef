"""Optimisers, schedules, clipping, freezing and the loss scale of float16.

Thin builders over optax. Every number that they take may be a tracer, so that one
program can hold a sweep: `vmap` over learning rates, decays and clipping bounds.
Plain Python numbers are checked at once.

  tx = clip(adamw(one_cycle(3e-3, num_steps)), norm=1.0)
  tx = freeze(tx, by_path('encoder/.*'))

The order matters: a clip inside `freeze` does not see the gradients of what is frozen.
Moments are kept in the dtype of the parameters; a traced number of a wider dtype widens
them, and `training.step.update` casts them back.
"""

import re
from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlx.errors import ConfigError
from dlx.state import Array, PyTree

Number = float | Array  # An int, an array of rank 0 or a tracer will do.
Schedule = optax.Schedule  # Number of updates done -> value.
Mask = PyTree | Callable[[PyTree], PyTree]  # Bools of the structure of the parameters.


# Schedules. Each is peak times a function of the count alone, since a traced peak is
# then no harder than a number. Counts below 0 are 0; past the end the last value holds.


def constant(value: Number) -> Schedule:
  """The same at every step."""
  return lambda count: jnp.asarray(value, _float(count).dtype)


def cosine(peak: Number, num_steps: Number, final_fraction: Number = 0.0) -> Schedule:
  """Half a cosine from `peak` to `peak * final_fraction` (arXiv:1608.03983)."""
  return warmup_cosine(peak, num_steps, 0, final_fraction)


def warmup_cosine(
  peak: Number, num_steps: Number, warmup_steps: Number, final_fraction: Number = 0.0
) -> Schedule:
  """Linear from 0 to `peak`, then half a cosine to `peak * final_fraction`.

  Args:
    peak: largest value, at count `warmup_steps`.
    num_steps: count from which on the value is `peak * final_fraction`.
    warmup_steps: of the linear part, in [0, num_steps]; the update at count 0 has
      value 0 where there are any.
    final_fraction: of the peak, in [0, 1].
  """
  _check('num_steps', num_steps, 1)
  _check('warmup_steps', warmup_steps, 0, num_steps)
  _check('final_fraction', final_fraction, 0, 1)

  def schedule(count):
    t = _float(count)
    rise = _fraction(t, 0, warmup_steps)
    fall = _ease(_fraction(t, warmup_steps, num_steps))
    unit = jnp.where(t < warmup_steps, rise, 1 - (1 - final_fraction) * fall)
    return peak * unit

  return schedule


def one_cycle(
  peak: Number,
  num_steps: Number,
  pct_start: Number = 0.3,
  div_factor: Number = 25.0,
  final_div_factor: Number = 1e4,
) -> Schedule:
  """One cycle of two half cosines (arXiv:1708.07120).

  From `peak / div_factor` up to `peak` at count `pct_start * num_steps` (not rounded),
  down to `peak / div_factor / final_div_factor` at count `num_steps`.

  Args:
    peak: largest value.
    num_steps: length of the cycle.
    pct_start: fraction of the cycle that rises, in [0, 1].
    div_factor: peak over first value, at least 1.
    final_div_factor: first value over last value, at least 1.
  """
  _check('num_steps', num_steps, 1)
  _check('pct_start', pct_start, 0, 1)
  _check('div_factor', div_factor, 1)
  _check('final_div_factor', final_div_factor, 1)

  def schedule(count):
    t = _float(count)
    top = pct_start * num_steps
    first = 1 / div_factor
    last = first / final_div_factor
    rising = first + (1 - first) * _ease(_fraction(t, 0, top))
    falling = 1 - (1 - last) * _ease(_fraction(t, top, num_steps))
    return peak * jnp.where(t < top, rising, falling)

  return schedule


def step_decay(peak: Number, every_steps: Number, factor: Number = 0.1) -> Schedule:
  """`peak * factor^n` after n times `every_steps` updates."""
  _check('every_steps', every_steps, 1)
  _check('factor', factor, 0)
  return lambda count: peak * jnp.power(factor, _float(count) // every_steps)


# Optimisers.


def decay_mask(params: PyTree) -> PyTree:
  """True for leaves of rank 2 and more: kernels, not biases, scales and shifts.

  A bias that `nn.scan` stacks along layers has rank 2: give such a model its own mask.
  """
  return jax.tree.map(lambda p: jnp.ndim(p) > 1, params)


def adam(
  learning_rate: Number | Schedule,
  b1: Number = 0.9,
  b2: Number = 0.999,
  eps: Number = 1e-8,
) -> optax.GradientTransformation:
  """Adam (arXiv:1412.6980)."""
  _check('learning_rate', learning_rate, 0)
  return optax.adam(learning_rate, b1, b2, eps)


def adamw(
  learning_rate: Number | Schedule,
  weight_decay: Number = 1e-2,
  b1: Number = 0.9,
  b2: Number = 0.999,
  eps: Number = 1e-8,
  mask: Mask = decay_mask,
) -> optax.GradientTransformation:
  """Adam with decoupled weight decay (arXiv:1711.05101).

  Each update also subtracts `learning_rate * weight_decay * params`.

  Args:
    learning_rate: a number or a schedule.
    weight_decay: at least 0.
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the second moment.
    mask: what is decayed.
  """
  _check('learning_rate', learning_rate, 0)
  _check('weight_decay', weight_decay, 0)
  return optax.adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=mask)


def sgd(
  learning_rate: Number | Schedule,
  momentum: Number | None = None,
  nesterov: bool = False,
  weight_decay: Number = 0.0,
  mask: Mask = decay_mask,
) -> optax.GradientTransformation:
  """Gradient descent with heavy-ball or Nesterov momentum.

  `v = momentum v + g`, then `params -= learning_rate v`; with Nesterov
  `params -= learning_rate (g + momentum v)`.

  Args:
    learning_rate: a number or a schedule.
    momentum: in [0, 1]; None: none, and no state for it.
    nesterov: look ahead.
    weight_decay: `weight_decay * params` is added to the gradient, before momentum.
    mask: what is decayed.
  """
  _check('learning_rate', learning_rate, 0)
  _check('momentum', momentum, 0, 1)
  _check('weight_decay', weight_decay, 0)
  if nesterov and momentum is None:
    raise ConfigError(
      'nesterov=True is not allowed without momentum: set momentum=0.9.'
    )
  return optax.chain(
    optax.add_decayed_weights(weight_decay, mask),
    optax.sgd(learning_rate, momentum, nesterov),
  )


# Clipping.


def global_norm(tree: PyTree) -> Array:
  """Euclidean norm of all leaves together, summed in float32 or wider."""
  wide = lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32))
  squares = [jnp.square(wide(x)).sum() for x in jax.tree.leaves(tree)]
  return jnp.sqrt(sum(squares, start=jnp.zeros((), jnp.float32)))


def clip(
  tx: optax.GradientTransformation,
  norm: Number | None = None,
  value: Number | None = None,
) -> optax.GradientTransformation:
  """Clips gradients before `tx` sees them: by value, then by global norm.

  Both bounds hold afterwards in either order; by value first, one wild entry is cut
  before it can shrink all the others. A nan stays nan; clipped by value, an infinity
  becomes the bound.

  Args:
    tx: the optimiser.
    norm: largest global norm (arXiv:1211.5063); None: any.
    value: largest absolute value of an entry; None: any.
  """
  _check('clip_norm', norm, 0, above=True)
  _check('clip_value', value, 0, above=True)
  if norm is None and value is None:
    return tx

  def clipped(grads):
    if value is not None:
      low, high = -value, value
      grads = jax.tree.map(lambda g: jnp.clip(g, low, high).astype(g.dtype), grads)
    if norm is not None:
      size = global_norm(grads)
      # where, not min(1, norm / size): nan and gradients of 0 need no care.
      scale = jnp.where(size > norm, norm / size, jnp.ones_like(size))
      grads = jax.tree.map(lambda g: (g * scale).astype(g.dtype), grads)
    return grads

  def update(updates, state, params=None, **extra):
    return optax.with_extra_args_support(tx).update(
      clipped(updates), state, params, **extra
    )

  return optax.GradientTransformationExtraArgs(tx.init, update)


# Freezing.


def by_path(*patterns: str) -> Callable[[PyTree], PyTree]:
  """A mask: True for leaves whose whole path matches one of the regular expressions.

  Paths read `Dense_0/kernel`; `encoder/.*` is a whole submodule.

  Raises:
    ConfigError: when the mask is used: a pattern matches no parameter.
  """

  def mask(params):
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    paths = [
      jax.tree_util.keystr(path, simple=True, separator='/') for path, _ in leaves
    ]
    for pattern in patterns:
      if not any(re.fullmatch(pattern, path) for path in paths):
        raise ConfigError(
          f'Pattern {pattern!r} is not allowed: must match the whole path of a '
          f'parameter, such as {paths[0]!r}.'
        )
    hits = [any(re.fullmatch(p, path) for p in patterns) for path in paths]
    return jax.tree_util.tree_unflatten(treedef, hits)

  return mask


def freeze(
  tx: optax.GradientTransformation, frozen: Mask
) -> optax.GradientTransformation:
  """`tx` for what is not frozen; the rest keeps every byte and has no moments.

  Weight decay leaves it alone too. What is frozen is fixed for the whole run, since it
  decides the structure of the state.

  Args:
    tx: the optimiser, clipping included.
    frozen: tree of bools, or a function of the parameters that gives one (`by_path`).
  """

  def labels(params):
    mask = frozen(params) if callable(frozen) else frozen
    return jax.tree.map(lambda f: 'frozen' if f else 'trained', mask)

  # Adding -0.0 keeps the bytes of every number; adding 0.0 turns -0.0 into 0.0.
  still = optax.stateless(
    lambda grads, _: jax.tree.map(lambda g: jnp.full_like(g, -0.0), grads)
  )
  return optax.partition({'trained': tx, 'frozen': still}, labels)


# Loss scale.


class LossScale(NamedTuple):
  """Factor that keeps float16 gradients above underflow (arXiv:1710.03740).

  Attributes:
    scale: float32, a power of two, so that scaling and unscaling round nothing.
    good_steps: int32, finite steps since it last changed.
  """

  scale: Array
  good_steps: Array


MIN_LOSS_SCALE, MAX_LOSS_SCALE = 1.0, 2.0**24


def init_loss_scale(initial: float = 2.0**15) -> LossScale:
  """The state before step 0.

  Raises:
    ConfigError: `initial` is no power of two in [1, 2**24].
  """
  _check('initial', initial, MIN_LOSS_SCALE, MAX_LOSS_SCALE)
  if np.log2(initial) % 1:
    raise ConfigError(f'initial={initial} is not allowed: must be a power of two.')
  return LossScale(jnp.asarray(initial, jnp.float32), jnp.zeros((), jnp.int32))


def next_loss_scale(
  loss_scale: LossScale, finite: Array, growth_steps: Number = 2000
) -> LossScale:
  """The scale after a step: halved where its gradients overflowed.

  `growth_steps` finite steps in a row double it. It stays within [1, 2**24].
  """
  good = jnp.where(finite, loss_scale.good_steps + 1, 0)
  grow = good >= growth_steps
  factor = jnp.where(finite, jnp.where(grow, 2.0, 1.0), 0.5)
  scale = jnp.clip(loss_scale.scale * factor, MIN_LOSS_SCALE, MAX_LOSS_SCALE)
  return LossScale(
    scale.astype(jnp.float32), jnp.where(grow, 0, good).astype(jnp.int32)
  )


def scale_loss(loss_scale: LossScale, loss: Array) -> Array:
  """The loss to differentiate, float32 or wider."""
  return loss.astype(jnp.promote_types(loss.dtype, jnp.float32)) * loss_scale.scale


def unscale_and_update(
  loss_scale: LossScale, grads: PyTree, growth_steps: Number = 2000
) -> tuple[PyTree, Array, LossScale]:
  """Gradients of the loss itself, whether all are finite, and the next scale.

  Where `finite` is False the gradients are worth nothing: the caller leaves parameters
  and optimiser state as they were.

  Args:
    loss_scale: what `scale_loss` was given.
    grads: of the scaled loss, reduced over devices and micro-batches.
    growth_steps: between doublings.

  Returns:
    Gradients in their own dtypes, bool scalar, LossScale.
  """
  leaves = jax.tree.leaves(grads)
  finite = jnp.stack([jnp.isfinite(g).all() for g in leaves]).all()
  wide = lambda g: g.astype(jnp.promote_types(g.dtype, jnp.float32))
  unscaled = jax.tree.map(lambda g: (wide(g) / loss_scale.scale).astype(g.dtype), grads)
  return unscaled, finite, next_loss_scale(loss_scale, finite, growth_steps)


def _float(count: Any) -> Array:
  return jnp.maximum(jnp.asarray(count), 0).astype(jnp.float32)


def _fraction(t: Array, start: Any, end: Any) -> Array:
  """How much of [start, end] has passed, in [0, 1]; a step where they are equal."""
  return jnp.clip((t - start) / jnp.maximum(end - start, 1e-6), 0.0, 1.0)


def _ease(fraction: Array) -> Array:
  return 0.5 * (1 - jnp.cos(jnp.pi * fraction))


def _check(field: str, value: Any, low: float, high: Any = None, above: bool = False):
  """Raises ConfigError unless a plain number is in bounds; tracers and None pass."""
  plain = (int, float, np.number)
  if not isinstance(value, plain) or not isinstance(high, (type(None), *plain)):
    return
  enough = value > low if above else value >= low
  if not enough or (high is not None and value > high):
    least = f'{"above" if above else "at least"} {low}'
    allowed = least if high is None else f'in [{low}, {high}]'
    raise ConfigError(f'{field}={value} is not allowed: must be {allowed}.')
