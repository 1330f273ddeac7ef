"""Mean average precision of boxes by COCO's rule, exact over batches and shards.

Average precision is of all images together. `detection_sums` matches the objects of
each image and puts them in the rows of that image, as sums of 12 bytes a found object;
`detection_summary` ranks all of them. So the figure is that of one batch of all images,
to the bit, whatever the batches were.

COCO's rule (cocodataset.org/#detection-eval), without crowds and ranges of areas: in an
image the found objects of a class, from the highest score down, each take the true one
with the largest IoU of those that are left, the last of equals, if that IoU is the
threshold or more. Precision over recall is that of all images by score (of equal scores
the lower image first), made to fall by the best precision at that recall or beyond, and
read at 101 recalls, 0 to 1; the mean is the average precision. `map` is its mean over
the classes that have a true object and ten thresholds, 0.50 to 0.95. Recalls are
compared as whole numbers: no rounding decides.
"""

from typing import Any, Mapping

import chex
import jax
from jax import lax
import jax.numpy as jnp

from dlx import boxes, labels
from dlx.state import Array, Metric, Metrics, ratios

THRESHOLDS = tuple(i / 100 for i in range(50, 100, 5))
RECALLS = 101
DETECTION: Mapping[str, Metric] = {
  'map': Metric(
    'mAP',
    'higher',
    "Mean average precision by COCO's rule: over the classes and ten thresholds of the "
    'intersection over union, 0.50 to 0.95.',
    '%',
    'share',
  ),
  'map_50': Metric(
    'mAP at 0.50',
    'higher',
    'Mean over the classes of the average precision of boxes whose intersection over '
    'union with a true one is 0.50 or more.',
    '%',
    'share',
  ),
  'map_75': Metric(
    'mAP at 0.75',
    'higher',
    'Mean over the classes of the average precision of boxes whose intersection over '
    'union with a true one is 0.75 or more.',
    '%',
    'share',
  ),
  'recall': Metric(
    'Average recall',
    'higher',
    'Share of the true boxes that are found at any score, the mean over the classes '
    'and ten thresholds of the intersection over union, 0.50 to 0.95.',
    '%',
    'share',
  ),
}


def matches(
  box_N4: Array,
  label_N: Array,
  score_N: Array,
  true_box_M4: Array,
  true_label_M: Array,
  real_M: Array,
) -> Array:
  """Which found objects of one image are true at each threshold, bool [N, T].

  Args:
    box_N4: found, in pixels.
    label_N: int.
    score_N: 0 or less of a place without an object, which takes none.
    true_box_M4: pixels.
    true_label_M: int.
    real_M: bool; places where it is False hold nothing.
  """
  chex.assert_shape([box_N4, true_box_M4], (None, 4))
  bound_T = jnp.asarray(THRESHOLDS, jnp.float32)
  may_NM = (label_N[:, None] == true_label_M[None]) & real_M.astype(bool)[None]
  may_NM &= (score_N > 0)[:, None]
  if not may_NM.size:  # No place, of one or the other.
    return jnp.zeros((len(label_N), len(THRESHOLDS)), bool)
  iou_NM = jnp.where(may_NM, boxes.iou(box_N4[:, None], true_box_M4[None]), -1)
  order = jnp.argsort(-score_N)
  last = may_NM.shape[1] - 1

  def turn(taken_TM, iou_M):
    left_TM = jnp.where(taken_TM, -1, iou_M[None])
    at_T = last - jnp.argmax(left_TM[:, ::-1], 1)  # The last of equals.
    hit_T = left_TM.max(1) >= bound_T
    own_TM = labels.hits(at_T, last + 1) & hit_T[:, None]
    return taken_TM | own_TM, hit_T

  none = jnp.zeros((len(THRESHOLDS), last + 1), bool)
  _, hit_NT = lax.scan(turn, none, iou_NM[order])
  return jnp.zeros_like(hit_NT).at[order].set(hit_NT)


def detection_sums(
  found: tuple[Array, Array, Array],
  true: tuple[Array, Array, Array],
  index_B: Array,
  weight_B: Array,
  *,
  num_classes: int,
  num_rows: int,
) -> dict[str, Array]:
  """Sums for `detection_summary`: `score`, `label`, `hits`, each [R, N], `true` [K].

  Args:
    found: box_BN4, label_BN and score_BN; a score of 0 or less: there is none, one
      that is nan makes the summary nan.
    true: box_BM4, label_BM, of which one outside [0, K) makes all nan, and real_BM.
    index_B: int, the number of the image; one outside [0, R) is left out.
    weight_B: 0 of padding; all others count once.
    num_classes: K, at most 2^24.
    num_rows: R, images of the whole set.
  """
  box_BN4, label_BN, score_BN = found
  _, true_label_BM, real_BM = true
  hit_BNT = jax.vmap(matches)(box_BN4, label_BN, score_BN, *true)
  bit_T = jnp.left_shift(1, jnp.arange(len(THRESHOLDS)))
  bits_BN = jnp.where(hit_BNT, bit_T.reshape(1, 1, -1), 0).sum(2)
  counted_B = (weight_B != 0) & labels.is_index(index_B, num_rows)
  there_BN = (score_BN > 0) | jnp.isnan(score_BN)
  blank = jnp.zeros((num_rows, score_BN.shape[1]), jnp.float32)

  def place(x_BN):
    x_BN = jnp.where(counted_B[:, None] & there_BN, x_BN.astype(jnp.float32), 0)
    return blank.at[index_B].add(x_BN, mode='drop')

  real_BM = real_BM.astype(bool) & counted_B[:, None]
  known_BM = labels.is_index(true_label_BM, num_classes)
  true_K = (labels.hits(true_label_BM, num_classes) & real_BM[..., None]).sum(
    (0, 1), dtype=jnp.float32
  )
  broken = (real_BM & ~known_BM).any()
  return {
    'score': place(score_BN),
    'label': place(label_BN),
    'hits': place(bits_BN),
    'true': jnp.where(broken, jnp.nan, true_K),
  }


def precision_recall(sums: Mapping[str, Array]) -> tuple[Array, Array]:
  """Precision at 101 recalls [K, T, 101], and the recall of all that is found [K, T].

  nan of a class without a true object, and everywhere where a score or a true class is.

  Args:
    sums: of `detection_sums`; up to 2^24 true objects of a class.
  """
  score_S, label_S, bits_S = (
    # And a place without an object, so that there is one.
    jnp.append(sums[name], 0)
    for name in ('score', 'label', 'hits')
  )
  order = jnp.argsort(-score_S)  # Stable: of equal scores by the number of the image.
  label_S, bits_S = (x[order].astype(jnp.int32) for x in (label_S, bits_S))
  true_K = sums['true']
  broken = jnp.isnan(score_S).any() | jnp.isnan(true_K).any()
  part_R = jnp.arange(RECALLS, dtype=jnp.int32)
  bit_T = jnp.arange(len(THRESHOLDS))

  def of_class(at):
    k, true = at
    own_S = label_S == k  # Places without an object come last and change nothing.
    count_S = jnp.maximum(jnp.cumsum(own_S), 1).astype(jnp.float32)

    def of_bound(bit):
      hits_S = jnp.cumsum(own_S & (bits_S >> bit & 1).astype(bool))
      precision_S = hits_S.astype(jnp.float32) / count_S
      best_S = lax.cummax(precision_S, reverse=True)
      # hits / true >= r / (R - 1), in whole numbers.
      wanted_R = -(-part_R * true // (RECALLS - 1))
      place_R = jnp.searchsorted(hits_S, wanted_R)
      found_R = best_S.at[place_R].get(mode='fill', fill_value=0)
      return found_R, hits_S[-1] / jnp.maximum(true, 1)

    precision_TR, recall_T = jax.vmap(of_bound)(bit_T)
    there = (true > 0) & ~broken
    return jnp.where(there, precision_TR, jnp.nan), jnp.where(there, recall_T, jnp.nan)

  true_K = jnp.nan_to_num(true_K).astype(jnp.int32)
  # One class after the other: all at once would take K T times the memory of the sums.
  return lax.map(of_class, (jnp.arange(len(true_K)), true_K))


def detection_summary(sums: Metrics) -> Mapping[str, Any]:
  """`map`, `map_50`, `map_75`, `recall`; for figures `average_precision` [K, T] too.

  And `precision` [T, 101], the mean over the classes at recalls 0, 0.01, ..., 1. nan
  where there is no true object.

  Args:
    sums: of `detection_sums`; others (`loss`) become their means.
  """
  own = ('score', 'label', 'hits', 'true')
  precision_KTR, recall_KT = precision_recall({name: sums[name] for name in own})
  average_KT = precision_KTR.mean(2)
  of_bound = lambda bound: jnp.nanmean(average_KT[:, THRESHOLDS.index(bound)])
  return {
    **ratios({name: x for name, x in sums.items() if name not in own}),
    'map': jnp.nanmean(average_KT),
    'map_50': of_bound(0.5),
    'map_75': of_bound(0.75),
    'recall': jnp.nanmean(recall_KT),
    'average_precision': average_KT,
    'precision': jnp.nanmean(precision_KTR, 0),
  }
