"""`product`: checks its arguments, chooses who computes, has derivatives.

On a CPU with oneDNN it is a primitive of its own, `PRODUCT`, so that forward and
reverse mode of any order, vmap, scan and jax.checkpoint take it as they take
lax.dot_general, and each derivative, a product as well, is chosen for itself. The
program for another platform gets lax.dot_general.
"""

import functools
import pathlib
from typing import Any, Sequence

import jax
from jax import lax
from jax.extend import core as jex_core
from jax.interpreters import ad, batching, mlir
import jax.numpy as jnp

from kernels import dispatch
from kernels.matmul import cpu, xla
from kernels.matmul.case import Case, batch_of, describe

Array = jax.Array
Implementation = str | Sequence[str]

FORWARD = 'forward'
BACKENDS = {
  'xla': dispatch.Backend(
    'xla', dispatch.PLATFORMS, xla.refusal, {FORWARD: xla.forward}
  ),
  'onednn': dispatch.Backend('onednn', ('cpu',), cpu.refusal, {FORWARD: cpu.forward}),
}
LIBRARIES = dict.fromkeys(dispatch.PLATFORMS, ('xla',))
OPERATION = dispatch.Operation(
  'product', BACKENDS, LIBRARIES, pathlib.Path(__file__).parent / 'tuned'
)


def product(
  a: Array,
  b: Array,
  *,
  transpose_a: bool = False,
  transpose_b: bool = False,
  precision: Any = None,
  preferred_element_type: Any = None,
  implementation: Implementation = 'auto',
) -> Array:
  """a b: [*batch, M, N], summed in float32 or wider.

  Derivatives of any order in both modes.

  Args:
    a: [*batch, M, K]; an axis of `batch` may be 1, then it is repeated.
    b: [*batch, K, N], of the rank of a, with such axes of 1 as well. Of two dtypes the
      wider is computed in.
    transpose_a: a is given as [*batch, K, M].
    transpose_b: b is given as [*batch, N, K].
    precision: as of lax.dot_general, for XLA's products.
    preferred_element_type: of the result; None: of a and b.
    implementation: 'auto', one of BACKENDS, or several in the order of trial. It holds
      for the derivatives too, which are chosen for themselves.

  Raises:
    ValueError: shapes that do not fit, with the allowed.
    UnsupportedKernel: no implementation that was asked for computes this.
  """
  dtype = jnp.promote_types(a.dtype, b.dtype)
  a, b = a.astype(dtype), b.astype(dtype)
  out = jnp.dtype(preferred_element_type or dtype)
  case = describe(a, b, transpose_a, transpose_b, out)
  if not isinstance(implementation, str):
    implementation = tuple(implementation)
  platform = dispatch.default_platform()
  if implementation == 'auto':
    # Whether by oneDNN is asked for each product when it is compiled.
    ours = platform == 'cpu' and cpu.refusal(case) is None
  else:
    ours = OPERATION.choose(case, implementation, platform).name == 'onednn'
  if not ours:
    return xla.forward(case, a, b, precision=precision)
  return PRODUCT.bind(
    a,
    b,
    dimension_numbers=xla.dimensions(len(a.shape), case.form),
    precision=precision,
    preferred_element_type=out,
    implementation=implementation,
  )


def explain(
  a: Any,
  b: Any,
  *,
  transpose_a: bool = False,
  transpose_b: bool = False,
  preferred_element_type: Any = None,
  implementation: Implementation = 'auto',
  platform: str | None = None,
) -> str:
  """What `product` of these arguments would use, and why nothing before it.

  Args:
    a, b: arrays or jax.ShapeDtypeStruct of one dtype.
    transpose_a, transpose_b, preferred_element_type, implementation: as there.
    platform: 'cpu', 'cuda' or 'tpu'; None: that of the default device.
  """
  case = describe(a, b, transpose_a, transpose_b, preferred_element_type or a.dtype)
  platform = platform or dispatch.default_platform()
  choice = OPERATION.choose(case, implementation, platform)
  text, named = choice.text, (choice.name, *choice.refusals)
  refused = None if 'onednn' in named else cpu.refusal(case)
  return text if refused is None else f'{text}\n  not onednn: {refused}'


def saveable(primitive: Any, *_: Any, **params: Any) -> bool:
  """A policy of jax.checkpoint: dots_with_no_batch_dims_saveable, and ours besides."""
  plain = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
  if primitive is PRODUCT:
    return not params['dimension_numbers'][1][0]
  return plain(primitive, *_, **params)


PRODUCT = jex_core.Primitive('matrix_product')


def _flags(dimension_numbers: Any) -> tuple[bool, bool]:
  """(transpose_a, transpose_b)."""
  ((of_a,), (of_b,)), (batch, _) = dimension_numbers
  return of_a == len(batch), of_b == len(batch) + 1


def _case(a: Any, b: Any, dimension_numbers: Any, out: Any) -> Case:
  return describe(a, b, *_flags(dimension_numbers), out)


def _abstract(
  a: Any, b: Any, *, dimension_numbers, precision, preferred_element_type,
  implementation,
) -> Any:  # fmt: skip
  del implementation
  batch = batch_of(a.shape, b.shape)
  a, b = (x.update(shape=batch + x.shape[-2:]) for x in (a, b))
  found, _ = lax.dot_general_p.abstract_eval(
    a,
    b,
    dimension_numbers=dimension_numbers,
    precision=precision,
    preferred_element_type=preferred_element_type,
    out_sharding=None,
  )
  return found


def _compiled(
  platform: str, a: Array, b: Array, *, dimension_numbers, precision,
  preferred_element_type, implementation,
) -> Array:  # fmt: skip
  case = _case(a, b, dimension_numbers, preferred_element_type)
  choice = OPERATION.choose(case, implementation, platform)
  call = BACKENDS[choice.name].functions[FORWARD]
  return call(case, a, b, precision=precision)


def _summed(x: Array, shape: Sequence[int]) -> Array:
  """x as a cotangent of an array of this shape, whose axes of 1 were repeated."""
  axes = [d for d in range(len(shape) - 2) if shape[d] != x.shape[d]]
  return x.sum(axes, keepdims=True) if axes else x


def _cotangent(like: Any, left: Array, right: Array, flags: Any, params: Any) -> Array:
  found = product(
    left,
    right,
    transpose_a=flags[0],
    transpose_b=flags[1],
    precision=params['precision'],
    implementation=params['implementation'],
  )
  return _summed(found, like.shape).astype(like.dtype)


def _left(dy: Array, a: Any, b: Array, **params: Any) -> Array:
  across, down = _flags(params['dimension_numbers'])
  if across:
    return _cotangent(a.aval, b, dy, (down, True), params)
  return _cotangent(a.aval, dy, b, (False, not down), params)


def _right(dy: Array, a: Array, b: Any, **params: Any) -> Array:
  across, down = _flags(params['dimension_numbers'])
  if down:
    return _cotangent(b.aval, dy, a, (True, across), params)
  return _cotangent(b.aval, a, dy, (not across, False), params)


def _batched(args: Any, dims: Any, *, dimension_numbers: Any, **params: Any) -> Any:
  (a, b), (dim_a, dim_b) = args, dims
  flags = _flags(dimension_numbers)
  if dim_b is None and not flags[0]:
    # One right matrix for all: their rows are rows of one product.
    a = jnp.moveaxis(a, dim_a, -3)
    rows = a.reshape(*a.shape[:-3], -1, a.shape[-1])
    y = PRODUCT.bind(rows, b, dimension_numbers=dimension_numbers, **params)
    return y.reshape(*y.shape[:-2], *a.shape[-3:-1], y.shape[-1]), y.ndim - 2
  front = lambda x, d: x[None] if d is None else jnp.moveaxis(x, d, 0)
  a, b = front(a, dim_a), front(b, dim_b)
  form = 'NT'[flags[0]] + 'NT'[flags[1]]
  numbers = xla.dimensions(a.ndim, form)
  return PRODUCT.bind(a, b, dimension_numbers=numbers, **params), 0


def _at_once(a: Array, b: Array, **params: Any) -> Array:
  return PRODUCT.bind(a, b, **params)


PARAMS = (
  'dimension_numbers', 'precision', 'preferred_element_type', 'implementation',
)  # fmt: skip
PRODUCT.def_impl(jax.jit(_at_once, static_argnames=PARAMS))
PRODUCT.def_abstract_eval(_abstract)
ad.defbilinear(PRODUCT, _left, _right)
batching.primitive_batchers[PRODUCT] = _batched
for _platform in dispatch.PLATFORMS:
  _lowered = functools.partial(_compiled, _platform)
  mlir.register_lowering(
    PRODUCT, mlir.lower_fun(_lowered, multiple_results=False), platform=_platform
  )
