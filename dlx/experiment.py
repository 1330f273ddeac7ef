"""An experiment is a set of pure functions; launchers compose them, never look inside.

build(config) -> Experiment              what an experiment file provides
dlx.train.supervised.supervised(...)  the short path: one model, one loss, one
                                         optimiser
vectorize(experiment, n) -> Experiment   n seeds or members in one program
traced(config, **arrays) -> Config       a config that carries tracers, for sweeps
"""

import dataclasses
import math
import typing
from typing import Any, Callable, Iterable, Mapping, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np

from dlx.data.dataset import Dataset
from dlx.errors import ConfigError
from dlx.state import Array, Batch, Key, Metrics, PyTree, TrainState, ratios

DTYPES = ('float32', 'bfloat16', 'float16', 'float64')
UNSCALED_DTYPES = ('float32', 'bfloat16', 'float64')  # They need no loss scale.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """The fields that every run has; experiments add theirs in a subclass.

  Every field becomes a flag, `--config.NAME`, documented by the comment on its line.
  None means off. Names carry units. `__post_init__` refuses impossible values before a
  device is touched.
  """

  seed: int = 0  # Seed of the initialisation, the data order and all noise.
  num_steps: int = 1000  # Optimiser steps of the whole run.
  batch_size: int = 64  # Examples of one global batch.
  eval_batch_size: int = 256  # Examples of one evaluation batch; changes no figure.
  log_every_steps: int = 50  # Steps between lines of training metrics.
  eval_every_steps: int | None = None  # Steps between evaluations; None: at the end.
  eval_at_start: bool = False  # Also evaluate before the first step.
  save_every_steps: int | None = None  # Steps between checkpoints; None: at the end.
  figure_every_steps: int | None = None  # Steps between figures; None: at the end.
  keep_checkpoints: int = 2  # Newest checkpoints that are kept.
  best_metric: str | None = None  # Also keep the best by this, e.g. test/accuracy.
  best_mode: str = 'max'  # Whether the best is the max or the min.
  early_stop_metric: str | None = None  # Stop when it no longer improves: test/loss.
  early_stop_mode: str = 'min'  # Whether an improvement is a min or a max.
  early_stop_patience: int = 10  # Evaluations without an improvement before the stop.
  steps_per_dispatch: int | None = None  # At most; None: as many as fill 0.1 s.
  micro_batches: int = 1  # Parts of a batch whose gradients are accumulated.
  clip_norm: float | None = None  # Largest global norm of the gradient.
  clip_value: float | None = None  # Largest absolute value of a gradient's entries.
  ema_decay: float | None = None  # Decay of averaged parameters, used by evaluation.
  compute_dtype: str = 'float32'  # float32, bfloat16, float16 (scaled loss), float64.
  param_dtype: str = 'float32'  # Of parameters and optimiser state.
  stream: bool = False  # Read batches on the host, not from arrays on the devices.
  stream_workers: int = 0  # Processes that read streamed batches; 0: threads.

  def __post_init__(self):
    self.bounds('num_steps', 'batch_size', 'eval_batch_size', least=1)
    self.bounds('log_every_steps', 'keep_checkpoints', least=1)
    self.bounds('steps_per_dispatch', 'micro_batches', 'early_stop_patience', least=1)
    self.bounds('eval_every_steps', 'save_every_steps', 'figure_every_steps', least=1)
    self.bounds('clip_norm', 'clip_value', above=0)
    self.bounds('seed', least=0, below=2**31)
    self.bounds('stream_workers', least=0)
    self.bounds('ema_decay', above=0, below=1)
    self.choice('best_mode', 'early_stop_mode', of=('max', 'min'))
    for name in ('best_metric', 'early_stop_metric'):
      metric = getattr(self, name)
      self.require(
        name,
        metric is None or '/' in metric,
        'SPLIT/NAME, e.g. test/accuracy, or None for off',
      )
    self.choice('compute_dtype', 'param_dtype', of=DTYPES)
    self.require(
      'param_dtype',
      self.param_dtype not in ('float16', 'bfloat16')
      or self.compute_dtype == self.param_dtype,
      'at least as wide as compute_dtype',
    )
    self.require(
      'micro_batches',
      self.batch_size % self.micro_batches == 0,
      f'a divisor of batch_size={self.batch_size}',
    )

  # Checks for `__post_init__` alone. Each raises ConfigError, one line.

  def require(self, field: str, holds: bool, allowed: str):
    """Refuses the field's value unless `holds`; `allowed` says what would be."""
    if not holds:
      raise ConfigError(
        f'--config.{field}={getattr(self, field)} is not allowed: must be {allowed}.'
      )

  def bounds(
    self,
    *fields: str,
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
    most: float | None = None,
    some: bool = False,
  ):
    """Each value finite, least <= value <= most and above < value < below.

    Of a tuple every entry, and one at least with `some`; None passes where the field
    may be None.
    """
    for name in fields:
      kind, value = self._kind(name), getattr(self, name)
      values = value if isinstance(value, tuple) else (value,)
      fits = bool(values or not some) and all(
        isinstance(x, int | float | np.number)
        and math.isfinite(x)
        and (least is None or x >= least)
        and (above is None or x > above)
        and (below is None or x < below)
        and (most is None or x <= most)
        for x in values
      )
      allowed = _interval(least, above, below, most)
      if tuple in (type(value), typing.get_origin(kind)):
        count = 'one or more numbers' if some else 'numbers'
        kept = '' if isinstance(value, tuple) else 'a tuple of '
        allowed = f'{kept}{count}, each {allowed}'
      optional = type(None) in typing.get_args(kind)
      allowed += ', or None' if optional else ''
      self.require(name, fits or (optional and value is None), allowed)

  def choice(self, *fields: str, of: Iterable[str]):
    """Each value one of these words."""
    words = list(of)
    allowed = ' or '.join(words) if len(words) < 3 else 'one of ' + ', '.join(words)
    for name in fields:
      self.require(name, getattr(self, name) in words, allowed)

  def unused(self, *fields: str, why: str):
    """Each value the default of its field: the experiment does without the feature."""
    defaults = {f.name: f.default for f in dataclasses.fields(self)}
    for name in fields:
      default = defaults[name]
      self.require(name, getattr(self, name) == default, f'{default}: {why}')

  def _kind(self, field: str) -> Any:
    return next(f.type for f in dataclasses.fields(self) if f.name == field)


def _interval(least, above, below, most) -> str:
  low = least if above is None else above
  high = most if below is None else below
  if low is None or high is None:
    sides = {'at least': least, 'above': above, 'below': below, 'at most': most}
    return next(f'{word} {x}' for word, x in sides.items() if x is not None)
  high = '2**31' if high == 2**31 else high
  return (
    f'in {"[" if above is None else "("}{low}, {high}{"]" if below is None else ")"}'
  )


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


_C = TypeVar('_C', bound=Config)


def traced(config: _C, **arrays: Any) -> _C:
  """A copy of a valid config with fields replaced by arrays or tracers.

  Skips `__post_init__`, which compares values and cannot under vmap: validate every
  concrete config of a sweep first.

  Raises:
    ConfigError: a name that is no field.
  """
  names = {f.name for f in dataclasses.fields(config)}
  if unknown := sorted(set(arrays) - names):
    raise ConfigError(f'{type(config).__name__} has no field {unknown[0]!r}.')
  copy = object.__new__(type(config))
  copy.__dict__.update({name: getattr(config, name) for name in names} | arrays)
  return copy


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
