"""Values inside a traced function: ReLUs and what products with parameters read.

A jitted step hides its layers. Here it is traced, and evaluated again with more
outputs: reductions of the values that are asked for, so that a pass over a data set
stays one compiled program. Works on any code, as no module system is asked; a layer is
named by the scopes that Flax or `jax.named_scope` give its operations.
"""

from typing import Any, Callable, NamedTuple

import jax
from jax.extend import core as jex_core
import jax.numpy as jnp

from dlx.run.blame import CALLS, INNER, bind, layer_of, place_of

# Products by XLA, and calls of kernels, which stand for one.
_PRODUCTS = ('dot_general', 'conv_general_dilated', 'ffi_call', 'pallas_call')
BATCH, PARAMS = 'batch', 'params'  # What a value depends on.


class Tap(NamedTuple):
  """One place in a function whose values are looked at.

  Attributes:
    kind: 'relu', the values after one; 'input', what the first product with parameters
      reads of the batch alone.
    layer: scopes of the operation, e.g. 'conv_0' or 'blocks/mlp/in'; '' where nothing
      names them.
    where: 'FILE:LINE in FUNCTION', the innermost line outside of libraries; ''.
    stacked: whether the values have an axis of the turns of a scan over layers in
      front.
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
    self._state_leaves = len(jax.tree.leaves(state))
    self.places: list[Tap] = []
    self.values = jax.jit(self._values)

  def _values(self, state: Any, batch: Any) -> list[Any]:
    """By tap: of a ReLU whether each unit is on for any row, bool [units]; of an input
    (mean, mean of squares, largest absolute value)."""
    run = _Run()
    leaves = [
      _Value(x, frozenset([PARAMS if i < self._state_leaves else BATCH]))
      for i, x in enumerate(jax.tree.leaves((state, batch)))
    ]
    run.evaluate(self._closed.jaxpr, [*map(_Value, self._closed.consts), *leaves])
    kept = [
      (tap, value)
      for number, (tap, value) in enumerate(run.found)
      if tap.kind == self.kind and (self.kind == 'input' or number in run.read)
    ]
    self.places = [tap for tap, _ in kept]
    return [value for _, value in kept]


class _Run:
  """One evaluation of a jaxpr.

  Attributes:
    found: every tap with its value.
    read: numbers of the ReLUs that a later product reads: those of hidden layers, not
      the formulas of a loss.
  """

  def __init__(self):
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
    if _is_product(equation):
      self._product(given, layer, where)
    elif inner is not None or 'branches' in params or 'cond_jaxpr' in params:
      self.read |= {d for d in depends if isinstance(d, int)}
    outputs = bind(equation, [v.array for v in given])
    if name == 'max' and BATCH in depends and _is_relu(equation, outputs[0]):
      tap = Tap('relu', layer, where)
      depends |= {len(self.found)}
      on = (outputs[0] > 0).any(tuple(range(outputs[0].ndim - 1)))
      self.found.append((tap, on))
    return [_Value(x, depends, layer) for x in outputs]

  def _product(self, given: list[_Value], layer: str, where: str):
    for i, value in enumerate(given):
      others = [v.depends for j, v in enumerate(given) if j != i]
      if any(PARAMS in d for d in others):  # Not with a constant, as a mean is written.
        self.read |= {d for d in value.depends if isinstance(d, int)}
      alone = BATCH in value.depends and PARAMS not in value.depends
      # Whole numbers that a kernel takes are lengths or indices, no values.
      alone = alone and jnp.issubdtype(jnp.result_type(value.array), jnp.floating)
      weights = any(PARAMS in d and BATCH not in d for d in others)
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
      run = _Run()
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
      taps = [t for t in run.found if t[0].kind == 'relu' and products]
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
      self.read.add(len(self.found))
      # Over parts of a batch a unit is one; over layers each turn has units of its own.
      value = value if layers or tap.stacked else value.any(0)
      self.found.append((tap._replace(stacked=layers or tap.stacked), value))
    self.read |= {d for d in depends if isinstance(d, int)}
    return [_Value(x, depends, layer) for x in (*end, *stacked)]


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
