"""A row of the tables of topics, and short ways to write one."""

from typing import NamedTuple


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
