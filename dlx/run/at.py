"""All of a run that moves, as one value."""

from typing import Any, NamedTuple

from dlx.state import TrainState


class At(NamedTuple):
  """Where a run stands; each part of a boundary gives the next one.

  Attributes:
    state: on the devices. Donated by the dispatch after it: only the newest is alive.
    window: sums of the metrics since the last log line, on the devices.
    step: steps done; those in flight count.
    evaluated: the last step whose evaluations are folded into the state; -1: none.
    stopped: whether the experiment has ended the run (`TrainState.stop`).
  """

  state: TrainState
  window: Any
  step: int = 0
  evaluated: int = -1
  stopped: bool = False


class NotFinite(FloatingPointError):
  """A NaN or inf was seen; the loop then looks for where it came from (nonfinite.py).

  Attributes:
    end: the steps after which it was seen.
  """

  def __init__(self, end: int, symptom: str):
    super().__init__(symptom)
    self.end = end
