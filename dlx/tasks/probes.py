"""Linear probes: what frozen features are worth, inside one program.

TrainTest    labelled training images and test images as one batch, for an Eval
fit_linear   multinomial logistic regression to its optimum, vmappable
probe_eval   probes with many and with few labels, of any run that has features

Nothing here trains an encoder: features come in as arrays. Nearest neighbours:
dlx/metrics/neighbours.py.
"""

from typing import Any, Callable, Mapping, NamedTuple, Sequence

import chex
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np

from dlx import metrics
from dlx.config_json import config_to_json
from dlx.data.batches.resident import num_examples, read
from dlx.data.dataset import Loaded, Resident, Source
from dlx.errors import ConfigError, DataError
from dlx.experiment import Config, Eval
from dlx.run import warm_start
from dlx.run.records.json_files import read_json
from dlx.run.records.workdir import absolute
from dlx.state import Array, Batch, Key, PyTree, TrainState

# (state, images as read) -> features [B, F] by name: those called `encoder` are judged,
# the others stand beside them.
FeaturesFn = Callable[[TrainState, Array], Mapping[str, Array]]
EXACT = jax.lax.Precision.HIGHEST


class TrainTest(Resident):
  """The first images of a training and of a test split as one batch, replicated.

  A probe needs all features at once: the one batch of a pass has the fields `train_X`
  and `test_X` of each field X of the sources, and no `weight`.
  """

  def __init__(
    self,
    train: Source,
    test: Source,
    *,
    num_train: int | None = None,
    num_test: int | None = None,
  ):
    """Reads nothing.

    Args:
      train, test: sources with the same fields.
      num_train, num_test: examples, at most as many as there are; None: all.

    Raises:
      ConfigError: a number below 1, or None where the source declares no size.
    """
    self._parts = {'train': (train, num_train), 'test': (test, num_test)}
    self._sizes = {}
    shapes = {}
    for part, (source, limit) in self._parts.items():
      if limit is not None and limit < 1:
        raise ConfigError(f'num_{part}={limit} is not allowed: must be at least 1.')
      if limit is None and source.size is None:
        raise ConfigError(
          f'num_{part}=None is not allowed for {source.name}, whose size is known only '
          'once it was read: give a number.'
        )
      self._sizes[part] = n = min(x for x in (source.size, limit) if x is not None)
      for name, x in source.shapes.items():
        shapes[f'{part}_{name}'] = jax.ShapeDtypeStruct((n, *x.shape), x.dtype)
    self.shapes = (shapes,)
    self.placement = dict.fromkeys(shapes, P())
    self.size = sum(self._sizes.values())

  def array_shapes(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    return self.shapes[0]

  def load(self, data_dir=None) -> Loaded:
    data, origins = {}, {}
    for part, (source, _) in self._parts.items():
      loaded, n = read(source, data_dir), self._sizes[part]
      if (found := num_examples(loaded.data)) < n:
        raise DataError(
          f'{source.name}/{source.split}: {found} examples, fewer than {n}.'
        )
      data |= {f'{part}_{name}': np.array(x[:n]) for name, x in loaded.data.items()}
      origins[part] = {**loaded.origin, 'size': n}
    return Loaded(data, {**origins['train'], 'size': self.size, 'parts': origins})

  def num_batches(self, data) -> int:
    del data
    return 1

  def get(self, arrays, step: Array) -> Mapping[str, Array]:
    del step
    return arrays


def restore_encoder(
  config: Config,
  weights: PyTree,
  names: Sequence[str] = ('features', 'strides', 'groups'),
) -> tuple[PyTree, dict[str, Any]]:
  """The encoder in the run `config.encoder`, under `params/encoder`; and its origin.

  Args:
    config: its field `encoder` is a workdir.
    weights: the structure that is filled.
    names: fields of the config that must be as they are there: weights fit encoders of
      other strides too, and the features would be other ones.

  Raises:
    ConfigError: one of those fields differs; see `warm_start.restore`.
  """
  workdir = vars(config)['encoder']
  found, origin = warm_start.restore(workdir, weights, prefix='params/encoder')
  there = read_json(absolute(workdir) / 'config.json')['config']
  for name in names:
    value = config_to_json(config)[name]
    if name in there and there[name] != value:
      raise ConfigError(
        f'--config.{name}={value} is not allowed: must be {there[name]}, as of the '
        f'encoder in {origin["path"]}.'
      )
  return found, origin


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
  split = lambda x: x[index].reshape((chunks, size) + x.shape[1:])
  out = jax.lax.map(fn, jax.tree.map(split, rows))
  join = lambda x: x.reshape((chunks * size,) + x.shape[2:])[:n]
  return jax.tree.map(join, out)


def prefix(name: str) -> str:
  """What stands before the names of figures of these features."""
  return '' if name == 'encoder' else f'{name}_'


def both_parts(
  features: FeaturesFn, state: TrainState, batch: Batch, chunk: int
) -> tuple[dict[str, Array], dict[str, Array]]:
  """Features of the training and of the test images of a `TrainTest` batch.

  Of both in one call, so that the encoder is compiled once.
  """
  parts = batch['train_image'], batch['test_image']
  compute = lambda image: dict(features(state, image))
  found = in_chunks(compute, jnp.concatenate(parts), chunk)
  n = parts[0].shape[0]
  return {k: x[:n] for k, x in found.items()}, {k: x[n:] for k, x in found.items()}


# Linear probe.


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
  """
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
    label_N: int, in [0, K).
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
  target_NK = jax.nn.one_hot(label_N, num_classes, dtype=dtype)
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
  return Linear(w_GK[:-1], w_GK[-1], jnp.linalg.norm(g_GK))


def draw_labels(
  key: Key, label_N: Array, *, per_class: int, num_classes: int
) -> tuple[Array, Array]:
  """Rows of a random subset with so many of each class.

  Returns:
    (row numbers [per_class * K], class by class; weight float32, 0 where a class has
    too few rows: those row numbers mean nothing).
  """
  chance_N = jax.random.uniform(key, label_N.shape, jnp.float32)
  mine_KN = label_N[None] == jnp.arange(num_classes, dtype=label_N.dtype)[:, None]
  score_KN = jnp.where(mine_KN, chance_N[None], -1.0)
  score_Kp, row_Kp = jax.lax.top_k(score_KN, per_class)
  return row_Kp.reshape(-1), (score_Kp >= 0).astype(jnp.float32).reshape(-1)


def probe_eval(
  features: FeaturesFn,
  data: TrainTest,
  *,
  num_classes: int,
  per_class: int = 10,
  draws: int = 5,
  l2: float = 10.0,
  chunk: int = 500,
  every: int | None = None,
) -> Eval:
  """Linear probes of frozen features: with all labels of `data`, and with few.

  Reports, for the features `encoder`: `accuracy` and `loss` (nats) with all labels and
  `few_accuracy` with `per_class` labels a class, the mean over `draws` draws, which are
  the same in every pass and run; `few_sd` is the deviation over them. For each other
  entry NAME: `NAME_accuracy`, `NAME_few_accuracy`. `gradient` is the largest that a
  solver left. Features are standardised by all training images, labelled or not.

  Args:
    features: applied to chunks; see FeaturesFn.
    data: fields `image` and `label`.
    num_classes: K.
    per_class: labels a class of the small probe.
    draws: of those.
    l2: see `fit_linear`; the same for both probes.
    chunk: images whose features are computed at a time.
    every: see `Eval`.
  """

  def one(name: str, train_NF: Array, test_MF: Array, batch: Batch) -> dict[str, Any]:
    scaled = standardiser(train_NF)
    train_NF, test_MF = scaled(train_NF), scaled(test_MF)
    label_N, label_M = batch['train_label'], batch['test_label']
    linear = fit_linear(train_NF, label_N, num_classes=num_classes, l2=l2)
    logits_MK = linear(test_MF)
    log_probs_MK = jax.nn.log_softmax(logits_MK)
    picked_M = jnp.take_along_axis(log_probs_MK, label_M[:, None], 1)[:, 0]

    def few(i):
      key = jax.random.fold_in(jax.random.key(0), i)
      rows, weight = draw_labels(
        key, label_N, per_class=per_class, num_classes=num_classes
      )
      fitted = fit_linear(
        train_NF[rows], label_N[rows], weight, num_classes=num_classes, l2=l2
      )
      right = metrics.accuracy(fitted(test_MF), label_M)
      return right.total / right.count, fitted.gradient

    # One after the other: a vmapped solver would go on until the last is done.
    few_D, gradient_D = jax.lax.map(few, jnp.arange(draws, dtype=jnp.int32))
    return {
      f'{name}loss': metrics.mean(-picked_M),
      f'{name}accuracy': metrics.accuracy(logits_MK, label_M),
      f'{name}few': few_D,
      f'{name}gradient': jnp.maximum(gradient_D.max(), linear.gradient),
    }

  def step(state: TrainState, batch: Batch) -> dict[str, Any]:
    train, test = both_parts(features, state, batch, chunk)
    found = {}
    for name in train:
      found |= one(prefix(name), train[name], test[name], batch)
    return found

  def summarize(found):
    gradients = [found[k] for k in found if k.endswith('gradient')]
    report = {
      'gradient': jnp.stack(gradients).max(),
      'few_sd': found['few'].std(ddof=1),
    }
    for name, value in found.items():
      if name.endswith('few'):
        report[f'{name}_accuracy'] = value.mean()
      elif name == 'loss' or name.endswith('accuracy'):
        report[name] = value.total / value.count
    return report

  return Eval(step, data, every, summarize)
