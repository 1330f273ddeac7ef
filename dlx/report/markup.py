"""What the sections of report.html share: the run that is shown, and small markup.

Every text that comes from a workdir goes through `text`.
"""

import html
from typing import Any, Mapping, NamedTuple, Sequence

from dlx.report import chart


class Run(NamedTuple):
  """What a workdir holds.

  Attributes:
    name: of the workdir.
    config: config.json.
    result: result.json; {} where the run has not ended.
    curves: metric -> its lines, one a split.
    splits: all splits, 'train' first: they decide the colours.
    last: the newest value of every "split/name".
    step: the last step that was logged.
    seconds: so far, in all sessions; None: the metrics say nothing of it.
    figures: (name, PNG).
    texts: (name, text): figures that are texts.
    spent: seconds by kind so far, as the last line of metrics has them.
  """

  name: str
  config: Mapping[str, Any]
  result: Mapping[str, Any]
  curves: Mapping[str, Sequence[chart.Series]]
  splits: Sequence[str]
  last: Mapping[str, float]
  step: int
  seconds: float | None
  figures: Sequence[tuple[str, bytes]]
  texts: Sequence[tuple[str, str]] = ()
  spent: Mapping[str, Any] = {}


def text(value: Any) -> str:
  return html.escape(str(value))


def section(title: str, body: str) -> str:
  return f'<section><h2>{text(title)}</h2>{body}</section>' if body else ''


def table(rows: Sequence[tuple[str, Any]]) -> str:
  """Two columns; rows without a value are left out."""
  body = ''.join(
    f'<tr><th>{text(k)}</th><td>{text(v)}</td></tr>'
    for k, v in rows
    if v not in (None, '', {}, [])
  )
  return f'<table>{body}</table>' if body else ''


def titled(title: str, body: str) -> str:
  return f'<h3>{text(title)}</h3>{body}' if body else ''


def get(mapping: Any, *names: str) -> Any:
  """A nested value, or None where any name on the way is missing."""
  for name in names:
    mapping = mapping.get(name) if isinstance(mapping, Mapping) else None
  return mapping
