"""Several runs in one program: members of an ensemble, seeds, runs of a sweep.

vectorize(experiment, n)   n members that differ in the seed of `init`, on the same data
together(build, configs)   runs of several configs, each on the batches of its own seed

Metrics gain a leading axis of members. Figures and functions are those of member 0, and
figures say so. Equal to single runs to rounding, not to the bit.
"""

import dataclasses
from typing import Any, Callable, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np

from dlx.config import Config, traced
from dlx.data.batches.each_own import EachOwn
from dlx.data.batches.resident import InOrder, Whole
from dlx.data.dataset import Dataset, Resident
from dlx.errors import ConfigError
from dlx.experiment import Eval, Experiment
from dlx.state import Mean, Metric, TrainState, is_key
from dlx.train.steps import all_finite

DIVERGED = 'diverged'
DECLARED = Metric(
  'Diverged',
  'lower',
  'Whether a step of the run gave what is not finite; from there on its state is kept '
  'as it was before that step.',
  '',
  'share',
)


def vectorize(
  experiment: Experiment, n: int, *, chunk: int | None = None
) -> Experiment:
  """n members in one program: member i starts from `fold_in(key, i)`.

  Every member sees the same batches. A member whose `stop` is set changes no more; the
  run ends when all have stopped. Evaluations are mapped over members: an ensemble's own
  evaluation (mean of logits) takes the place of `Eval.step`.

  Args:
    chunk: members that are computed at once, the rest one chunk after the other, so
      that temporaries are those of a chunk; None: all at once.

  Raises:
    ConfigError: n or chunk below 1, or an experiment with `warm_start` (wrap it by
      hand).
  """
  if n < 1:
    raise ConfigError(f'vectorize: n={n} is not allowed: must be at least 1.')
  if chunk is not None and chunk < 1:
    raise ConfigError(f'vectorize: chunk={chunk} is not allowed: must be at least 1.')
  if experiment.warm_start is not None:
    raise ConfigError(
      'vectorize: an experiment with warm_start is not allowed: load '
      'the members in a warm_start of the vectorised experiment.'
    )

  def keys(key):
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(n))

  return _joined(experiment, n, lambda _: experiment, (), keys, chunk)


def differing(configs: Sequence[Config]) -> dict[str, list[Any]]:
  """Top-level fields in which configs of one class differ, with the value of each."""
  names = [f.name for f in dataclasses.fields(configs[0])]
  found = {name: [getattr(c, name) for c in configs] for name in names}
  return {k: v for k, v in found.items() if any(x != v[0] for x in v)}


def together(
  build: Callable[[Any], Experiment],
  configs: Sequence[Config],
  *,
  chunk: int | None = None,
) -> Experiment:
  """The runs of several configs in one program, each as it would be on its own.

  Member i has the initial state, the batches and the noise of `configs[i]`. A run whose
  metrics or state would not be finite keeps the state before that step, and its metric
  `train/diverged` is 1: the others go on.

  Args:
    build: of an experiment, whose functions use the fields that differ by arithmetic
      alone (`SWEPT` of its module names them), and whose data are resident.
    configs: valid; they differ in `seed` and in fields of numbers.
    chunk: see `vectorize`.

  Raises:
    ConfigError: no config, several classes, a field that differs and is no number, data
      that are streamed or of several shapes, or an experiment with `warm_start`.
  """
  if not configs or any(type(c) is not type(configs[0]) for c in configs):
    raise ConfigError('together: give one or more configs of one class.')
  config, n = configs[0], len(configs)
  base = build(config)
  if base.warm_start is not None:
    raise ConfigError(
      'together: an experiment with warm_start is not allowed: train its runs one by '
      'one.'
    )
  values = {}
  for name, found in differing(configs).items():
    if not all(type(x) in (int, float) for x in found):
      raise ConfigError(
        f'together: config.{name} is not allowed to differ: must be a number in all '
        'runs; train them one by one.'
      )
    wide = 'float64' in (config.compute_dtype, config.param_dtype)
    number = np.float64 if wide else np.float32
    values[name] = np.asarray(found, np.uint32 if name == 'seed' else number)
  seeds = np.asarray([c.seed for c in configs], np.uint32)
  of = lambda value: build(traced(config, **value))
  joined = _joined(
    base,
    n,
    of,
    values,
    lambda _: jax.vmap(jax.random.key)(seeds),
    chunk,
    data=lambda pick: _of_seeds(seeds, lambda s: pick(build(traced(config, seed=s)))),
  )
  # Members lie apart; what a rule says of a leaf holds within a member.
  apart = tuple((path, P('data', *spec)) for path, spec in base.placement)
  joined = joined._replace(placement=(*apart, ('', P('data'))))
  return _guarded(joined, n)


def member(state: TrainState, i: int = 0) -> TrainState:
  """The state of one member."""
  own = state._replace(step=(), evaluated=())
  own = jax.tree.map(lambda x: x[i], own)
  return own._replace(step=state.step, evaluated=state.evaluated)


def joined(one: TrainState, n: int) -> TrainState:
  """ShapeDtypeStructs of the state of `together`, from those of one of its n runs."""
  many = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((n, *x.shape), x.dtype),
    one._replace(step=(), evaluated=()),
  )
  diverged = jax.ShapeDtypeStruct((n,), bool)
  return many._replace(
    step=one.step, evaluated=one.evaluated, model_state=(many.model_state, diverged)
  )


def run_of(state: TrainState, i: int) -> TrainState:
  """The state of one run in that of `together`: as if it had been trained alone."""
  own = member(state, i)
  return own._replace(model_state=own.model_state[0])


def _of_seeds(seeds: np.ndarray, of: Callable[[Any], Dataset]) -> Callable:
  """Dataset of one seed -> that of all; itself where it does not depend on the seed."""

  def own(data: Dataset) -> Dataset:
    if isinstance(data, (InOrder, Whole)) or (seeds == seeds[0]).all():
      return data
    if not isinstance(data, Resident) or len(data.shapes) > 1:
      raise ConfigError(
        'together: runs of several seeds need resident data of one shape: train them '
        'one by one, or choose stream=False.'
      )
    return EachOwn(data, seeds, of)

  return own


def _joined(
  e: Experiment,
  n: int,
  of: Callable[[Any], Experiment],
  values: Any,
  keys: Callable[[Any], Any],
  chunk: int | None,
  data: Callable[[Callable[[Experiment], Dataset]], Callable] | None = None,
) -> Experiment:
  """n experiments as one.

  Args:
    e: one of them, for shapes, figures and what is said of it.
    of: values of one member -> its experiment.
    values: tree of arrays [n, ...].
    keys: key of the run -> that of each member.
    data: what picks a data set from an experiment -> a function that gives its form for
      all members; None: all see the same.
  """

  def each(function, state, mapped=()):
    """(experiment and state of a member, its part of `mapped`) -> tree, over all."""

    def one(member):
      value, own, part = member
      own = own._replace(step=state.step, evaluated=state.evaluated)
      return function(of(value), own, part)

    members = values, state._replace(step=(), evaluated=()), mapped
    if chunk is None or chunk >= n:
      return jax.vmap(one)(members)
    return jax.lax.map(one, members, batch_size=chunk)

  def common(state):
    """One `step` and one `evaluated` for all members: they are equal."""
    return state._replace(step=state.step[0], evaluated=state.evaluated[0])

  def init(key):
    one = lambda value, key: of(value).init(key)
    return common(jax.vmap(one)(values, keys(key)))

  own_data = (lambda _: lambda d: d) if data is None else data
  train_data = own_data(lambda e: e.train_data)(e.train_data)
  train_is_own = train_data is not e.train_data

  def train_step(state, batch):
    if train_is_own:
      new, metrics = each(lambda e, own, b: e.train_step(own, b), state, batch)
    else:
      new, metrics = each(lambda e, own, _: e.train_step(own, batch), state)
    return hold(state.stop, common(new), state), metrics

  def mapped(name, evaluation):
    own = own_data(lambda e: e.evals[name].data)(evaluation.data)

    def step(state, batch):
      if own is not evaluation.data:
        return each(lambda e, member, b: e.evals[name].step(member, b), state, batch)
      return each(lambda e, member, _: e.evals[name].step(member, batch), state)

    def summarize(metrics):
      return jax.vmap(lambda v, m: of(v).evals[name].summarize(m))(values, metrics)

    return evaluation._replace(step=step, data=own, summarize=summarize)

  def after_eval(state, metrics):
    # A figure of all members together is the same for each.
    metrics = {name: jnp.broadcast_to(v, (n,)) for name, v in metrics.items()}

    def one(e, own, metrics):
      assert e.after_eval is not None
      return e.after_eval(own, metrics)

    return hold(state.stop, common(each(one, state, metrics)), state)

  return _of_first(
    e._replace(
      init=init,
      train_step=train_step,
      train_data=train_data,
      after_eval=None if e.after_eval is None else after_eval,
      evals={name: mapped(name, v) for name, v in e.evals.items()},
      placement=tuple((path, P(None, *spec)) for path, spec in e.placement),
      flops_per_step=None if e.flops_per_step is None else n * e.flops_per_step,
    ),
    n,
  )


def hold(held: Any, new: TrainState, old: TrainState) -> TrainState:
  """The new state, but the old one of members that are held (bool [n])."""
  n = held.shape[0]

  def one(a, b):
    if is_key(a):
      return a  # Keys never change.
    return jnp.where(held.reshape((n,) + (1,) * (a.ndim - 1)), b, a)

  kept = jax.tree.map(
    one, new._replace(step=(), evaluated=()), old._replace(step=(), evaluated=())
  )
  return kept._replace(step=new.step, evaluated=new.evaluated)


def _of_first(e: Experiment, n: int) -> Experiment:
  """Figures and functions of an experiment of one, as those of member 0."""

  def first(figure):
    """The picture of member 0, and its title says so."""
    compute, of_eval = figure.compute, figure.eval

    def draw(tree):
      if figure.history:
        tree = jax.tree.map(lambda x: x[:, 0] if x.ndim > 1 else x, tree)
      elif of_eval is not None and compute is None:
        tree = jax.tree.map(lambda x: x[0], tree)
      return _titled(figure.draw(tree), f'member 0 of {n}')

    if compute is None:
      return figure._replace(draw=draw)
    return figure._replace(
      draw=draw, compute=lambda state, key, batch: compute(member(state), key, batch)
    )

  def of_first(function):
    call = lambda state, inputs, **options: function.call(
      member(state), inputs, **options
    )
    return function._replace(call=call)

  return e._replace(
    figures={name: first(v) for name, v in e.figures.items()},
    functions={name: of_first(v) for name, v in e.functions.items()},
  )


def _titled(drawn: Any, note: str) -> Any:
  """A drawn text or matplotlib figure with a line about whose it is; images pass."""
  if isinstance(drawn, str):
    return f'({note})\n{drawn}'
  if hasattr(drawn, 'text') and hasattr(drawn, 'axes'):
    drawn.text(0.995, 0.005, note, ha='right', va='bottom', fontsize=7, color='#6b7683')
  return drawn


def _guarded(e: Experiment, n: int) -> Experiment:
  """Members whose step is not finite stand still; the others go on.

  Which they are is kept beside `model_state`.
  """

  def inner(state: TrainState) -> TrainState:
    return state._replace(model_state=state.model_state[0])

  def outer(state: TrainState, diverged: Any) -> TrainState:
    return state._replace(model_state=(state.model_state, diverged))

  def init(key):
    return outer(e.init(key), jnp.zeros(n, bool))

  def train_step(state, batch):
    own, diverged = inner(state), state.model_state[1]
    new, metrics = e.train_step(own, batch)
    finite = jax.vmap(all_finite)((new._replace(step=(), evaluated=()), metrics))
    diverged |= ~finite
    new = hold(diverged, new, own)
    new = new._replace(stop=new.stop | diverged)
    at = lambda x: diverged.reshape((n,) + (1,) * (x.ndim - 1))
    metrics = jax.tree.map(lambda x: jnp.where(at(x), jnp.zeros_like(x), x), metrics)
    metrics = {**metrics, DIVERGED: Mean(diverged.astype(jnp.float32), jnp.ones(n))}
    return outer(new, diverged), metrics

  def after_eval(state, metrics):
    own, diverged = inner(state), state.model_state[1]
    assert e.after_eval is not None
    return outer(e.after_eval(own, metrics), diverged)

  def of_inner(evaluation: Eval) -> Eval:
    step = evaluation.step
    return evaluation._replace(step=lambda state, batch: step(inner(state), batch))

  def figure(f):
    compute = f.compute
    if compute is None:
      return f
    return f._replace(
      compute=lambda state, key, batch: compute(inner(state), key, batch)
    )

  def function(f):
    call = f.call
    return f._replace(call=lambda state, *args, **kw: call(inner(state), *args, **kw))

  return e._replace(
    init=init,
    train_step=train_step,
    after_eval=None if e.after_eval is None else after_eval,
    evals={name: of_inner(v) for name, v in e.evals.items()},
    figures={name: figure(v) for name, v in e.figures.items()},
    functions={name: function(v) for name, v in e.functions.items()},
    metrics={**e.metrics, DIVERGED: DECLARED},
  )
