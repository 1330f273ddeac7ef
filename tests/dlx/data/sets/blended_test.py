"""Images on pieces of photographs: |p - image|, the same pieces in every run."""

import numpy as np
import pytest

from dlx.data import sources
from dlx.data.sets import images
from dlx.data.sets.blended import blend
from dlx.errors import ConfigError


def photographs():
  """Two of 40 x 60 pixels whose every pixel says where it lies."""
  row, column = np.mgrid[:40, :60]
  return np.stack(
    [np.stack([row, column, np.full_like(row, 100 * m)], -1) for m in (0, 1)]
  ).astype(np.uint8)


def test_difference_with_a_piece_of_one_photograph():
  image = np.zeros((50, 28, 28, 1), np.uint8)
  image[:, 3, 4] = 255
  found = blend(image, photographs(), 0)
  assert found.shape == (50, 28, 28, 3) and found.dtype == np.uint8
  top, left, which = found[:, 0, 0].astype(int).T
  assert set(which) == {0, 100}  # Both photographs; and many places.
  assert len(set(top)) > 5 and len(set(left)) > 10
  assert top.max() <= 40 - 28 and left.max() <= 60 - 28
  row, column = np.mgrid[:28, :28]
  for n in range(50):
    piece = np.stack([row + top[n], column + left[n], np.full_like(row, which[n])], -1)
    piece[3, 4] = 255 - piece[3, 4]
    np.testing.assert_array_equal(found[n], piece)


def test_a_small_image_lies_on_a_piece_that_is_averaged():
  found = blend(np.zeros((30, 7, 7, 3), np.uint8), photographs(), 0)
  step = np.diff(found.astype(int), axis=1)[..., 0]
  assert (step == 4).all()  # Rows of means of 4 x 4 pixels.


def test_sets_of_every_kind_have_a_blended_form():
  data = images.images('digits_blended')
  plain = images.images('digits')
  assert data.shape == (8, 8, 3) and data.num_classes == 10
  assert data.train.size == 1437 and data.test.size == 360
  for name in ('train', 'test'):
    source, own = getattr(data, name), getattr(plain, name)
    loaded, again = sources.read(source), sources.read(source)
    np.testing.assert_array_equal(loaded.data['image'], again.data['image'])
    np.testing.assert_array_equal(loaded.data['label'], own.read(None).data['label'])
    assert loaded.origin['blended_with']['name'] == 'photographs'
    # A black pixel of the digit shows the photograph, a white one its inverse: digits
    # and what is seen are uncorrelated or so, yet not independent.
    image = loaded.data['image']
    assert 40 < image.mean() < 215 and image.std() > 30
  both = [sources.read(x).data['image'][:300] for x in (data.train, data.test)]
  assert not np.array_equal(both[0][:300], both[1])


def test_a_name_of_the_suffix_alone_is_no_set():
  with pytest.raises(ConfigError, match='dataset='):
    images.images('_blended')


def test_looking_up_reads_nothing(monkeypatch):
  monkeypatch.setenv('DLX_DATA_DIR', '/nowhere')
  assert images.images('mnist_blended').train.shapes['image'].shape == (28, 28, 3)


if __name__ == '__main__':
  pytest.main([__file__])
