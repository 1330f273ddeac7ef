"""Parts of pictures: what is allowed, how it is spread, numbers by hand."""

import numpy as np
import pytest

from dlx.data.pictures.crops import Box, Crop, middle_box, random_box
from dlx.errors import ConfigError


def boxes(crop: Crop, width: int, height: int, count: int = 400) -> np.ndarray:
  """Left, top, width, height, flipped of the first places: [count, 5]."""
  found = [random_box(crop, 7, place, width, height) for place in range(count)]
  return np.array([box[:5] for box in found], float)


@pytest.mark.parametrize('width,height', [(500, 375), (60, 90), (2, 3), (1, 1)])
def test_parts_lie_in_the_picture_and_are_allowed(width, height):
  left, top, w, h, _ = boxes(Crop(), width, height).T
  assert left.min() >= 0 and top.min() >= 0 and min(w.min(), h.min()) >= 1
  assert (left + w).max() <= width and (top + h).max() <= height
  if width * height > 100:
    # Sides are rounded to whole pixels: half of one of either.
    slack = 0.5 / w + 0.5 / h
    share, ratio = w * h / (width * height), w / h
    assert (share > 0.08 * (1 - 1.1 * slack)).all() and share.max() <= 1
    low, high = 3 / 4 * (1 - 1.1 * slack), 4 / 3 * (1 + 1.1 * slack)
    assert ((ratio > low) & (ratio < high)).all()


def test_area_place_and_flips_are_spread_evenly():
  n, side = 2000, 1000
  square = Crop(min_ratio=1, max_ratio=1)
  left, top, w, h, flipped = boxes(square, side, side, n).T
  assert (w == h).all()
  even = lambda x, low, high: (
    abs(np.mean(x) - (low + high) / 2) < 4 * (high - low) / np.sqrt(12 * n)
  )
  assert even(w * h / side**2, 0.08, 1)
  some = w < side
  across, down = (x[some] / (side - w[some]) for x in (left, top))
  assert even(across, 0, 1) and even(down, 0, 1)
  assert abs(np.corrcoef(across, down)[0, 1]) < 4 / np.sqrt(some.sum())
  assert abs(flipped.mean() - 0.5) < 4 * 0.5 / np.sqrt(n)
  assert not boxes(Crop(flip=False), side, side, 50)[:, 4].any()


def test_a_part_depends_on_its_arguments_alone():
  crop = Crop()
  one = random_box(crop, 1, 2, 500, 375)
  assert random_box(crop, 1, 2, 500, 375) == one
  others = [random_box(crop, *x, 500, 375) for x in ((1, 3), (2, 2), (2, 1))]
  assert len({one, *others}) == 4
  # Runs of other versions go on with the same parts.
  assert one == Box(249, 1, 242, 316, True)
  assert random_box(crop, 2**32 - 1, 2**63, 500, 375) == Box(6, 160, 180, 203)


def test_what_never_fits_is_the_middle():
  half = Crop(min_area=0.5)
  # 13 is the width of the ratio 4/3 of a height of 10, and 13 the height of 3/4.
  assert random_box(half, 0, 0, 1000, 10)[:4] == (493, 0, 13, 10)
  assert random_box(half, 0, 0, 10, 1000)[:4] == (0, 493, 10, 13)
  whole = Crop(min_area=1, min_ratio=4 / 3, max_ratio=4 / 3, flip=False)
  assert random_box(whole, 0, 5, 400, 300) == Box(0, 0, 400, 300)


def test_the_middle():
  # 375 become 256 and 500 become 341; (341 - 224) / 2 = 58.5 is rounded to even.
  x, y = 500 / 341, 375 / 256
  box = middle_box(500, 375, 256, 224)
  assert box[:4] == pytest.approx((58 * x, 16 * y, 224 * x, 224 * y))
  assert box.around and not box.flipped
  assert middle_box(8, 8, 8, 8)[:4] == (0, 0, 8, 8)
  assert middle_box(8, 16, 8, 4)[:4] == (2, 6, 4, 4)


@pytest.mark.parametrize(
  'given,told',
  [
    ({'min_area': 0}, 'min_area=0, max_area=1.0 are not allowed: must be both in'),
    ({'min_area': 0.5, 'max_area': 0.4}, 'min_area=0.5, max_area=0.4'),
    ({'max_area': 1.5}, 'max_area=1.5'),
    ({'min_ratio': -1}, 'min_ratio=-1'),
    ({'max_ratio': float('inf')}, 'max_ratio=inf'),
    ({'min_area': float('nan')}, 'min_area=nan'),
    ({'method': 'nearest'}, 'must be one of bilinear, bicubic'),
  ],
)
def test_refuses(given, told):
  with pytest.raises(ConfigError, match=told):
    Crop(**given)
