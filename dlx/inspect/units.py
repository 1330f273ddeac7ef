"""ReLUs that are never on, over a data set.

A unit is dead where max(x, 0) is 0 for every example: it passes no gradient, so it
stays dead. One batch calls units dead that other examples switch on. Counted are ReLUs
whose values a later layer reads; GELU, SiLU and leaky units cannot die.
"""

from typing import Iterable, NamedTuple

import numpy as np

from dlx.inspect import operations
from dlx.inspect.findings import Finding, Report, skipped
from dlx.inspect.subject import Subject
from dlx.state import Batch, TrainState

MOST = 4096  # Examples that are looked at.
ERROR, WARNING = 0.9, 0.5  # Shares of dead units in a layer.


class Layer(NamedTuple):
  """The ReLUs of one layer.

  Attributes:
    name: of the layer before them; '' where nothing names it.
    where: line.
    on: bool [units], or [layers, units] of a scan: on for any example.
  """

  name: str
  where: str
  on: np.ndarray

  @property
  def dead(self) -> int:
    """How many were never on."""
    return int((~self.on).sum())


def layers(step, state: TrainState, batches: Iterable[Batch]) -> list[Layer]:
  """Every layer of ReLUs in a step of an evaluation, or in a train step.

  Args:
    step: (state, batch) -> anything; what is not computed from the batch is left out.
    state: with the parameters.
    batches: of the data set, all of one shape.
  """
  taps, found = None, []
  for batch in batches:
    taps = taps or operations.Taps('relu', step, state, batch)
    seen = [np.asarray(x) for x in taps.values(state, batch)]
    found = [a | b for a, b in zip(found, seen, strict=True)] if found else seen
  if taps is None:
    return []
  # A step that calls the model twice has every layer twice.
  once = {
    (tap.layer, tap.where, on.tobytes()): Layer(tap.layer, tap.where, on)
    for tap, on in zip(taps.places, found, strict=True)
  }
  return list(once.values())


def report(subject: Subject, state: TrainState) -> Report:
  """Dead units of every layer after a short run, over the examples of an evaluation."""
  experiment = subject.experiment
  name, evaluation = next(iter(experiment.evals.items()), ('training', None))
  data = experiment.train_data if evaluation is None else evaluation.data
  rows = next(iter(data.shapes[0].values())).shape[0]
  most = max(1, MOST // max(rows, 1))
  step = experiment.train_step if evaluation is None else evaluation.step
  found = layers(step, state, subject.batches(data, most))
  if not found:
    return skipped('it has no ReLU whose values a later layer reads')
  findings, table = [], [('layer', 'units', 'dead', 'share', 'line')]
  for layer in found:
    share = layer.dead / layer.on.size
    named = layer.name or layer.where
    size = str(layer.on.size)
    table.append((named, size, str(layer.dead), f'{share:.1%}', layer.where))
    if share < WARNING:
      continue
    findings.append(
      Finding(
        'dead_units',
        'error' if share >= ERROR else 'warning',
        f'{layer.dead} of {layer.on.size} ReLUs of {named} are 0 for every example of '
        f'{name} (at most {most * rows:,}).',
        'Begin with biases of 0 and He initialisation, take a smaller learning rate, '
        'or leaky_relu or gelu in place of relu.',
        'model',
      )
    )
  dead, total = sum(x.dead for x in found), sum(x.on.size for x in found)
  said = f'{dead} of {total} ReLUs dead over {name}'
  return Report(findings, said, tables={f'Dead units over {name}': table})
