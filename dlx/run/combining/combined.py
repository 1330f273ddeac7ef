"""What several answers or weights are worth beside those of one checkpoint.

Rows, each with what the rows before it were asked to do:

  (none)       the checkpoint, as it is
  average      its weights averaged over checkpoints
  tta          its answers averaged over views of an image; what follows has them, too
  members      each run of the ensemble by itself; mean: of their figures
  ensemble     the mean of the members' probabilities
  soup         the mean of the members' weights
  calibrated   the last of these rows, with another temperature

What is chosen by examples (a fitted temperature, a greedy soup) is chosen by a held-out
part: the split validation, or where there is none half of the test split, the figures
then being those of the other half, under the name test_half.
"""

from typing import Any, Mapping, NamedTuple

from dlx.errors import ConfigError
from dlx.run import processes, sharding
from dlx.run.combining import classifiers, saved, weights
from dlx.run.combining.answering import Answering, mean_of
from dlx.run.combining.asked import Asked
from dlx.run.combining.classifiers import Classifier, Member
from dlx.run.combining.norm_statistics import has_statistics
from dlx.run.reopen import Opened, opened, unplaced
from dlx.state import TrainState


class Combined(NamedTuple):
  """What was found.

  Attributes:
    metrics: "split/name", and "split/name_row" of the rows above.
    told: what was done, as JSON: members, steps, views, what was held out.
    bins: by split and row, what `metrics.calibration_sums` gives.
  """

  metrics: dict[str, Any]
  told: dict[str, Any]
  bins: Mapping[str, Mapping[str, Any]]


def combined(
  first: Member,
  asked: Asked,
  *,
  step: int | str = 'latest',
  data_dir: Any = None,
  mesh: str | None = None,
) -> Combined:
  """Evaluates a run, alone and with what is asked; writes `asked.save` alone.

  Args:
    first: the run whose evaluations are read, and which is a member itself.
    asked: what is combined.
    step: of the checkpoints, of members, too; see `reopen.evaluate`.
    data_dir: see `Dataset.load`.
    mesh: see `sharding.parse_mesh`.

  Raises:
    ConfigError: runs that do not go together, checkpoints that are not there.
  """
  known = _classifier(first, asked)
  _check(first, asked)
  runs = [first, *asked.members]
  steps = {x.workdir: weights.steps_of(asked.average, x) for x in runs if asked.average}
  options: dict[str, Any] = {'step': step, 'data_dir': data_dir, 'mesh': mesh}
  found = _open(first, asked, options)
  own, state = found.metrics(), found.state
  told: dict[str, Any] = {}
  if asked.average:
    told['average'] = steps
    state = weights.averaged(found, first, steps[first.workdir], asked.norm_batches)
    own |= {f'{name}_average': value for name, value in found.metrics(state).items()}
  figures, bins = {}, {}
  if known is not None:
    answers = Answering(found, first, known, asked)
    told |= answers.told
    rows = answers.rows_of_one(state)
    if asked.members:
      told['members'] = [x.workdir for x in runs]
      members, soup = [list(rows.values())[-1]], [weights.on_host(state)]
      for member in asked.members:  # One on the devices at a time.
        if asked.average:
          of = _open(member, asked, options)
          taken = steps[member.workdir]
          other = weights.averaged(of, member, taken, asked.norm_batches)
        else:
          other = _state(member, step, found)
        members.append(answers.of_member(member, other))
        if asked.soup:
          soup.append(weights.on_host(other))
      rows |= {'members': members, 'ensemble': mean_of(members)}
      if asked.soup:
        state, kept = answers.of_soup(soup)
        rows['soup'] = answers.row(answers.seen, state)
        told['soup'] = [runs[i].workdir for i in kept]
    figures, bins = answers.scored(rows)
  if asked.save is not None:
    saved.save(found, first, state, told, asked.save)
  # Those of the experiment's own evaluation stand, where both have one.
  return Combined({**figures, **own}, told, bins)


def _check(first: Member, asked: Asked):
  """Raises ConfigError where runs do not go together, before anything is read."""
  for member in asked.members:
    classifiers.check_same(first, member, '--members=')
    if asked.chooses:
      classifiers.check_held_out(first, member, '--members=')
    if asked.soup:
      weights.check_same_shapes(first, member, f'--soup={asked.soup}')
  if asked.save is not None:
    saved.check_free(asked.save, '--save=')


def _classifier(first: Member, asked: Asked) -> Classifier | None:
  """What names the probabilities of the run; None: nothing does, and nothing asks.

  Raises:
    ConfigError: it is asked for and is not there, or views of what is no image.
  """
  try:
    found = classifiers.classifier(first, asked.flag or '--show')
    classifiers.splits(first, found)
  except ConfigError:
    if asked.flag or not asked.average:
      raise
    return None
  if asked.views and found.image is None:
    raise ConfigError(
      f'--tta is of images, and {found.name} of {first.workdir} reads '
      f'{", ".join(found.function.inputs)}: leave it out.'
    )
  return found


def _open(member: Member, asked: Asked, options: Mapping[str, Any]) -> Opened:
  """A run, with its data of training where statistics of batch norm are renewed."""
  renewed = asked.average is not None or asked.soup is not None
  train = renewed and has_statistics(member.experiment)
  return opened(
    member.experiment, member.config, member.workdir, train=train, **options
  )


def _state(member: Member, step: int | str, first: Opened) -> TrainState:
  """What the functions of a member read, on every device."""
  state = unplaced(
    member.experiment,
    member.config,
    member.workdir,
    step=step,
    without=('opt_state', 'best'),
  )
  return processes.put(state, sharding.replicated(first.dispatch.mesh))
