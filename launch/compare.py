"""Compares trained runs: groups of seeds, with spread, intervals and costs.

  python -m launch.compare runs/mlp_*
  python -m launch.compare runs --by=lr --baseline=lr=0.002 --out=comparison
  python -m launch.compare studies/a studies/b --by=folder --interval=bootstrap

Words are workdirs, folders of them, or patterns. Runs whose configs differ in the seed
alone are one group; --by names the fields that form groups instead. Prints tables of
results, differences and costs, and a line on all that makes the comparison weaker;
--out also writes table.md, table.csv, table.json, figures/ and report.html. Nothing in
a workdir is executed. Exit status 2: bad input, one line on stderr.
"""

import io
import pathlib
import sys
from typing import Any

from absl import flags

from dlx.errors import ConfigError
from launch.flags import command_line, paths


def define(values: flags.FlagValues):
  """The launcher's flags."""
  own: dict[str, Any] = dict(flag_values=values, module_name='launcher')
  flags.DEFINE_list(
    'by',
    None,
    'Fields whose values form the groups: of the config, or experiment, init_from, '
    'source (of a fork), folder. Default: all that decide results, but for the seed.',
    **own,
  )
  flags.DEFINE_list(
    'metrics', None, 'SPLIT/NAME to compare. Default: the headlines of the runs.', **own
  )
  flags.DEFINE_string(
    'baseline',
    None,
    'The group that the others are compared with: its number or its label. Default: '
    'that of the first run.',
    **own,
  )
  flags.DEFINE_enum(
    'interval', 'welch', ('welch', 'bootstrap'), 'Interval of a difference.', **own
  )
  flags.DEFINE_float('confidence', 0.95, 'Of the intervals, between 0 and 1.', **own)
  flags.DEFINE_integer('seed', 0, 'Of the bootstrap.', lower_bound=0, **own)
  flags.DEFINE_enum(
    'band',
    'sd',
    ('sd', 'range'),
    'Around a curve: a standard deviation to either side, or from least to largest.',
    **own,
  )
  flags.DEFINE_enum(
    'cost',
    'train_seconds',
    ('seconds', 'train_seconds', 'examples_per_second', 'parameters', 'flops'),
    'What quality is drawn against.',
    **own,
  )
  flags.DEFINE_boolean(
    'unfinished', False, 'Take runs under way, too, with what they have written.', **own
  )
  paths.define(values, 'out', None, 'Folder for tables, figures and report.html.')


@command_line.one_line_errors
def main(argv: list[str]) -> int:
  """Runs the launcher; returns the exit status."""
  values, words = command_line.parse_words(argv, define, __doc__ or '')
  if not words:
    raise ConfigError('No run is named: give workdirs, folders of them, or patterns.')
  if not 0 < values.confidence < 1:
    raise ConfigError(
      f'--confidence={values.confidence} is not allowed: must lie between 0 and 1.'
    )
  from dlx.run.answers import printable
  from dlx.run.tables import terminal
  from dlx.study.comparison import cautions, differences, groups, tables, workdirs

  found = workdirs.find(words, unfinished=values.unfinished)
  for line in found.left_out:
    print(printable(line), file=sys.stderr)
  if not found.runs:
    raise ConfigError('No run is left to compare: see the lines above.')
  choices = differences.Choices(
    metrics=values.metrics,
    by=values.by,
    baseline=values.baseline,
    method=values.interval,
    confidence=values.confidence,
    seed=values.seed,
    spread=values.band,
    cost=values.cost,
  )
  compared = differences.compare(groups.group(found.runs, values.by), choices)
  told, warned = tables.tables(compared), cautions.cautions(compared)
  for table in told[:-1]:  # That of all runs stands in the files.
    terminal(table)
  for line in [*tables.lead(compared), *warned]:
    print(printable(line))
  if values.out:
    path = write(values.out, compared, told, [*warned, *found.left_out])
    print(f'wrote {path}')
  return 0


def write(out: str, compared: Any, told: Any, lines: list[str]) -> pathlib.Path:
  """Writes the files of --out and returns the path of the page."""
  from dlx.report import comparison
  from dlx.run.records.json_files import write_bytes, write_json
  from dlx.run.tables import escaped, markdown
  from dlx.study.comparison import drawn, tables

  folder = pathlib.Path(out)
  (folder / 'figures').mkdir(parents=True, exist_ok=True)
  pngs = []
  for name, figure in drawn.draw(compared).items():
    png = io.BytesIO()
    figure.savefig(png)
    pngs.append((name, png.getvalue()))
    write_bytes(folder / 'figures' / f'{name}.png', png.getvalue())
  lead, heading = tables.lead(compared), tables.heading(compared)
  texts = [f'# {escaped(heading)}', *map(escaped, lead), *map(markdown, told)]
  texts += ['\n'.join(f'- {escaped(line)}' for line in lines)] if lines else []
  shown = comparison.Page(
    title=heading,
    lead=lead,
    tables=told,
    cautions=lines,
    curves=drawn.lines(compared),
    leading=compared.metrics,
    band=drawn.SPREADS[compared.choices.spread],
    # The page draws curves itself.
    figures=[(name, png) for name, png in pngs if not name.startswith('curves_')],
  )
  write_json(folder / 'table.json', tables.as_json(compared, lines))
  for name, content in (
    ('table.md', '\n\n'.join(texts) + '\n'),
    ('table.csv', tables.as_csv(compared)),
    ('report.html', comparison.page(shown)),
  ):
    write_bytes(folder / name, content.encode(errors='backslashreplace'))
  return folder / 'report.html'


if __name__ == '__main__':
  sys.exit(main(sys.argv))
