"""Broadcasting by strides equals that of NumPy, and of torch, errors included."""

from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.scratch import broadcasting

# Sizes so small that about every second pair of shapes broadcasts; 0 and 1 among them.
SIZES = st.sampled_from((0, 1, 1, 2, 3))
SHAPES = st.lists(SIZES, max_size=4).map(tuple)
SEEN = []


def outcome(function, *args):
  """What it returns; None where it raises ValueError or RuntimeError."""
  try:
    return function(*args)
  except (ValueError, RuntimeError):
    return None


def numbers(shape):
  return (np.arange(np.prod(shape, dtype=int)) + 0.5).reshape(shape)


def is_view(got, x):
  """Whether it lies in the memory of x, all of it."""
  low, high = np.lib.array_utils.byte_bounds(got)
  start, stop = np.lib.array_utils.byte_bounds(x)
  return got.size == 0 or (start <= low and high <= stop and got.base is not None)


@settings(max_examples=1500)
@given(SHAPES, SHAPES)
def pairs_equal_numpy(first, second):
  xs = numbers(first), numbers(second)
  got = outcome(broadcasting.broadcast_tensors, *xs)
  expected = outcome(np.broadcast_arrays, *xs)
  SEEN.append((first, second, expected is not None))
  assert (got is None) == (expected is None)
  for x, a, b in zip(xs, got or (), expected or ()):
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)
    assert is_view(a, x)
    assert not a.flags.writeable
    steps = [s for s, n in zip(a.strides, a.shape) if n > 1]
    assert steps == [s for s, n in zip(b.strides, b.shape) if n > 1]


def test_a_thousand_random_pairs_equal_numpy():
  SEEN.clear()
  pairs_equal_numpy()
  assert len(set(SEEN)) >= 1000
  assert 200 < sum(broadcast for *_, broadcast in set(SEEN)) < len(set(SEEN)) - 200


@given(st.lists(SHAPES, max_size=4))
def test_many_shapes_equal_numpy(shapes):
  got = outcome(broadcasting.broadcast_shape, *shapes)
  assert got == outcome(np.broadcast_shapes, *shapes)


@given(SHAPES, SHAPES)
def test_expand_equals_numpy(shape, target):
  x = numbers(shape)
  got = outcome(broadcasting.expand, x, target)
  expected = outcome(np.broadcast_to, x, target)
  assert (got is None) == (expected is None)
  if got is not None and expected is not None:
    np.testing.assert_array_equal(got, expected, strict=True)
  other = outcome(broadcasting.expand_as, x, numbers(target))
  assert (got is None) == (other is None)
  assert got is None or np.array_equal(got, other)


@given(SHAPES, SHAPES)
def test_unbroadcast_is_the_transpose_of_expand(shape, target):
  x = numbers(shape)
  wide = outcome(broadcasting.expand, x, target)
  if wide is None:
    return
  grad = np.cos(numbers(target))
  got = broadcasting.unbroadcast(grad, shape)
  assert got.shape == shape
  # <expand(x), g> = <x, unbroadcast(g)>, sums of at most 81 numbers below 82.
  np.testing.assert_allclose(np.sum(wide * grad), np.sum(x * got), atol=1e-11)


@pytest.mark.parametrize(
  ('shape', 'target'),
  [((3, 1), (2, 3, 4)), ((), (2, 2)), ((4,), (4,)), ((1, 2), (5, 2))],
)
def test_unbroadcast_is_the_gradient_of_jax(shape, target):
  x, grad = numbers(shape), np.sin(numbers(target))
  with jax.enable_x64(True):
    _, pull = jax.vjp(lambda x: jnp.broadcast_to(x, target), jnp.asarray(x))
    (expected,) = pull(jnp.asarray(grad))
  got = broadcasting.unbroadcast(grad, shape)
  np.testing.assert_allclose(got, expected, rtol=1e-14, atol=1e-14)


@given(SHAPES, st.lists(st.sampled_from((-2, -1, 0, 1, 2, 3)), max_size=4).map(tuple))
def test_errors_are_those_of_torch(shape, target):
  torch = pytest.importorskip('torch')
  x = numbers(shape)
  got = outcome(broadcasting.expand, x, target)
  theirs = outcome(lambda: torch.from_numpy(x).expand(target).numpy())
  assert (got is None) == (theirs is None)
  if got is not None and theirs is not None:
    np.testing.assert_array_equal(got, theirs, strict=True)
  both = outcome(broadcasting.broadcast_shape, shape, tuple(map(abs, target)))
  others = torch.zeros(shape), torch.zeros(tuple(map(abs, target)))
  expected = outcome(lambda: tuple(torch.broadcast_tensors(*others)[0].shape))
  assert both == expected


def test_a_view_sees_what_is_written_and_is_not_written_to():
  x = np.array([1.0, 2.0])
  wide = broadcasting.expand(x[::-1], (3, 2))
  x[0] = 5
  assert wide.tolist() == [[2.0, 5.0]] * 3
  with pytest.raises(ValueError, match='read-only'):
    wide[0, 0] = 1


def test_errors_name_axis_and_sizes():
  with pytest.raises(ValueError, match=r'\(4, 3\) and \(2, 3\).*4 and 2 of axis -2'):
    broadcasting.broadcast_shape((3,), (4, 3), (2, 3))
  with pytest.raises(ValueError, match='axis -1 has size 3, not 1 or 4'):
    broadcasting.expand(np.zeros((2, 3)), (2, 4))
  # -1 keeps a size; a new axis has none.
  with pytest.raises(ValueError, match='axis -2 has size -1'):
    broadcasting.expand(np.zeros(3), (-1, 3))
