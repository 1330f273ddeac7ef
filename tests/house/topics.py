"""What dlx covers of the foundations: topic, code, test and figure, as a table.

`python -m tests.house.topics` writes it into experiments/README.md anew. Figures come
from the results of the areas, so that none is written twice.
"""

import pathlib
import re
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
README = ROOT / 'experiments' / 'README.md'
BEGIN = '<!-- Made by python -m tests.house.topics: -->\n'
END = '<!-- end -->\n'


class Topic(NamedTuple):
  """A row.

  Attributes:
    title: the subject, in the words of a textbook.
    code: files from the root of the repository.
    tests: files of tests, likewise.
    runs: runs in the tables of results, as their second column names them.
  """

  title: str
  code: tuple[str, ...]
  tests: tuple[str, ...]
  runs: tuple[str, ...] = ()


def lesson(title: str, *names: str, test: str) -> Topic:
  """A topic of dlx/scratch."""
  code = tuple(f'dlx/scratch/{name}.py' for name in names)
  return Topic(title, code, (f'tests/dlx/scratch/{test}_test.py',))


def part(title: str, *code: str, tests: str, runs: str = '') -> Topic:
  """A topic of the library; names below dlx and tests/dlx, separated by blanks."""
  return Topic(
    title,
    tuple(f'dlx/{name}.py' for name in code),
    tuple(f'tests/dlx/{name}_test.py' for name in tests.split()),
    tuple(runs.split()),
  )


def run(title: str, path: str, *runs: str, test: str = '') -> Topic:
  """An experiment or a study; the generic tests run it where it has none of its own."""
  own = f'tests/experiments/{test}_test.py' if test else 'tests/every_experiment'
  return Topic(title, (f'experiments/{path}.py',), (own,), runs)


AREAS: dict[str, tuple[Topic, ...]] = {}


def figures() -> dict[str, str]:
  """The first figure of each run in the tables of results, by the name of the run."""
  found: dict[str, str] = {}
  for path in sorted(README.parent.glob('*/README.md')):
    for line in re.findall(r'^\| `.*', path.read_text(encoding='utf-8'), re.M):
      _, _, name, data, figure, mean, sd, seeds, *_ = map(str.strip, line.split('|'))
      spread = f', sd {sd}' if sd != '-' else ''
      value = f'[{mean}]({path.parent.name}/README.md){spread} ({seeds})'
      found.setdefault(name, f'{data}: {figure}: {value}')
  return found


def table() -> str:
  """The tables of all areas.

  Raises:
    KeyError: a run has no row in the results.
  """
  known, lines = figures(), []
  link = lambda path: f'[{pathlib.Path(path).name}](../{path})'
  for area, topics in AREAS.items():
    lines += [f'### {area}', '', '| Topic | Code | Test | Figure (seeds) |']
    lines.append('| --- | --- | --- | --- |')
    for topic in topics:
      code, tests = (', '.join(map(link, x)) for x in (topic.code, topic.tests))
      figure = '; '.join(known[name] for name in topic.runs) or '-'
      lines.append(f'| {topic.title} | {code} | {tests} | {figure} |')
    lines.append('')
  return '\n'.join(lines)


def written(text: str) -> str:
  """The README with the tables of today between its two marks."""
  before, rest = text.split(BEGIN)
  _, after = rest.split(END)
  return f'{before}{BEGIN}\n{table()}\n{END}{after}'


if __name__ == '__main__':
  README.write_text(written(README.read_text(encoding='utf-8')), encoding='utf-8')
