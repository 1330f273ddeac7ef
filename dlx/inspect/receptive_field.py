"""The receptive field of whatever a function computes, read from its jaxpr.

Nothing runs and nothing is compiled. Every value carries a `spans.Value`: from which
inputs each of its entries can come. Convolutions, windows, slices, padding, reshapes
and products move it exactly; an operation that is not known here sees everything, as
attention and a dense layer do. Of branches for several platforms the one that is known
best is looked at.
"""

import re
from typing import Any, Callable, Mapping, NamedTuple, Sequence

from dlx.inspect import primitives, spans
from dlx.inspect.sizes import Reach
from dlx.inspect.spans import Known
from dlx.run import flops

MOST_TURNS = 128  # Of a loop that are followed one by one.

_LIBRARY = re.compile(r'[\\/](jax|flax)[\\/]')


class Seen(NamedTuple):
  """An equation that is no call of other equations, as it runs.

  Attributes:
    eqn: of the jaxpr.
    results: what they depend on.
    scope: as jax.named_scope and the calls around it have it, with slashes.
    called: name of the function in which it stands, that with a rule of its own first.
    names: of the inputs that its operands are made of, where those have names.
  """

  eqn: Any
  results: Sequence[Known]
  scope: str
  called: str
  names: tuple[str, ...]


Visit = Callable[[Seen], None]


def receptive_field(
  function: Callable[..., Any], *shapes: Any, axes: Mapping[int, Sequence[int]]
) -> list[list[Reach | None]]:
  """What one entry of each result sees along the followed axes.

  Args:
    function: of arrays; any that jax can trace.
    shapes: of its arguments, arrays or ShapeDtypeStructs.
    axes: dimensions that are followed, by argument.

  Returns:
    For each leaf of the results, in their order, one item an axis, in the order of
    `axes`; None: every entry sees all that any entry sees.
  """
  import jax

  jaxpr = jax.make_jaxpr(function)(*shapes)
  given = [
    spans.followed(x.shape, i, axes[i]) if i in axes else None
    for i, x in enumerate(shapes)
  ]
  every = [(i, d) for i, dims in axes.items() for d in dims]
  found = follow(jaxpr, given)
  return [
    [None if value is None else value.reach(axis) for axis in every] for value in found
  ]


def follow(
  jaxpr: Any,
  given: Sequence[Known],
  visit: Visit | None = None,
  names: Sequence[str | None] = (),
) -> list[Known]:
  """What the results of a jaxpr depend on.

  Args:
    jaxpr: open or closed.
    given: of its inputs; None: an input that does not matter, as weights.
    visit: called with every equation that is not a call of other equations, in the
      order in which they run; those of a loop in its last turn alone.
    names: of inputs, for `Seen.names`: what is made of named inputs, and of none of
      those in `given`, has their names.
  """
  return _Walk(visit, names).start(jaxpr, given)


class _Walk:
  """Walks jaxprs; `opaque` counts operations that are not known here."""

  def __init__(self, visit: Visit | None, names: Sequence[str | None]):
    self.visit, self.opaque = visit, 0
    self.named = names
    self.names: dict[Any, tuple[str, ...]] = {}

  def start(self, jaxpr: Any, given: Sequence[Known]) -> list[Known]:
    pairs = zip(flops.opened(jaxpr).invars, self.named, strict=False)
    self.names = {v: (name,) for v, name in pairs if name is not None}
    return self.walk(jaxpr, given, '', '')

  def enter(
    self, jaxpr: Any, given: Sequence[Known], scope: str, called: str, outer: Any
  ) -> list[Known]:
    """A body whose inputs are these variables of the equation around it."""
    for inside, outside in zip(flops.opened(jaxpr).invars, outer, strict=True):
      self.names[inside] = self._names_of([outside])
    return self.walk(jaxpr, given, scope, called)

  def _names_of(self, variables: Sequence[Any]) -> tuple[str, ...]:
    read = [self.names.get(v, ()) for v in variables if not hasattr(v, 'val')]
    return tuple(dict.fromkeys(name for names in read for name in names))

  def walk(
    self, jaxpr: Any, given: Sequence[Known], scope: str, called: str
  ) -> list[Known]:
    jaxpr = flops.opened(jaxpr)
    found = dict(zip(jaxpr.invars, given, strict=True))
    read = lambda v: None if hasattr(v, 'val') else found.get(v)
    needed = flops.needed(jaxpr, (True,) * len(jaxpr.outvars))
    for eqn in jaxpr.eqns:
      if not any(v in needed for v in eqn.outvars) and not eqn.effects:
        continue
      inside = '/'.join(filter(None, (scope, str(eqn.source_info.name_stack))))
      results = self._equation(eqn, [read(v) for v in eqn.invars], inside, called)
      found.update(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]

  def _equation(
    self, eqn: Any, given: list[Known], scope: str, called: str
  ) -> Sequence[Known]:
    name, bodies = eqn.primitive.name, list(flops.jaxprs(eqn.params))
    if name.startswith('custom_'):
      called = called or caller(eqn)
    if name == 'scan':
      return self._scan(eqn, bodies[0], given, scope, called)
    if name == 'while':
      return self._while(eqn, given, scope, called)
    if name == 'cond':
      return self._cond(eqn, bodies, given, scope, called)
    inputs = [len(flops.opened(body).invars) for body in bodies]
    if inputs == [len(given)] and name not in flops.NOT_CALLED + ('pallas_call',):
      results = self.enter(bodies[0], given, scope, called, eqn.invars)
      for inside, outside in zip(
        flops.opened(bodies[0]).outvars, eqn.outvars, strict=True
      ):
        self.names[outside] = self._names_of([inside])
      return results
    results = self._leaf(eqn, given)
    names = self._names_of(eqn.invars)
    if self.visit is not None:
      self.visit(Seen(eqn, results, scope, called or caller(eqn), names))
    for variable, value in zip(eqn.outvars, results, strict=True):
      self.names[variable] = names if value is None else ()
    return results

  def _leaf(self, eqn: Any, given: list[Known]) -> Sequence[Known]:
    shapes = [getattr(v.aval, 'shape', ()) for v in eqn.outvars]
    if not any(value is not None for value in given):
      return [None] * len(shapes)
    name = eqn.primitive.name
    if name == 'optimization_barrier':
      return given
    if name in primitives.ELEMENTWISE and len(shapes) == 1:
      return [primitives.elementwise(given, shapes[0])]
    rule = primitives.RULES.get(name)
    found = rule(eqn, given, shapes) if rule else None
    if found is None:
      self.opaque += 1
      return [spans.all_of(given, shape) for shape in shapes]
    return found

  def _quietly(self, walk: Callable[[], Any]) -> tuple[Any, int]:
    """(what a walk finds, operations that are not known), without a visit."""
    visit, opaque, self.visit = self.visit, self.opaque, None
    found = walk()
    self.visit, more = visit, self.opaque - opaque
    self.opaque = opaque
    return found, more

  def _scan(self, eqn, body, given, scope, called) -> Sequence[Known]:
    fixed, carried = flops.parts_of_scan(eqn, body)
    rows = [_turn(value) for value in given[fixed + carried :]]
    carry, each = given[fixed : fixed + carried], []
    turns = eqn.params['length']
    turn = lambda c: self.enter(
      body, [*given[:fixed], *c, *rows], scope, called, eqn.invars
    )
    for _ in range(max(min(turns, MOST_TURNS) - 1, 0)):
      results, _ = self._quietly(lambda c=carry: turn(c))
      each.append(results[carried:])
      if results[:carried] == carry:
        break
      carry = results[:carried]
    else:
      if turns > MOST_TURNS:  # Whatever may come in later turns.
        shapes = [v.aval.shape for v in flops.opened(body).invars[fixed:]]
        everything = [*given, *carry]
        carry = [spans.all_of(everything, shape) for shape in shapes[:carried]]
    results = turn(carry)
    each.append(results[carried:])
    stacked = [spans.joined(of) for of in zip(*each, strict=True)]
    shapes = [v.aval.shape for v in eqn.outvars[carried:]]
    return [
      *results[:carried],
      *(
        value and spans.arranged(value, (None, *range(len(value.dims))), shape)
        for value, shape in zip(stacked, shapes, strict=True)
      ),
    ]

  def _while(self, eqn, given, scope, called) -> Sequence[Known]:
    body = eqn.params['body_jaxpr']
    inputs = [v.aval.shape for v in flops.opened(body).invars]
    of_body = eqn.params['cond_nconsts']
    constants = given[of_body : of_body + eqn.params['body_nconsts']]
    carry = [spans.all_of(given, shape) for shape in inputs[len(constants) :]]
    outer = [*eqn.invars[of_body : of_body + len(constants)], *eqn.outvars]
    self.enter(body, [*constants, *carry], scope, called, outer)
    return [spans.all_of(given, v.aval.shape) for v in eqn.outvars]

  def _cond(self, eqn, bodies, given, scope, called) -> Sequence[Known]:
    walk = lambda body: self.enter(body, given[1:], scope, called, eqn.invars[1:])
    if eqn.params.get('branches_platforms') is not None:
      unknown = [self._quietly(lambda b=body: walk(b))[1] for body in bodies]
      return walk(bodies[unknown.index(min(unknown))])
    results = [walk(body) for body in bodies]
    shapes = [v.aval.shape for v in eqn.outvars]
    return [
      primitives.elementwise([given[0], *of], shape)
      for of, shape in zip(zip(*results, strict=True), shapes, strict=True)
    ]


def caller(eqn: Any) -> str:
  """Name of the function, outside of JAX and Flax, in which an equation stands."""
  traceback = eqn.source_info.traceback
  for frame in () if traceback is None else traceback.frames:
    if not _LIBRARY.search(frame.file_name):
      return frame.function_name
  return ''


def _turn(value: Known) -> Known:
  """A row of what a scan reads row by row."""
  if value is None:
    return None
  value = spans.wide(value, (0,))
  return spans.arranged(value, range(1, len(value.dims)), value.shape[1:])
