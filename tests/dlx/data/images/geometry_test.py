"""Where pixels go: by hand, then against scipy and torch."""

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from dlx.data.images import geometry
from dlx.errors import ConfigError


def photo(*shape, seed=0):
  return jax.random.uniform(jax.random.key(seed), shape)


def delta(height, width, row, column):
  return jnp.zeros((height, width, 1)).at[row, column, 0].set(1)


def where(image):
  """The places that are not 0."""
  return [tuple(int(i) for i in place[:2]) for place in np.argwhere(np.array(image))]


class FlipAndShiftTest(parameterized.TestCase):
  def test_flip_moves_a_pixel(self):
    x = delta(4, 6, 1, 0)
    self.assertEqual(where(geometry.flip_left_right(x)), [(1, 5)])
    self.assertEqual(where(geometry.flip_up_down(x)), [(2, 0)])

  @parameterized.parameters(geometry.flip_left_right, geometry.flip_up_down)
  def test_flip_twice(self, flip):
    x = photo(2, 5, 4, 3)
    chex.assert_trees_all_equal(flip(flip(x)), x)

  @parameterized.product(fill=geometry.FILLS, dtype=(jnp.float32, jnp.uint8))
  def test_shift_moves_a_pixel(self, fill, dtype):
    x = delta(5, 7, 2, 3).astype(dtype)
    out = geometry.shift(x, 1, -2, fill=fill)
    self.assertEqual(out.dtype, dtype)
    self.assertEqual(where(out), [(3, 1)])

  @parameterized.parameters(
    ('nearest', 2, [1, 1, 1, 2]),
    ('nearest', -3, [4, 4, 4, 4]),
    ('constant', 2, [9, 9, 1, 2]),
    ('constant', -3, [4, 9, 9, 9]),
    ('reflect', 2, [2, 1, 1, 2]),
    ('reflect', -3, [4, 4, 3, 2]),
    ('reflect', 6, [3, 4, 4, 3]),
    ('constant', 6, [9, 9, 9, 9]),
    ('nearest', 60, [1, 1, 1, 1]),
  )
  def test_fills_by_hand(self, fill, by, expected):
    row = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1)
    moved = geometry.shift(row, 0, by, fill=fill, value=9.0)
    self.assertEqual(moved.ravel().tolist(), expected)
    column = geometry.shift(row.swapaxes(0, 1), by, 0, fill=fill, value=9.0)
    self.assertEqual(column.ravel().tolist(), expected)
    # The warp has an index map of its own range: the same picture, moved the same way.
    warped = geometry.affine(
      row, jnp.eye(2), jnp.array([0.0, -by]), fill=fill, value=9.0
    )
    self.assertEqual(warped.ravel().tolist(), expected)

  @parameterized.parameters(*geometry.FILLS)
  def test_pad_and_shift_agree_on_fills(self, fill):
    x = photo(6, 5, 2)
    padded = geometry.pad(x, 3, 4, fill=fill, value=0.5)
    self.assertEqual(padded.shape, (12, 13, 2))
    moved = geometry.crop(padded, 3 - 2, 4 + 3, 6, 5)
    chex.assert_trees_all_equal(moved, geometry.shift(x, 2, -3, fill=fill, value=0.5))


class CropTest(parameterized.TestCase):
  def test_crop_is_the_box(self):
    x = photo(2, 6, 7, 3)
    chex.assert_trees_all_equal(geometry.crop(x, 1, 2, 4, 3), x[:, 1:5, 2:5])

  def test_box_outside_is_moved_inside(self):
    x = photo(6, 7, 3)
    chex.assert_trees_all_equal(geometry.crop(x, 9, -4, 4, 3), x[2:, :3])

  @parameterized.parameters((5, 6, 3, 3, 1, 2), (7, 7, 4, 4, 2, 2), (4, 4, 4, 4, 0, 0))
  def test_center_crop_by_hand(self, height, width, rows, columns, top, left):
    # (6 - 3) / 2 = (7 - 4) / 2 = 1.5, to even: 2.
    x = photo(height, width, 1)
    out = geometry.center_crop(x, rows, columns)
    chex.assert_trees_all_equal(out, x[top : top + rows, left : left + columns])

  def test_erase_by_hand(self):
    out = geometry.erase(jnp.ones((4, 4, 2)), -1, 2, 3, 5)
    expected = np.ones((4, 4, 2))
    expected[0:2, 2:4] = 0
    np.testing.assert_array_equal(out, expected)


class WarpTest(parameterized.TestCase):
  @parameterized.product(
    size=(5, 6), interpolation=geometry.INTERPOLATIONS, fill=geometry.FILLS
  )
  def test_quarter_turns_are_exact(self, size, interpolation, fill):
    x = photo(size, size, 2)
    turn = jax.jit(
      lambda degrees: geometry.rotate(
        x, degrees, interpolation=interpolation, fill=fill
      )
    )
    for quarters in (-5, -1, 0, 1, 2, 3, 4):
      np.testing.assert_array_equal(turn(90.0 * quarters), np.rot90(x, quarters))

  def test_turn_moves_a_pixel_counter_clockwise(self):
    # Right of the middle goes to above the middle.
    self.assertEqual(where(geometry.rotate(delta(5, 5, 2, 4), 90)), [(0, 2)])

  def test_there_and_back(self):
    y, x = jnp.meshgrid(jnp.arange(33.0), jnp.arange(33.0), indexing='ij')
    ramp = (0.3 * y + 0.2 * x)[..., None]
    out = geometry.rotate(geometry.rotate(ramp, 25.0), -25.0)
    # Bilinear is exact on a ramp while all four pixels are inside: a disc of radius
    # 16 / 2 stays so. Coordinates err by 33 * 2**-23 = 4e-6, twice, slope 0.5.
    inner = slice(16 - 5, 16 + 6)
    np.testing.assert_allclose(out[inner, inner], ramp[inner, inner], atol=2e-5)

  @parameterized.product(interpolation=geometry.INTERPOLATIONS, fill=geometry.FILLS)
  def test_identities(self, interpolation, fill):
    x = photo(2, 7, 6, 3)
    options = dict(interpolation=interpolation, fill=fill)
    chex.assert_trees_all_equal(geometry.zoom(x, 1.0, **options), x)
    chex.assert_trees_all_equal(geometry.rotate(x, 0.0, **options), x)
    chex.assert_trees_all_equal(geometry.affine(x, jnp.eye(2), **options), x)

  def test_zoom_by_hand(self):
    # Centre 1.5; output i shows input 1.5 + (i - 1.5) / 2: 0.75, 1.25, 1.75, 2.25.
    row = jnp.array([0.0, 4.0, 8.0, 12.0]).reshape(1, 4, 1)
    self.assertEqual(geometry.zoom(row, 2.0).ravel().tolist(), [3.0, 5.0, 7.0, 9.0])
    # Factor 1/2: -1.5, 0.5, 2.5, 4.5.
    out = geometry.zoom(row, 0.5, fill='constant', value=-1.0)
    self.assertEqual(out[0, :, 0].tolist(), [-1.0, 2.0, 10.0, -1.0])

  def test_half_pixel_by_hand(self):
    row = jnp.array([0.0, 4.0, 8.0]).reshape(1, 3, 1)
    half = jnp.array([0.0, -0.5])
    out = geometry.affine(row, jnp.eye(2), half, fill='constant', value=2.0)
    self.assertEqual(out.ravel().tolist(), [1.0, 2.0, 6.0])
    out = geometry.affine(row, jnp.eye(2), half, interpolation='nearest')
    self.assertEqual(out.ravel().tolist(), [0.0, 4.0, 8.0])

  @parameterized.product(interpolation=geometry.INTERPOLATIONS)
  def test_matrices_past_every_integer(self, interpolation):
    x = photo(4, 4, 1)
    # All but the endless plane's middle is far outside: the corners, by 'nearest'.
    far = geometry.affine(x, 1e30 * jnp.eye(2), interpolation=interpolation)
    corner = np.array([0, 0, 3, 3])
    np.testing.assert_array_equal(far, np.array(x)[corner][:, corner])
    point = geometry.affine(x, jnp.zeros((2, 2)), interpolation=interpolation)
    middle = x[2, 2] if interpolation == 'nearest' else x[1:3, 1:3].mean((0, 1))
    np.testing.assert_allclose(point, np.tile(middle, (4, 4, 1)), atol=2.0**-22)

  @parameterized.parameters(jnp.bfloat16, jnp.float16)
  def test_batches_and_dtypes(self, dtype):
    x = photo(3, 8, 6, 2)
    degrees = jnp.array([10.0, -70.0, 200.0])
    out = jax.jit(jax.vmap(geometry.rotate))(x.astype(dtype), degrees)
    self.assertEqual(out.dtype, dtype)
    alone = jnp.stack([geometry.rotate(x[i], degrees[i]) for i in range(3)])
    # Images and result are rounded to the narrow type once each; values below 1.
    atol = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(out.astype(jnp.float32), alone, atol=atol)

  def test_leading_axes_share_the_warp(self):
    x = photo(2, 3, 6, 5, 1)
    out = geometry.rotate(x, 33.0, fill='constant', value=0.3)
    alone = geometry.rotate(x[1, 2], 33.0, fill='constant', value=0.3)
    np.testing.assert_allclose(out[1, 2], alone, atol=2.0**-22)

  def test_constant_is_a_fixed_point(self):
    x = jnp.full((9, 7, 1), 0.7)
    for fill in geometry.FILLS:
      out = geometry.rotate(x, 31.0, fill=fill, value=0.7)
      np.testing.assert_allclose(out, x, atol=2.0**-22)

  @parameterized.parameters(
    ('nearest', 'nearest'), ('reflect', 'reflect'), ('constant', 'grid-constant')
  )
  def test_rotation_as_scipy(self, fill, mode):
    x = photo(17, 20, 2)
    for degrees in (13.0, -57.0, 160.0):
      expected = scipy.ndimage.rotate(
        np.float64(x), degrees, axes=(1, 0), order=1, mode=mode, cval=0.3, reshape=False
      )
      out = geometry.rotate(x, degrees, fill=fill, value=0.3)
      # Coordinates up to 20 in float32: 20 * 2**-23 each of 3 roundings = 7e-6, slope
      # at most 1 a pixel in either direction.
      np.testing.assert_allclose(out, expected, atol=2e-5)

  @parameterized.product(
    fill=(('nearest', 'border'), ('reflect', 'reflection'), ('constant', 'zeros')),
    interpolation=geometry.INTERPOLATIONS,
  )
  def test_affine_as_torch(self, fill, interpolation):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    functional = torch.nn.functional
    ours, theirs = fill
    height, width = 11, 14
    x = photo(height, width, 3)
    matrix = np.array([[0.9, 0.31], [-0.43, 1.2]])
    offset = np.array([1.3, -2.634])
    # torch has (column, row), in halves of the image.
    half = np.array([width / 2, height / 2])
    theta = np.zeros((2, 3))
    theta[:, :2] = matrix[::-1, ::-1] * half[None, :] / half[:, None]
    theta[:, 2] = offset[::-1] / half
    image_1CHW = torch.from_numpy(np.array(x.transpose(2, 0, 1), np.float64))[None]
    grid = functional.affine_grid(
      torch.from_numpy(theta)[None], list(image_1CHW.shape), align_corners=False
    )
    expected = functional.grid_sample(
      image_1CHW, grid, mode=interpolation, padding_mode=theirs, align_corners=False
    )
    out = geometry.affine(
      x,
      jnp.asarray(matrix, jnp.float32),
      jnp.asarray(offset, jnp.float32),
      fill=ours,
      interpolation=interpolation,
    )
    # As above. No coordinate has the fraction 1/2, which torch rounds to even.
    np.testing.assert_allclose(out, expected[0].permute(1, 2, 0).numpy(), atol=2e-5)


class RefusalTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('fill', lambda x: geometry.shift(x, 1, 1, fill='wrap'), "fill='wrap'"),
    ('cubic', lambda x: geometry.rotate(x, 1, interpolation='cubic'), "'cubic'"),
    ('integers', lambda x: geometry.rotate(x.astype(jnp.uint8), 1.0), 'to_float'),
    ('zoom', lambda x: geometry.zoom(x, 0.0), 'factor=0.0'),
    ('crop', lambda x: geometry.crop(x, 0, 0, 9, 2), r'height=9 .* \[1, 4\]'),
    ('center_crop', lambda x: geometry.center_crop(x, 2, 9), r'width=9 .* \[1, 5\]'),
    ('pad', lambda x: geometry.pad(x, -1, 0), 'rows=-1'),
  )
  def test_refuses(self, call, message):
    with self.assertRaisesRegex(ConfigError, message) as caught:
      call(jnp.ones((4, 5, 1)))
    self.assertNotIn('\n', str(caught.exception))


if __name__ == '__main__':
  absltest.main()
