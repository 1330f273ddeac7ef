"""Values inside a traced function: ReLUs and what products with parameters read.

A jitted step hides its layers. Here it is traced, and evaluated again with more
outputs: reductions of the values that are asked for, so that a pass over a data set
stays one compiled program. Works on any code, as no module system is asked; a layer is
named by the scopes that Flax or `jax.named_scope` give its operations.
"""

import functools
from typing import Any, Callable, NamedTuple

import jax
from jax.extend import core as jex_core
import jax.numpy as jnp

from dlx.inspect import branches
from dlx.run.blame import CALLS, INNER, bind, layer_of, place_of

# Products by XLA, and calls of kernels, which stand for one.
_PRODUCTS = (
  'dot_general', 'matrix_product', 'conv_general_dilated', 'ffi_call', 'pallas_call',
)  # fmt: skip
BATCH, PARAMS = 'batch', 'params'  # What a value depends on.
BINS = 40  # Of a histogram of activations.


class Tap(NamedTuple):
  """One place in a function whose values are looked at.

  Attributes:
    kind: 'relu', the values after one; 'input', what the first product with parameters
      reads of the batch alone; 'activation', what every product with parameters reads,
      and what the last one gives, its bias added; also in branches, and in the last
      turn of a loop that counts its turns as it runs.
    layer: scopes of the operation, e.g. 'conv_0' or 'blocks/mlp/in'; '' where nothing
      names them.
    where: 'FILE:LINE in FUNCTION', the innermost line outside of libraries; ''.
    stacked: whether the values have an axis of the turns of a scan over layers in
      front; those of 'activation' of every scan.
  """

  kind: str
  layer: str
  where: str
  stacked: bool = False


class _Value(NamedTuple):
  """A value and what is known of it."""

  array: Any
  depends: frozenset = frozenset()  # BATCH, PARAMS, and numbers of ReLUs before it.
  layer: str = ''


class Taps:
  """A function of a state and a batch, with the values at its taps.

  Attributes:
    kind: of the taps, see `Tap`.
    places: of each tap, once `values` was called or traced.
  """

  def __init__(self, kind: str, function: Callable, state: Any, batch: Any):
    """Traces. `state` and `batch`: arrays or ShapeDtypeStructs."""
    self.kind = kind
    shape = lambda x: jax.ShapeDtypeStruct(jnp.shape(x), x.dtype)
    self._closed = jax.make_jaxpr(function)(*jax.tree.map(shape, (state, batch)))
    self.places: list[Tap] = []
    self.values = jax.jit(self._values)

  def _values(self, state: Any, batch: Any) -> list[Any]:
    """By tap: of a ReLU whether each unit is on for any row, bool [units]; of an input
    (mean, mean of squares, largest absolute value); of an activation a Histogram."""
    _, kept = _evaluated(self._closed, self.kind, state, batch)
    self.places = [tap for tap, _ in kept]
    return [value for _, value in kept]


def tapped(
  kind: str, function: Callable[[Any, Any], Any]
) -> Callable[[Any, Any], tuple[Any, list[tuple[Tap, Any]]]]:
  """The function with the values at its taps, computed once: to be jitted.

  Args:
    kind: of the taps.
    function: (state, batch) -> outputs.

  Returns:
    (state, batch) -> (outputs, [(tap, value)]); values as those of `Taps.values`.
  """

  def call(state, batch):
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(state, batch)
    outputs, found = _evaluated(closed, kind, state, batch)
    return jax.tree.unflatten(jax.tree.structure(shapes), outputs), found

  return call


def _evaluated(
  closed: Any, kind: str, state: Any, batch: Any
) -> tuple[list[Any], list[tuple[Tap, Any]]]:
  """Outputs of a traced function, and the taps of one kind with their values."""
  run = _Run(kind)
  of_state = len(jax.tree.leaves(state))
  leaves = [
    _Value(x, frozenset([PARAMS if i < of_state else BATCH]))
    for i, x in enumerate(jax.tree.leaves((state, batch)))
  ]
  outputs = run.evaluate(closed.jaxpr, [*map(_Value, closed.consts), *leaves])
  if run.last is not None:
    run.activation(*run.last)
  kept = [
    (tap, value)
    for number, (tap, value) in enumerate(run.found)
    if tap.kind == kind and (kind != 'relu' or number in run.read)
  ]
  return [x.array for x in outputs], kept


class Histogram(NamedTuple):
  """The values at one place.

  Attributes:
    counts: int32 [BINS], of even bins from `low` to `high`.
    low, high: least and largest value that is finite.
    mean, deviation: float32.
    zero: share of exact zeros; nan: the layer did not run, as in a branch that was not
      taken.
  """

  counts: Any
  low: Any
  high: Any
  mean: Any
  deviation: Any
  zero: Any


def histogram(x: Any) -> Histogram:
  """Of all entries of an array of floats, one at least; jnp."""
  x = jnp.asarray(x).astype(jnp.float32).reshape(-1)
  finite = jnp.isfinite(x)
  low = jnp.where(finite, x, jnp.inf).min()
  high = jnp.where(finite, x, -jnp.inf).max()
  width = jnp.where(high > low, high - low, 1)
  place = jnp.where(finite, (x - low) / width * BINS, 0)
  index = jnp.clip(place.astype(jnp.int32), 0, BINS - 1)
  counts = jnp.zeros(BINS, jnp.int32).at[index].add(finite.astype(jnp.int32))
  return Histogram(counts, low, high, x.mean(), x.std(), (x == 0).mean())


class _Run:
  """One evaluation of a jaxpr.

  Attributes:
    found: every tap with its value.
    read: numbers of the ReLUs that a later product reads: those of hidden layers, not
      the formulas of a loss.
    last: layer, line and value of the last product with parameters, its bias added.
  """

  def __init__(self, kind: str):
    self.kind = kind
    self.last: tuple[str, str, Any] | None = None
    self.taken: list[Any] = []  # Values of activations: one may be read by several.
    self.found: list[tuple[Tap, Any]] = []
    self.read: set[int] = set()
    self.seen_input = False

  def evaluate(
    self, jaxpr: Any, inputs: list[_Value], scope: str = '', where: str = ''
  ) -> list[_Value]:
    """The outputs of a jaxpr that stands in a scope and on a line."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], inputs, strict=True))
    for equation in jaxpr.eqns:
      given = [
        _Value(v.val) if isinstance(v, jex_core.Literal) else values[v]
        for v in equation.invars
      ]
      outputs = self._one(equation, given, scope, where)
      values.update(zip(equation.outvars, outputs, strict=True))
    return [
      _Value(v.val) if isinstance(v, jex_core.Literal) else values[v]
      for v in jaxpr.outvars
    ]

  def _one(
    self, equation: Any, given: list[_Value], scope: str, where: str
  ) -> list[_Value]:
    name, params = equation.primitive.name, equation.params
    layer = _joined(scope, layer_of(equation))
    depends = frozenset().union(*(v.depends for v in given))
    if not layer:
      layer = next((v.layer for v in given if v.layer), '')
    where = place_of(equation) or where
    inner = next((params[n] for n in INNER if n in params), None)
    if name in CALLS and inner is not None:
      consts = [*map(_Value, getattr(inner, 'consts', ()))]
      body = getattr(inner, 'jaxpr', inner)
      return self.evaluate(body, [*consts, *given], layer, where)
    if name == 'scan':
      return self._scan(equation, given, layer, depends)
    if self.kind == 'activation' and branches.is_choice(equation):
      return self._cond(equation, given, layer, depends)
    if self.kind == 'activation' and name == 'while':
      return self._while(equation, given, layer, depends)
    if _is_product(equation):
      self._product(given, layer, where)
    elif inner is not None or 'branches' in params or 'cond_jaxpr' in params:
      self.read |= {d for d in depends if isinstance(d, int)}
    outputs = bind(equation, [v.array for v in given])
    self._follow(equation, given, outputs, layer, where)
    if name == 'max' and BATCH in depends and _is_relu(equation, outputs[0]):
      tap = Tap('relu', layer, where)
      depends |= {len(self.found)}
      on = (outputs[0] > 0).any(tuple(range(outputs[0].ndim - 1)))
      self.found.append((tap, on))
    return [_Value(x, depends, layer) for x in outputs]

  def _follow(self, equation, given, outputs, layer, where):
    """Keeps what the last product with parameters gave, and its bias made of it."""
    if self.kind != 'activation':
      return
    weights = any(PARAMS in v.depends and BATCH not in v.depends for v in given)
    read = any(BATCH in v.depends for v in given)
    if _is_product(equation) and weights and read:
      self.last = layer, where, outputs[0]
    elif self.last is not None and layer_of(equation):
      of_last = any(v.array is self.last[2] for v in given)
      if of_last and layer == self.last[0] and outputs[0].shape == self.last[2].shape:
        self.last = *self.last[:2], outputs[0]

  def activation(self, layer: str, where: str, array: Any):
    """A tap of values, once."""
    if array.size and not any(array is x for x in self.taken):
      self.taken.append(array)
      self.found.append((Tap('activation', layer, where), histogram(array)))

  def _product(self, given: list[_Value], layer: str, where: str):
    for i, value in enumerate(given):
      others = [v.depends for j, v in enumerate(given) if j != i]
      if any(PARAMS in d for d in others):  # Not with a constant, as a mean is written.
        self.read |= {d for d in value.depends if isinstance(d, int)}
      alone = BATCH in value.depends and PARAMS not in value.depends
      # Whole numbers that a kernel takes are lengths or indices, no values.
      alone = alone and jnp.issubdtype(jnp.result_type(value.array), jnp.floating)
      weights = any(PARAMS in d and BATCH not in d for d in others)
      if self.kind == 'activation' and weights and BATCH in value.depends:
        if jnp.issubdtype(jnp.result_type(value.array), jnp.floating):
          self.activation('' if alone else value.layer, where, value.array)
      if alone and weights and not self.seen_input:
        self.seen_input = True
        x = jnp.asarray(value.array).astype(jnp.float32)
        moments = (x.mean(), jnp.square(x).mean(), jnp.abs(x).max())
        self.found.append((Tap('input', layer, where), moments))

  def _scan(self, equation, given, layer, depends) -> list[_Value]:
    """A scan that gives the values at the taps of its body, too, turn by turn."""
    params = equation.params
    body, consts = params['jaxpr'].jaxpr, params['jaxpr'].consts
    invars, outvars = body.invars, body.outvars
    # By their ranks: what is told of consts and carry is named otherwise in jax 0.11.
    same = lambda outer, inner: outer.aval.ndim == inner.aval.ndim
    carried = sum(map(same, equation.outvars, outvars))
    kept = sum(map(same, equation.invars, invars))
    fixed, carry = given[: kept - carried], given[kept - carried : kept]
    rows = given[kept:]
    inside: list[tuple[Tap, Any]] = []
    everything = frozenset(d for d in depends if not isinstance(d, int))
    layers = any(PARAMS in v.depends and BATCH not in v.depends for v in rows)

    def turn(carry, row):
      run = _Run(self.kind)
      run.seen_input = True  # What enters a loop over layers has met parameters.
      # A carry comes to depend on all that the loop reads.
      arguments = [
        *map(_Value, consts),
        *fixed,
        *(_Value(x, everything) for x in carry),
      ]
      arguments += [
        _Value(x, v.depends & everything) for x, v in zip(row, rows, strict=True)
      ]
      found = [v.array for v in run.evaluate(body, arguments, layer)]
      products = _has_products(body)
      taps = [t for t in run.found if t[0].kind != 'input' and products]
      inside[:] = taps
      return found[:carried], (found[carried:], [value for _, value in taps])

    end, (stacked, on) = jax.lax.scan(
      turn,
      [v.array for v in carry],
      [v.array for v in rows],
      length=params['length'],
      reverse=params['reverse'],
      unroll=params['unroll'],
    )
    for (tap, _), value in zip(inside, on, strict=True):
      if tap.kind == 'activation':
        self.found.append((tap._replace(stacked=True), value))
        continue
      self.read.add(len(self.found))
      # Over parts of a batch a unit is one; over layers each turn has units of its own.
      value = value if layers or tap.stacked else value.any(0)
      self.found.append((tap._replace(stacked=layers or tap.stacked), value))
    self.read |= {d for d in depends if isinstance(d, int)}
    return [_Value(x, depends, layer) for x in (*end, *stacked)]

  def _cond(self, equation, given, layer, depends) -> list[_Value]:
    """Branches with the activations of each; those of one that is not taken are nan."""
    bodies = equation.params['branches']
    places: dict[tuple[int, int], Tap] = {}

    def result(i, arrays):
      run = _Run(self.kind)
      known = [v._replace(array=x) for v, x in zip(given[1:], arrays, strict=True)]
      consts = map(_Value, bodies[i].consts)
      outputs = run.evaluate(bodies[i].jaxpr, [*consts, *known], layer)
      found = {(i, j): value for j, (_, value) in enumerate(run.found)}
      places.update({(i, j): tap for j, (tap, _) in enumerate(run.found)})
      return [v.array for v in outputs], found

    arrays = [jnp.asarray(v.array) for v in given[1:]]
    results = [functools.partial(result, i) for i in range(len(bodies))]
    outputs, found = jax.lax.switch(
      given[0].array, branches.filled(results, arrays), arrays
    )
    self.found += [(places[key], found[key]) for key in sorted(found)]
    return [_Value(x, depends, layer) for x in outputs]

  def _while(self, equation, given, layer, depends) -> list[_Value]:
    """A loop that counts its turns as it runs, with the activations of its last one."""
    body, places = equation.params['body_jaxpr'], []
    read = equation.params['cond_nconsts'], equation.params['body_nconsts']
    everything = frozenset(d for d in depends if not isinstance(d, int))

    def turn(carry):
      run = _Run(self.kind)
      known = [*map(_Value, body.consts), *given[read[0] : sum(read)]]
      known += [_Value(x, everything) for x in carry]
      outputs = [v.array for v in run.evaluate(body.jaxpr, known, layer)]
      places[:] = [t._replace(layer=f'{t.layer} [last]'.strip()) for t, _ in run.found]
      return outputs, [value for _, value in run.found]

    outputs, found = branches.last_turn(equation, [v.array for v in given], turn)
    self.found += zip(places, found, strict=True)
    return [_Value(x, depends, layer) for x in outputs]


def _is_relu(equation: Any, output: Any) -> bool:
  """Whether it is max(x, 0) of floats with a batch axis and an axis of units."""
  zero = any(
    isinstance(v, jex_core.Literal) and jnp.ndim(v.val) == 0 and float(v.val) == 0
    for v in equation.invars
  )
  return zero and output.ndim > 1 and jnp.issubdtype(output.dtype, jnp.floating)


def _joined(scope: str, layer: str) -> str:
  return '/'.join(part for part in (scope, layer) if part)


def _is_product(equation: Any) -> bool:
  """A product, or a choice between several ways to compute one."""
  branches = equation.params.get('branches', ())
  return equation.primitive.name in _PRODUCTS or any(
    _has_products(branch.jaxpr) for branch in branches
  )


def _has_products(jaxpr: Any) -> bool:
  return any(
    _is_product(equation)
    or any(
      _has_products(getattr(inner, 'jaxpr', inner))
      for n in INNER
      if (inner := equation.params.get(n)) is not None
    )
    for equation in jaxpr.eqns
  )
