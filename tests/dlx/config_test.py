"""Groups of fields, and types of fields whose annotations are postponed."""

from __future__ import annotations  # What this file tests.

import dataclasses
from typing import ClassVar

from absl.testing import absltest, parameterized

from dlx.config import Config, Group
from dlx.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Postponed(Config):
  crop: int | None = None
  widths: tuple[int, ...] = ()

  def __post_init__(self):
    super().__post_init__()
    self.bounds('crop', 'widths', least=1)


class Judge:
  @dataclasses.dataclass(frozen=True, kw_only=True)
  class Config(Group):
    num_steps: int = 300
    workdir: str | None = None
    mode: str = 'max'

    def __post_init__(self):
      self.bounds('num_steps', least=0)
      self.choice('mode', of=('max', 'min'))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged(Config):
  judge: Judge.Config = Judge.Config()

  def __post_init__(self):
    super().__post_init__()
    self.choice('judge.mode', of=('max',))
    self.bounds('judge.num_steps', most=self.num_steps)
    self.require('judge.workdir', self.judge.workdir != 'here', 'elsewhere')
    if self.seed == 1:
      self.unused('judge.num_steps', why='of seed 1')


class PostponedTest(parameterized.TestCase):
  def test_none_passes_where_the_field_may_be_none(self):
    self.assertIsNone(Postponed().crop)

  @parameterized.parameters(
    (dict(crop=0), 'crop=0', 'at least 1, or None'),
    (dict(widths=(0,)), r'widths=(0,)', 'numbers, each at least 1'),
  )
  def test_the_message_says_what_the_type_allows(self, fields, value, allowed):
    message = f'--config.{value} is not allowed: must be {allowed}.'
    with self.assertRaisesWithLiteralMatch(ConfigError, message):
      Postponed(**fields)


class TypeTest(parameterized.TestCase):
  """A value without a type is no field: the run would use the base's, in silence."""

  @parameterized.parameters(Config, Group)
  def test_a_value_without_a_type_is_refused_where_the_class_is_made(self, base):
    with self.assertRaisesRegex(
      ConfigError, r'Config: num_steps = 3 has no type .* write num_steps: int = \.\.\.'
    ):
      type('Config', (base,), {'num_steps': 3, 'helper': len})

  def test_constants_functions_and_classes_are_no_fields(self):
    class Own(Config):
      LIMIT: ClassVar[int] = 3
      _cache = 4

      class Inner(Group):
        pass

      @property
      def double(self):
        return 2 * self.LIMIT

      @classmethod
      def of(cls):
        return cls()

    self.assertEqual(Own.of().double, 6)


class GroupTest(parameterized.TestCase):
  def test_built_by_hand_names_the_class_and_the_field(self):
    message = 'Judge.Config.num_steps=-1 is not allowed: must be at least 0.'
    with self.assertRaisesWithLiteralMatch(ConfigError, message):
      Judge.Config(num_steps=-1)

  @parameterized.parameters(
    (dict(mode='min'), {}, 'mode=min', 'max'),
    (dict(num_steps=5), dict(num_steps=4), 'num_steps=5', 'at most 4'),
    (dict(workdir='here'), {}, 'workdir=here', 'elsewhere'),
    (dict(num_steps=5), dict(seed=1), 'num_steps=5', '300: of seed 1'),
  )
  def test_the_checks_of_a_config_reach_inside(self, judge, fields, value, allowed):
    message = f'--config.judge.{value} is not allowed: must be {allowed}.'
    with self.assertRaisesWithLiteralMatch(ConfigError, message):
      Judged(judge=Judge.Config(**judge), **fields)


if __name__ == '__main__':
  absltest.main()
