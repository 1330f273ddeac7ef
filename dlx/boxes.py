"""Boxes with sides along the axes: area, overlap, and which of them to keep.

A box is (top, left, bottom, right), the last axis of an array [..., 4], in pixels or
any other unit of length. One whose bottom is not below its top, or whose right is not
beyond its left, is empty: its area is 0. Areas and their ratios are float32 or wider,
of sides from 1e-15 to 1e15 units; a box with a nan has the area nan.
"""

import chex
import jax
import jax.numpy as jnp

from dlx.precision import at_least_float32
from dlx.state import Array


def area(box: Array) -> Array:
  """[..., 4] -> [...], in squares of the unit; 0 of an empty box."""
  return _area(*_corners(box))


def iou(a: Array, b: Array) -> Array:
  """Intersection over union of the boxes of two arrays, [..., 4] -> [...], in [0, 1].

  0 where both are empty. Two boxes that touch have 0. All gradients are finite.

  Args:
    a, b: shapes that broadcast: of all pairs `iou(a_N4[:, None], b_M4[None])`, [N, M].
  """
  return _share(*_common_and_union(a, b))


def giou(a: Array, b: Array) -> Array:
  """Generalised IoU, in [-1, 1] (Rezatofighi et al., arXiv:1902.09630).

  IoU minus the share of the smallest box around both that neither covers. So it falls
  with the distance of boxes that have nothing in common, where IoU has no gradient. 0
  of two empty boxes at one place. All gradients are finite.

  Args:
    a, b: see `iou`.
  """
  common, union = _common_and_union(a, b)
  (low_a, high_a), (low_b, high_b) = _corners(a), _corners(b)
  around = _area(jnp.minimum(low_a, low_b), jnp.maximum(high_a, high_b))
  return _share(common, union) - _share(around - union, around)


def to_centre_size(box: Array) -> Array:
  """(top, left, bottom, right) -> (row, column, height, width), [..., 4].

  Row and column are those of the centre; height and width are negative where a box is
  turned over.
  """
  low, high = _corners(box)
  return jnp.concatenate([(low + high) / 2, high - low], -1)


def from_centre_size(x: Array) -> Array:
  """(row, column, height, width) -> (top, left, bottom, right), [..., 4]."""
  centre, size = _corners(x)
  return jnp.concatenate([centre - size / 2, centre + size / 2], -1)


def clip(box: Array, height: float, width: float) -> Array:
  """The part of each box inside of an image, [..., 4]; empty where there is none."""
  box = at_least_float32(box)
  sides = jnp.asarray([height, width] * 2, box.dtype)
  return jnp.clip(box, 0, sides.reshape((1,) * (box.ndim - 1) + (4,)))


def non_max_suppression(
  box_N4: Array, score_N: Array, label_N: Array | None = None, *, most_iou: float = 0.5
) -> Array:
  """Which boxes are kept, bool [N]: of those that overlap the one of the highest score.

  Greedy, from the highest score down: a box is left out where its IoU with one that is
  kept is above `most_iou`. Of equal scores the first box comes first. The values of
  torchvision's `nms`, with a shape that is known: N turns of O(N) operations, under
  `jit` and `vmap`.

  Args:
    box_N4: one that has a nan overlaps none.
    score_N: a box of score nan is not kept, and leaves none out.
    label_N: int; boxes of different labels leave each other alone; None: all are alike.
    most_iou: that two boxes that are kept may have, in [0, 1].
  """
  chex.assert_shape(box_N4, (None, 4))
  chex.assert_equal_shape_prefix([box_N4, score_N], 1)
  if not len(score_N):
    return jnp.zeros(0, bool)
  order = jnp.argsort(-score_N)  # Stable; nan comes last.
  of = box_N4[order]
  over_NN = iou(of[:, None], of[None]) > most_iou
  if label_N is not None:
    label_N = label_N[order]
    over_NN &= label_N[:, None] == label_N[None]
  later_NN = jnp.triu(over_NN, 1)

  def turn(i, keep_N):
    return keep_N & ~(later_NN[i] & keep_N[i])

  keep_N = jax.lax.fori_loop(0, len(order), turn, ~jnp.isnan(score_N[order]))
  return jnp.zeros_like(keep_N).at[order].set(keep_N)


def _corners(box: Array) -> tuple[Array, Array]:
  """The first two numbers and the last two, [..., 2]."""
  chex.assert_axis_dimension(box, -1, 4)
  box = at_least_float32(box)
  return box[..., :2], box[..., 2:]


def _area(low: Array, high: Array) -> Array:
  size = jnp.maximum(high - low, 0)
  return size[..., 0] * size[..., 1]


def _common_and_union(a: Array, b: Array) -> tuple[Array, Array]:
  """Areas."""
  (low_a, high_a), (low_b, high_b) = _corners(a), _corners(b)
  common = _area(jnp.maximum(low_a, low_b), jnp.minimum(high_a, high_b))
  return common, area(a) + area(b) - common


def _share(part: Array, whole: Array) -> Array:
  """0 of nothing; nan where the whole is."""
  return jnp.where(whole == 0, 0, part / jnp.where(whole == 0, 1, whole))
