"""What a check says of an experiment."""

from typing import Any, Mapping, NamedTuple, Sequence

# From worst to least. An error is a fault that training does not mend by itself; a
# warning may be meant; a note is a fact.
SEVERITIES = ('error', 'warning', 'note')


class Finding(NamedTuple):
  """One thing that was found.

  Attributes:
    name: short and stable, e.g. 'rate_too_high': tables and scripts read it.
    severity: one of SEVERITIES.
    evidence: what was measured, with numbers, as one sentence.
    fix: what to change, as one sentence; '' of a note.
    about: what of the experiment's file it is about, by which `places.find` finds the
      line: the name of a field or of a function; '' where nothing tells.
    where: FILE:LINE, where it is known already.
  """

  name: str
  severity: str
  evidence: str
  fix: str = ''
  about: str = ''
  where: str = ''


class Report(NamedTuple):
  """What one check gives.

  Attributes:
    findings: worst first or in the order in which they were found.
    said: one line on what was measured, also where nothing is wrong.
    skipped: why the experiment could not be asked; None: it was.
    figures: by name, figures for the page: matplotlib Figures.
    tables: by title, rows of text with a row of headings first.
    settings: fields of the config that a step of the recipe would change.
  """

  findings: Sequence[Finding] = ()
  said: str = ''
  skipped: str | None = None
  figures: Mapping[str, Any] = {}
  tables: Mapping[str, Sequence[Sequence[str]]] = {}
  settings: Mapping[str, Any] = {}


def skipped(why: str) -> Report:
  """The report of a check that this experiment cannot be asked."""
  return Report(skipped=why)


def worst(findings: Sequence[Finding]) -> str | None:
  """The worst severity there is; None of no finding."""
  found = {one.severity for one in findings}
  return next((s for s in SEVERITIES if s in found), None)
