"""Values at the layers of a traced function, and what they are differentiated by.

The function is traced and evaluated again, equation by equation, so that values inside
can be returned (`take`) or moved (`add`): the gradient of an output by what is added to
a value is its gradient by the value. Works on any code, as no module system is asked; a
layer is named by the scopes that Flax or `jax.named_scope` give its operations.

Calls are opened, loops and branches; what has a derivative of its own stays whole, and
a choice between ways for platforms. A loop whose turns are counted as it runs
(`while_loop`, `nn.while_loop`) shows its last turn. What did not run, as a branch that
was not taken, is nan, or 0 where it is no float.
"""

import functools
from typing import Any, Callable, Mapping, NamedTuple, Sequence

import jax
from jax.extend import core as jex_core
import jax.numpy as jnp

from dlx.inspect import branches as branching
from dlx.inspect.layers import path_of
from dlx.run import flops
from dlx.run.blame import INNER, bind

_CALLS = ('jit', 'pjit', 'closed_call', 'core_call', 'remat', 'checkpoint', 'remat2')
_PRODUCTS = (*flops.PRODUCTS, 'ffi_call', 'pallas_call')


class Record(NamedTuple):
  """One operation, as it runs.

  Attributes:
    number: of the operation; the same for any number of rows.
    path: scopes, e.g. 'CNN/conv_0'; '' where nothing names it.
    eqn: of the jaxpr; its shapes are without the axes of the loops around it.
    reads: operands that depend on the images.
    weights: numbers of the leaves of the state that meet the images here.
    weighted: operands that are made of those alone.
    sources: operations that made its operands; None: an argument or a constant.
    is_relu: max(x, 0), or a function of it with a derivative of its own.
    is_product: of what depends on the images and weights.
    turns: of the loops around it, the outermost first.
    loop: number of the last operation in the outermost of them; without a loop its own.
    branches: that it lies in, the outermost first.
    in_while: whether a loop around it counts its turns as it runs.
  """

  number: int
  path: str
  eqn: Any
  reads: tuple[int, ...]
  weights: frozenset[int]
  weighted: tuple[int, ...]
  sources: tuple[int | None, ...]
  is_relu: bool
  is_product: bool
  turns: tuple[int, ...]
  loop: int
  branches: tuple[int, ...] = ()
  in_while: bool = False

  @property
  def primitive(self) -> str:
    return self.eqn.primitive.name

  @property
  def outputs(self) -> list[Any]:
    """Shapes and dtypes of its results."""
    return [v.aval for v in self.eqn.outvars]


class Taken(NamedTuple):
  """Operands and results of an operation; in front the axes of the loops around it."""

  inputs: Sequence[Any]
  outputs: Sequence[Any]


class _Value(NamedTuple):
  array: Any
  by_image: bool = False
  weights: frozenset[int] = frozenset()  # Leaves of the state; none behind images.
  source: int | None = None


class Found(NamedTuple):
  """Attributes:
  outputs: of the function.
  taken: by the number of the operation.
  records: of all operations, in the order in which they run.
  sources: operations that made the leaves of the outputs.
  """

  outputs: Any
  taken: Mapping[int, Taken]
  records: Sequence[Record]
  sources: Sequence[int | None]


def evaluated(
  call: Callable[[Any, Any], Any],
  state: Any,
  image: Any,
  *,
  take: Sequence[int] = (),
  add: Mapping[int, tuple[int, Any]] | None = None,
  guided: bool = False,
) -> Found:
  """A function with values of its operations; to be jitted, and differentiated.

  Args:
    call: (state, image) -> any tree.
    state: any tree.
    image: an array, or a tree of them.
    take: numbers of operations whose operands and results are returned.
    add: by the number of an operation which of its results is moved, and by what; like
      the result, with the axes of loops in front. Not inside of a `while_loop`.
    guided: whether gradients below 0 end at ReLUs, as those of ReLUs that are off do
      (guided backpropagation, arXiv:1412.6806).
  """
  closed, shapes = jax.make_jaxpr(call, return_shape=True)(state, image)
  of_state = len(jax.tree.leaves(state))
  leaves = [
    _Value(x, i >= of_state, frozenset([i] if i < of_state else []))
    for i, x in enumerate(jax.tree.leaves((state, image)))
  ]
  run = _Run(frozenset(take), add or {}, guided)
  values = run.evaluate(closed.jaxpr, [*map(_Value, closed.consts), *leaves], '')
  outputs = jax.tree.unflatten(jax.tree.structure(shapes), [v.array for v in values])
  return Found(outputs, run.taken, run.records, [v.source for v in values])


def records(call: Callable[[Any, Any], Any], state: Any, image: Any) -> Found:
  """All operations; nothing is computed. `state` and `image`: arrays or shapes."""
  found: list[Found] = []

  def listed(state, image):
    found[:] = [evaluated(call, state, image)]

  jax.eval_shape(listed, state, image)
  return found[0]._replace(outputs=None)


class _Run:
  """One evaluation of a jaxpr; `number` counts its operations."""

  def __init__(
    self, take: frozenset[int], add: Mapping[int, Any], guided: bool, number: int = 0
  ):
    self.take, self.add, self.guided, self.number = take, add, guided, number
    self.taken: dict[int, Taken] = {}
    self.records: list[Record] = []

  def evaluate(self, jaxpr: Any, inputs: Sequence[_Value], scope: str) -> list[_Value]:
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], inputs, strict=True))

    def read(v):
      return _Value(v.val) if isinstance(v, jex_core.Literal) else values[v]

    for eqn in jaxpr.eqns:
      outputs = self._one(eqn, [read(v) for v in eqn.invars], scope)
      values.update(zip(eqn.outvars, outputs, strict=True))
    return [read(v) for v in jaxpr.outvars]

  def _one(self, eqn: Any, given: list[_Value], scope: str) -> list[_Value]:
    scope = '/'.join(filter(None, (scope, str(eqn.source_info.name_stack))))
    if (inner := _opened(eqn)) is not None:
      return self.evaluate(inner[0], [*map(_Value, inner[1]), *given], scope)
    reads = tuple(i for i, v in enumerate(given) if v.by_image)
    by_image = bool(reads)
    weights = frozenset().union(*(v.weights for v in given if not v.by_image))
    arrays = [v.array for v in given]
    is_relu = _is_relu(eqn)
    if eqn.primitive.name == 'scan':
      outputs = self._scan(eqn, given, scope)
    elif eqn.primitive.name == 'while':
      outputs = self._while(eqn, given, scope)
    elif branching.is_choice(eqn):
      outputs = self._cond(eqn, given, scope)
    elif is_relu and self.guided:
      outputs = [_guided_relu(jnp.asarray(arrays[_operand(eqn)]))]
    else:
      outputs = bind(eqn, arrays)
    # Of a loop after those inside: it ends last.
    number, self.number = self.number, self.number + 1
    if number in self.add:
      which, moved = self.add[number]
      outputs[which] = outputs[which] + moved.astype(outputs[which].dtype)
    if number in self.take:
      self.taken[number] = Taken(arrays, list(outputs))
    record = Record(
      number,
      path_of(scope),
      eqn,
      reads,
      weights if by_image else frozenset(),
      tuple(i for i, v in enumerate(given) if v.weights and not v.by_image),
      tuple(v.source for v in given),
      is_relu,
      by_image and bool(weights) and _has_products(eqn),
      (),
      number,
    )
    self.records.append(record)
    kept = frozenset() if by_image else weights
    return [_Value(x, by_image, kept, number) for x in outputs]

  def _scan(self, eqn: Any, given: list[_Value], scope: str) -> list[Any]:
    """A scan that also gives what is taken inside, turn by turn."""
    params = eqn.params
    body, consts = params['jaxpr'].jaxpr, params['jaxpr'].consts
    fixed, carried = flops.parts_of_scan(eqn, body)
    start, end = self.number, self.number + _count(body)
    add = {n: x for n, x in self.add.items() if start <= n < end}
    rows = [v.array for v in given[fixed + carried :]]
    found: list[_Run] = []
    # What is carried comes to depend on all that the loop reads.
    by_image = any(v.by_image for v in given)

    def turn(carry, row):
      row, moved = row
      moved = {n: (add[n][0], x) for n, x in moved.items()}
      run = _Run(self.take, moved, self.guided, start)
      known = [
        *map(_Value, consts),
        *(v._replace(source=None) for v in given[:fixed]),
        *(_Value(x, by_image) for x in carry),
        *(
          _Value(x, v.by_image, v.weights)
          for x, v in zip(row, given[fixed + carried :], strict=True)
        ),
      ]
      outputs = [v.array for v in run.evaluate(body, known, scope)]
      found[:] = [run]
      return outputs[:carried], (outputs[carried:], run.taken)

    carry, (stacked, taken) = jax.lax.scan(
      turn,
      [v.array for v in given[fixed : fixed + carried]],
      (rows, {n: x for n, (_, x) in add.items()}),
      length=params['length'],
      reverse=params['reverse'],
      unroll=params['unroll'],
    )
    self.taken |= taken
    turns, last = params['length'], end - 1
    self.records += [
      r._replace(turns=(turns, *r.turns), loop=last) for r in found[0].records
    ]
    self.number = end
    return [*carry, *stacked]

  def _cond(self, eqn: Any, given: list[_Value], scope: str) -> list[Any]:
    """Branches, one of which runs; what is taken in the others is nothing."""
    branches, runs = eqn.params['branches'], []
    for branch in branches:
      add = {n: x for n, x in self.add.items() if 0 <= n - self.number < _count(branch)}
      runs.append(_Run(self.take, add, self.guided, self.number))
      self.number += _count(branch)

    def result(i, arrays):
      run = _Run(self.take, runs[i].add, self.guided, runs[i].number)
      known = [
        v._replace(array=x, source=None) for v, x in zip(given[1:], arrays, strict=True)
      ]
      consts = map(_Value, branches[i].consts)
      outputs = run.evaluate(branches[i].jaxpr, [*consts, *known], scope)
      runs[i].records = run.records
      return [v.array for v in outputs], run.taken

    arrays = [v.array for v in given[1:]]
    results = [functools.partial(result, i) for i in range(len(branches))]
    outputs, taken = jax.lax.switch(
      given[0].array,
      branching.filled(results, arrays),
      jax.tree.map(jnp.asarray, arrays),
    )
    self.taken |= taken
    for i, run in enumerate(runs):
      self.records += [r._replace(branches=(i, *r.branches)) for r in run.records]
    return outputs

  def _while(self, eqn: Any, given: list[_Value], scope: str) -> list[Any]:
    """A loop that also gives what is taken in its last turn."""
    body, start, found = eqn.params['body_jaxpr'], self.number, []
    self.number += _count(body)
    read = eqn.params['cond_nconsts'], eqn.params['body_nconsts']
    fixed = given[read[0] : sum(read)]
    # As in a scan, what is carried comes to depend on all that the loop reads.
    by_image = any(v.by_image for v in given)

    def turn(carry):
      run = _Run(self.take, {}, self.guided, start)
      known = [
        *map(_Value, body.consts),
        *(v._replace(source=None) for v in fixed),
        *(_Value(x, by_image) for x in carry),
      ]
      outputs = [v.array for v in run.evaluate(body.jaxpr, known, scope)]
      found[:] = [run]
      return outputs, run.taken

    outputs, taken = branching.last_turn(eqn, [v.array for v in given], turn)
    self.taken |= taken
    self.records += [r._replace(in_while=True) for r in found[0].records]
    return outputs


@jax.custom_vjp
def _guided_relu(x: jax.Array) -> jax.Array:
  return jnp.maximum(x, 0)


_guided_relu.defvjp(
  lambda x: (jnp.maximum(x, 0), x > 0),
  lambda on, slope: (jnp.where(on, jnp.maximum(slope, 0), 0),),
)


def _opened(eqn: Any) -> tuple[Any, Sequence[Any]] | None:
  """(jaxpr, constants) of a call that has no derivative of its own."""
  if eqn.primitive.name not in _CALLS:
    return None
  inner = next((eqn.params[n] for n in INNER if n in eqn.params), None)
  return None if inner is None else (flops.opened(inner), getattr(inner, 'consts', ()))


def _count(jaxpr: Any) -> int:
  """Operations that `_Run` numbers in a jaxpr."""
  total = 0
  for eqn in flops.opened(jaxpr).eqns:
    if (inner := _opened(eqn)) is not None:
      total += _count(inner[0])
      continue
    total += 1
    if eqn.primitive.name == 'scan':
      total += _count(eqn.params['jaxpr'])
    elif eqn.primitive.name == 'while':
      total += _count(eqn.params['body_jaxpr'])
    elif branching.is_choice(eqn):
      total += sum(map(_count, eqn.params['branches']))
  return total


def _has_products(eqn: Any) -> bool:
  if eqn.primitive.name in _PRODUCTS:
    return True
  bodies = map(flops.opened, flops.jaxprs(eqn.params))
  return any(_has_products(inner) for body in bodies for inner in body.eqns)


def _is_relu(eqn: Any) -> bool:
  if eqn.primitive.name == 'max':
    return _operand(eqn) is not None
  if eqn.primitive.name != 'custom_jvp_call' or len(eqn.invars) != 1:
    return False
  bodies = [flops.opened(body) for body in flops.jaxprs(eqn.params)]
  return len(bodies) == 1 and _is_max_alone(bodies[0])


def _is_max_alone(jaxpr: Any) -> bool:
  """Whether a jaxpr is max(x, 0) and nothing besides."""
  while len(jaxpr.eqns) == 1 and (inner := _opened(jaxpr.eqns[0])) is not None:
    jaxpr = inner[0]
  return len(jaxpr.eqns) == 1 and (
    jaxpr.eqns[0].primitive.name == 'max' and _is_relu(jaxpr.eqns[0])
  )


def _operand(eqn: Any) -> Any:
  """Which operand of a ReLU is not its 0; None: it is no max(x, 0) of floats."""
  if eqn.primitive.name != 'max':
    return 0
  if not jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating):
    return None
  is_zero = lambda v: (
    isinstance(v, jex_core.Literal) and jnp.ndim(v.val) == 0 and float(v.val) == 0
  )
  zeros = [is_zero(v) for v in eqn.invars]
  return zeros.index(False) if sum(zeros) == 1 else None
