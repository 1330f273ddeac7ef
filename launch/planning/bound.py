"""The least time of a step: what the slowest of three parts needs at its peak rate.

A roofline (Williams et al. 2009), a bound and never a promise: it supposes that
products, memory and links run at their published peaks, all the time and all at once.
The memory's part is that of the traffic which the compiled program implies
(traffic.py): a GPU that finds much of it in its cache may beat that part.
"""

from typing import Mapping, NamedTuple

from launch.planning.hardware import Chip


class Work(NamedTuple):
  """What one device does in a step.

  Attributes:
    flops: operations.
    moved: bytes between its memory and its arithmetic.
    inside: bytes sent to others of its slice or host.
    across: bytes sent to other slices or hosts.
  """

  flops: float
  moved: float
  inside: float
  across: float


def seconds(work: Work, chip: Chip) -> dict[str, float]:
  """Seconds a step by part; `all` is the longest, where the others hide behind it."""
  parts = {
    'compute': work.flops / chip.flops,
    'hbm': work.moved / chip.bandwidth,
    'interconnect': max(work.inside / chip.inside, work.across / chip.across),
  }
  return {**parts, 'all': max(parts.values())}


def limiter(bound: Mapping[str, float]) -> str:
  """The part that takes longest."""
  return max((name for name in bound if name != 'all'), key=lambda name: bound[name])


def intensity(work: Work) -> float | None:
  """Operations for each byte of memory that moves; None where none does."""
  return work.flops / work.moved if work.moved else None
