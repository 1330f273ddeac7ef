"""Boxes: areas and overlaps by hand, what is empty or touches, suppression by rank."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import boxes

UNIT = [0.0, 0.0, 1.0, 1.0]
# Two boxes, their IoU and their GIoU.
PAIRS = {
  'equal': ([0, 0, 2, 4], [0, 0, 2, 4], 1, 1),
  # 1 common of 4 + 4 - 1; both lie in 3 x 3, of which 2 are of neither.
  'shifted': ([0, 0, 2, 2], [1, 1, 3, 3], 1 / 7, 1 / 7 - 2 / 9),
  'inside': ([0, 0, 4, 4], [1, 1, 2, 3], 2 / 16, 2 / 16),
  'touch at a side': ([0, 0, 1, 1], [0, 1, 1, 2], 0, 0),
  'touch at a corner': (UNIT, [1, 1, 2, 2], 0, -2 / 4),
  # 2 of 3 squares in a row.
  'apart': (UNIT, [0, 2, 1, 3], 0, -1 / 3),
  'far apart': (UNIT, [0, 999, 1, 1000], 0, -998 / 1000),
  'one is empty, inside': (UNIT, [0.5, 0.5, 0.5, 0.5], 0, 0),
  'one is empty, outside': (UNIT, [0, 2, 0, 2], 0, -1 / 2),
  'one is turned over': (UNIT, [1, 1, 0, 0], 0, 0),
  'two points at one place': ([3, 3, 3, 3], [3, 3, 3, 3], 0, 0),
  'two points apart': ([0, 0, 0, 0], [1, 1, 1, 1], 0, -1),
  'of pixels that are whole numbers': ([0, 0, 200, 100], [0, 0, 100, 100], 0.5, 0.5),
}


@jax.jit
def overlaps(a, b):
  found = jnp.stack([boxes.iou(a, b), boxes.giou(a, b)], -1)
  total = lambda f: lambda a, b: f(a, b).sum()
  grads = [jax.grad(total(f), (0, 1))(a, b) for f in (boxes.iou, boxes.giou)]
  return found, grads


def test_overlaps_by_hand_both_ways_and_gradients_that_are_finite():
  a, b = (np.float32([x[i] for x in PAIRS.values()]) for i in (0, 1))
  wanted = np.float32([x[2:] for x in PAIRS.values()])
  for pair in ((a, b), (b, a)):
    found, grads = overlaps(*pair)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))
  at = list(PAIRS).index('apart')
  of_iou, of_giou = (np.asarray(g[1][at]) for g in overlaps(a, b)[1])
  assert not of_iou.any()  # Nothing in common: IoU does not tell where to go.
  assert of_giou[1] < 0  # To the left.


def test_whole_numbers_half_precision_and_nan():
  a = np.array([0, 0, 100, 100], np.uint8)
  assert float(boxes.area(jnp.asarray(a))) == 10_000
  half = boxes.iou(jnp.asarray(a, jnp.bfloat16), jnp.asarray(a, jnp.bfloat16))
  assert half.dtype == jnp.float32 and float(half) == 1
  broken = jnp.array([0, jnp.nan, 1, 1])
  assert np.isnan(boxes.area(broken))
  assert np.isnan(boxes.giou(broken, jnp.array(UNIT)))


def test_of_all_pairs():
  a = jax.random.uniform(jax.random.key(0), (3, 4))
  found = boxes.iou(a[:, None], a[None])
  assert found.shape == (3, 3)
  np.testing.assert_array_equal(found, found.T)


def test_centres_and_sizes_there_and_back():
  x = jnp.array([[1.0, 2, 5, 4], [0, 0, 0, 0]])
  found = boxes.to_centre_size(x)
  np.testing.assert_array_equal(found, [[3, 3, 4, 2], [0, 0, 0, 0]])
  np.testing.assert_array_equal(boxes.from_centre_size(found), x)


def test_what_lies_in_an_image():
  found = boxes.clip(jnp.array([[-1.0, 2, 5, 9], [9, 9, 12, 12]]), 4, 8)
  np.testing.assert_array_equal(found, [[0, 2, 4, 8], [4, 8, 4, 8]])
  np.testing.assert_array_equal(boxes.area(found), [24, 0])


def by_hand(box, score, label, most):
  """Pairs, one after the other, in plain Python."""
  kept = []
  for i in sorted(range(len(score)), key=lambda i: -score[i]):
    for j in kept:
      height = min(box[i][2], box[j][2]) - max(box[i][0], box[j][0])
      width = min(box[i][3], box[j][3]) - max(box[i][1], box[j][1])
      common = max(height, 0) * max(width, 0)
      size = lambda x: (x[2] - x[0]) * (x[3] - x[1])
      over = common / (size(box[i]) + size(box[j]) - common)
      if label[i] == label[j] and over > most:
        break
    else:
      kept.append(i)
  return np.isin(np.arange(len(score)), kept)


def drawn(images=5, count=24):
  rng = np.random.default_rng(0)
  low = rng.uniform(0, 8, size=(images, count, 2))
  box = np.concatenate([low, low + rng.uniform(2, 6, size=low.shape)], -1)
  score = rng.integers(20, size=(images, count)) / 20  # Some are equal.
  return box, score, rng.integers(3, size=(images, count))


@pytest.mark.parametrize('labelled', (False, True))
def test_suppression_as_by_hand(labelled):
  box, score, label = drawn()
  label = label if labelled else np.zeros_like(label)
  call = jax.jit(jax.vmap(lambda *of: boxes.non_max_suppression(*of, most_iou=0.3)))
  found = call(*(jnp.asarray(x) for x in (box, score, label)))
  wanted = [by_hand(*of, 0.3) for of in zip(box, score, label, strict=True)]
  np.testing.assert_array_equal(found, wanted)
  assert 0.1 < np.mean(wanted) < 0.9


def test_suppression_as_torchvision():
  torch = pytest.importorskip('torch', reason='torch is not installed')
  torchvision = pytest.importorskip(
    'torchvision', reason='torchvision is not installed: pip install torchvision'
  )
  (box, *_), (_, *_), (label, *_) = drawn(1, 100)
  score = np.random.default_rng(1).permutation(100).astype(np.float32)
  of = torch.tensor(np.float32(box)), torch.tensor(score), torch.tensor(label)
  kept = torchvision.ops.batched_nms(*of, 0.3).numpy()
  found = boxes.non_max_suppression(
    jnp.asarray(box, jnp.float32), jnp.asarray(score), jnp.asarray(label), most_iou=0.3
  )
  np.testing.assert_array_equal(np.flatnonzero(found), np.sort(kept))


def test_what_was_left_out_leaves_none_out():
  # The middle one overlaps both of its neighbours, which do not overlap each other.
  row = jnp.array([[0.0, 0, 1, 4], [0, 2, 1, 6], [0, 4, 1, 8]])
  keep = jax.jit(boxes.non_max_suppression, static_argnames='most_iou')
  found = keep(row, jnp.array([0.9, 0.8, 0.7]), most_iou=0.2)
  np.testing.assert_array_equal(found, [True, False, True])
  # An IoU of exactly the bound is allowed: 2 of 6.
  found = keep(row, jnp.array([0.9, 0.8, 0.7]), most_iou=2 / 6)
  np.testing.assert_array_equal(found, [True, True, True])
  found = keep(row, jnp.array([jnp.nan, 0.8, 0.9]), most_iou=0.2)
  np.testing.assert_array_equal(found, [False, False, True])
  assert boxes.non_max_suppression(jnp.zeros((0, 4)), jnp.zeros(0)).shape == (0,)
