"""Tests for launch/flags/config_flags.py."""

import dataclasses
import enum
from typing import Literal

from absl import flags
from absl.testing import absltest, parameterized

from dlx.config import Config, Group
from dlx.errors import ConfigError
from launch.flags import config_flags


class Order(enum.Enum):
  ROWS = 1
  COLUMNS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
  lr: float = 0.1  # Peak rate.
  nesterov: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base(Config):
  depth: int = 2  # Layers.
  width: int = 8  # Units of a layer.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example(Base):
  """Fields of all kinds."""

  # Units of each layer,
  # from the input on.
  widths: tuple[int, ...] = (32, 64)
  betas: tuple[float, float] = (0.9, 0.999)  # Decay of
  # the next field, not of this one.
  words: tuple[str, ...] = ()
  # fmt: off
  crop: int | None = None  # Pixels cut off,
                           # at each side.
  # fmt: on
  note: str | None = (  # Two lines.
    'none yet'
  )
  size: int = 256  # As the formatter leaves a line of more than 88 columns.
  loss: Literal['l2', 'l1'] = 'l2'  # With a # in it.
  order: Order = Order.ROWS

  depth: int = 3
  width: int = 16  # Units, said anew.
  optimizer: Optimizer = Optimizer(lr=0.5)  # Has fields of its own.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rate(Group):
  peak: float = 0.1  # Largest rate.

  def __post_init__(self):
    self.bounds('peak', above=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge(Group):
  num_steps: int = 300  # Steps of the judge.
  rate: Rate = Rate()  # Has fields of its own.

  def __post_init__(self):
    self.bounds('num_steps', least=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged(Config):
  judge: Judge = Judge(num_steps=100)

  def __post_init__(self):
    super().__post_init__()
    self.bounds('judge.num_steps', most=self.num_steps)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Required(Config):
  size: int  # Has no default.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unsupported(Config):
  table: dict = dataclasses.field(default_factory=dict)


def parsed(*args: str, cls: type = Example):
  values = flags.FlagValues()
  config_flags.define(cls, values, 'here')
  values(['program', *args])
  return values


def built(*args: str, cls: type = Example):
  return config_flags.build(cls, parsed(*args, cls=cls))


class BuildTest(parameterized.TestCase):
  def test_no_flag_is_the_default_config(self):
    self.assertEqual(built(), Example())

  @parameterized.parameters(
    ('--config.seed=3', dict(seed=3)),
    ('--config.num_steps=1_000', dict(num_steps=1000)),
    ('--config.stream', dict(stream=True)),
    ('--noconfig.stream', dict(stream=False)),
    ('--config.stream=true', dict(stream=True)),
    ('--config.clip_norm=1', dict(clip_norm=1.0)),
    ('--config.clip_norm=None', dict(clip_norm=None)),
    ('--config.crop=4', dict(crop=4)),
    ('--config.crop=none', dict(crop=None)),
    ('--config.note=', dict(note='')),
    ('--config.note=none', dict(note=None)),
    ('--config.note=a=b', dict(note='a=b')),
    ('--config.widths=1,2, 3', dict(widths=(1, 2, 3))),
    ('--config.widths=', dict(widths=())),
    ('--config.betas=.5,1e-3', dict(betas=(0.5, 1e-3))),
    ('--config.words=a,b c', dict(words=('a', 'b c'))),
    ('--config.loss=l1', dict(loss='l1')),
    ('--config.order=COLUMNS', dict(order=Order.COLUMNS)),
    # The other fields of a nested default stay: lr is 0.5 here, 0.1 in its class.
    ('--config.optimizer.nesterov', dict(optimizer=Optimizer(lr=0.5, nesterov=True))),
  )
  def test_a_flag_overrides_its_field_alone(self, arg, fields):
    config = built(arg)
    self.assertEqual(config, Example(**fields))
    self.assertEqual(repr(config), repr(Example(**fields)))  # 1 is not 1.0 here.

  @parameterized.parameters(
    ('--config.seed=x', 'must be a whole number'),
    ('--config.seed=1e5', 'must be a whole number'),
    ('--config.seed=1.0', 'must be a whole number'),
    ('--config.seed=none', 'must be a whole number'),
    ('--config.stream=maybe', 'must be true or false'),
    ('--config.clip_norm=x', 'must be a finite number, or none'),
    ('--config.clip_norm=nan', 'must be a finite number'),
    ('--config.clip_norm=inf', 'must be a finite number'),
    ('--config.widths=1,x', 'must be whole numbers separated by commas'),
    ('--config.widths=1,', 'must be whole numbers separated by commas'),
    ('--config.betas=1', 'must be 2 finite numbers separated by commas'),
    ('--config.loss=l3', 'must be one of l2, l1'),
    ('--config.order=rows', 'must be one of ROWS, COLUMNS'),
  )
  def test_wrong_type_names_flag_value_and_what_is_allowed(self, arg, allowed):
    with self.assertRaisesRegex(flags.Error, f'flag {arg}: {allowed}'):
      parsed(arg)

  def test_unknown_field_gets_a_suggestion(self):
    with self.assertRaisesRegex(flags.Error, 'config.widhts.*config.widths'):
      parsed('--config.widhts=3')

  def test_impossible_value_is_a_config_error(self):
    with self.assertRaisesRegex(ConfigError, '--config.batch_size=0'):
      built('--config.batch_size=0')

  def test_field_without_default(self):
    self.assertEqual(built('--config.size=3', cls=Required).size, 3)
    with self.assertRaisesRegex(ConfigError, '--config.size is missing.*whole'):
      built(cls=Required)

  def test_unsupported_type_names_the_field(self):
    with self.assertRaisesRegex(ConfigError, '--config.table: type dict is not'):
      parsed(cls=Unsupported)

  def test_flags_written_to_text_are_read_back(self):
    values = parsed('--config.widths=1,2', '--config.crop=3', '--config.note=x y')
    text = [line for line in values.flags_into_string().split('\n') if line]
    self.assertEqual(
      config_flags.build(Example, parsed(*text)),
      Example(widths=(1, 2), crop=3, note='x y'),
    )


class GroupTest(parameterized.TestCase):
  def test_flags_of_a_group_override_its_fields_alone(self):
    config = built('--config.judge.rate.peak=0.5', cls=Judged)
    wanted = Judged(judge=Judge(num_steps=100, rate=Rate(peak=0.5)))
    self.assertEqual(config, wanted)

  @parameterized.parameters(
    ('judge.num_steps=-1', 'at least 0'),
    ('judge.rate.peak=0.0', 'above 0'),
    ('judge.num_steps=1001', 'at most 1000'),  # What the config itself refuses.
  )
  def test_a_wrong_nested_value_names_the_whole_flag(self, value, allowed):
    message = f'--config.{value} is not allowed: must be {allowed}.'
    with self.assertRaisesWithLiteralMatch(ConfigError, message):
      built(f'--config.{value}', cls=Judged)


class HelpTest(parameterized.TestCase):
  @parameterized.parameters(
    ('widths', 'Units of each layer, from the input on.'),
    ('betas', 'Decay of'),
    ('words', 'the next field, not of this one.'),
    ('crop', 'Pixels cut off, at each side.'),
    ('note', 'Two lines.'),
    ('size', 'As the formatter leaves a line of more than 88 columns.'),
    ('loss', 'With a # in it.'),
    ('depth', 'Layers.'),  # Only the default is new: the base still explains it.
    ('width', 'Units, said anew.'),
    ('seed', 'Seed of the initialisation, the data order and all noise.'),
  )
  def test_is_the_comment_of_the_field(self, field, text):
    self.assertEqual(config_flags.field_comments(Example)[field], text)

  def test_every_base_field_has_one(self):
    names = {f.name for f in dataclasses.fields(Config)}
    self.assertEqual(set(config_flags.field_comments(Config)), names)

  def test_nested_fields_take_theirs_from_the_nested_class(self):
    self.assertEqual(parsed()['config.optimizer.lr'].help, 'Peak rate.')

  def test_class_without_source_has_none(self):
    made = dataclasses.make_dataclass('Made', [('a', int, 1)], frozen=True)
    self.assertEqual(config_flags.field_comments(made), {})

  def test_own_fields_come_first(self):
    listed = parsed().get_flags_for_module('here')
    self.assertNotIn(listed[0].name, {f'config.{n}' for n in ('seed', 'num_steps')})
    self.assertLess(
      [f.name for f in listed].index('config.optimizer.lr'),
      [f.name for f in listed].index('config.seed'),
    )


if __name__ == '__main__':
  absltest.main()
