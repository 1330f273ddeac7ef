"""The fields that every run has, groups of fields, checks, copies that carry tracers.

Config       the fields of a run: flags --config.NAME
StudyConfig  those of a study of many runs
Group        what several fields say of one thing: flags --config.GROUP.NAME
"""

import dataclasses
import inspect
import math
import typing
from typing import Any, Iterable, Self, TypeVar

import numpy as np

from dlx import config_json
from dlx.errors import ConfigError, FieldError

DTYPES = ('float32', 'bfloat16', 'float16', 'float64')
UNSCALED_DTYPES = ('float32', 'bfloat16', 'float64')  # They need no loss scale.


class Checks:
  """Checks for `__post_init__` alone. Each raises FieldError, one line.

  A name with dots, `judge.num_steps`, is a field of a group.
  """

  def __init_subclass__(cls, **kwargs: Any):
    """Refuses a value without a type: dataclasses take it for no field, in silence."""
    super().__init_subclass__(**kwargs)
    for name, value in vars(cls).items():
      plain = not (name.startswith('_') or callable(value) or hasattr(value, '__get__'))
      if plain and name not in inspect.get_annotations(cls):
        raise ConfigError(
          f'{cls.__qualname__}: {name} = {value!r} has no type and is no field: write '
          f'{name}: {type(value).__name__} = ..., or typing.ClassVar for a constant.'
        )

  def require(self, field: str, holds: bool, allowed: str):
    """Refuses the field's value unless `holds`; `allowed` says what would be."""
    if not holds:
      owner, name = self._owner(field)
      fault = f'{field}={getattr(owner, name)} is not allowed: must be {allowed}.'
      raise FieldError(type(self), self._place(), fault)

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
      owner, last = self._owner(name)
      # Resolved: the annotation itself may be postponed, a text.
      kind, value = config_json.field_types(type(owner))[last], getattr(owner, last)
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
      owner, last = self._owner(name)
      self.require(name, getattr(owner, last) in words, allowed)

  def unused(self, *fields: str, why: str):
    """Each value the default of its field: the experiment does without the feature."""
    for name in fields:
      owner, last = self._owner(name)
      (default,) = (f.default for f in dataclasses.fields(owner) if f.name == last)
      self.require(name, getattr(owner, last) == default, f'{default}: {why}')

  def _owner(self, field: str) -> tuple[Any, str]:
    """What holds the field, this or a group in it, and the field's name there."""
    owner, *groups = self, *field.split('.')
    for group in groups[:-1]:
      owner = getattr(owner, group)
    return owner, groups[-1]

  def _place(self) -> str:
    """What stands before the name of a field in a message."""
    return type(self).__qualname__


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group(Checks):
  """What several fields of a Config say of one thing; a base of frozen dataclasses.

    judge: Judge.Config = Judge.Config()    in a Config: --config.judge.num_steps

  `__post_init__` of a group refuses values that are impossible by themselves; what
  depends on other fields is refused by that of the Config. The message of a group that
  was built by hand names the class, that of one from flags or config.json the flag.
  """

  def __post_init__(self):
    """Nothing here; subclasses call it first, so that groups can be joined."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Checks):
  """The fields that every run has; experiments add theirs in a subclass.

  Every field becomes a flag, `--config.NAME`, documented by the comment on its line.
  None means off. Names carry units. `__post_init__` refuses impossible values before a
  device is touched.
  """

  seed: int = 0  # Seed of the initialisation, the data order and all noise.
  num_steps: int = 1000  # Optimiser steps of the whole run.
  batch_size: int = 64  # Examples of one global batch.
  # Examples of one evaluation batch; any size gives the same figures.
  eval_batch_size: int = 256
  log_every_steps: int = 50  # Steps between lines of training metrics.
  eval_every_steps: int | None = None  # Steps between evaluations; None: at the end.
  eval_at_start: bool = False  # Whether to evaluate before the first step, too.
  save_every_steps: int | None = None  # Steps between checkpoints; None: at the end.
  figure_every_steps: int | None = None  # Steps between figures; None: at the end.
  keep_checkpoints: int = 2  # Newest checkpoints that are kept.
  # Metric whose best checkpoint is kept, e.g. validation/accuracy.
  best_metric: str | None = None
  # Whether the largest or the least best_metric is the best: max, min.
  best_mode: str = 'max'
  # Metric that ends the run when no longer improving, e.g. validation/loss.
  early_stop_metric: str | None = None
  # Whether early_stop_metric shall fall or rise: min or max.
  early_stop_mode: str = 'min'
  early_stop_patience: int = 10  # Evaluations without an improvement before the stop.
  # Most steps of one program; None: as fill 0.1 s.
  steps_per_dispatch: int | None = None
  micro_batches: int = 1  # Parts of a batch whose gradients are accumulated.
  clip_norm: float | None = None  # Largest global norm of the gradient.
  clip_value: float | None = None  # Largest absolute value of a gradient's entries.
  ema_decay: float | None = None  # Decay of averaged parameters, used by evaluation.
  compute_dtype: str = 'float32'  # Arithmetic: float32, bfloat16, float16 or float64.
  param_dtype: str = 'float32'  # Dtype of the parameters; moments are float32 at least.
  # Share of the training examples that are held out as the split validation.
  validation: float = 0.0
  # Whether learning rate, gradient norm and update ratio are logged.
  curves: bool = False
  stream: bool = False  # Read batches on the host, not from arrays on the devices.
  stream_workers: int = 0  # Processes that read streamed batches; 0: threads.

  def __post_init__(self):
    self.bounds('num_steps', least=1, below=2**31)  # Steps are counted in int32.
    self.bounds('batch_size', 'eval_batch_size', least=1)
    self.bounds('log_every_steps', 'keep_checkpoints', least=1)
    self.bounds('steps_per_dispatch', 'micro_batches', 'early_stop_patience', least=1)
    self.bounds('eval_every_steps', 'save_every_steps', 'figure_every_steps', least=1)
    self.bounds('clip_norm', 'clip_value', above=0)
    self.bounds('seed', least=0, below=2**31)
    self.bounds('stream_workers', least=0)
    self.bounds('ema_decay', above=0, below=1)
    self.bounds('validation', least=0, below=1)
    self.choice('best_mode', 'early_stop_mode', of=('max', 'min'))
    for name in ('best_metric', 'early_stop_metric'):
      metric = getattr(self, name)
      self.require(
        name,
        metric is None or '/' in metric,
        'SPLIT/NAME, e.g. validation/accuracy, or None for off',
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

  def _place(self) -> str:
    return '--config'

  @classmethod
  def small(cls, **fields: Any) -> Self:
    """Six steps of 16 examples with an evaluation in the middle, and `fields`.

    An experiment's SMALL: the least run that still has every part.
    """
    run = {'num_steps': 6, 'batch_size': 16, 'log_every_steps': 2}
    return cls(**{**run, 'eval_every_steps': 3, **fields})

  def resolved(self) -> Self:
    """A copy in which every field has the value that is used.

    The same, but where one field (a size) chooses the values of others that are None.
    Launchers use and record this copy.
    """
    return self

  # What several pieces of a run are given together.

  @property
  def dtypes(self) -> dict[str, Any]:
    """`model(..., **config.dtypes)`: dtype and param_dtype of a module."""
    return {'dtype': self.compute_dtype, 'param_dtype': self.param_dtype}

  @property
  def clipping(self) -> dict[str, Any]:
    """`optim.clip(tx, **config.clipping)`."""
    return {'norm': self.clip_norm, 'value': self.clip_value}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyConfig(Checks):
  """The fields that every study has; studies add theirs in a subclass, as a Config."""

  seeds: int = 3  # Runs of each setting, which differ in their seed alone.
  first_seed: int = 0  # Seed of the first of those runs; the others follow.

  def __post_init__(self):
    self.bounds('seeds', least=1)
    self.bounds('first_seed', least=0)
    self.require(
      'first_seed', self.first_seed + self.seeds <= 2**31, 'below 2**31 for all seeds'
    )

  def _place(self) -> str:
    return '--config'

  def resolved(self) -> Self:
    """See `Config.resolved`."""
    return self


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
  copy.__dict__.update(vars(config) | arrays)  # Copied, which is not reading.
  return copy


def check_bounds(
  field: str, value: Any, low: float, high: Any = None, above: bool = False
):
  """Raises ConfigError unless a plain number is in bounds; tracers and None pass."""
  plain = (int, float, np.number)
  if not isinstance(value, plain) or not isinstance(high, (type(None), *plain)):
    return
  enough = value > low if above else value >= low
  if not enough or (high is not None and value > high):
    least = f'{"above" if above else "at least"} {low}'
    allowed = least if high is None else f'in [{low}, {high}]'
    raise ConfigError(f'{field}={value} is not allowed: must be {allowed}.')


def check_choice(field: str, value: Any, of: Iterable[str]):
  """Raises ConfigError unless the value is one of these words."""
  words = list(of)
  if value not in words:
    raise ConfigError(
      f'{field}={value} is not allowed: must be one of {", ".join(words)}.'
    )
