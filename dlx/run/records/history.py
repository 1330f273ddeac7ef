"""What training has logged, as arrays over the log windows: what a figure draws."""

from typing import Any, Mapping, Sequence

import numpy as np


def of_training(
  lines: Sequence[Mapping[str, Any]], until: int | None = None
) -> dict[str, Any]:
  """The lines of training of metrics.jsonl, one below the other.

  Args:
    lines: as they are read.
    until: step after which lines do not count; None: all count.

  Returns:
    `step` int [N], `metrics` by name and `groups` by name and name, float64 [N], or [N,
    members]: means over the windows that end at these steps. NaN where a line has no
    such number; N is 0 where nothing was logged.
  """
  kept = [x for x in lines if x['split'] == 'train']
  kept = [x for x in kept if until is None or x['step'] <= until]
  groups = [x.get('groups', {}) for x in kept]
  return {
    'step': np.array([x['step'] for x in kept], np.int64),
    'metrics': _columns([x['metrics'] for x in kept]),
    'groups': {
      name: _columns([x.get(name, {}) for x in groups])
      for name in sorted({name for x in groups for name in x})
    },
  }


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
  found = {}
  for name in sorted({name for row in rows for name in row}):
    column = [np.asarray(row.get(name, np.nan), np.float64) for row in rows]
    found[name] = np.stack(np.broadcast_arrays(*column))
  return found
