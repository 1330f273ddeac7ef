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

from typing import Any, Mapping, NamedTuple, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlx import metrics
from dlx.data.images import fixed_views
from dlx.errors import ConfigError
from dlx.run import processes, sharding
from dlx.run.combining import classifiers, weights
from dlx.run.combining.classifiers import Answers, Classifier, Member, Reader
from dlx.run.combining.norm_statistics import has_statistics
from dlx.run.reopen import Opened, opened, unplaced
from dlx.state import TrainState

HALF_SEED = 0  # Of the draw of the half that is held out; the same in every evaluation.
HELD_OUT = 'validation'


class Asked(NamedTuple):
  """What is combined.

  Attributes:
    members: other runs.
    views: of every image; (): none but the image.
    temperature: a number, or 'fit'; None: none.
    average: checkpoints, see `weights.steps_of`; None: none.
    soup: 'uniform' or 'greedy'; None: none.
    norm_batches: training batches over which statistics of batch norm are found anew.
  """

  members: Sequence[Member] = ()
  views: Sequence[fixed_views.View] = ()
  temperature: float | str | None = None
  average: str | None = None
  soup: str | None = None
  norm_batches: int = 100

  @property
  def chooses(self) -> bool:
    """Whether examples have to be held out."""
    return self.temperature == 'fit' or self.soup == 'greedy'

  @property
  def flag(self) -> str | None:
    """The flag by which probabilities are needed; None: they are not."""
    if self.members or self.soup:
      return '--members'
    if self.views:
      return '--tta'
    return None if self.temperature is None else '--temperature'


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
  """Evaluates a run, alone and with what is asked; writes nothing.

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
  runs = [first, *asked.members]
  for member in runs[1:]:
    classifiers.check_same(first, member, '--members=')
    if asked.chooses:
      classifiers.check_held_out(first, member, '--members=')
    if asked.soup:
      weights.check_same_shapes(first, member, f'--soup={asked.soup}')
  steps = [weights.steps_of(asked.average, x) for x in runs] if asked.average else []
  renewed = asked.average is not None or asked.soup is not None
  options: dict[str, Any] = {'step': step, 'data_dir': data_dir, 'mesh': mesh}
  found = _open(first, renewed, options)
  told: dict[str, Any] = {}
  out = Combined(found.metrics(), told, {})
  state = found.state
  if asked.average:
    told['average'] = {x.workdir: n for x, n in zip(runs, steps, strict=True)}
    state = weights.averaged(found, first, steps[0], asked.norm_batches)
    own = found.metrics(state)
    out.metrics.update({f'{name}_average': value for name, value in own.items()})
  if known is None:
    return out
  answers = _Answering(found, first, known, asked)
  told.update(answers.told)
  rows = answers.rows_of_one(state)
  if runs[1:]:
    states = [state]
    for i, member in enumerate(runs[1:], 1):
      if asked.average:
        other = _open(member, True, options)
        states.append(weights.averaged(other, member, steps[i], asked.norm_batches))
      else:
        states.append(_state(member, step, found))
    told['members'] = [x.workdir for x in runs]
    rows['members'] = answers.of_members(runs, states, rows)
    rows['ensemble'] = _mean(rows['members'])
    if asked.soup:
      rows['soup'], told['soup'] = answers.of_soup(runs, states, rows['members'])
  return answers.scored(out, rows)


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


def _open(member: Member, renewed: bool, options: Mapping[str, Any]) -> Opened:
  """A run, with its data of training where statistics of batch norm are renewed."""
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


# Answers of a row by split; of members in a list.
_Row = dict[str, Answers]


def _mean(members: Sequence[_Row]) -> _Row:
  """The mean of the members' probabilities."""
  return {
    split: Answers(np.mean([x[split].probs for x in members], 0), answers.label)
    for split, answers in members[0].items()
  }


class _Answering:
  """The answers to the evaluations of one run: by itself and by its members."""

  def __init__(self, found: Opened, first: Member, known: Classifier, asked: Asked):
    self._found, self._asked, self._first = found, asked, first
    self._splits = classifiers.splits(first, known)
    self._plain = self._reader(known, ())
    self._seen = self._reader(known, asked.views)
    self._held, self._halved = self._held_out()
    self.told: dict[str, Any] = {'views': len(asked.views)} if asked.views else {}
    if asked.chooses:
      half = f'a half of {self._held}, drawn by seed {HALF_SEED}'
      self.told['held_out'] = half if self._halved else self._held

  def _reader(self, found: Classifier, views) -> Reader:
    return Reader(
      found, self._first.experiment, self._found.data, self._found.dispatch.mesh, views
    )

  def _held_out(self) -> tuple[str | None, bool]:
    """The split by which is chosen, and whether its other half is what is reported."""
    if not self._asked.chooses:
      return None, False
    if HELD_OUT in self._splits and len(self._splits) > 1:
      return HELD_OUT, False
    return ('test' if 'test' in self._splits else self._splits[0]), True

  def rows_of_one(self, state: TrainState) -> dict[str, Any]:
    """The checkpoint as it is, with averaged weights, and with views.

    Args:
      state: with the averaged weights, where they are asked for.
    """
    rows: dict[str, Any] = {'': self._row(self._plain, self._found.state)}
    if self._asked.average:
      rows['average'] = self._row(self._plain, state)
    if self._asked.views:
      rows['tta'] = self._row(self._seen, state)
    return rows

  def of_members(
    self, runs: Sequence[Member], states: Sequence[TrainState], rows: Mapping[str, _Row]
  ) -> list[_Row]:
    """The answers of each run; those of the first are the last of its rows."""
    found = [list(rows.values())[-1]]
    for run, state in zip(runs[1:], states[1:], strict=True):
      own = classifiers.classifier(run, '--members')
      found.append(self._row(self._reader(own, self._asked.views), state))
    return found

  def of_soup(
    self, runs: Sequence[Member], states: Sequence[TrainState], members: Sequence[_Row]
  ) -> tuple[_Row, list[str]]:
    """The answers of the mean weights, and the workdirs whose weights are in it."""
    each = [jax.tree.map(processes.to_host, x.averaged) for x in states]
    renewed = lambda tree: weights.with_weights(
      self._found, tree, self._asked.norm_batches
    )
    if self._asked.soup == 'uniform':
      soup = renewed(weights.mean_of(each))
      return self._row(self._seen, soup), [x.workdir for x in runs]

    def accuracy(answers: Answers) -> float:
      answers = self._chosen_by(answers)
      return float((answers.probs.argmax(1) == answers.label).mean())

    assert self._held is not None
    held = self._held
    kept, tree = weights.greedy_soup(
      each,
      [accuracy(x[held]) for x in members],
      lambda tree: accuracy(self._seen(renewed(tree), held)),
    )
    return self._row(self._seen, renewed(tree)), [runs[i].workdir for i in kept]

  def _row(self, reader: Reader, state: TrainState) -> _Row:
    return {split: reader(state, split) for split in self._splits}

  def _half(self, answers: Answers, held: bool) -> Answers:
    order = np.random.default_rng(HALF_SEED).permutation(len(answers.label))
    middle = len(order) // 2
    return answers.rows(np.sort(order[:middle] if held else order[middle:]))

  def _chosen_by(self, answers: Answers) -> Answers:
    """Of the answers to the held-out split those by which is chosen."""
    return self._half(answers, True) if self._halved else answers

  def _reported(self, row: _Row) -> _Row:
    """Without what was chosen by."""
    if self._held is None:
      return row
    out = {k: x for k, x in row.items() if k != self._held}
    if self._halved:
      out[f'{self._held}_half'] = self._half(row[self._held], False)
    return out

  def scored(self, out: Combined, rows: Mapping[str, Any]) -> Combined:
    """All figures of all rows, and of the last with its temperature."""
    last, found = list(rows)[-1], {}
    score = jax.jit(metrics.probability_scores)
    bins = jax.jit(metrics.calibration_sums)
    temperature = self._temperature(rows[last])
    if temperature is not None:
      scale = jax.jit(metrics.tempered)
      rows = {
        **rows,
        'calibrated': {
          k: Answers(np.asarray(scale(x.probs, temperature)), x.label)
          for k, x in rows[last].items()
        },
      }
      found['temperature'] = temperature
    diagrams: dict[str, dict[str, Any]] = {}
    for name, row in rows.items():
      if name == 'members':
        found |= self._of_members([self._reported(x) for x in row], score)
        continue
      for split, answers in self._reported(row).items():
        figures = jax.device_get(score(*answers))
        end = f'_{name}' if name else ''
        found |= {f'{split}/{k}{end}': float(v) for k, v in figures.items()}
        diagrams.setdefault(split, {})[name or 'run'] = jax.device_get(bins(*answers))
    # Those of the experiment's own evaluation stand, where both have one.
    return Combined({**found, **out.metrics}, out.told, diagrams)

  def _of_members(self, members: Sequence[_Row], score) -> dict[str, Any]:
    found = {}
    for split in members[0]:
      of = [jax.device_get(score(*x[split])) for x in members]
      for k in of[0]:
        values = [float(x[k]) for x in of]
        found[f'{split}/{k}_members'] = values
        found[f'{split}/{k}_mean'] = float(np.mean(values))
      together = jnp.stack([x[split].probs for x in members])
      found[f'{split}/disagreement'] = float(metrics.disagreement(together))
    return found

  def _temperature(self, row: _Row) -> float | None:
    if self._asked.temperature != 'fit':
      return None if self._asked.temperature is None else float(self._asked.temperature)
    assert self._held is not None
    answers = self._chosen_by(row[self._held])
    return float(jax.jit(metrics.fit_temperature)(*answers))
