"""Optimisers, clipping, freezing, and the learning rate of an update.

Thin builders over optax. Every number that they take may be a tracer, so that one
program can hold a sweep: `vmap` over learning rates, decays and clipping bounds.
Plain Python numbers are checked at once.

  tx = clip(adamw(one_cycle(3e-3, num_steps)), norm=1.0)
  tx = freeze(tx, by_path('encoder/.*'))

The order matters: a clip inside `freeze` does not see the gradients of what is frozen.
Moments are float32 at least, and narrower parameters have a float32 copy (copies.py); a
traced number of a wider dtype widens moments, and `train.steps.update` casts them back.
"""

import re
from typing import Any, Callable, Mapping, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dlx.config import check_bounds
from dlx.errors import ConfigError
from dlx.optim.copies import in_float32
from dlx.optim.schedules import Number, Schedule, constant
from dlx.precision import at_least_float32, scale_for_squares
from dlx.state import Array, PyTree

Mask = PyTree | Callable[[PyTree], PyTree]  # Bools of the structure of the parameters.


# Optimisers.


class Rated(optax.GradientTransformationExtraArgs):
  """An optimiser whose learning rate is known, by the number of updates done."""

  rate: Schedule | None = None


def rated(
  tx: optax.GradientTransformation, rate: Number | Schedule | None
) -> optax.GradientTransformation:
  """The same optimiser with its learning rate; None: it is not known."""
  if rate is None:
    return tx
  known = Rated(*optax.with_extra_args_support(tx))
  known.rate = rate if callable(rate) else constant(rate)
  return known


def learning_rate(
  tx: optax.GradientTransformation, before: PyTree, after: PyTree, step: Array
) -> Array | None:
  """The learning rate of an update, where it is known.

  Args:
    tx: of dlx.optim, also clipped and frozen; or any that holds an
      optax.inject_hyperparams with a `learning_rate`.
    before: state of `tx` before the update.
    after: state of `tx` after it.
    step: number of updates before, where the state does not count them.

  Returns:
    A scalar; None of another optimiser.
  """

  def first(state, name, owner):
    found = optax.tree.get_all_with_path(state, name)
    # Not the moments of a parameter of that name.
    return next((x for path, x in found if owner(path)), None)

  if (rate := getattr(tx, 'rate', None)) is not None:
    # A skipped step of float16 is no update, so that `step` may be ahead.
    of_tuple = lambda path: hasattr(path[-1], 'tuple_name')
    count = first(before, 'count', of_tuple)
    value = jnp.asarray(rate(step if count is None else count))
    lowered = first(before, 'lowered', of_tuple)  # By dlx/train/plateau.py.
    return value if lowered is None else value * lowered
  hyperparams = lambda path: getattr(path[-2:][0], 'name', None) == 'hyperparams'
  rate = first(after, 'learning_rate', hyperparams)
  return None if rate is None else jnp.asarray(rate)


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
  check_bounds('learning_rate', learning_rate, 0)
  return rated(in_float32(optax.adam(learning_rate, b1, b2, eps)), learning_rate)


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
  check_bounds('learning_rate', learning_rate, 0)
  check_bounds('weight_decay', weight_decay, 0)
  tx = optax.adamw(learning_rate, b1, b2, eps, weight_decay=weight_decay, mask=mask)
  return rated(in_float32(tx), learning_rate)


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
  check_bounds('learning_rate', learning_rate, 0)
  check_bounds('momentum', momentum, 0, 1)
  check_bounds('weight_decay', weight_decay, 0)
  if nesterov and momentum is None:
    raise ConfigError(
      'nesterov=True is not allowed without momentum: set momentum=0.9.'
    )
  tx = optax.chain(
    optax.add_decayed_weights(weight_decay, mask),
    optax.sgd(learning_rate, momentum, nesterov),
  )
  return rated(in_float32(tx), learning_rate)


# Clipping.


def global_norm(tree: PyTree) -> Array:
  """Euclidean norm of all leaves together, in float32 or wider, of any finite size."""
  scale = _scale(tree)
  return _scaled_norm(tree, scale) / scale


def _scale(tree: PyTree) -> Array:
  """See `scale_for_squares`; one for all leaves."""
  largest = jnp.zeros((), jnp.float32)
  for x in jax.tree.leaves(tree):
    if x.size:
      largest = jnp.maximum(largest, jnp.abs(at_least_float32(x)).max())
  return scale_for_squares(largest)


def _scaled_norm(tree: PyTree, scale: Array) -> Array:
  """Norm of all leaves times `scale`."""
  squares = [
    jnp.square(at_least_float32(x) * scale).sum() for x in jax.tree.leaves(tree)
  ]
  return jnp.sqrt(sum(squares, start=jnp.zeros((), jnp.float32)))


def clip(
  tx: optax.GradientTransformation,
  norm: Number | None = None,
  value: Number | None = None,
) -> optax.GradientTransformation:
  """Clips gradients before `tx` sees them: by value, then by global norm.

  Both bounds hold afterwards in either order; by value first, one wild entry is cut
  before it can shrink all the others. A nan stays nan; clipped by value, an infinity
  becomes the bound. Clipped by norm, gradients keep their direction up to 8e37 times
  the bound, and are 0 beyond: their factor is no float32.

  Args:
    tx: the optimiser.
    norm: largest global norm (arXiv:1211.5063); None: any.
    value: largest absolute value of an entry; None: any.
  """
  check_bounds('clip_norm', norm, 0, above=True)
  check_bounds('clip_value', value, 0, above=True)
  if norm is None and value is None:
    return tx

  def clipped(grads):
    if value is not None:
      low, high = -value, value
      grads = jax.tree.map(lambda g: jnp.clip(g, low, high).astype(g.dtype), grads)
    if norm is not None:
      scale = _scale(grads)
      size = _scaled_norm(grads, scale)  # Finite where the norm itself overflows.
      # where, not min(1, norm / size): nan and gradients of 0 need no care.
      share = jnp.where(size > norm * scale, norm / size * scale, jnp.ones_like(size))
      grads = jax.tree.map(lambda g: (g * share).astype(g.dtype), grads)
    return grads

  def update(updates, state, params=None, **extra):
    return optax.with_extra_args_support(tx).update(
      clipped(updates), state, params, **extra
    )

  clipping = optax.GradientTransformationExtraArgs(tx.init, update)
  return rated(clipping, getattr(tx, 'rate', None))


# Groups of parameters, and those that are frozen.


def by_path(*patterns: str) -> Callable[[PyTree], PyTree]:
  """A mask: True for leaves whose whole path matches one of the regular expressions.

  Paths read `hidden_0/kernel`; `encoder/.*` is a whole submodule.

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


def grouped(
  groups: Mapping[str, optax.GradientTransformation], rest: optax.GradientTransformation
) -> optax.GradientTransformation:
  """An optimiser for each group of parameters; the rate that is told is of `rest`.

  Args:
    groups: by a regular expression on whole paths, see `by_path`; the first that
      matches a parameter has it.
    rest: of what none matches.

  Raises:
    ConfigError: when it is used: an expression matches no parameter.
  """

  def labels(params):
    found = jax.tree.map(lambda _: 'rest', params)
    for name, pattern in reversed(names.items()):
      mask = by_path(pattern)(params)
      found = jax.tree.map(lambda old, hit, n=name: n if hit else old, found, mask)
    return found

  # Not the patterns: names become part of the paths of the state.
  names = {f'group_{i}': pattern for i, pattern in enumerate(groups)}
  txs = {name: groups[pattern] for name, pattern in names.items()}
  parted = optax.partition({**txs, 'rest': rest}, labels)
  return rated(parted, getattr(rest, 'rate', None))


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
  parted = optax.partition({'trained': tx, 'frozen': still}, labels)
  return rated(parted, getattr(tx, 'rate', None))


class FrozenUntil(NamedTuple):
  """State of `frozen_until`.

  Attributes:
    count: updates so far, those included that changed nothing.
    inner: state of the optimiser itself.
  """

  count: Array
  inner: Any


def frozen_until(
  tx: optax.GradientTransformation, num_updates: int
) -> optax.GradientTransformation:
  """`tx` whose first `num_updates` updates change no byte, moments included.

  The count, the schedule and the moments of `tx` begin with the update after them, as
  if it were new then. For a trunk that is unfrozen when the head is trained.

  Args:
    tx: the optimiser.
    num_updates: at least 0.
  """
  check_bounds('num_updates', num_updates, 0)
  tx = optax.with_extra_args_support(tx)

  def init(params):
    return FrozenUntil(jnp.zeros((), jnp.int32), tx.init(params))

  def update(updates, state, params=None, **extra):
    moves, inner = tx.update(updates, state.inner, params, **extra)
    thawed = state.count >= num_updates
    # Adding -0.0 keeps the bytes of every number.
    moves = jax.tree.map(lambda x: jnp.where(thawed, x, -0.0).astype(x.dtype), moves)
    inner = jax.tree.map(lambda a, b: jnp.where(thawed, a, b), inner, state.inner)
    return moves, FrozenUntil(state.count + 1, inner)

  own = getattr(tx, 'rate', None)
  rate = own and (
    lambda count: jnp.where(count < num_updates, 0, own(count - num_updates))
  )
  return rated(optax.GradientTransformationExtraArgs(init, update), rate)
