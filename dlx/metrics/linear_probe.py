"""Multinomial logistic regression on fixed features, to its optimum, vmappable."""

from typing import Any, Callable, NamedTuple

import chex
import jax
import jax.numpy as jnp

from dlx import labels
from dlx.errors import ConfigError
from dlx.precision import EXACT
from dlx.state import Array, Key, PyTree


def in_chunks(fn: Callable[[Any], PyTree], rows: PyTree, size: int) -> PyTree:
  """`fn` of all rows, `size` at a time, so that temporaries stay small.

  Args:
    fn: [b, ...] -> tree of [b, ...]; treats every row alone.
    rows: tree with one leading axis.
    size: b; the last chunk is filled up with copies of the last row.
  """
  n = jax.tree.leaves(rows)[0].shape[0]
  if n <= size:
    return fn(rows)
  chunks = -(-n // size)
  index = jnp.minimum(jnp.arange(chunks * size, dtype=jnp.int32), n - 1)
  split = lambda x: jnp.asarray(x)[index].reshape((chunks, size) + x.shape[1:])
  out = jax.lax.map(fn, jax.tree.map(split, rows))
  join = lambda x: x.reshape((chunks * size,) + x.shape[2:])[:n]
  return jax.tree.map(join, out)


class Linear(NamedTuple):
  """A linear classifier: `x @ kernel + bias`.

  Attributes:
    kernel_FK, bias_K: at least float32.
    gradient: norm of the gradient of the mean objective where the solver stopped: how
      far from the optimum it is.
  """

  kernel_FK: Array
  bias_K: Array
  gradient: Array

  def __call__(self, x_NF: Array) -> Array:
    return jnp.dot(x_NF, self.kernel_FK, precision=EXACT) + self.bias_K[None]


def standardiser(train_NF: Array) -> Callable[[Array], Array]:
  """A function that brings columns to mean 0 and deviation 1 of these rows.

  A column that is constant there, up to rounding, becomes 0 everywhere else too.

  Raises:
    ConfigError: one row, which has no deviation.
  """
  if train_NF.shape[0] == 1:
    raise ConfigError(
      'Statistics of 1 row are not allowed: every feature would become 0; must be of '
      'at least 2 rows.'
    )
  mean_1F = train_NF.mean(0, keepdims=True)
  std_1F = jnp.sqrt(jnp.square(train_NF - mean_1F).mean(0, keepdims=True))
  size_1F = jnp.abs(train_NF).max(0, keepdims=True)
  # The mean of n equal numbers is off by a few eps: that is no deviation.
  floor_1F = 1e3 * jnp.finfo(train_NF.dtype).eps * size_1F
  scale_1F = jnp.where(std_1F > floor_1F, 1 / jnp.maximum(std_1F, floor_1F), 0)
  scale_1F = jnp.where(size_1F > 0, scale_1F, 0)
  return lambda x_NF: (x_NF - mean_1F) * scale_1F


def fit_linear(
  x_NF: Array,
  label_N: Array,
  weight_N: Array | None = None,
  *,
  num_classes: int,
  l2: float | Array = 10.0,
  iterations: int = 50,
  inner_iterations: int = 25,
  tolerance: float = 1e-5,
) -> Linear:
  """Multinomial logistic regression by Newton's method: a convex problem, solved.

  Minimises `sum_n w_n CE_n + l2 / 2 |kernel|^2`; `l2` is 1 / C of scikit-learn. Newton
  directions by conjugate gradients (no Hessian is stored), then the best of the steps
  1, 1/2, 1/4, ...: but for rounding the objective never rises. No learning rate, no
  noise, so that probes of different features differ by the features alone.

  Args:
    x_NF: standardised features.
    label_N: int, in [0, K); with another in a row that counts, all is nan.
    weight_N: 0 leaves a row out; None: all ones.
    num_classes: K.
    l2: on the kernel alone, above 0.
    iterations: at most so many Newton steps.
    inner_iterations: of conjugate gradients in each.
    tolerance: norm of the gradient of the mean objective at which it stops.
  """
  chex.assert_rank([x_NF, label_N], [2, 1])
  x_NF = x_NF.astype(jnp.promote_types(x_NF.dtype, jnp.float32))
  dtype = x_NF.dtype
  if weight_N is None:
    weight_N = jnp.ones(label_N.shape, dtype)
  share_N1 = (weight_N / weight_N.sum()).astype(dtype)[:, None]
  decay = jnp.asarray(l2, dtype) / weight_N.sum().astype(dtype)
  # A row that is left out may have any label.
  target_NK = labels.one_hot(jnp.where(weight_N == 0, 0, label_N), num_classes, dtype)
  # The bias is the last row of the weights, of a feature that is 1, and not decayed.
  x_NG = jnp.concatenate([x_NF, jnp.ones_like(share_N1)], 1)
  decay_G1 = jnp.full((x_NG.shape[1], 1), decay).at[-1].set(0)
  steps_S = jnp.append(0.5 ** jnp.arange(10, dtype=dtype), 0)  # The last: no step.
  dot = lambda a, b: jnp.dot(a, b, precision=EXACT)

  def objective(logits_NK, w_GK):
    ce_N = jax.nn.logsumexp(logits_NK, 1) - (target_NK * logits_NK).sum(1)
    return (share_N1[:, 0] * ce_N).sum() + 0.5 * (decay_G1 * jnp.square(w_GK)).sum()

  def gradient(logits_NK, w_GK):
    error_NK = share_N1 * (jax.nn.softmax(logits_NK) - target_NK)
    return dot(x_NG.T, error_NK) + decay_G1 * w_GK

  def more(carry):
    i, _, _, g_GK = carry
    return (i < iterations) & (jnp.linalg.norm(g_GK) > tolerance)

  def newton(carry):
    i, w_GK, logits_NK, g_GK = carry
    p_NK = jax.nn.softmax(logits_NK)

    def hessian(v_GK):
      d_NK = dot(x_NG, v_GK)
      d_NK = p_NK * (d_NK - (p_NK * d_NK).sum(1, keepdims=True))
      return dot(x_NG.T, share_N1 * d_NK) + decay_G1 * v_GK

    move_GK, _ = jax.scipy.sparse.linalg.cg(
      hessian, -g_GK, tol=0.1, maxiter=inner_iterations
    )
    # A linear model: logits along the direction need no further product with x.
    move_NK = dot(x_NG, move_GK)

    def along(t):
      """Objective and its slope at step t."""
      logits, w = logits_NK + t * move_NK, w_GK + t * move_GK
      error_NK = share_N1 * (jax.nn.softmax(logits) - target_NK)
      slope = (error_NK * move_NK).sum() + (decay_G1 * w * move_GK).sum()
      return objective(logits, w), jnp.abs(slope)

    value_S, slope_S = jax.lax.map(along, steps_S)
    # The flattest place that is not higher. Near the optimum the objective no longer
    # tells steps apart (its rounding is that of a number near 1); the slope does.
    slack = 1 + 8 * jnp.finfo(dtype).eps
    slope_S = jnp.where(value_S <= slack * value_S[-1], slope_S, jnp.inf)
    best = slope_S[:-1].argmin()
    down = slope_S[best] < slope_S[-1]
    t = jnp.where(down, steps_S[best], 0)
    w_GK, logits_NK = w_GK + t * move_GK, logits_NK + t * move_NK
    # Where rounding leaves no way down it is over.
    i = jnp.where(down, i + 1, iterations)
    return i, w_GK, logits_NK, gradient(logits_NK, w_GK)

  w_GK = jnp.zeros((x_NG.shape[1], num_classes), dtype)
  logits_NK = jnp.zeros(target_NK.shape, dtype)
  start = (jnp.int32(0), w_GK, logits_NK, gradient(logits_NK, w_GK))
  _, w_GK, _, g_GK = jax.lax.while_loop(more, newton, start)
  gradient_norm = jnp.linalg.norm(g_GK)
  # The loop ends at once where that is nan, with weights of 0 that look like weights.
  w_GK = jnp.where(jnp.isnan(gradient_norm), jnp.nan, w_GK)
  return Linear(w_GK[:-1], w_GK[-1], gradient_norm)


def draw_labels(
  key: Key, label_N: Array, *, per_class: int, num_classes: int
) -> tuple[Array, Array]:
  """Rows of a random subset with so many of each class.

  Returns:
    (row numbers [per_class * K], class by class; weight float32, 0 where a class has
    too few rows: those row numbers mean nothing).
  """
  chance_N = jax.random.uniform(key, label_N.shape, jnp.float32)
  mine_KN = labels.hits(label_N, num_classes).T
  score_KN = jnp.where(mine_KN, chance_N[None], -1.0)
  score_Kp, row_Kp = jax.lax.top_k(score_KN, per_class)
  return row_Kp.reshape(-1), (score_Kp >= 0).astype(jnp.float32).reshape(-1)
