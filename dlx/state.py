"""What a run carries from step to step, and the sums that it reports."""

from typing import Any, Mapping, NamedTuple
import zlib

import chex
import jax
import jax.numpy as jnp

PyTree = Any
Key = jax.Array
Array = jax.Array
Batch = Mapping[str, Array]
# Leaves are Mean or raw sums (a confusion matrix): those of two parts of the data
# added are those of both. A mapping of them, as of norms by layer, is a group: of
# training it is logged beside the numbers, for figures.
Metrics = Mapping[str, Any]


class TrainState(NamedTuple):
  """The whole state of a run: what a checkpoint holds and what decides every later bit.

  Structure, shapes and dtypes are constant for the whole run; what is frozen is frozen
  by `where(step < n)`, never by a change of structure. Every float is finite at every
  step boundary: write `jnp.finfo(dtype).max`, not inf, for "no best figure yet".

  Attributes:
    step: int32 scalar, the number of steps done; scalar also where members are vmapped.
    params: what the optimiser changes.
    opt_state: the optimiser's state; a dict of several where there are several.
    model_state: all else that changes: batch statistics, queue, carry, a frozen
      teacher, plateau counters.
    rng: a typed key that never changes. Randomness is `fold_in(rng, step)`, then the
      micro-batch, then the row of the global batch.
    ema: exponential moving average of `params`, or () where there is none.
    evaluated: int32, the last step whose evaluation is folded in (-1: none). The loop
      writes it, nobody else.
    stop: bool, or one bool a member. `after_eval` writes it, the loop reads it.
    best: what early stopping remembers: the best figure and its weights; () where it is
      off. dlx/train/early_stopping.py writes it, nobody else.
  """

  step: Array
  params: PyTree
  opt_state: PyTree
  model_state: PyTree
  rng: Key
  ema: PyTree
  evaluated: Array
  stop: Array
  best: PyTree = ()

  @property
  def averaged(self) -> PyTree:
    """What is evaluated and used: `ema` where an average is kept, else `params`."""
    return self.ema if jax.tree.leaves(self.ema) else self.params


class Metric(NamedTuple):
  """What a reported number is: declared where it is made, shown wherever it stands.

  Attributes:
    title: for people, e.g. 'Accuracy'.
    better: 'higher' or 'lower', where one is better; None where neither is.
    meaning: one line that stands alone.
    unit: 'nats', 'dollars'; '' for a pure number; '%' for a share in [0, 1], which is
      shown as percent.
    group: numbers of one group may share axes: 'loss', 'share', 'norm'.
    chance: the value without any learning, as of guessing; None: not known.
  """

  title: str
  better: str | None
  meaning: str
  unit: str = ''
  group: str = ''
  chance: float | None = None


class Mean(NamedTuple):
  """A mean that can be added up: over micro-batches, steps, batches and shards.

  Attributes:
    total: weighted sum, float32 or wider; may have a leading axis of members.
    count: sum of the weights.
  """

  total: Array
  count: Array


def create(
  params: PyTree,
  opt_state: PyTree,
  rng: Key,
  *,
  model_state: PyTree = (),
  ema: PyTree = (),
) -> TrainState:
  """The state before step 0."""
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=opt_state,
    model_state=model_state,
    rng=rng,
    ema=ema,
    evaluated=jnp.full((), -1, jnp.int32),
    stop=jnp.zeros((), bool),
  )


def stream(rng: Key, name: str) -> Key:
  """One random stream by name; see `streams`."""
  # The highest bit is set: no count of micro-batches or rows reaches 2**31.
  return jax.random.fold_in(rng, zlib.crc32(name.encode()) | 1 << 31)


def streams(rng: Key, *names: str) -> tuple[Key, ...]:
  """One random stream a name: `noise, labels = streams(rng, 'noise', 'labels')`.

  A stream depends on its name alone, not on the others that are asked for, and is none
  of the keys of micro-batches, `fold_in(rng, 0)`, `fold_in(rng, 1)` and so on.

  Args:
    rng: key of a step, or of a run.
    names: one name, one stream; the same name gives the same stream.
  """
  return tuple(stream(rng, name) for name in names)


def seed_keys(seed_B: Array) -> Key:
  """One key an example, from seeds uint32 [B]: a row depends on its own seed alone."""
  return jax.vmap(jax.random.key)(seed_B)


def is_key(x: Any) -> bool:
  """Whether a leaf (or its ShapeDtypeStruct) is a typed random key."""
  return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def add(a: PyTree, b: PyTree) -> PyTree:
  """The metrics of two parts of the data, from those of each."""
  return jax.tree.map(jnp.add, a, b)


def zeros_like(tree: PyTree) -> PyTree:
  """Zeros of the shapes and dtypes of arrays or ShapeDtypeStructs."""
  return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)


def ratios(metrics: Metrics) -> Mapping[str, Any]:
  """`total / count` of every Mean, in mappings too; raw sums pass through.

  nan where count is 0.
  """

  def one(x: Any) -> Any:
    if isinstance(x, Mean):
      return x.total / x.count
    return ratios(x) if isinstance(x, Mapping) else x

  return {name: one(x) for name, x in metrics.items()}


def leaves_by_path(tree: PyTree) -> dict[str, Any]:
  """Leaves under readable names: `params/hidden_0/kernel`, `opt_state/0/mu/...`."""
  paths = jax.tree_util.tree_leaves_with_path(tree)
  named = {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in paths
  }
  if len(named) != len(paths):
    raise ValueError('Two leaves have the same path; rename a key that holds a "/".')
  return named


def mean(values_B: Array, weight_B: Array | None = None) -> Mean:
  """`sum(values * weight)` and `sum(weight)`.

  Args:
    values_B: one value an example.
    weight_B: None: all ones.
  """
  chex.assert_rank(values_B, 1)
  dtype = jnp.promote_types(values_B.dtype, jnp.float32)
  weight_B = example_weights(values_B, weight_B).astype(dtype)
  return Mean((values_B.astype(dtype) * weight_B).sum(), weight_B.sum())


def example_weights(values_B: Array, weight_B: Array | None) -> Array:
  """The weights of the examples [B]; all ones where None."""
  if weight_B is None:
    return jnp.ones(values_B.shape, jnp.float32)
  chex.assert_equal_shape([values_B, weight_B])
  return weight_B
