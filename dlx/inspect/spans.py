"""Which inputs each entry of an array can depend on: intervals that move with it.

Along a followed axis of an input, entry i sees the inputs from `stride * i + low` to
`stride * i + high`; padding counts as input, as in sizes.py. A dimension may be made of
several factors, as a reshape merges them: [H, W] -> [H * W] and back loses nothing.
What cannot be told so is made wide: an interval may be too long, never too short.
"""

from fractions import Fraction
import math
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from dlx.inspect.sizes import Reach

# An axis of an input that is followed: (input, dimension).
Axis = tuple[int, int]


class Span(NamedTuple):
  """Of one axis: entry i of the factors sees [low, high] + sum of slope * i."""

  low: Fraction
  high: Fraction
  slopes: tuple[Fraction, ...]


class Value(NamedTuple):
  """What a value depends on.

  Attributes:
    dims: sizes of the factors of each dimension, the outermost first.
    spans: by axis; one that is missing does not matter to the value.
  """

  dims: tuple[tuple[int, ...], ...]
  spans: Mapping[Axis, Span] = {}

  @property
  def shape(self) -> tuple[int, ...]:
    return tuple(map(math.prod, self.dims))

  def reach(self, axis: Axis) -> Reach | None:
    """Along an axis; None: every entry sees all that any entry sees.

    Of several dimensions that move along the axis (pixels of a block that became
    channels) the one with the largest stride counts, the others widen it.
    """
    span = self.spans.get(axis)
    if span is None or not any(span.slopes):
      return None
    largest = max(range(len(span.slopes)), key=lambda i: abs(span.slopes[i]))
    factors = sum(self.dims, ())
    others = [i for i in range(len(factors)) if i != largest]
    low, high, slopes = _widened(span, factors, others)
    stride = slopes[largest]
    if stride < 0:  # Turned round: told from the other end.
      shift = stride * (factors[largest] - 1)
      low, high, stride = low + shift, high + shift, -stride
    return Reach(math.floor(low), math.ceil(high), _plain(stride))


def _plain(x: Fraction) -> Any:
  return int(x) if x.denominator == 1 else float(x)


def followed(shape: Sequence[int], index: int, axes: Iterable[int]) -> Value:
  """An input of a function, some of whose dimensions are followed."""
  dims = tuple((n,) for n in shape)
  slope = lambda d: tuple(Fraction(int(d == i)) for i in range(len(shape)))
  return Value(
    dims, {(index, d): Span(Fraction(0), Fraction(0), slope(d)) for d in axes}
  )


# A value that depends on no input.
Known = Value | None


def _plain_dims(shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
  return tuple((n,) for n in shape)


def _widened(span: Span, factors: Sequence[int], which: Iterable[int]) -> Span:
  """Over all places of some factors."""
  low, high, slopes = span.low, span.high, list(span.slopes)
  for i in which:
    end = slopes[i] * (factors[i] - 1)
    low, high, slopes[i] = low + min(end, 0), high + max(end, 0), Fraction(0)
  return Span(low, high, tuple(slopes))


def _places(value: Value, dims: Iterable[int]) -> list[int]:
  """Where the factors of some dimensions stand among all factors."""
  starts = [0]
  for factors in value.dims:
    starts.append(starts[-1] + len(factors))
  return [i for d in dims for i in range(starts[d], starts[d + 1])]


def wide(value: Value, dims: Iterable[int]) -> Value:
  """Every entry sees what any entry along these dimensions sees."""
  factors, which = sum(value.dims, ()), _places(value, dims)
  return value._replace(
    spans={axis: _widened(s, factors, which) for axis, s in value.spans.items()}
  )


def single(value: Value, dims: Iterable[int]) -> Value:
  """One factor in each of these dimensions; what had several is made wide."""
  for d in dims:
    if len(value.dims[d]) != 1:
      value = wide(value, (d,))
      places = _places(value, (d,))
      first, behind = places[0], places[-1] + 1
      one = lambda x, a=first, b=behind: (*x[:a], Fraction(0), *x[b:])
      dims_ = (*value.dims[:d], (math.prod(value.dims[d]),), *value.dims[d + 1 :])
      spans = {a: s._replace(slopes=one(s.slopes)) for a, s in value.spans.items()}
      value = Value(dims_, spans)
  return value


def all_of(values: Iterable[Known], shape: Sequence[int]) -> Known:
  """A value of a shape, every entry of which sees all that these values see."""
  spans: dict[Axis, Span] = {}
  for value in filter(None, values):
    for axis, span in wide(value, range(len(value.dims))).spans.items():
      low, high, _ = spans.get(axis, span)
      slopes = (Fraction(0),) * len(shape)
      spans[axis] = Span(min(low, span.low), max(high, span.high), slopes)
  some = any(value is not None for value in values)
  return Value(_plain_dims(shape), spans) if some else None


def joined(values: Iterable[Known]) -> Known:
  """Of values of one shape: what any of them sees at each place."""
  left, *rest = [value for value in values if value is not None] or [None]
  for right in rest:
    assert left is not None and right is not None
    if left.dims != right.dims:
      both = range(len(left.dims))
      left, right = single(left, both), single(right, both)
    factors, spans = sum(left.dims, ()), dict(left.spans)
    for axis, span in right.spans.items():
      other = spans.get(axis)
      if other is None:
        spans[axis] = span
        continue
      pairs = zip(span.slopes, other.slopes, strict=True)
      apart = [i for i, (a, b) in enumerate(pairs) if a != b]
      a, b = _widened(span, factors, apart), _widened(other, factors, apart)
      spans[axis] = Span(min(a.low, b.low), max(a.high, b.high), a.slopes)
    left = Value(left.dims, spans)
  return left


def moved(value: Value, d: int, slope: Fraction, shift: Any, size: int) -> Value:
  """Entry i of the result along dimension d is entry `slope * i + shift` of the value.

  Args:
    shift: number, or (from, to) of a window.
    size: of the result.
  """
  first, last = shift if isinstance(shift, tuple) else (shift, shift)
  value = single(value, (d,))
  (at,) = _places(value, (d,))
  spans = {}
  for axis, (low, high, slopes) in value.spans.items():
    ends = slopes[at] * first, slopes[at] * last
    new = slopes[:at] + (slopes[at] * slope,) + slopes[at + 1 :]
    spans[axis] = Span(low + min(ends), high + max(ends), new)
  return Value(value.dims[:d] + ((size,),) + value.dims[d + 1 :], spans)


def arranged(value: Value, dims: Sequence[int | None], shape: Sequence[int]) -> Value:
  """Dimensions of a value at other places; those it does not name must be wide.

  Args:
    dims: for each dimension of the result, that of the value; None: a new one, along
      which nothing changes.
    shape: of the result.
  """
  new: list[tuple[int, ...]] = []
  order: list[int | None] = []
  for d, size in zip(dims, shape, strict=True):
    if d is not None and math.prod(value.dims[d]) == size:
      new.append(value.dims[d])
      order += _places(value, (d,))
    else:
      new.append((size,))
      order.append(None)
  at = lambda slopes: tuple(Fraction(0) if i is None else slopes[i] for i in order)
  spans = {a: s._replace(slopes=at(s.slopes)) for a, s in value.spans.items()}
  return Value(tuple(new), spans)


def reshaped(value: Value, shape: Sequence[int]) -> Value:
  """The same entries in another shape, row by row."""
  factors: list[tuple[int, dict[Axis, Fraction]]] = []
  for i, size in enumerate(sum(value.dims, ())):
    if size != 1:
      factors.append((size, {a: s.slopes[i] for a, s in value.spans.items()}))
  new: list[list[tuple[int, dict[Axis, Fraction]]]] = []
  for n in shape:
    own: list[tuple[int, dict[Axis, Fraction]]] = []
    while n > 1 and factors:
      size, slopes = factors.pop(0)
      if n % size == 0:
        own.append((size, slopes))
        n //= size
      elif size % n == 0:  # The outer part belongs here, the inner to what follows.
        inner = size // n
        own.append((n, {a: x * inner for a, x in slopes.items()}))
        factors.insert(0, (inner, slopes))
        n = 1
      else:
        whole = all_of([value], shape)
        assert whole is not None
        return whole
    new.append(_merged(own))
  dims = tuple(tuple(size for size, _ in own) for own in new)
  every = sum(new, [])
  spans = {
    axis: s._replace(slopes=tuple(slopes.get(axis, Fraction(0)) for _, slopes in every))
    for axis, s in value.spans.items()
  }
  return Value(dims, spans)


def _merged(factors):
  """Neighbours that count on are one factor; there is at least one."""
  found = factors[:1] or [(1, {})]
  for size, slopes in factors[1:]:
    outer, of_outer = found[-1]
    if all(of_outer[a] == x * size for a, x in slopes.items()):
      found[-1] = (outer * size, slopes)
    else:
      found.append((size, slopes))
  return found


def windows(
  value: Value, dims: Iterable[int], shape: Sequence[int], **of: Any
) -> Value:
  """Entries of the result see windows along some dimensions.

  Args:
    dims: of the value.
    shape: of the result, along those dimensions.
    of: kernel, stride, low, and rhs_dilation, lhs_dilation, one for each of them.
  """
  for i, (d, size) in enumerate(zip(dims, shape, strict=True)):
    if of['kernel'][i] == of['stride'][i] == of['lhs_dilation'][i] == 1:
      if not of['low'][i] and size == math.prod(value.dims[d]):
        continue
    holes = of['lhs_dilation'][i]
    seen = Reach().window(of['kernel'][i], 1, of['low'][i], of['rhs_dilation'][i])
    shift = Fraction(seen.low, holes), Fraction(seen.high, holes)
    value = moved(value, d, Fraction(of['stride'][i], holes), shift, size)
  return value
