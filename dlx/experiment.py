"""An experiment is a set of pure functions; launchers compose them, never look inside.

build(config) -> Experiment              what an experiment file provides
dlx.train.supervised.supervised(...)     the short path: one model, loss and optimiser
vectorize(experiment, n) -> Experiment   n seeds or members in one program

`Config` and `UNSCALED_DTYPES`, which an experiment file needs too, are dlx.config's.
"""

from typing import Any, Callable, Mapping, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from dlx.config import UNSCALED_DTYPES, Config
from dlx.data.dataset import Dataset
from dlx.errors import ConfigError
from dlx.state import Array, Batch, Key, Metrics, PyTree, TrainState, ratios

__all__ = ('UNSCALED_DTYPES', 'Config', 'Eval', 'Experiment', 'Figure', 'vectorize')


class Eval(NamedTuple):
  """One evaluation: a pass over a finite data set.

  Attributes:
    step: pure; metrics (Mean or raw sums) of one batch. A batch has `weight` f32[B], 0
      for padding rows, which repeat a real row.
    data: finite; for a sampler, a data set of seeds or labels.
    every: steps between passes; None: `config.eval_every_steps`.
    summarize: pure; from the summed metrics of the pass to what is reported. Numbers,
      and where there are members one of each, are logged; all else (a confusion
      matrix, a tree) reaches figures only.
  """

  step: Callable[[TrainState, Batch], Metrics]
  data: Dataset
  every: int | None = None
  summarize: Callable[[Metrics], Mapping[str, Any]] = ratios


class Figure(NamedTuple):
  """One picture of the report.

  Attributes:
    draw: host, process 0: NumPy tree -> matplotlib Figure, uint8 image HWC or text.
    compute: pure and jitted: (state, key, batch) -> tree. None: `draw` gets the
      summary of the last pass of `eval`.
    data: its first batch is given to `compute`; None: an empty batch is.
    eval: name of the evaluation that is drawn where `compute` is None.
  """

  draw: Callable[[Any], Any]
  compute: Callable[[TrainState, Key, Batch], PyTree] | None = None
  data: Dataset | None = None
  eval: str | None = None


class Experiment(NamedTuple):
  """The pure functions that a run is made of.

  Attributes:
    init: key -> state. No I/O; works under eval_shape.
    train_step: (state, batch) -> (state, metrics). Adds 1 to `state.step`.
    train_data: the training stream, without an end.
    evals: by split name; metrics are reported as "split/name".
    warm_start: host; (state) -> (state, origin); may read other workdirs, see
      dlx/run/warm_start.py. Called once, after `init` and before step 0 of a fresh
      workdir; resume never calls it. `origin`, as JSON, stands in config.json.
    after_eval: pure; (state, {"split/name": scalar}) -> state. Plateau and early
      stopping live here, so that they resume exactly.
    placement: (pattern on the path of a leaf, spec), before the size rule.
    figures: by name; drawn after the last step.
    overfit: metric and floor that one repeated batch reaches, for the generic test;
      None needs a reason in the experiment's docstring.
    flops_per_step: floating-point operations of the model in one optimiser step over
      the global batch, as its formula counts them, a multiply-add two: what utilisation
      is measured by. None: it states none.
  """

  init: Callable[[Key], TrainState]
  train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
  train_data: Dataset
  evals: Mapping[str, Eval] = {}
  warm_start: Callable[[TrainState], tuple[TrainState, Mapping[str, Any]]] | None = None
  after_eval: Callable[[TrainState, Mapping[str, Array]], TrainState] | None = None
  placement: tuple[tuple[str, P], ...] = ()
  figures: Mapping[str, Figure] = {}
  overfit: tuple[str, float] | None = ('loss', 0.05)
  flops_per_step: float | None = None


def vectorize(
  experiment: Experiment, n: int, *, chunk: int | None = None
) -> Experiment:
  """n members in one program: member i starts from `fold_in(key, i)`.

  Every member sees the same batches. Metrics gain a leading axis of members. Equal to
  single runs to rounding, not to the bit. A member whose `stop` is set changes no more;
  the run ends when all have stopped. Evaluations are mapped over members: an ensemble's
  own evaluation (mean of logits) takes the place of `Eval.step`.

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
  e = experiment

  def each(function, state, mapped=()):
    """(state of one member, its part of `mapped`) -> tree, over all members."""

    def one(member):
      own, part = member
      own = own._replace(step=state.step, evaluated=state.evaluated)
      return function(own, part)

    members = state._replace(step=(), evaluated=()), mapped
    if chunk is None or chunk >= n:
      return jax.vmap(one)(members)
    return jax.lax.map(one, members, batch_size=chunk)

  def common(state):
    """One `step` and one `evaluated` for all members: they are equal."""
    return state._replace(step=state.step[0], evaluated=state.evaluated[0])

  def hold(new: TrainState, old: TrainState) -> TrainState:
    def one(a, b):
      if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
        return a  # Keys never change.
      return jnp.where(old.stop.reshape((n,) + (1,) * (a.ndim - 1)), b, a)

    kept = jax.tree.map(
      one, new._replace(step=(), evaluated=()), old._replace(step=(), evaluated=())
    )
    return kept._replace(step=new.step, evaluated=new.evaluated)

  def init(key):
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(n))
    return common(jax.vmap(e.init)(keys))

  def train_step(state, batch):
    new, metrics = each(lambda own, _: e.train_step(own, batch), state)
    return hold(common(new), state), metrics

  def mapped(evaluation):
    return evaluation._replace(
      step=lambda state, batch: each(lambda own, _: evaluation.step(own, batch), state),
      summarize=jax.vmap(evaluation.summarize),
    )

  def after_eval(state, metrics):
    function = e.after_eval
    assert function is not None
    # A figure of all members together is the same for each.
    metrics = {name: jnp.broadcast_to(v, (n,)) for name, v in metrics.items()}
    return hold(common(each(function, state, metrics)), state)

  return e._replace(
    init=init,
    train_step=train_step,
    after_eval=None if e.after_eval is None else after_eval,
    evals={name: mapped(v) for name, v in e.evals.items()},
    figures={},
    placement=tuple((path, P(None, *spec)) for path, spec in e.placement),
    flops_per_step=None if e.flops_per_step is None else n * e.flops_per_step,
  )
