"""Fixed views of an image by hand, and what may be asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.data.images import fixed_views
from dlx.errors import ConfigError

IMAGE = np.arange(1, 17, dtype=np.uint8).reshape(1, 4, 4, 1)


def seen(text, image=IMAGE):
  views = fixed_views.parse(text)
  return np.asarray(jax.jit(lambda x: jnp.stack([view(x) for view in views]))(image))


def test_flip():
  found = seen('flip')
  np.testing.assert_array_equal(found, [IMAGE, IMAGE[:, :, ::-1]])


def test_shifts():
  found = seen('shifts')
  assert len(found) == len({x.tobytes() for x in found}) == 9
  np.testing.assert_array_equal(found[0], IMAGE)
  padded = np.pad(IMAGE, [(0, 0), (1, 1), (1, 1), (0, 0)], mode='edge')
  wanted = {
    padded[:, i : i + 4, j : j + 4].tobytes() for i in range(3) for j in range(3)
  }
  assert {x.tobytes() for x in found} == wanted
  by_two = seen('shifts:2')[1]  # To the left: the nearest column fills.
  np.testing.assert_array_equal(by_two[0, :, :, 0][0], [3, 4, 4, 4])


def test_crops():
  found = seen('crops:0.5')
  assert found.dtype == np.uint8 and found.shape == (5, 1, 4, 4, 1)
  # 2 x 2 at twice the size: PIL's bilinear weights are 1, 3/4, 1/4, 0 of each end.
  row = np.array([1, 0.75, 0.25, 0])
  across = np.stack([row, 1 - row])
  for view, (top, left) in zip(found, [(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)]):
    box = np.float64(IMAGE[0, top : top + 2, left : left + 2, 0])
    wanted = across.T @ box @ across
    np.testing.assert_allclose(view[0, :, :, 0], wanted, atol=0.5)
  np.testing.assert_array_equal(seen('crops:1'), [IMAGE] * 5)
  floats = seen('crops', np.float32(IMAGE) / 16)
  assert floats.dtype == np.float32 and 0 < floats.min() < floats.max() <= 1


def test_several_are_every_pair():
  both = seen('shifts,flip')
  assert len(both) == 18
  moved = seen('shifts')
  np.testing.assert_array_equal(both[0::2], moved)
  np.testing.assert_array_equal(both[1::2], moved[..., ::-1, :])


@pytest.mark.parametrize(
  'text',
  ['', 'turns', 'flip,flip', 'flip:1', 'shifts:0', 'shifts:-1', 'shifts:', 'crops:0']
  + ['crops:1.1', 'crops:nan', 'crops:x', 'flip,'],
)
def test_what_is_refused(text):
  with pytest.raises(ConfigError, match=f'--tta={text} is not allowed: must be flip'):
    fixed_views.parse(text, '--tta=')
