"""The seven steps of --recipe: each takes what those before it have settled."""

import dataclasses
import functools
import shlex
from typing import Any, Callable, Mapping, Sequence

from dlx.inspect import recipe
from dlx.inspect.findings import Report, skipped
from launch.diagnosis import checks
from launch.diagnosis.checks import Check, Patient
from launch.flags.config_flags import value_to_text


class Cook(Patient):
  """An experiment while its recipe is looked for; `config` changes from step to step.

  Attributes:
    settings: fields that steps have changed.
  """

  def __init__(self, found: Any, config: Any, steps: int, data_dir: Any = None):
    super().__init__(found, config, steps, data_dir)
    self.settings: dict[str, Any] = {}
    self.runs = recipe.Runs(found.build, self.steps, data_dir)

  @functools.cached_property
  def points(self) -> list[recipe.Point]:
    """The learning curves of the config as it is after the steps before."""
    return recipe.curve(self.runs, self.config)

  def take(self, report: Report) -> Report:
    """Changes the config by what a step has settled."""
    self.config = dataclasses.replace(self.config, **report.settings)
    self.settings |= report.settings
    return report


def _compared(step: Callable[[Any], Report]) -> Callable[[Any], Report]:
  """A step that compares runs by their loss; skipped where that cannot be."""

  def asked(cook: Cook) -> Report:
    why = recipe.scored(cook.subject.experiment)
    return skipped(why) if why else cook.take(step(cook))

  return asked


STEPS: Mapping[str, Check] = {
  'overfit': Check('1 overfit one batch', checks.overfit),
  'regularise': Check(
    '2 regularise', _compared(lambda c: recipe.regularise(c.runs, c.config))
  ),
  'rate': Check('3 learning rate', _compared(lambda c: recipe.rate(c.runs, c.config))),
  'batch': Check(
    '4 batch size', _compared(lambda c: recipe.batch_size(c.runs, c.config))
  ),
  'curves': Check('5 curves', _compared(lambda c: recipe.curves(c.points))),
  'stop': Check(
    '6 early stopping',
    _compared(lambda c: recipe.early_stop(c.config, c.subject.experiment, c.points)),
  ),
  'ensemble': Check(
    '7 ensemble', _compared(lambda c: recipe.ensemble(c.runs, c.config))
  ),
}


def command(exp: str, argv: Sequence[str], settings: Mapping[str, Any]) -> str:
  """The command that trains with what was given and what the recipe has settled.

  Args:
    exp: as in --exp.
    argv: of launch.doctor; its flags of the Config are kept, but for settled ones.
    settings: fields that the recipe has changed.
  """
  kept, behind = [], False
  for word in argv[1:]:
    name, equals, _ = word.partition('=')
    if name.startswith(('--config.', '--noconfig.')):
      keep = name.partition('config.')[2] not in settings
      kept += [word] * keep
      behind = keep and not equals
    elif behind and not word.startswith('--'):
      kept, behind = [*kept, word], False
    else:
      behind = False
  flags = [f'--config.{k}={value_to_text(v)}' for k, v in settings.items()]
  return shlex.join(['python', '-m', 'launch.train', f'--exp={exp}', *kept, *flags])
