"""Tests for dlx/config_json.py."""

import dataclasses
import enum
import json
from typing import Any, Literal

from absl.testing import absltest, parameterized
import numpy as np

from dlx import config_json
from dlx.config import Config, Group
from dlx.errors import ConfigError


class Order(enum.Enum):
  ROWS = 1
  COLUMNS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
  lr: float = 0.1
  betas: tuple[float, float] = (0.9, 0.999)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example(Config):
  widths: tuple[int, ...] = (32, 64)
  words: tuple[str, ...] | None = None
  loss: Literal['l2', 'l1'] = 'l2'
  depth: Literal[1, 2] = 1
  order: Order = Order.ROWS
  optimizer: Optimizer = Optimizer()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge(Group):
  num_steps: int = 300

  def __post_init__(self):
    self.bounds('num_steps', least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged(Config):
  judge: Judge = Judge()


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnyField(Config):
  what: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needs(Config):
  size: int
  optimizer: Optimizer = Optimizer(lr=0.5)  # Another than that of its class.


def through_text(config):
  return json.loads(json.dumps(config_json.config_to_json(config)))


class RoundTripTest(parameterized.TestCase):
  @parameterized.parameters(
    {},
    dict(widths=(), words=('a', 'b,c'), clip_norm=1.0),
    dict(loss='l1', depth=2, order=Order.COLUMNS, stream=True),
    # Sums that have no short decimal: repr carries them to the bit.
    dict(clip_norm=0.1 + 0.2, optimizer=Optimizer(lr=1e-3 / 3, betas=(0.5, 1 / 3))),
  )
  def test_gives_the_same_config(self, **fields):
    config = Example(**fields)
    again = config_json.config_from_json(Example, through_text(config))
    self.assertEqual(again, config)
    self.assertIs(type(again.widths), tuple)
    self.assertIs(type(again.optimizer), Optimizer)

  def test_writes_plain_json_by_hand(self):
    obj = through_text(Example())
    self.assertEqual(obj['widths'], [32, 64])
    self.assertEqual(obj['optimizer'], {'lr': 0.1, 'betas': [0.9, 0.999]})
    self.assertEqual(obj['order'], 'ROWS')
    self.assertIsNone(obj['words'])
    self.assertEqual(obj['seed'], 0)

  def test_a_whole_number_in_a_float_field_becomes_a_float(self):
    obj = through_text(Example()) | {'clip_norm': 1}
    clip = config_json.config_from_json(Example, obj).clip_norm
    self.assertIs(type(clip), float)


class RefusedTest(parameterized.TestCase):
  @parameterized.parameters(
    ({'num_steps': -1}, '--config.judge.num_steps=-1 is not allowed: must be at least'),
    ({'num_steps': '1'}, "config.judge.num_steps='1' is not allowed: must be a whole"),
  )
  def test_a_wrong_value_of_a_group_names_the_whole_flag(self, judge, message):
    obj = through_text(Judged()) | {'judge': judge}
    with self.assertRaisesRegex(ConfigError, f'^{message}'):
      config_json.config_from_json(Judged, obj)

  def test_unknown_and_missing_fields_are_all_named(self):
    obj = through_text(Example())
    del obj['widths'], obj['seed']
    obj |= {'momentum': 0.9}
    with self.assertRaisesRegex(
      ConfigError, r'Example \(unknown: momentum; missing: seed, widths\)'
    ):
      config_json.config_from_json(Example, obj)

  def test_of_a_nested_field_too(self):
    obj = through_text(Example())
    del obj['optimizer']['lr']
    with self.assertRaisesRegex(ConfigError, r'config.optimizer .*missing: lr'):
      config_json.config_from_json(Example, obj)

  @parameterized.parameters(
    ('seed', 1.0, 'a whole number'),
    ('seed', True, 'a whole number'),
    ('seed', None, 'a whole number'),
    ('stream', 1, 'true or false'),
    ('clip_norm', '1', 'a finite number, or none'),
    ('clip_norm', float('nan'), 'a finite number'),
    ('widths', 3, 'whole numbers'),
    ('widths', [3, 0.5], 'a whole number'),
    ('loss', 'l3', 'one of l2, l1'),
    ('loss', ['l1'], 'one of l2, l1'),
    ('depth', '1', 'one of 1, 2'),
    ('depth', True, 'one of 1, 2'),
    ('order', 1, 'one of ROWS, COLUMNS'),
    ('optimizer', 3, 'fields of Optimizer'),
    ('optimizer', {'lr': 1.0, 'betas': [1.0]}, '2 finite numbers'),
    ('seed', -1, r'in \[0'),  # From __post_init__.
  )
  def test_wrong_value_names_field_and_what_is_allowed(self, field, value, allowed):
    obj = through_text(Example()) | {field: value}
    with self.assertRaisesRegex(ConfigError, f'config.{field}.*{allowed}'):
      config_json.config_from_json(Example, obj)

  @parameterized.parameters(float('inf'), b'bytes', ([1],), ({'a': 1},))
  def test_what_json_cannot_carry(self, value):
    with self.assertRaisesRegex(ConfigError, 'config.what=.* is not allowed'):
      config_json.config_to_json(AnyField(what=value))

  @parameterized.parameters(dict, int | str, tuple[int, str], list[int])
  def test_types_that_no_field_may_have(self, type_):
    with self.assertRaisesRegex(ConfigError, 'is not allowed in a Config'):
      config_json.describe(type_)


class FieldsTest(parameterized.TestCase):
  def test_over_the_defaults_and_over_a_config(self):
    found = config_json.config_of_fields(
      Example, {'widths': [8], 'order': Order.COLUMNS, 'optimizer': {'lr': 1}}
    )
    wanted = Example(widths=(8,), order=Order.COLUMNS, optimizer=Optimizer(lr=1.0))
    self.assertEqual(found, wanted)
    again = config_json.config_of_fields(
      Example, {'loss': 'l1', 'clip_norm': np.float32(0.5)}, found
    )
    self.assertEqual(again, dataclasses.replace(found, loss='l1', clip_norm=0.5))

  def test_a_group_keeps_what_the_config_says_of_it(self):
    given = {'size': 3, 'optimizer': {'betas': (0.5, 0.6)}}
    found = config_json.config_of_fields(Needs, given)
    self.assertEqual(found.optimizer, Optimizer(lr=0.5, betas=(0.5, 0.6)))
    whole = config_json.config_of_fields(Needs, {'size': 3, 'optimizer': Optimizer()})
    self.assertEqual(whole.optimizer, Optimizer())

  @parameterized.parameters(
    (Example, {'width': (8,)}, r'config.width is not .* mean widths\? Must be one of'),
    (Example, {'zzz': 1}, 'config.zzz is not allowed: must be one of seed, '),
    (Example, {'optimizer': {'rate': 1}}, 'config.optimizer.rate is not allowed'),
    (Example, {'widths': 8}, r'config.widths=8 is not allowed: must be whole numbers'),
    (Example, {'widths': object()}, 'cannot stand in config.json'),
    (Needs, {}, 'config.size is missing: .* must be a whole number'),
    (Judged, {'judge': {'num_steps': -1}}, '--config.judge.num_steps=-1'),
  )
  def test_refused(self, cls, given, says):
    with self.assertRaisesRegex(ConfigError, says) as caught:
      config_json.config_of_fields(cls, given)
    self.assertNotIn('\n', str(caught.exception))


if __name__ == '__main__':
  absltest.main()
