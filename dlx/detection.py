"""Objects as points: from boxes to what a detector learns, and from its maps to boxes.

CenterNet (Zhou et al., arXiv:1904.07850): a heat map a class, whose peaks are centres
of objects, and beside it a map of the box that each cell would have. A cell is a square
of `stride` pixels; cell (i, j) of a map holds row i, column j. Boxes are (top, left,
bottom, right) in pixels, see dlx/boxes.py.

gaussian_radius   how far a centre may be off for the box still to be near
centre_cells      in which cell the centre of each box lies
heat_map          what the heat map is to be: a peak at each centre
boxes_of          from the map of shapes to a box for each cell
at_cells          of a map, what its cells hold
decode            from both maps to the objects of an image
at_least          those of them that are likely enough
framed            images with a frame around each object
"""

from typing import NamedTuple

import chex
import jax
from jax import lax
import jax.numpy as jnp

from dlx import boxes, labels
from dlx.precision import at_least_float32
from dlx.state import Array


class Objects(NamedTuple):
  """Objects of images, or places for them, with scores that fall.

  Attributes:
    box_BN4: pixels, inside of the image; 0 where there is none.
    label_BN: int32, their classes; -1 where there is none.
    score_BN: float, in (0, 1]; 0 where there is none.
  """

  box_BN4: Array
  label_BN: Array
  score_BN: Array


def gaussian_radius(height: Array, width: Array, least_iou: float = 0.7) -> Array:
  """By how much both corners of a box may be off for an IoU of at least `least_iou`.

  Each corner by that much up or down and to either side. CornerNet (arXiv:1808.01244)
  takes the least of three cases: both corners off inward, both outward, one of each.
  It is always that of inward, where `(h - 2 r)(w - 2 r) = t h w`. (Their code has other
  roots, which are too large.)

  Args:
    height, width: at least 0.
    least_iou: t, in (0, 1).

  Returns:
    r, in the unit of the sides and of their shape; 0 of an empty box.
  """
  h, w, t = at_least_float32(height), at_least_float32(width), least_iou
  # As 2 c / (b + root), which subtracts no two numbers that are near each other.
  total = h + w
  root = jnp.sqrt(jnp.maximum(jnp.square(total) - 4 * (1 - t) * h * w, 0))
  return (1 - t) * h * w / jnp.where(total > 0, total + root, 1)


def centre_cells(box: Array, size: tuple[int, int], stride: int) -> Array:
  """Row and column of the cell in which each centre lies, int32 [..., 2].

  The nearest one of a centre outside of the map.

  Args:
    box: [..., 4].
    size: rows and columns of the map.
    stride: pixels a side of a cell.
  """
  cell = jnp.floor(boxes.to_centre_size(box)[..., :2] / stride)
  rows, columns = (
    jnp.clip(cell[..., i], 0, n - 1).astype(jnp.int32) for i, n in enumerate(size)
  )
  return jnp.stack([rows, columns], -1)


def heat_map(
  box_BM4: Array,
  label_BM: Array,
  real_BM: Array,
  *,
  num_classes: int,
  size: tuple[int, int],
  stride: int,
  least_iou: float = 0.7,
) -> Array:
  """What the heat map of each class is to be, float32 [B, H, W, K], in [0, 1].

  1 in the cell of each centre, and around it exp(-d^2 / 2 s^2) of the distance d in
  cells, s = (2 r + 1) / 6 with r the whole number of cells in `gaussian_radius`; of
  several objects of a class the largest.

  Args:
    box_BM4: pixels.
    label_BM: int in [0, K); an image with another is nan.
    real_BM: bool; boxes where it is False are none, whatever they hold.
    num_classes: K.
    size: H and W.
    stride: pixels a side of a cell.
    least_iou: see `gaussian_radius`.
  """
  chex.assert_equal_shape_prefix([box_BM4, label_BM, real_BM], 2)
  real_BM = real_BM.astype(bool)
  box_BM4 = jnp.where(real_BM[..., None], at_least_float32(box_BM4), 0)
  sides = boxes.to_centre_size(box_BM4)[..., 2:] / stride
  radius_BM = jnp.floor(gaussian_radius(sides[..., 0], sides[..., 1], least_iou))
  spread_BM = (2 * radius_BM + 1) / 6
  cell_BM2 = centre_cells(box_BM4, size, stride)
  rows_BMH, columns_BMW = (
    jnp.square(jnp.arange(n)[None, None] - cell_BM2[..., i, None])
    for i, n in enumerate(size)
  )
  square_BMHW = rows_BMH[..., :, None] + columns_BMW[..., None, :]
  bump_BMHW = jnp.exp(-square_BMHW / (2 * jnp.square(spread_BM))[..., None, None])

  def one(bump_MHW, label_M, real_M):
    known = labels.is_index(label_M, num_classes)
    place_M = jnp.where(real_M & known, label_M, num_classes)
    blank = jnp.zeros((num_classes, *size), jnp.float32)
    heat_KHW = blank.at[place_M].max(bump_MHW, mode='drop')
    return jnp.where((real_M & ~known).any(), jnp.nan, heat_KHW)

  return jax.vmap(one)(bump_BMHW, label_BM, real_BM).transpose(0, 2, 3, 1)


def boxes_of(shape_BHW4: Array, stride: int) -> Array:
  """The box of each cell, in pixels [B, H, W, 4].

  Args:
    shape_BHW4: of each cell, in cells: by how much the centre of its box lies below
      and right of its own centre, and what a softplus makes its height and width.
    stride: pixels a side of a cell.
  """
  chex.assert_shape(shape_BHW4, (None, None, None, 4))
  shape_BHW4 = at_least_float32(shape_BHW4)
  centre = jnp.stack(
    jnp.meshgrid(*(jnp.arange(n) + 0.5 for n in shape_BHW4.shape[1:3]), indexing='ij'),
    -1,
  ).astype(shape_BHW4.dtype)
  found = jnp.concatenate(
    [shape_BHW4[..., :2] + centre[None], jax.nn.softplus(shape_BHW4[..., 2:])], -1
  )
  return boxes.from_centre_size(stride * found)


def at_cells(map_BHWC: Array, cell_BM2: Array) -> Array:
  """What the cells of a map hold, [B, M, C]; rows and columns of `centre_cells`."""
  chex.assert_equal_shape_prefix([map_BHWC, cell_BM2], 1)
  one = lambda map_HWC, cell_M2: map_HWC[cell_M2[:, 0], cell_M2[:, 1]]
  return jax.vmap(one)(map_BHWC, cell_BM2)


def decode(
  heat_BHWK: Array,
  box_BHW4: Array,
  image: tuple[int, int],
  *,
  most: int = 100,
  most_iou: float = 0.5,
) -> Objects:
  """The objects of each image, `most` of them, the likeliest first.

  The cells whose logit is the largest of the 3 x 3 around it in its class, the `most`
  likeliest of all classes; of those of one class that overlap the likeliest, see
  `boxes.non_max_suppression`. Equal logits side by side are peaks both: it is the
  suppression that leaves one of them.

  Args:
    heat_BHWK: logits; a score is the sigmoid. One of nan is no peak.
    box_BHW4: pixels, see `boxes_of`.
    image: height and width in pixels, to which boxes are cut.
    most: N, at most H W K.
    most_iou: of two boxes of a class.
  """
  chex.assert_rank([heat_BHWK, box_BHW4], 4)
  chex.assert_equal_shape_prefix([heat_BHWK, box_BHW4], 3)
  num_classes = heat_BHWK.shape[-1]

  def one(heat_HWK, box_HW4):
    heat_HWK = at_least_float32(heat_HWK)
    largest = lax.reduce_window(
      heat_HWK, -jnp.inf, lax.max, (3, 3, 1), (1, 1, 1), 'SAME'
    )
    peak_HWK = jnp.where(heat_HWK == largest, jax.nn.sigmoid(heat_HWK), 0)
    score_N, place_N = lax.top_k(peak_HWK.reshape(-1), most)
    label_N = place_N % num_classes
    box_N4 = boxes.clip(box_HW4.reshape(-1, 4)[place_N // num_classes], *image)
    keep_N = boxes.non_max_suppression(box_N4, score_N, label_N, most_iou=most_iou)
    keep_N &= score_N > 0
    # Those that stay first, in their order.
    order = jnp.argsort(~keep_N)
    keep_N, box_N4, label_N, score_N = (
      x[order] for x in (keep_N, box_N4, label_N, score_N)
    )
    return Objects(
      jnp.where(keep_N[:, None], box_N4, 0),
      jnp.where(keep_N, label_N, -1).astype(jnp.int32),
      jnp.where(keep_N, score_N, 0),
    )

  return jax.vmap(one)(heat_BHWK, box_BHW4)


def at_least(objects: Objects, score: float) -> Objects:
  """The objects with that score or more; places of the others hold none."""
  keep_BN = objects.score_BN >= score
  return Objects(
    jnp.where(keep_BN[..., None], objects.box_BN4, 0),
    jnp.where(keep_BN, objects.label_BN, -1),
    jnp.where(keep_BN, objects.score_BN, 0),
  )


def framed(image_BHW3: Array, objects: Objects, colour_K3: Array) -> Array:
  """Images with a frame of one pixel around each object; the likeliest is in front.

  Args:
    image_BHW3: any dtype.
    objects: whose frames are the outermost pixels that a box covers.
    colour_K3: of each class, in the units of the image.
  """
  chex.assert_shape(image_BHW3, (None, None, None, 3))
  low, high = (jnp.floor(objects.box_BN4[..., :2]), jnp.ceil(objects.box_BN4[..., 2:]))

  def within(low, high):
    """Pixels of each box, [B, N, H, W]."""
    rows, columns = (
      (jnp.arange(n)[None, None] >= low[..., i, None])
      & (jnp.arange(n)[None, None] < high[..., i, None])
      for i, n in enumerate(image_BHW3.shape[1:3])
    )
    return rows[..., :, None] & columns[..., None, :]

  there_BN = objects.label_BN >= 0
  frame_BNHW = within(low, high) & ~within(low + 1, high - 1)
  frame_BNHW &= there_BN[..., None, None]
  first_BHW = frame_BNHW.argmax(1)
  pick = lambda label_N, first_HW: label_N[first_HW]
  label_BHW = jax.vmap(pick)(jnp.maximum(objects.label_BN, 0), first_BHW)
  colour_BHW3 = jnp.asarray(colour_K3, image_BHW3.dtype)[label_BHW]
  return jnp.where(frame_BNHW.any(1)[..., None], colour_BHW3, image_BHW3)
