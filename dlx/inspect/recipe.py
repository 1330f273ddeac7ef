"""Steps of the usual recipe of training, by short runs that are compared.

Overfit one batch, regularise, find the rate, choose the batch size, look at the curves,
stop early, ensemble. What a short run prefers is a beginning, no proof: differences
below its noise mean nothing, so that a change is taken only where it gains 2 %. The
split `validation` chooses, not the test set, where an experiment can hold examples out.
"""

import dataclasses
from typing import Any, Callable, Mapping, NamedTuple, Sequence

import jax
import numpy as np

from dlx import figures as draw
from dlx.errors import ConfigError
from dlx.experiment import Experiment
from dlx.inspect import rate_finder
from dlx.inspect.findings import Report, skipped
from dlx.inspect.subject import Subject, shortened
from dlx.run.processes import to_host
from dlx.state import TrainState

GAIN = 0.02  # Share of the loss that a change must gain to be taken.
HELD = 0.1  # Share of the training examples that chooses.
POINTS = 10  # Evaluations on a curve.
MEMBERS = 3
EVAL_BATCHES = 16
# By field: values to try beside that of the config, from its own.
REGULARISERS: Mapping[str, Callable[[float], list[float]]] = {
  'dropout': lambda x: [0.0, 0.3 if x < 0.2 else 0.5],
  'weight_decay': lambda x: [0.0, 0.01 if x < 1e-3 else 10 * x],
  'label_smoothing': lambda x: [0.0, 0.1],
}


class Trial(NamedTuple):
  """One short run.

  Attributes:
    changes: fields that differ from the config.
    loss: of the evaluation at its end; nan where it was not finite.
    seconds: a step, waiting for its batch included.
  """

  changes: Mapping[str, Any]
  loss: float
  seconds: float


class Runs:
  """Short runs of one experiment by config.

  Attributes:
    build: config -> Experiment.
    steps: of a run.
    data_dir: see `Dataset.load`.
  """

  def __init__(
    self, build: Callable[[Any], Experiment], steps: int, data_dir: Any = None
  ):
    self.build, self.steps, self.data_dir = build, steps, data_dir

  def subject(self, config: Any, steps: int | None = None, **fields: Any) -> Subject:
    """The experiment with a schedule as long as a short run, and other fields.

    A share of the training examples is held out where the config holds out none.
    """
    changed = dataclasses.replace(config, **fields)
    own = shortened(changed, num_steps=steps or self.steps, curves=True)
    if getattr(own, 'validation', None) == 0:
      own = shortened(own, validation=HELD)
    return Subject(self.build, own, self.data_dir)

  def trial(self, config: Any, steps: int | None = None, **fields: Any) -> Trial | None:
    """One run; None: the config refuses such fields."""
    try:
      asked = self.subject(config, steps, **fields)
    except ConfigError:
      return None
    run = asked.run(steps or self.steps)
    found = asked.evaluate(run.last, split(asked.experiment) or '', EVAL_BATCHES)
    seconds = sum(run.seconds.values()) / max(1, len(run.metrics) - 1)
    return Trial(fields, found.get('loss', float('nan')), seconds)


def split(experiment: Experiment) -> str | None:
  """The evaluation by which is chosen: validation, else the first; None: none."""
  names = list(experiment.evals)
  return 'validation' if 'validation' in names else next(iter(names), None)


def scored(experiment: Experiment) -> str | None:
  """Why its short runs cannot be compared by a loss; None: they can."""
  if isinstance(experiment.overfit, str):
    return f'one loss does not tell: {experiment.overfit}'
  if split(experiment) is None:
    return 'it has no evaluation'
  return None


def best_of(trials: Sequence[Trial]) -> Trial:
  """The first, unless another gains GAIN of its loss: then the best."""
  first = trials[0]
  losses = [np.inf if np.isnan(t.loss) else t.loss for t in trials]
  best = trials[int(np.argmin(losses))]
  if np.isnan(first.loss) or best.loss < first.loss - GAIN * abs(first.loss):
    return best
  return first


def _compared(title: str, trials: Sequence[Trial]) -> Report:
  best = best_of(trials)
  table = [('change', 'loss', 'ms a step', '')]
  for t in trials:
    change = ', '.join(f'{k}={_short(v)}' for k, v in t.changes.items()) or 'config'
    mark = 'taken' if t is best else ''
    table.append((change, f'{t.loss:.4g}', f'{1e3 * t.seconds:.3g}', mark))
  change = ', '.join(f'{k}={_short(v)}' for k, v in best.changes.items())
  said = f'{change} gives {best.loss:.4g}, the config {trials[0].loss:.4g}'
  if not best.changes:
    said = f'the config stays: {best.loss:.4g}, the best of {len(trials)} runs or near'
  return Report(said=said, tables={title: table}, settings=best.changes)


def _short(value: Any) -> str:
  return f'{value:.3g}' if isinstance(value, float) else str(value)


def regularise(runs: Runs, config: Any) -> Report:
  """Each regulariser of the Config off and stronger."""
  fields = {n: getattr(config, n, None) for n in REGULARISERS}
  found = {n: x for n, x in fields.items() if isinstance(x, float | int)}
  if not found:
    return skipped(f'the Config has none of {", ".join(REGULARISERS)}')
  trials = [runs.trial(config)]
  for name, value in found.items():
    for other in REGULARISERS[name](float(value)):
      if other != value:
        trials.append(runs.trial(config, None, **{name: other}))
  return _compared('Regularisers', [t for t in trials if t is not None])


def rate(runs: Runs, config: Any) -> Report:
  """The suggestion of the range test against the rate of the config."""
  field = rate_finder.rate_field(config)
  if field is None:
    return skipped(f'the Config has none of {", ".join(rate_finder.FIELDS)}')
  curve = rate_finder.range_test(runs.subject(config))
  if isinstance(curve, str):
    return skipped(curve)
  best, given = rate_finder.suggested(curve), float(getattr(config, field))
  picture = draw.rate_finder(curve.rates, curve.losses, curve.smooth, best, given)
  figures = {'rate_finder': picture}
  if best is None:
    return Report(said='no rate lowers the loss', figures=figures)
  other: dict[str, Any] = {field: float(f'{best:.1e}')}
  if getattr(config, 'schedule', 'cosine') != 'cosine':
    other['schedule'] = 'cosine'
  trials = [runs.trial(config), runs.trial(config, None, **other)]
  report = _compared('Learning rate', [t for t in trials if t is not None])
  return report._replace(figures=figures)


def batch_size(runs: Runs, config: Any) -> Report:
  """Half and twice the batch over as many examples."""
  rows = getattr(config, 'batch_size', None)
  if not rows:
    return skipped('the Config has no batch size')
  trials = [runs.trial(config)]
  for size in (rows // 2, 2 * rows):
    if size >= 2:
      steps = max(1, runs.steps * rows // size)
      trials.append(runs.trial(config, steps, batch_size=size))
  return _compared('Batch size', [t for t in trials if t is not None])


class Point(NamedTuple):
  """One point of the learning curves."""

  step: int
  train: float
  test: float


def curve(runs: Runs, config: Any) -> list[Point]:
  """The training loss since the last point, and the evaluated one, POINTS times."""
  asked, points, losses = runs.subject(config), [], []
  name = split(asked.experiment) or ''
  every = max(1, runs.steps // POINTS)

  def after(old: TrainState, new: TrainState, metrics: Mapping[str, float]):
    del old
    losses.append(metrics.get('loss', np.nan))
    if len(losses) % every == 0:
      test = asked.evaluate(new, name, EVAL_BATCHES).get('loss', np.nan)
      points.append(Point(len(losses), float(np.nanmean(losses[-every:])), test))
    return new

  asked.run(runs.steps, after=after)
  return points


def curves(points: Sequence[Point]) -> Report:
  """The learning curves, in words and as a figure."""
  last = points[-1]
  said = (
    f'after {last.step} steps: training {last.train:.4g}, evaluated {last.test:.4g}'
  )
  figure = draw.learning_curves(*zip(*points, strict=True))
  return Report(said=said, figures={'learning_curves': figure})


def early_stop(config: Any, experiment: Experiment, points: Sequence[Point]) -> Report:
  """The step at which the evaluated loss was least, and the flags that stop there.

  Args:
    config: of the run that is planned.
    experiment: of that config: it has a split `validation` of its own or not.
    points: of `curve`.
  """
  best = min(points, key=lambda p: np.inf if np.isnan(p.test) else p.test)
  said = f'the evaluated loss was least at step {best.step} of {points[-1].step}'
  if best is points[-1] or points[-1].test <= best.test * (1 + GAIN):
    return Report(said=f'{said}: nothing to stop for')
  name, settings = split(experiment), {}
  if name != 'validation':  # A test set chooses nothing.
    settings['validation'], name = config.validation or HELD, 'validation'
  settings['early_stop_metric'] = f'{name}/loss'
  return Report(said=f'{said}: stop there', settings=settings)


def ensemble(runs: Runs, config: Any) -> Report:
  """MEMBERS seeds: the accuracy of each and that of their mean probabilities."""
  asked = runs.subject(config)
  predict = asked.experiment.functions.get('predict')
  name = split(asked.experiment) or ''
  data = asked.experiment.evals[name].data
  if predict is None or 'probabilities' not in predict.outputs or predict.of_graph:
    return skipped('no function `predict` gives probabilities of each example')
  fields = data.shapes[0]
  if not {'label', *predict.inputs} <= set(fields):
    return skipped(f'{name} has no label, or not the inputs of `predict`')
  found = []
  for i in range(MEMBERS):
    member = asked if i == 0 else runs.subject(config, seed=config.seed + i)
    state, call = (
      member.run(runs.steps).last,
      jax.jit(member.experiment.functions['predict'].call),
    )
    rows = []
    for batch in member.batches(member.experiment.evals[name].data, EVAL_BATCHES):
      inputs = {k: batch[k] for k in predict.inputs}
      real = to_host(batch['weight']) > 0
      rows.append(
        (
          to_host(call(state, inputs)['probabilities'])[real],
          to_host(batch['label'])[real],
        )
      )
    probs, label = (np.concatenate(x) for x in zip(*rows, strict=True))
    found.append(probs)
  right = lambda probs: float((probs.argmax(1) == label).mean())
  each, together = [right(p) for p in found], right(np.mean(found, 0))
  said = (
    f'{MEMBERS} seeds: accuracy {np.mean(each):.4g} each, {together:.4g} of their mean '
    f'probabilities over {len(label):,} of {name}'
  )
  return Report(said=said)
