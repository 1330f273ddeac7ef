"""Floating-point operations of a traced function, counted on its jaxpr.

XLA's cost_analysis counts the body of a scan once (0.1 of a toy scan of 10), so the
jaxpr is walked: bodies of loops as often as they turn. Counted are matrix products and
convolutions, two operations for a multiply-add, and kernels; all else is left out, as
6 N D leaves it out. A convolution counts the pairs of an input and a tap that meet: no
padding, no holes of a dilation. So its two gradients have as many as itself.
"""

import math
from typing import Any, Iterator, NamedTuple

import numpy as np

from dlx.run import integers, taps
from dlx.run.integers import Known

# The scope in which JAX computes again what a checkpoint policy did not keep.
_AGAIN = 'rematted_computation'
MOST_TURNS = 10_000  # Of a loop that are followed one by one.
Used = tuple[bool, ...]
# Their one jaxpr is not simply called with their arguments.
NOT_CALLED = ('scan', 'cond', 'custom_linear_solve')


class Flops(NamedTuple):
  """Attributes:
  total: of the whole program on all devices; what is computed again is in it.
  recomputed: the part of it that jax.checkpoint computes a second time.
  open_loops: loops of products whose length no one knows before the run; each of their
    bodies is counted once.
  """

  total: int = 0
  recomputed: int = 0
  open_loops: int = 0

  def plus(self, other: 'Flops', times: int = 1) -> 'Flops':
    """The sum with `times` the other; loops are counted where they stand."""
    return Flops(
      self.total + times * other.total,
      self.recomputed + times * other.recomputed,
      self.open_loops + other.open_loops,
    )


Tally = dict[str, Flops]  # By scope.


def count(jaxpr: Any, platform: str = 'tpu') -> Flops:
  """Operations of a jaxpr, open or closed.

  Args:
    jaxpr: as `jax.jit(f).trace(...).jaxpr`. Of branches the dearest counts.
    platform: 'cpu', 'cuda' or 'tpu': whose branch of lax.platform_dependent counts;
      where that has no product, as a call of a library has none, the dearest other.
  """
  return _sum(by_scope(jaxpr, platform))


def by_scope(jaxpr: Any, platform: str = 'tpu') -> dict[str, Flops]:
  """The same, by the scope (`jax.named_scope`) in which they stand; '' where in none.

  Scopes of Flax's modules are their names, with slashes between them.
  """
  given = (None,) * len(opened(jaxpr).invars)
  return _Counter(platform).walk(jaxpr, given, False)[0]


def _sum(tally: Tally) -> Flops:
  total = Flops()
  for part in tally.values():
    total = total.plus(part)
  return total


def _add(total: Tally, part: Tally, scope: str = '', times: int = 1):
  """Adds `times` what stands within a scope."""
  for inner, flops in part.items():
    name = '/'.join(filter(None, (scope, inner)))
    total[name] = total.get(name, Flops()).plus(flops, times)


class _Counter:
  """Walks jaxprs, with what is known of their integers.

  A `while` turns as often as its condition says, where that follows from numbers: also
  a loop over the blocks that a causal mask leaves, whose length is that of another
  loop's counter. What nobody uses is left out, as XLA leaves it out: the gradient of an
  image by a custom rule that also has that of the kernel. What was walked is kept.
  """

  def __init__(self, platform: str):
    self.platform = platform
    self.kept: dict[Any, tuple[Tally, Known]] = {}

  def walk(
    self, jaxpr: Any, given: Known, again: bool, used: Used | None = None
  ) -> tuple[Tally, Known]:
    """(operations, what is known of the results); used: which results, None: all."""
    results = len(opened(jaxpr).outvars)
    used = (True,) * results if used is None or len(used) != results else used
    key = (id(jaxpr), given, again, used)
    if key not in self.kept:
      self.kept[key] = self._walk(jaxpr, given, again, used)
    return self.kept[key]

  def _walk(
    self, jaxpr: Any, given: Known, again: bool, used: Used
  ) -> tuple[Tally, Known]:
    constants = getattr(jaxpr, 'consts', ())
    jaxpr = opened(jaxpr)
    known = {v: x for v, x in zip(jaxpr.invars, given, strict=True) if x is not None}
    for variable, value in zip(jaxpr.constvars, constants):
      if integers.is_integer(variable) and np.size(value) == 1:
        known[variable] = int(np.asarray(value).item())

    def read(variable):
      if not hasattr(variable, 'val'):
        return known.get(variable)
      value = variable.val  # A literal.
      return (
        int(value) if np.ndim(value) == 0 and integers.is_integer(variable) else None
      )

    found: Tally = {}
    wanted = needed(jaxpr, used)
    for eqn in jaxpr.eqns:
      taken = tuple(v in wanted for v in eqn.outvars)
      if not any(taken) and not eqn.effects:
        continue
      scope = str(eqn.source_info.name_stack)
      inside = again or _AGAIN in scope
      part, results = self._equation(eqn, tuple(map(read, eqn.invars)), inside, taken)
      _add(found, part, scope)
      for variable, value in zip(eqn.outvars, results):
        if value is not None:
          known[variable] = value
    return found, tuple(map(read, jaxpr.outvars))

  def _equation(
    self, eqn: Any, given: Known, again: bool, used: Used
  ) -> tuple[Tally, Known]:
    name, params = eqn.primitive.name, eqn.params
    unknown = (None,) * len(eqn.outvars)
    if name in PRODUCTS:
      number = PRODUCTS[name](eqn)
      return _here(number, again), unknown
    if name in integers.BY_PRIMITIVE:
      return {}, (integers.result(eqn, given),)
    if name == 'while':
      return self._loop(eqn, given, again)
    if name == 'pallas_call':
      return self._kernel(eqn, again), unknown
    bodies = list(jaxprs(params))
    total: Tally = {}
    if not bodies:
      return total, unknown
    plain = len(bodies) == 1 and name not in NOT_CALLED
    if plain and len(opened(bodies[0]).invars) == len(given):
      part, results = self.walk(bodies[0], given, again, used)
      _add(total, part, times=_copies(eqn))
      return total, results
    if name == 'scan':  # What it carries changes; what it reads whole does not.
      fixed, carried = parts_of_scan(eqn, bodies[0])
      given = given[:fixed] + (None,) * (len(given) - fixed)
      used = _used_in_scan(opened(bodies[0]), fixed, carried, used)
      part, _ = self.walk(bodies[0], given, again, used)
      _add(total, part, times=params['length'])
      return total, unknown
    if name == 'cond':
      return self._branches(eqn, bodies, given, again, used)
    for body in bodies:
      part, _ = self.walk(body, (None,) * len(opened(body).invars), again)
      _add(total, part)
    return total, unknown

  def _branches(
    self, eqn: Any, bodies: list[Any], given: Known, again: bool, used: Used
  ) -> tuple[Tally, Known]:
    found = [self.walk(body, given[1:], again, used) for body in bodies]
    dearest = max((part for part, _ in found), key=lambda part: _sum(part).total)
    taken = _branch(eqn.params.get('branches_platforms'), self.platform)
    if taken is not None:
      part, results = found[taken]
      # No product: what a library computes, or sums of shifted products on a CPU.
      return (part if _sum(part).total else dearest), results
    if given[0] is not None:
      return found[min(max(given[0], 0), len(bodies) - 1)]
    return dearest, (None,) * len(eqn.outvars)

  def _loop(self, eqn: Any, given: Known, again: bool) -> tuple[Tally, Known]:
    params = eqn.params
    cond, body = params['cond_jaxpr'], params['body_jaxpr']
    to_cond, to_body = params['cond_nconsts'], params['body_nconsts']
    of_cond, of_body = given[:to_cond], given[to_cond : to_cond + to_body]
    carry = given[to_cond + to_body :]
    found: Tally = {}
    for _ in range(MOST_TURNS):
      (goes_on,) = self.walk(cond, of_cond + carry, again)[1]
      if goes_on is None:
        break
      if not goes_on:
        return found, carry
      part, carry = self.walk(body, of_body + carry, again)
      _add(found, part)
    unknown = (None,) * len(carry)
    part, _ = self.walk(body, of_body + unknown, again)
    found = {'': Flops(open_loops=int(_sum(part).total > 0))}
    _add(found, part)
    return found, unknown

  def _kernel(self, eqn: Any, again: bool) -> Tally:
    """A Pallas kernel: as its author says, or its body for every block of the grid."""
    estimate = eqn.params.get('cost_estimate')
    if estimate is not None and estimate.flops:
      return _here(int(estimate.flops), again)
    grid = eqn.params['grid_mapping'].grid
    blocks = math.prod(size for size in grid if isinstance(size, int))
    body = eqn.params['jaxpr']
    part, _ = self.walk(body, (None,) * len(opened(body).invars), again)
    total: Tally = {}
    _add(total, part, times=blocks)
    return total


def _here(number: int, again: bool) -> Tally:
  return {'': Flops(number, number if again else 0)}


def needed(jaxpr: Any, used: Used) -> set[Any]:
  """Variables of a jaxpr that its used results, or effects, come from."""
  wanted = zip(jaxpr.outvars, used, strict=True)
  needed = {v for v, taken in wanted if taken and not hasattr(v, 'val')}
  for eqn in reversed(jaxpr.eqns):
    if eqn.effects or any(v in needed for v in eqn.outvars):
      needed.update(v for v in eqn.invars if not hasattr(v, 'val'))
  return needed


def parts_of_scan(eqn: Any, body: Any) -> tuple[int, int]:
  """(arguments that every turn reads whole, arguments that are carried), by ranks."""
  inner = opened(body)
  rank = lambda variable: len(getattr(variable.aval, 'shape', ()))
  carried = sum(map(lambda a, b: rank(a) == rank(b), eqn.outvars, inner.outvars))
  sliced = sum(map(lambda a, b: rank(a) > rank(b), eqn.invars, inner.invars))
  return len(inner.invars) - carried - sliced, carried


def _used_in_scan(body: Any, fixed: int, carried: int, used: Used) -> Used:
  """Results of a turn that are used, also by the turns after it."""
  while True:
    wanted = needed(body, used)
    after = tuple(
      taken or (i < carried and body.invars[fixed + i] in wanted)
      for i, taken in enumerate(used)
    )
    if after == used:
      return used
    used = after


def _copies(eqn: Any) -> int:
  """Devices that run a body each on its own part; 1 where it is the whole."""
  if eqn.primitive.name != 'shard_map':
    return 1
  sizes = dict(eqn.params['mesh'].shape)
  return math.prod(sizes[axis] for axis in eqn.params['newly_manual_axes'])


def _branch(platforms: Any, platform: str) -> int | None:
  """Which branch of lax.platform_dependent is for a platform."""
  if platforms is None:
    return None
  for i, names in enumerate(platforms):
    if names is None or platform in names:
      return i
  return None


def jaxprs(params: dict[str, Any]) -> Iterator[Any]:
  """The jaxprs among the parameters of an equation."""
  for value in params.values():
    for item in value if isinstance(value, tuple | list) else (value,):
      if hasattr(item, 'eqns') or hasattr(item, 'jaxpr'):
        yield item


def opened(jaxpr: Any) -> Any:
  return jaxpr.jaxpr if hasattr(jaxpr, 'jaxpr') else jaxpr


def _dot(eqn: Any) -> int:
  ((contracted, _), _) = eqn.params['dimension_numbers']
  shape = eqn.invars[0].aval.shape
  depth = math.prod(shape[d] for d in contracted)
  return 2 * math.prod(eqn.outvars[0].aval.shape) * depth


def _convolution(eqn: Any) -> int:
  p, lhs, rhs = eqn.params, eqn.invars[0].aval.shape, eqn.invars[1].aval.shape
  out, numbers = eqn.outvars[0].aval.shape, eqn.params['dimension_numbers']
  pairs = 1
  for d, (low, _) in enumerate(p['padding']):
    pairs *= taps.meetings(
      lhs[numbers.lhs_spec[2 + d]],
      rhs[numbers.rhs_spec[2 + d]],
      out[numbers.out_spec[2 + d]],
      stride=p['window_strides'][d],
      low=low,
      lhs_dilation=p['lhs_dilation'][d],
      rhs_dilation=p['rhs_dilation'][d],
    )
  rows, features = out[numbers.out_spec[0]], out[numbers.out_spec[1]]
  return 2 * rows * features * rhs[numbers.rhs_spec[1]] * pairs


def _cudnn_forward(eqn: Any) -> int:
  """Scores and values of attention [B, L, H, K] over M keys; all pairs."""
  query, key = eqn.invars[0].aval.shape, eqn.invars[1].aval.shape
  heads_first = bool(eqn.params.get('layout', 0))
  return 4 * math.prod(query) * key[2 if heads_first else 1]


def _cudnn_backward(eqn: Any) -> int:
  """Scores again, and the slopes of values, weights, queries and keys."""
  return _cudnn_forward(eqn) * 5 // 2


PRODUCTS = {
  'dot_general': _dot,
  'matrix_product': _dot,  # kernels.matmul's.
  'conv_general_dilated': _convolution,
  'dot_product_attention_fwd_wrapper': _cudnn_forward,
  'dot_product_attention_bwd_wrapper': _cudnn_backward,
}
