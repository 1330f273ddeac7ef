"""The rows of an evaluation: what each model says, and what that is worth."""

from typing import Any, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dlx import metrics
from dlx.run.combining import classifiers, weights
from dlx.run.combining.asked import Asked
from dlx.run.combining.classifiers import Answers, Classifier, Member, Reader
from dlx.run.reopen import Opened
from dlx.state import PyTree, TrainState

HALF_SEED = 0  # Of the draw of the half that is held out; the same in every evaluation.
HELD_OUT = 'validation'

Row = dict[str, Answers]  # By split.


def mean_of(members: Sequence[Row]) -> Row:
  """The mean of the members' probabilities."""
  return {
    split: Answers(np.mean([x[split].probs for x in members], 0), answers.label)
    for split, answers in members[0].items()
  }


class Answering:
  """The answers to the evaluations of one run: by itself and by its members.

  Attributes:
    plain: what the run says of an image.
    seen: what it says of the views of an image.
    told: what was done, as JSON.
  """

  def __init__(self, found: Opened, first: Member, known: Classifier, asked: Asked):
    """Compiles nothing.

    Args:
      found: the first run, opened; its evaluations are read.
      first: the same.
      known: its function.
      asked: what is combined.
    """
    self._found, self._asked, self._first = found, asked, first
    self._splits = classifiers.splits(first, known)
    self.plain = self._reader(known, ())
    self.seen = self._reader(known, asked.views)
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
    rows: dict[str, Any] = {'': self.row(self.plain, self._found.state)}
    if self._asked.average:
      rows['average'] = self.row(self.plain, state)
    if self._asked.views:
      rows['tta'] = self.row(self.seen, state)
    return rows

  def of_member(self, run: Member, state: TrainState) -> Row:
    """The answers of another run, with views."""
    own = classifiers.classifier(run, '--members')
    return self.row(self._reader(own, self._asked.views), state)

  def of_soup(self, each: Sequence[PyTree]) -> tuple[TrainState, list[int]]:
    """The state with mean weights, and the numbers of those that are in it.

    Args:
      each: weights of the members, on the host.
    """
    made = lambda tree: weights.with_weights(
      self._found, tree, self._asked.norm_batches
    )
    if self._asked.soup == 'uniform':
      return made(weights.mean_of(each)), list(range(len(each)))
    assert self._held is not None
    held = self._held

    def accuracy(tree: PyTree) -> float:
      answers = self._chosen_by(self.seen(made(tree), held))
      return float((answers.probs.argmax(1) == answers.label).mean())

    kept, tree = weights.greedy_soup(each, accuracy)
    return made(tree), kept

  def row(self, reader: Reader, state: TrainState) -> Row:
    """All answers of a model with these weights."""
    return {split: reader(state, split) for split in self._splits}

  def _half(self, answers: Answers, held: bool) -> Answers:
    order = np.random.default_rng(HALF_SEED).permutation(len(answers.label))
    middle = len(order) // 2
    return answers.rows(np.sort(order[:middle] if held else order[middle:]))

  def _chosen_by(self, answers: Answers) -> Answers:
    """Of the answers to the held-out split those by which is chosen."""
    return self._half(answers, True) if self._halved else answers

  def _reported(self, row: Row) -> Row:
    """Without what was chosen by.

    Of halves no other split, which may hold the same examples.
    """
    if self._held is None:
      return row
    if self._halved:
      return {f'{self._held}_half': self._half(row[self._held], False)}
    return {k: x for k, x in row.items() if k != self._held}

  def scored(
    self, rows: Mapping[str, Any]
  ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """All figures of all rows, and of the last with its temperature.

    Args:
      rows: by name; that of `members` is a list.

    Returns:
      Metrics, and bins by split and row, see `combined.Combined`.
    """
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
    return found, diagrams

  def _of_members(self, members: Sequence[Row], score) -> dict[str, Any]:
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

  def _temperature(self, row: Row) -> float | None:
    if self._asked.temperature != 'fit':
      return None if self._asked.temperature is None else float(self._asked.temperature)
    assert self._held is not None
    answers = self._chosen_by(row[self._held])
    return float(jax.jit(metrics.fit_temperature)(*answers))
