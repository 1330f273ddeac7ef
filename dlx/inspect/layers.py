"""What an experiment's model costs, layer by layer, before anything is trained.

The function is traced for its shapes; nothing is compiled, no data is read. A layer is
a scope (`jax.named_scope`; every Flax module is one) in which parameters are read or
products are computed. What changes the receptive field between them, a pool above all,
has a row of its own under the name of the function that did it.
"""

import math
import re
from typing import Any, Iterable, Iterator, Mapping, NamedTuple, Sequence

import jax

from dlx.config import check_choice
from dlx.errors import ConfigError
from dlx.experiment import Experiment, Field, Function, example_shapes
from dlx.inspect import receptive_field, spans
from dlx.inspect.sizes import Reach
from dlx.run import flops
from dlx.state import leaves_by_path

# A transformation around a scope: vmap(Net) is Net.
_AROUND = re.compile(r'\w+\(([^()]*)\)')
OTHER = '(other)'  # Products in no layer.
OPEN = 64  # A size that nothing tells.
UNUSED = '(not used)'  # Parameters that the function does not read.


class Row(NamedTuple):
  """One layer.

  Attributes:
    name: its scope, or the function that changed the receptive field.
    output: shape of what it gives, with the batch axis; () where it gives nothing.
    dtype: of that.
    reach: by the axes of `Table.axes`; None: every unit sees all of the input.
    parameters: numbers in the parameters that are read here first.
    parameter_bytes: of them.
    state: numbers of the model state that are read here first: running statistics,
      frozen weights.
    flops: of one call over the whole batch, see dlx/run/flops.py; loops counted as
      often as they turn.
    activation_bytes: of `output`.
  """

  name: str
  output: tuple[int, ...]
  dtype: str
  reach: tuple[Reach | None, ...]
  parameters: int
  parameter_bytes: int
  state: int
  flops: int
  activation_bytes: int


class Table(NamedTuple):
  """All layers of one function.

  Attributes:
    function: its name.
    batch: rows of the call.
    input: shapes by the name of an input, with the batch axis.
    axes: of the input that are followed, e.g. ('height', 'width').
    rows: in the order in which they run; last what the function does not use.
    open_loops: loops of products of unknown length, each counted once.
  """

  function: str
  batch: int
  input: Mapping[str, tuple[int, ...]]
  axes: tuple[str, ...]
  rows: tuple[Row, ...]
  open_loops: int

  def total(self, what: str) -> int:
    """Sum of a column of numbers."""
    return sum(getattr(row, what) for row in self.rows)


def table(
  experiment: Experiment,
  name: str | None = None,
  *,
  batch: int = 1,
  sizes: Mapping[str, int] | None = None,
  platform: str = 'tpu',
) -> Table:
  """The layers of one of an experiment's functions.

  Args:
    experiment: of any kind.
    name: of the function; None: the first.
    batch: rows of the call.
    sizes: of what an input leaves open, such as 'length'; those missing are as in a
      training batch.
    platform: whose branch of lax.platform_dependent counts: 'cpu', 'cuda' or 'tpu'.

  Raises:
    ConfigError: no such function or size, or one that the model refuses.
  """
  name, function = _function(experiment, name)
  found_sizes = _sizes(experiment, function, sizes or {})
  rows = () if function.of_graph else (batch,)
  inputs = example_shapes(function.inputs, rows, found_sizes)
  state = jax.eval_shape(lambda: experiment.init(jax.random.key(0)))
  call = lambda state, inputs: function.call(state, inputs, **function.options)
  try:
    jaxpr = jax.make_jaxpr(call)(state, inputs)
  except ValueError as error:
    if not sizes:
      raise
    raise ConfigError(f'--sizes: the model says: {error}') from error
  # As leaves stand in the arguments: those of a mapping by their keys.
  paths = [*leaves_by_path(state), *sorted(inputs)]
  axes: dict[str, spans.Axis] = {}
  variables, given = jaxpr.jaxpr.invars, []
  for i, (path, variable) in enumerate(zip(paths, variables, strict=True)):
    of_input = i >= len(paths) - len(inputs)
    dims = _followed(function.inputs[path], len(rows)) if of_input and not axes else {}
    axes |= {label: (i, d) for label, d in dims.items()}
    shape = getattr(variable.aval, 'shape', ())
    given.append(spans.followed(shape, i, dims.values()) if of_input else None)
  weights = _weights(state)
  seen: list[receptive_field.Seen] = []
  receptive_field.follow(jaxpr, given, seen.append, _names(state))
  counted = flops.by_scope(jaxpr, platform)
  return Table(
    name,
    batch,
    {k: inputs[k].shape for k in inputs},
    tuple(axes),
    tuple(_rows(seen, tuple(axes.values()), weights, counted)),
    sum(part.open_loops for part in counted.values()),
  )


def train_flops(experiment: Experiment, platform: str = 'tpu') -> flops.Flops:
  """Operations of one training step over its global batch, as launch.plan counts them.

  Args:
    experiment: of any kind; of batches of several shapes the largest counts.
    platform: see `table`.
  """
  state = jax.eval_shape(lambda: experiment.init(jax.random.key(0)))
  batch = experiment.train_data.shapes[-1]
  return flops.count(jax.make_jaxpr(experiment.train_step)(state, batch), platform)


def _function(experiment: Experiment, name: str | None) -> tuple[str, Function]:
  functions = experiment.functions
  if not functions:
    raise ConfigError('The experiment states no function: there is nothing to trace.')
  name = next(iter(functions)) if name is None else name
  check_choice('--function', name, functions)
  return name, functions[name]


def _sizes(
  experiment: Experiment, function: Function, given: Mapping[str, int]
) -> dict[str, int]:
  """Of what inputs leave open: as given, as a training batch has it, else OPEN."""
  fields = function.inputs.values()
  open_ = {n for field in fields for n in field.shape if isinstance(n, str)}
  if unknown := sorted(given.keys() - open_):
    known = ', '.join(sorted(open_)) or 'none'
    raise ConfigError(
      f'--sizes: {unknown[0]} is not allowed: what the inputs leave open is {known}.'
    )
  found = dict.fromkeys(open_, OPEN)
  batch = leaves_by_path(experiment.train_data.shapes[-1])
  first = 0 if function.of_graph else 1
  for name, field in function.inputs.items():
    rank = first + len(field.shape)
    alike = {path: x.shape for path, x in batch.items() if len(x.shape) == rank}
    shape = alike.get(name, next(iter(alike.values()), None))
    if shape is not None:
      pairs = zip(field.shape, shape[first:], strict=True)
      found |= {n: size for n, size in pairs if isinstance(n, str)}
  return found | dict(given)


def _followed(field: Field, batch_axes: int) -> dict[str, int]:
  """Dimensions along which a receptive field is told, by what a person calls them."""
  if field.kind == 'image':
    return {'height': batch_axes, 'width': batch_axes + 1}
  if field.shape and field.shape[0] == 'length':
    return {'length': batch_axes}
  return {}


class _Weight(NamedTuple):
  """Of one array, or of several: as the columns of a row."""

  parameters: int = 0
  parameter_bytes: int = 0
  state: int = 0


def _weights(state: Any) -> dict[str, _Weight]:
  """All parameters and all of the model state, by path."""
  found = {}
  for path, x in leaves_by_path(state).items():
    count = math.prod(x.shape)
    if path.startswith('params/'):
      found[path] = _Weight(count, count * x.dtype.itemsize)
    elif path.startswith('model_state/'):
      found[path] = _Weight(state=count)
  return found


def _names(state: Any) -> list[str]:
  """Of the leaves of a state: their paths; an average has the name of its parameter."""
  shapes = {path: x.shape for path, x in leaves_by_path(state).items()}
  names = []
  for path, shape in shapes.items():
    part, _, rest = path.partition('/')
    if part == 'ema':
      path = _averaged(rest.split('/'), shape, shapes) or path
    names.append(path)
  return names


def _averaged(
  parts: list[str], shape: tuple[int, ...], shapes: Mapping[str, tuple[int, ...]]
) -> str | None:
  """What a leaf is the average of: of several nets the paths are alike at their end."""
  for tail in ('/'.join(parts[i:]) for i in range(max(len(parts) - 1, 1))):
    for path, other in shapes.items():
      own = path.startswith(('params/', 'model_state/'))
      if own and path.endswith(f'/{tail}') and other == shape:
        return path
  return None


def path_of(scope: str) -> str:
  """'vmap(CNN)/CNN.forward/conv_0' -> 'CNN/conv_0': modules, without their methods."""
  while (bare := _AROUND.sub(r'\1', scope)) != scope:
    scope = bare
  return '/'.join(part for part in scope.split('/') if part and '.' not in part)


class _Run:
  """Equations in a row that stand in one scope, and outside of layers in one function.

  Attributes:
    path: of the scope.
    called: the function.
    last: the last equation.
    weights: parameters that are read here first.
    flops: of the products here.
    has_product: whether there are any.
  """

  def __init__(self, path: str, called: str, first: receptive_field.Seen):
    self.path, self.called, self.last = path, called, first
    self.weights: list[str] = []
    self.flops, self.has_product = 0, False

  @property
  def output(self) -> tuple[Any, spans.Value]:
    """(variable, what it depends on) of what the run gives."""
    for variable, value in zip(self.last.eqn.outvars, self.last.results, strict=True):
      if value is not None:
        return variable, value
    raise AssertionError('Runs are made of what depends on the input.')

  def name(self, root: str, inside: bool) -> str:
    """Its path below the root; with the function where it is no layer of its own."""
    path = f'{self.path}/'.removeprefix(root).rstrip('/')
    if not inside:
      return path
    called = self.called
    if not called or '.' in called or '<' in called:
      called = self.last.eqn.primitive.name  # A method, or a nameless function.
    if called == path.rpartition('/')[2]:
      return path
    return f'{path}/{called}' if path else called


def _rows(
  seen: Sequence[receptive_field.Seen],
  axes: tuple[spans.Axis, ...],
  weights: Mapping[str, _Weight],
  counted: Mapping[str, flops.Flops],
) -> list[Row]:
  runs, parents = _runs(seen, set(weights))
  rest = _share(runs, parents, counted)
  roots = {run.path.partition('/')[0] for run in runs if run.path}
  root = f'{roots.pop()}/' if len(roots) == 1 else ''
  before: tuple[Reach | None, ...] = tuple(Reach() for _ in axes)
  rows = []
  for run in runs:
    variable, value = run.output
    now = tuple(value.reach(axis) for axis in axes)
    costs = bool(run.weights or run.flops)
    inside = bool(run.path) and _is_float(variable)
    pools = inside and any(map(_is_wider, now, before))
    if costs or pools:
      name = run.name(root, run.path in parents or not costs)
      own = _sum(weights[weight] for weight in run.weights)
      shape, dtype = tuple(variable.aval.shape), variable.aval.dtype
      size = math.prod(shape) * dtype.itemsize
      rows.append(Row(name, shape, dtype.name, now, *own, run.flops, size))
      before = now
  used = {weight for run in runs for weight in run.weights}
  left = _sum(weight for name, weight in weights.items() if name not in used)
  nothing = (None,) * len(axes)
  for path, number in rest.items():
    name = f'{path}/'.removeprefix(root).rstrip('/') or OTHER
    rows.append(Row(name, (), '', nothing, *_Weight(), number, 0))
  if any(left):
    rows.append(Row(UNUSED, (), '', nothing, *left, 0, 0))
  return rows


def _sum(weights: Iterable[_Weight]) -> _Weight:
  rows = [_Weight(), *weights]
  return _Weight(*(sum(column) for column in zip(*rows, strict=True)))


def _above(path: str) -> Iterator[str]:
  """Every scope around a scope; '' is around all others."""
  while path:
    path = path.rpartition('/')[0]
    yield path


def _is_float(variable: Any) -> bool:
  return jax.dtypes.issubdtype(variable.aval.dtype, jax.numpy.inexact)


def _is_wider(now: Reach | None, before: Reach | None) -> bool:
  """Whether a layer sees more of the input than the one before, as a pool does."""
  if before is None or now is None:
    return before is not now
  return now.size > before.size or now.stride > before.stride


def _runs(
  seen: Sequence[receptive_field.Seen], new: set[str]
) -> tuple[list[_Run], set[str]]:
  """Equations by runs, and the scopes that have layers inside.

  Args:
    seen: equations in their order; those of parameters alone count where their result
      meets the input.
    new: parameters that none has met so far.
  """
  is_product = lambda one: one.eqn.primitive.name in flops.PRODUCTS
  seen = [one for one in seen if any(value is not None for value in one.results)]
  layers = {path_of(one.scope) for one in seen if one.names or is_product(one)}
  parents = {'', *(up for path in layers for up in _above(path))}
  parents |= {path for path in layers if '/' not in path}  # The whole model.
  known = layers | parents
  runs: list[_Run] = []
  for one in seen:
    path = path_of(one.scope)
    path = next(place for place in (path, *_above(path)) if place in known)
    called = one.called if path in parents else ''
    if not runs or (runs[-1].path, runs[-1].called) != (path, called):
      runs.append(_Run(path, called, one))
    run = runs[-1]
    taken = [name for name in one.names if name in new]
    new.difference_update(taken)
    run.weights += taken
    run.has_product |= is_product(one)
    run.last = one
  return runs, parents


def _share(
  runs: Sequence[_Run], parents: set[str], counted: Mapping[str, flops.Flops]
) -> dict[str, int]:
  """Gives operations to the runs of their layer.

  Returns:
    Those of layers that depend on no input, as of the steps of a sampler, by scope.
  """
  left: dict[str, int] = {}
  for scope, part in counted.items():
    path = path_of(scope)
    around = [place for place in _above(path) if place not in parents]
    here = [run for run in runs if run.path in (path, *around)]
    if here:
      products = [run for run in here if run.has_product] or here
      products[-1].flops += part.total
    elif part.total:
      left[path] = left.get(path, 0) + part.total
  return left
