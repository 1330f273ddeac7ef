"""What single operations do to the inputs that a value can see: rules by primitive.

A rule is (equation, what its operands depend on, shapes of its results) -> what its
results depend on; None: in this case the rule does not hold, and all is seen.
"""

from fractions import Fraction
from typing import Any, Callable, Sequence

from dlx.inspect import spans
from dlx.inspect.spans import Known

ELEMENTWISE = frozenset(
  """
  abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp complex
  conj convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2
  expm1 floor ge gt imag integer_pow is_finite le lgamma log log1p logistic lt max
  min mul name ne neg nextafter not or population_count pow pvary real
  reduce_precision rem round rsqrt select_n sharding_constraint shift_left
  shift_right_arithmetic shift_right_logical sign sin sinh sqrt square stop_gradient
  sub tan tanh xor
  """.split()
)


def elementwise(given: Sequence[Known], shape: Sequence[int]) -> Known:
  """Of operands of one shape, or single numbers."""
  same = lambda v: v.shape == tuple(shape)
  numbers = [spans.all_of([v], shape) for v in given if v and not same(v)]
  return spans.joined([*(v for v in given if v and same(v)), *numbers])


def _reduced(dims):
  def rule(eqn, given, shapes):
    gone = dims(eqn)
    found = []
    for value in (given * len(shapes))[: len(shapes)]:
      if value is not None:
        kept = [d for d in range(len(value.dims)) if d not in gone]
        value = spans.arranged(spans.wide(value, gone), kept, shapes[0])
      found.append(value)
    return found

  return rule


def _alone(rule):
  """A rule of the first operand, where the others do not matter."""

  def checked(eqn, given, shapes):
    if given[0] is None or any(value is not None for value in given[1:]):
      return None
    return [rule(eqn.params, given[0], shape) for shape in shapes]

  return checked


def _broadcast(p, value, shape):
  dims: list[int | None] = [None] * len(shape)
  for d, to in enumerate(p['broadcast_dimensions']):
    dims[to] = d
  return spans.arranged(value, dims, shape)


def _squeezed(p, value, shape):
  gone = {d % len(value.dims) for d in p['dimensions']}
  return spans.arranged(
    value, [d for d in range(len(value.dims)) if d not in gone], shape
  )


def _slice(p, value, shape):
  strides = p['strides'] or (1,) * len(shape)
  parts = zip(p['start_indices'], strides, shape, strict=True)
  for d, (start, stride, size) in enumerate(parts):
    if (start, stride, size) != (0, 1, value.shape[d]):
      value = spans.moved(value, d, Fraction(stride), start, size)
  return value


def _dynamic_slice(p, value, shape):
  return spans.arranged(
    spans.wide(value, [d for d, n in enumerate(shape) if n != value.shape[d]]),
    range(len(shape)),
    shape,
  )


def _pad(p, value, shape):
  for d, (low, high, inner) in enumerate(p['padding_config']):
    if low or high or inner:
      slope = Fraction(1, inner + 1)
      value = spans.moved(value, d, slope, -low * slope, shape[d])
  return value


def _rev(p, value, shape):
  for d in p['dimensions']:
    value = spans.moved(value, d, Fraction(-1), shape[d] - 1, shape[d])
  return value


def _along(name):
  return lambda p, value, shape: spans.wide(value, (p[name],))


def _window(p, value, shape):
  ones = (1,) * len(shape)
  return spans.windows(
    value,
    range(len(shape)),
    shape,
    kernel=p['window_dimensions'],
    stride=p['window_strides'],
    low=[low for low, _ in p['padding']],
    lhs_dilation=p.get('base_dilation') or ones,
    rhs_dilation=p.get('window_dilation') or ones,
  )


def _convolution(p, value, shape):
  numbers = p['dimension_numbers']
  batch, channels, *places = numbers.lhs_spec
  value = spans.wide(value, (channels,))
  if p['batch_group_count'] > 1:
    value = spans.wide(value, (batch,))
  _, _, *to = numbers.out_spec
  kernel = [p['rhs_shape'][d] for d in numbers.rhs_spec[2:]]
  value = spans.windows(
    value,
    places,
    [shape[d] for d in to],
    kernel=kernel,
    stride=p['window_strides'],
    low=[low for low, _ in p['padding']],
    lhs_dilation=p['lhs_dilation'],
    rhs_dilation=p['rhs_dilation'],
  )
  dims: list[int | None] = [None] * len(shape)
  for d, into in zip((batch, *places), (numbers.out_spec[0], *to), strict=True):
    dims[into] = d
  return spans.arranged(value, dims, shape)


def _conv_of(eqn, given, shapes):
  if given[0] is None or given[1] is not None:
    return None
  p = {**eqn.params, 'rhs_shape': eqn.invars[1].aval.shape}
  return [_convolution(p, given[0], shapes[0])]


def _concatenate(eqn, given, shapes):
  d, at, found = eqn.params['dimension'], 0, []
  shape = shapes[0]
  for variable, value in zip(eqn.invars, given, strict=True):
    if value is not None:
      found.append(spans.moved(value, d, Fraction(1), -at, shape[d]))
    at += variable.aval.shape[d]
  return [spans.joined(found)]


def _split(eqn, given, shapes):
  d, at, found = eqn.params['axis'], 0, []
  for shape in shapes:
    found.append(spans.moved(given[0], d, Fraction(1), at, shape[d]))
    at += shape[d]
  return found


def _dot(eqn, given, shapes):
  contracted, batch = eqn.params['dimension_numbers']
  shape, at, found = shapes[0], len(batch[0]), []
  for side, value in enumerate(given):
    rank = len(eqn.invars[side].aval.shape)
    free = [d for d in range(rank) if d not in (*contracted[side], *batch[side])]
    dims: list[int | None] = [*batch[side], *([None] * (len(shape) - len(batch[side])))]
    dims[at : at + len(free)] = free
    at += len(free)
    if value is not None:
      found.append(spans.arranged(spans.wide(value, contracted[side]), dims, shape))
  return [spans.joined(found)]


def _gather(eqn, given, shapes):
  """Rows of a table that does not matter, by numbers that do."""
  numbers, index = eqn.params['dimension_numbers'], given[1]
  if given[0] is not None or index is None:
    return None
  dims: list[int | None] = [None] * len(shapes[0])
  places = [d for d in range(len(dims)) if d not in numbers.offset_dims]
  for d, to in enumerate(places):
    dims[to] = d
  return [spans.arranged(spans.wide(index, (len(index.dims) - 1,)), dims, shapes[0])]


def _update(eqn, given, shapes):
  """dynamic_update_slice at places that do not matter."""
  if any(value is not None for value in given[2:]):
    return None
  whole = shapes[0]
  part = given[1]
  if part is not None:
    short = [d for d, n in enumerate(part.shape) if n != whole[d]]
    part = spans.arranged(spans.wide(part, short), range(len(whole)), whole)
  return [spans.joined([given[0], part])]


_AXES = _reduced(lambda eqn: eqn.params['axes'])
RULES: dict[str, Callable[[Any, list[Known], Any], Sequence[Known] | None]] = {
  **dict.fromkeys(
    (
      'reduce_sum',
      'reduce_max',
      'reduce_min',
      'reduce_prod',
      'reduce_and',
      'reduce_or',
    ),
    _AXES,
  ),
  **dict.fromkeys(('argmax', 'argmin'), _AXES),
  **dict.fromkeys(
    ('cumsum', 'cummax', 'cummin', 'cumprod', 'cumlogsumexp'), _alone(_along('axis'))
  ),
  **dict.fromkeys(
    ('reduce_window_max', 'reduce_window_min', 'reduce_window_sum'), _alone(_window)
  ),
  'broadcast_in_dim': _alone(_broadcast),
  'concatenate': _concatenate,
  'conv_general_dilated': _conv_of,
  'dot_general': _dot,
  'dynamic_slice': _alone(_dynamic_slice),
  'dynamic_update_slice': _update,
  'gather': _gather,
  'matrix_product': _dot,  # kernels.matmul's.
  'pad': _alone(_pad),
  'reshape': _alone(lambda p, value, shape: spans.reshaped(value, shape)),
  'rev': _alone(_rev),
  'slice': _alone(_slice),
  'split': _split,
  'squeeze': _alone(_squeezed),
  'transpose': _alone(
    lambda p, value, shape: spans.arranged(value, p['permutation'], shape)
  ),
}
