"""The tensor of lists and strides is that of NumPy and of jnp; views share a buffer."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from dlx.scratch import creation, strides, tensors


def pair(*shape: int):
  """A tensor and the array of NumPy with the same numbers."""
  x = np.arange(np.prod(shape, dtype=int)).reshape(shape)
  return creation.arange(x.size).reshape(*shape), x


@given(st.data())
def test_index_is_that_of_numpy(data):
  shape = data.draw(arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
  key = data.draw(arrays.basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
  ours, x = pair(*shape)
  view, expected = ours[key], x[key]
  assert view.shape == expected.shape
  assert view.tolist() == expected.tolist()
  assert view.buffer is ours.buffer


@given(st.data())
def test_views_of_views_are_those_of_numpy(data):
  shape = data.draw(arrays.array_shapes(max_dims=3, max_side=4))
  ours, x = pair(*shape)
  for _ in range(3):
    if data.draw(st.booleans()):
      ours, x = ours.T, x.T
    key = data.draw(arrays.basic_indices(x.shape, allow_ellipsis=True))
    ours, x = ours[key], x[key]
    sizes = data.draw(st.permutations(x.shape))
    ours, x = ours.reshape(*sizes), x.reshape(sizes)
  assert ours.tolist() == x.tolist()
  assert ours.shape == x.shape


@pytest.mark.parametrize(
  ('ours', 'theirs'),
  [
    (lambda x: x[1:, ::-1], lambda x: x[1:, ::-1]),
    (lambda x: x[-1, 0], lambda x: x[-1, 0]),
    (lambda x: x[..., None, 1], lambda x: x[..., None, 1]),
    (lambda x: x.reshape(-1, 6), lambda x: x.reshape(-1, 6)),
    (lambda x: x.T.reshape(4, 6), lambda x: x.T.reshape(4, 6)),
    (lambda x: x + x, lambda x: x + x),
    (lambda x: x * x + 2, lambda x: x * x + 2),
    (lambda x: x.T * 3, lambda x: x.T * 3),
  ],
)
def test_operations_are_those_of_jnp(ours, theirs):
  x, array = pair(2, 3, 4)
  expected = theirs(jnp.asarray(array))
  assert ours(x).tolist() == expected.tolist()
  assert ours(x).shape == expected.shape


def test_creation_is_that_of_jnp():
  nested = [[1.5, 2.0], [3.0, 4.0], [5.0, 6.0]]
  assert tensors.tensor(nested).tolist() == jnp.array(nested).tolist()
  assert tensors.tensor(nested).shape == (3, 2)
  assert tensors.tensor([]).shape == (0,)
  assert creation.zeros(2, 0, 3).tolist() == jnp.zeros((2, 0, 3)).tolist()
  assert creation.full((2, 2), 7).tolist() == jnp.full((2, 2), 7).tolist()
  for bounds in ((5,), (2, 5), (7, 1, -2), (3, 3)):
    assert creation.arange(*bounds).tolist() == jnp.arange(*bounds).tolist()


def test_normal_numbers_are_normal():
  x = np.array(creation.randn(0, 200, 100).tolist())
  assert stats.kstest(x.ravel(), 'norm').pvalue > 0.01
  assert np.all(np.isfinite(x))
  assert creation.randn(1, 4).tolist() != creation.randn(0, 4).tolist()


def test_what_is_written_to_a_view_shows_and_to_a_copy_does_not():
  x, array = pair(3, 4)
  x[1:, ::2] = -1
  array[1:, ::2] = -1
  assert x.tolist() == array.tolist()
  copied = x.T.reshape(12)
  copied[0] = 100
  assert x.tolist() == array.tolist()


def test_reshape_copies_only_where_it_must():
  x, _ = pair(3, 4)
  for view in (x, x[1:], x[:, None], x.reshape(1, 12).T):
    assert view.reshape(-1).buffer is x.buffer, view
  for view in (x.T, x[:, 1:], x[::2], x[::-1]):
    assert view.reshape(-1).buffer is not x.buffer, view


@pytest.mark.parametrize(
  'key', [2, -3, (0, 3), (0, 0, 0), (..., ...), (slice(None), slice(None), 0)]
)
def test_wrong_index(key):
  ours, x = pair(2, 3)
  for array in (ours, x):
    with pytest.raises(IndexError):
      _ = array[key]


@pytest.mark.parametrize('shape', [(4,), (-1, 4), (-1, -1), (-2, -3), (7, -1)])
def test_wrong_shape(shape):
  ours, x = pair(2, 3)
  for array in (ours, x):
    with pytest.raises(ValueError):
      array.reshape(*shape)


def test_unequal_shapes_and_ragged_rows():
  with pytest.raises(ValueError, match=r'\(2, 3\) and \(3, 2\) are not equal'):
    pair(2, 3)[0].__add__(pair(3, 2)[0])
  with pytest.raises(ValueError, match='several shapes'):
    tensors.tensor([[1, 2], [3]])


def test_layout_by_hand():
  assert strides.row_major((2, 3, 4)) == ((2, 3, 4), (12, 4, 1), 0)
  assert strides.row_major(()) == ((), (), 0)
  # Rows 3, 1 of columns 0, 2: offsets 15, 5 and 0, 2.
  view = strides.index(strides.row_major((4, 5)), (slice(3, 0, -2), slice(0, 3, 2)))
  assert view == ((2, 2), (-10, 2), 15)
  assert list(strides.positions(view)) == [15, 17, 5, 7]
  assert tensors.fresh([1, 2], (2,)).entries() == [1, 2]
