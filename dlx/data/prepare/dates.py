"""Dates and times as numbers: days since 1970-01-01."""

import datetime
import re
from typing import Sequence

import numpy as np

from dlx.data.prepare import columns

SINCE = '1970-01-01'
EXAMPLES = '2026-11-30 or 2026-11-30T12:00'  # For messages.
_EPOCH = datetime.datetime.fromisoformat(SINCE)
_DAY = datetime.timedelta(days=1)
# What follows the day is left to `fromisoformat`, which takes any mark before a time.
_FORM = re.compile(r'[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ].+)?')


def days(cells: Sequence[str]) -> tuple[np.ndarray, list[int]]:
  """Cells as days since 1970-01-01, negative before it, a time as a fraction of a day.

  Args:
    cells: ISO 8601 dates, 2026-11-30, or dates with a time, 2026-11-30T12:00 or
      '2026-11-30 12:00:00+01:00', from year 1 to 9999. What has a zone is brought to
      UTC; what has none is taken as it stands.

  Returns:
    float64 [N], NaN for a missing one, and the rows that are no dates.
  """
  found, wrong = np.full(len(cells), np.nan), []
  for row, cell in enumerate(cells):
    if columns.is_missing(cell):
      continue
    try:
      if not _FORM.fullmatch(cell):
        raise ValueError(cell)
      at = datetime.datetime.fromisoformat(cell)
    except ValueError:
      wrong.append(row)
      continue
    # Not by `astimezone`, which overflows at both ends of the range.
    offset = at.utcoffset() or datetime.timedelta()
    found[row] = (at.replace(tzinfo=None) - _EPOCH - offset) / _DAY
  return found, wrong
