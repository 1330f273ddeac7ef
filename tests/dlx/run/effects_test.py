"""Tests for dlx/run/effects.py: a flag that nothing reads is refused by name."""

import dataclasses

import pytest

from dlx.config import Config, traced
from dlx.errors import ConfigError
from dlx.run import effects, experiments_by_name
from dlx.run.records.json_files import flat
from tests.dlx.run import kinds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Own(kinds.Small):
  width: int = 8


def build(config):
  """Reads `clip_norm` where it is built, and `micro_batches` where a step is traced."""
  config = dataclasses.replace(config, width=9)
  experiment = kinds.classifier(kinds.Small())
  scale = config.clip_norm or 1.0

  def train_step(state, batch):
    assert config.micro_batches and scale
    return experiment.train_step(state, batch)

  return experiment._replace(train_step=train_step)


def test_read_where_it_is_built_or_traced():
  effects.check('fork', build, Own(clip_norm=2.0, micro_batches=2))


@pytest.mark.parametrize(
  ('field', 'value'),
  [('ema_decay', 0.9), ('clip_value', 1.0), ('compute_dtype', 'bfloat16')],
)
def test_read_by_nobody(field, value):
  config = Own(**{field: value, 'clip_norm': 2.0})
  message = f'^--config.{field}={value} has no effect: fork does not read it'
  with pytest.raises(ConfigError, match=message):
    effects.check('fork', build, config)


def test_a_copy_with_tracers_is_watched_too():
  """As of an experiment whose fields of None are filled by another, `char_gpt`."""
  of_copy = lambda config: build(traced(config, width=9))
  effects.check('fork', of_copy, Own(clip_norm=2.0))
  with pytest.raises(ConfigError, match='^--config.curves=True has no effect'):
    effects.check('fork', of_copy, Own(curves=True))


def test_defaults_are_not_asked_about():
  def never(config):
    raise AssertionError

  effects.check('fork', never, Own())
  effects.check('fork', never, Own(width=3, num_steps=5))  # Its own; the loop's.


def test_the_default_is_that_of_the_experiment():
  @dataclasses.dataclass(frozen=True, kw_only=True)
  class Averaging(Own):
    ema_decay: float | None = 0.5

  effects.check('fork', build, Averaging())
  with pytest.raises(ConfigError, match='ema_decay=None has no effect'):
    effects.check('fork', build, Averaging(ema_decay=None))


def test_a_bug_is_left_to_the_run():
  def bug(config):
    raise ZeroDivisionError

  effects.check('fork', bug, Own(ema_decay=0.9))


def test_all_that_the_loop_does_not_read():
  known = set(flat({f.name: None for f in dataclasses.fields(Config)}))
  assert set(effects.FIELDS) <= known
  assert 'batch_size' in effects.FIELDS


def test_an_experiment_reads_its_flags():
  found = experiments_by_name.load('softmax_regression')
  config = found.module.Config(
    batch_size=32, eval_batch_size=100, ema_decay=0.9, clip_norm=1.0, stream=True
  )
  assert effects.without(found.build, config) == []
