"""A function of a trained model on every example of a data set, batch by batch."""

from typing import TYPE_CHECKING, Any, Callable, Iterator, Mapping, NamedTuple

import numpy as np

from dlx.data.sets import columns
from dlx.data.sets.examples import Examples, examples, parse
from dlx.data.sets.sentences import texts_of
from dlx.data.sources import read
from dlx.errors import ConfigError
from dlx.experiment import Field, Function
from dlx.run.given import described, spread

if TYPE_CHECKING:
  from dlx.run.opened import Run

TRUE = ('label', 'target')  # Fields of a set that are the truth.
ROWS = 256  # Read, and given to the function, at once.


class Answers(NamedTuple):
  """What a function says of a set.

  Attributes:
    fields: of `found`, by name.
    found: by name, with a leading axis of rows; `true_label` or `true_target` before
      what the function gives.
    called: NAME:SPLIT:NUMBER of each row, from 1; of a graph the number of the node.
  """

  fields: Mapping[str, Field]
  found: dict[str, Any]
  called: list[str]


def of_set(
  run: 'Run', what: str, dataset: str, given: Mapping[str, Any], **options: Any
) -> Answers:
  """All answers of `in_parts` as one. Arguments, errors: see there."""
  parts = list(in_parts(run, what, dataset, given, **options))
  values = {k: _joined([part.found[k] for part in parts]) for k in parts[0].found}
  return Answers(parts[0].fields, values, [x for part in parts for x in part.called])


def in_parts(
  run: 'Run',
  what: str,
  dataset: str,
  given: Mapping[str, Any],
  *,
  num: int | None = None,
  resize: bool = False,
  data_dir: Any = None,
  tick: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Answers]:
  """The function on the examples of a set, whose fields are its inputs by name.

  Answers come batch by batch, as they are computed; a graph's all at once.

  A row does not depend on the others: a seed of each follows from its number.

  Args:
    run: opened.
    what: the name of the function.
    dataset: NAME[:SPLIT]; without a name the set that the run was trained on, without a
      split its test split. Of a graph the nodes of the split.
    given: inputs and options that are the same for all examples.
    num: the first so many examples; None: all.
    resize: see `Run.call`.
    data_dir: where the set lies.
    tick: called with the examples that are done, and all.

  Raises:
    ConfigError: no such set, or one without the inputs of the function.
  """
  function, found = run.function(what), named(run, dataset)
  name = found.told.rpartition(':')[0]
  taken = taken_from(found, what, function, given, resize)
  data = read(found.source, data_dir).data
  # A graph's labels tell its model the number of nodes alone.
  asked = () if function.of_graph else taken.values()
  truth = {f'true_{k}': k for k in TRUE if k in data and k not in asked}
  labels = Field('label', (), 'int32', names=found.classes)
  number, words = Field('number', (), 'float32'), Field('tokens', ('length',), 'int32')
  texts = {k for k, v in truth.items() if _is_text(found.source.shapes[v])}
  fields = {
    k: labels if v == 'label' else words if k in texts else number
    for k, v in truth.items()
  }
  fields |= function.outputs
  if function.of_graph:
    rows = np.flatnonzero(data[found.split][0])[:num]
    made = run.outputs(what, **given, **{k: data[v][0] for k, v in taken.items()})
    whole = {**{k: data[v][0] for k, v in truth.items()}, **made}
    values = {k: np.asarray(x)[rows] for k, x in whole.items()}
    yield Answers(fields, values, [f'{name}:{n}' for n in rows])
    return
  total = len(next(iter(data.values())))
  total = total if num is None else min(num, total)
  given = dict(given)
  for key, field in function.inputs.items():
    if field.kind == 'seed' and not np.ndim(given.get(key, 0)):
      given[key] = spread(np.asarray(given.get(key, 0)), total)
  seeds = [k for k in given if np.ndim(given[k]) and len(given[k]) == total]
  for start in range(0, total, ROWS):
    end = min(start + ROWS, total)
    inputs = {
      k: as_given(data[v][start:end], function.inputs[k], found)
      for k, v in taken.items()
    }
    part = {k: given[k][start:end] for k in seeds}
    made = run.outputs(what, resize=resize, **{**given, **inputs, **part})
    for k, v in truth.items():
      x = data[v][start:end]
      made[k] = texts_of(x) if k in texts else np.asarray(x)
    called = [f'{found.told}:{i + 1}' for i in range(start, end)]
    yield Answers(fields, {k: made[k] for k in fields if k in made}, called)
    tick(end, total)


def named(run: 'Run', dataset: str) -> Examples:
  """A split by NAME[:SPLIT], as `in_parts` takes it; reads at most its card.

  Raises:
    ConfigError: no such set or split, or no name where the run has none.
  """
  name, split = parse(dataset)
  name = name or getattr(run.config, 'dataset', '')
  if not name:
    raise ConfigError(
      f'--dataset={dataset} is not allowed: the config of the run names no set: give '
      'the name of one.'
    )
  return examples(name, split)


def taken_from(
  found: Examples, what: str, function: Function, given: Mapping[str, Any], resize: bool
) -> dict[str, str]:
  """The field of the set for each input of a function that is not given.

  Raises:
    ConfigError: the set does not have one, or the function reads no example.
  """
  shapes, taken = found.source.shapes, {}
  for name, field in function.inputs.items():
    words = field.kind == 'tokens'
    if name in given or field.kind == 'seed':
      continue
    if words and name in shapes and _is_text(shapes[name]):
      taken[name] = name
    elif words and 'text' in shapes:
      taken[name] = 'text'
    elif field.kind == 'column' and columns.key(name) in shapes:
      taken[name] = columns.key(name)
    elif name in shapes and not words and _fits(field, shapes[name], found, resize):
      taken[name] = name
    elif field.default is None:
      told = ', '.join(f'{k} {x.dtype}{list(x.shape)}' for k, x in shapes.items())
      tops = f', pixels up to {found.max_value}' * (field.kind == 'image')
      wanted = f', pixels up to {field.max_value}' * (field.kind == 'image')
      remedy = ' or add --resize' * (field.kind == 'image' and name in shapes)
      raise ConfigError(
        f'{what}: {found.told} ({told}{tops}) does not give '
        f'{described({name: field})}{wanted}: choose a set that has it{remedy}.'
      )
  if not taken:
    raise ConfigError(f'{what} reads no example: leave --dataset={found.told} out.')
  return taken


def _is_text(shape: Any) -> bool:
  """Whether a field of a set is UTF-8."""
  return len(shape.shape) == 1 and shape.dtype == np.uint8


def _fits(field: Field, shape: Any, found: Examples, resize: bool) -> bool:
  if field.kind == 'image':
    same = shape.shape == field.shape and found.max_value == field.max_value
    return (resize and len(shape.shape) == 3) or same
  return len(shape.shape) == len(field.shape) and all(
    isinstance(n, str) or n == m for n, m in zip(field.shape, shape.shape, strict=True)
  )


def as_given(values: Any, field: Field, found: Examples) -> Any:
  """Some examples of one field as a function takes them."""
  if field.kind == 'tokens':
    return texts_of(values)
  if field.kind == 'image' and (
    values.shape[1:] != field.shape or found.max_value != field.max_value
  ):
    from PIL import Image

    pixels = np.round(np.asarray(values) * (255 / found.max_value)).astype(np.uint8)
    return [Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x) for x in pixels]
  return np.asarray(values)


def _joined(parts: list[Any]) -> Any:
  """Rows of all parts: an array where they are of one size, else a list."""
  sizes = {x.shape[1:] if isinstance(x, np.ndarray) else None for x in parts}
  if len(sizes) == 1 and None not in sizes:
    return np.concatenate(parts)
  return [row for x in parts for row in x]
