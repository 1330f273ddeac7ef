"""Which experiments have their expensive generic tests in the fast tier, and why.

Restarts, overfitting, meshes, plans and figures cost seconds of compilation each, and
there will be over a hundred experiments. They are fast for

- one experiment of each kind, below;
- experiments that a change may have changed: whose import closure (the experiment and
  all of dlx and kernels that it imports, directly or not) has a file that differs from
  the base commit (tests/changes.py); where that is not known, none counts as changed.
  Those whose own file changed are all among them, up to MOST_OWN; of the others, as
  after a change of the ground, as many as make MOST_CHANGED with them, in turn;
- a tenth of the rest where $DLX_TURN is a number, as .ci/run sets it: another tenth for
  each commit, all of them in ten turns.

For all others they are slow (`-m slow`). `python -m tests.every_experiment.tiers`
prints who is in the fast tier; no experiment is imported to find it out.
"""

from collections.abc import Collection, Iterable, Mapping
import functools
import os
from typing import NamedTuple

import pytest

from dlx.run import experiments_by_name
from tests import changes, turns

TURNS = 10
MOST_CHANGED = 4
# Of these each takes about a minute of one core; as after a change of a name that all
# of them use.
MOST_OWN = 12
THIRDS = 3
# One experiment of each kind of training.
KINDS = {
  'classifier': 'cnn',
  'table': 'house_prices',
  'language model': 'char_gpt',
  'graph': 'gcn',
  'recurrent': 'sst2_tbptt',
  'VAE': 'vae',
  'GAN': 'dcgan',
  'diffusion': 'ddpm',
  'self-supervised': 'moco',
  'two phases': 'distill',
  'ensemble': 'ensemble',
}
# Fitted by scikit-learn before the first step, and looked up in it: no product, no
# gradient, no layer.
FITTED = ('classical', 'table_trees')


class Tiers(NamedTuple):
  """Experiments whose expensive tests are fast, by reason; one has one reason.

  Attributes:
    kinds: by experiment, the kind that it stands for.
    changed: by experiment, a file that changed; at most MOST_CHANGED, or MOST_OWN
      whose own file did.
    turn: of the rotation; None: nobody's turn.
    rotating: those whose turn it is.
    left_out: how many more changed.
    own: those whose own file changed.
  """

  kinds: Mapping[str, str]
  changed: Mapping[str, str]
  turn: int | None
  rotating: tuple[str, ...]
  left_out: int = 0
  own: frozenset[str] = frozenset()

  def __contains__(self, name: str) -> bool:
    return name in self.kinds or name in self.changed or name in self.rotating


def rotating(names: Iterable[str], turn: int) -> tuple[str, ...]:
  """Those whose turn it is: each has one turn in any TURNS in a row.

  Neighbours by name have different turns, and an experiment that joins or leaves moves
  at most the turns of those after it.
  """
  return tuple(x for i, x in enumerate(sorted(names)) if turns.has_it(i, TURNS, turn))


def some_of(changed: Mapping[str, str], turn: int) -> list[str]:
  """Those whose own file changed, at most MOST_OWN, then others up to MOST_CHANGED.

  Args:
    changed: by experiment, a file that changed, its own where that did.
    turn: of those that are too many, each is among them once in as many turns as it
      takes.
  """
  own = [name for name, file in changed.items() if file.startswith('experiments/')]
  others = changed.keys() - set(own)
  places = max(0, MOST_CHANGED - len(own))
  return sorted(_in_turn(own, MOST_OWN, turn) + _in_turn(others, places, turn))


def _in_turn(names: Collection[str], places: int, turn: int) -> list[str]:
  """As many as there are places for, others in the next turn."""
  if len(names) <= places:
    return [*names]
  start, names = turn * places % len(names), sorted(names)
  return (names[start:] + names[:start])[:places]


def choose(
  modules: Mapping[str, str],
  kinds: Mapping[str, str],
  tree: changes.Tree,
  files: Iterable[str],
  turn: int | None,
) -> Tiers:
  """Who is in the fast tier.

  Args:
    modules: of the experiments, by name.
    kinds: experiments by kind.
    tree: of the code.
    files: that changed.
    turn: of the rotation; None: nobody's.
  """
  kind_of = {name: kind for kind, name in kinds.items()}
  files = sorted(files, key=lambda file: not file.startswith('experiments/'))
  found = {
    name: tree.changed(module, files)
    for name, module in modules.items()
    if files and name not in kind_of
  }
  changed = {name: file for name, file in found.items() if file}
  fast = some_of(changed, turn or 0)
  left_out = len(changed) - len(fast)
  changed = {name: changed[name] for name in fast}
  # All have their turn, whether they changed or not: who is next depends on the turn
  # alone.
  rest = () if turn is None else rotating(modules.keys() - kind_of.keys(), turn)
  rest = tuple(name for name in rest if name not in changed)
  own = {name for name, module in modules.items() if _path(module) in files}
  return Tiers(kind_of, changed, turn, rest, left_out, frozenset(own))


def _path(module: str) -> str:
  return f'{module.replace(".", "/")}.py'


@functools.cache
def tiers() -> Tiers:
  """Of this repository and environment."""
  names = experiments_by_name.names()
  modules = {name: experiments_by_name.module_name(name) for name in names}
  files = changes.changed_files(changes.REPO)
  return choose(modules, KINDS, changes.Tree(changes.REPO), files or (), turns.TURN)


def figures(name: str) -> bool:
  """Whether an experiment's figures are drawn in the fast tier; $DLX_TESTS_FIGURES=off:
  nobody's, as .ci/run sets it on all Pythons but the newest."""
  return name in tiers() and os.environ.get('DLX_TESTS_FIGURES') != 'off'


def every(
  *, expensive: bool = False, newest: bool = False, thirds: bool = False
) -> list:
  """Parameters of a test of every experiment: of its name.

  Args:
    expensive: it is slow but for those of the fast tier.
    newest: it runs on the newest Python alone: none stands for its kind on the others.
    thirds: in CI, of those that stand for a kind and did not change, nor did what the
      test names, a third has its turn.
  """
  found = tiers()
  marks = by_thirds(found) if thirds else {}
  return [
    pytest.param(
      name,
      id=name,
      marks=[pytest.mark.slow] * (expensive and name not in found)
      + [pytest.mark.representative] * (not newest and name in found.kinds)
      + [mark for kind, mark in marks.items() if kind == name],
    )
    for name in experiments_by_name.names()
  ]


def by_thirds(found: Tiers) -> dict[str, pytest.MarkDecorator]:
  """Of those that stand for a kind, the mark of one turn in three; none outside CI."""
  if found.turn is None:
    return {}
  file = lambda name: _path(experiments_by_name.module_name(name))
  return {
    name: turns.seldom(i, THIRDS, [file(name)])
    for i, name in enumerate(sorted(found.kinds))
  }


def text(found: Tiers, total: int, known: bool) -> str:
  """What .ci/run prints of the choice."""
  lines = ['Restarts, overfitting, meshes, plans and figures are tested of']
  listed = lambda reasons: ', '.join(f'{k} ({v})' for k, v in reasons.items()) or 'none'
  lines.append(f'  one experiment of each kind: {listed(found.kinds)}')
  why = '' if known else ' (the base commit is not known: set DLX_BASE)'
  more = f' and {found.left_out} more, not now' if found.left_out else ''
  lines.append(f'  those that changed: {listed(found.changed)}{more}{why}')
  if found.turn is not None:
    turn = f'{found.turn % TURNS + 1} of {TURNS}'
    lines.append(f'  a rotating tenth, {turn}: {", ".join(found.rotating) or "none"}')
  left = total - len({*found.kinds, *found.changed, *found.rotating})
  lines.append(f'and not of the other {left}: python -m pytest -m slow')
  return '\n'.join(lines)


if __name__ == '__main__':
  print(
    text(
      tiers(),
      len(experiments_by_name.names()),
      changes.changed_files(changes.REPO) is not None,
    )
  )
