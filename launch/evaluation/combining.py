"""Flags of launch.evaluate that combine runs, views, checkpoints; what they ask for."""

import math
import sys
from typing import TYPE_CHECKING, Any, Callable

from absl import flags

from dlx.errors import ConfigError
from launch.flags import paths

if TYPE_CHECKING:
  from dlx.run.combining.classifiers import Member
  from dlx.run.combining.combined import Asked, Combined

FLAGS = ('members', 'tta', 'temperature', 'average', 'soup')
RELIABILITY = 'reliability'  # The figure of --show that any classifier has.


def define(values: flags.FlagValues):
  """Adds the flags."""
  own: dict[str, Any] = dict(flag_values=values, module_name='launcher')
  flags.DEFINE_list(
    'members',
    [],
    'Other runs of the same data set, by comma, or patterns such as runs/cnn_*: with '
    'that of --workdir they are an ensemble, the mean of their probabilities.',
    **own,
  )
  flags.DEFINE_string(
    'tta',
    None,
    'Views of a test image over which probabilities are averaged: flip, '
    'shifts[:PIXELS], crops[:SHARE], or several of them, by comma.',
    **own,
  )
  flags.DEFINE_string(
    'temperature',
    None,
    'By what logits are divided: a number, or fit, on the split validation, else on '
    'half of the test split. Of an ensemble, those of its mean.',
    **own,
  )
  flags.DEFINE_string(
    'average',
    None,
    'Checkpoints of each run whose weights are averaged (SWA): last:N, from:STEP or '
    'steps:A,B,C.',
    **own,
  )
  flags.DEFINE_enum(
    'soup',
    None,
    ['uniform', 'greedy'],
    'Average the weights of the members, too: of all, or of those that help on '
    'held-out examples.',
    **own,
  )
  flags.DEFINE_integer(
    'norm_batches',
    100,
    'Training batches that give averaged weights their statistics of batch norm.',
    lower_bound=1,
    **own,
  )
  paths.define(
    values,
    'save',
    None,
    'New folder for the weights of --soup, else of --average, as a run of their own.',
  )


def check(values: flags.FlagValues):
  """Refuses what cannot be meant, before jax starts.

  Raises:
    ConfigError: a temperature that is none, a soup of one run, a figure of one run.
  """
  if values.soup and not values.members:
    raise ConfigError(
      f'--soup={values.soup} needs --members=WORKDIR,...: whose weights to average.'
    )
  if values.save and not (values.soup or values.average):
    raise ConfigError(
      f'--save={values.save} is of averaged weights: give --average or --soup, too.'
    )
  if values.temperature not in (None, 'fit'):
    temperature_of(values.temperature)
  given = [name for name in FLAGS if getattr(values, name)]
  if given and values.show not in (None, RELIABILITY):
    raise ConfigError(
      f'--show={values.show} is a figure of one run: leave --{given[0]} out, or give '
      f'--show={RELIABILITY}.'
    )


def temperature_of(text: str | None) -> float | str | None:
  """A number, `fit`, or None. Raises ConfigError."""
  if text is None or text == 'fit':
    return text
  try:
    found = float(text)
  except ValueError:
    found = math.nan
  if not (math.isfinite(found) and found > 0):
    raise ConfigError(
      f'--temperature={text} is not allowed: must be fit or a number above 0.'
    )
  return found


def tell(found: 'Combined', values: flags.FlagValues):
  """Says on stderr by which examples was chosen, and which figures are of others."""
  chosen = []
  if values.temperature == 'fit':
    chosen.append('the temperature is fitted')
  if values.soup == 'greedy':
    chosen.append('the soup is chosen')
  if not chosen:
    return
  halves = [x for x in found.bins if x.endswith('_half')]
  rest = f': {halves[0]} is the rest' if halves else ''
  print(f'{" and ".join(chosen)} on {found.told["held_out"]}{rest}.', file=sys.stderr)


def reliability(found: 'Combined') -> Any:
  """The reliability diagram of all rows of the test split, or of the first there is."""
  from dlx import figures

  split = next((x for x in found.bins if x.startswith('test')), next(iter(found.bins)))
  return figures.calibration_diagram(found.bins[split])


def wanted(values: flags.FlagValues, experiment: Any) -> bool:
  """Whether more is asked for than the run's own evaluations and figures."""
  own = values.show != RELIABILITY or RELIABILITY in experiment.figures
  return any(getattr(values, name) for name in FLAGS) or not own


def asked(values: flags.FlagValues, member: Callable[[str], 'Member']) -> 'Asked':
  """What the flags ask for.

  Args:
    values: parsed.
    member: opens the run in a workdir.

  Raises:
    ConfigError: views that are unknown, a workdir that holds no run.
  """
  from dlx.data.images import fixed_views
  from dlx.run.combining.combined import Asked
  from dlx.run.records.workdir import absolute
  from dlx.study.comparison import workdirs

  views = fixed_views.parse(values.tta, '--tta=') if values.tta else []
  # A pattern may mean the run of --workdir, too.
  seen = {str(absolute(values.workdir))}
  members = []
  for path in workdirs.folders(values.members):
    if str(absolute(path)) not in seen:
      seen.add(str(absolute(path)))
      members.append(member(path))
  if values.members and not members:
    raise ConfigError(
      f'--members={",".join(values.members)} is {values.workdir} alone: give others.'
    )
  return Asked(
    members=members,
    views=views,
    temperature=temperature_of(values.temperature),
    average=values.average,
    soup=values.soup,
    norm_batches=values.norm_batches,
    save=values.save,
  )
