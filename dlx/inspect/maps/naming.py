"""The layers of a traced function of images, by the paths of their scopes."""

from typing import NamedTuple, Sequence

import jax.numpy as jnp
import numpy as np

from dlx.inspect.maps import traced


class Layer(NamedTuple):
  """A layer, by what it gives last.

  Attributes:
    name: its path below the model, e.g. 'stage1_block1/conv2'; 'blocks/mlp [2]' is
      turn 2 of a loop over layers,
      'block [last]' the last of a loop that counts its turns as it runs.
    path: all of its scopes; '' where it has none.
    shape: of what it gives, with one row in front.
    number: of the operation, see `traced.Record`.
    output: which of its results.
    turn: of the loops around it, the outermost first.
    loop: see `traced.Record`.
    may_not_run: it lies in a branch, or in a loop that may have no turns: then it gives
      nan.
    in_while: it lies in a loop whose turns are counted as it runs, and gives what its
      last turn does.
  """

  name: str
  path: str
  shape: tuple[int, ...]
  number: int
  output: int
  turn: tuple[int, ...]
  loop: int
  may_not_run: bool = False
  in_while: bool = False

  @property
  def order(self) -> tuple[int, tuple[int, ...], int]:
    """Layers run in the order of it."""
    return self.loop, self.turn, self.number


def root_of(records: Sequence[traced.Record]) -> str:
  """The scope around all others, as of the model's class; '' where there is none."""
  paths = [parts(record.path) for record in records]
  roots = {path[0] for path in paths if path}
  return roots.pop() if len(roots) == 1 and max(map(len, paths)) > 1 else ''


def layers_of(records: Sequence[traced.Record], root: str) -> dict[str, Layer]:
  """By name; of scopes that are one in the other with one value both."""
  paths = [parts(record.path) for record in records]
  found: dict[str, Layer] = {}
  open_: dict[tuple[str, ...], traced.Record] = {}

  def close(scope: tuple[str, ...]):
    record = open_.pop(scope)
    name = '/'.join(scope[bool(root) :])
    if name:
      _name(found, name, '/'.join(scope), record)

  before: tuple[int, ...] = ()
  for path, record in zip(paths, records, strict=True):
    if record.branches != before:  # One module in two branches is two layers.
      for scope in list(reversed(open_)):
        close(scope)
    before = record.branches
    inside = [path[:i] for i in range(1, len(path) + 1)]
    for scope in [s for s in reversed(open_) if s not in inside]:
      close(scope)
    if not record.reads or not _floats(record):
      continue
    for scope in inside:
      open_[scope] = record
  for scope in list(reversed(open_)):
    close(scope)
  if not found:  # Nothing is named: its products are.
    for record in records:
      if record.is_product and _floats(record):
        _name(found, record.primitive, '', record)
  return dict(sorted(found.items(), key=lambda item: item[1].order))


def parts(path: str) -> tuple[str, ...]:
  """Scopes of a path; one that stands twice in a row, as of a base class, once."""
  found = path.split('/') if path else []
  return tuple(x for i, x in enumerate(found) if i == 0 or x != found[i - 1])


def _floats(record: traced.Record) -> list[int]:
  """Which results are floats with an axis of rows."""
  return [
    i
    for i, x in enumerate(record.outputs)
    if jnp.issubdtype(x.dtype, jnp.floating) and x.ndim > 1 and x.shape[0] == 1
  ]


def _name(found: dict[str, Layer], name: str, path: str, record: traced.Record):
  """A layer a turn; a name that comes again gets a number."""
  again, count = name, 1
  while any(again in (x, x.partition(' [')[0]) for x in found):
    count += 1
    again = f'{name} ({count})'
  output = _floats(record)[0]
  shape = record.outputs[output].shape
  for turn in np.ndindex(*record.turns):
    told = [*map(str, turn), *(['last'] if record.in_while else [])]
    label = f'{again} [{", ".join(told)}]' if told else again
    found[label] = Layer(
      label,
      path,
      shape,
      record.number,
      output,
      turn,
      record.loop,
      bool(record.branches) or record.in_while,
      record.in_while,
    )
