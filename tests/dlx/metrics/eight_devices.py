"""Run by parts_test in a process of its own with eight simulated devices.

Prints one JSON object: by "metric way" the largest difference of what is reported of
data in parts from what is reported of it in one piece, in float64.
"""

import json
from typing import Any, Callable, NamedTuple

import jax

jax.config.update('jax_enable_x64', True)

from jax.sharding import PartitionSpec as P  # noqa: E402
import numpy as np  # noqa: E402

from dlx import metrics  # noqa: E402
from dlx.metrics.translation import BleuCounts  # noqa: E402
from dlx.run import sharding  # noqa: E402
from dlx.state import add, ratios  # noqa: E402
from dlx.train import steps  # noqa: E402

ROWS, CLASSES = 22, 4


class Kind(NamedTuple):
  """One kind of metric: sums of a batch, and what is reported of all of them."""

  sums: Callable[[Any], Any]
  report: Callable[[Any], Any]


def probabilities(b):
  return jax.nn.softmax(b['logits'])


def ranked(found):
  of = found['score'], found['label'], found['weight']
  return {'auc': metrics.roc_auc(*of), 'precision': metrics.average_precision(*of)}


def boxes_in(image_BHWC):
  """[B, 5, 4]: a box a row; about a unit, so that most overlap."""
  x = image_BHWC[:, :, :4, 0]
  return x + np.array([0, 0, 1, 1]).reshape(1, 1, 4)


def five(label_B):
  return label_B[:, None] * np.ones((1, 5), int)


KINDS = {
  'classification': Kind(
    lambda b: metrics.classification_sums(b['logits'], b['label'], b['weight']),
    metrics.classification_summary,
  ),
  'top_k': Kind(
    lambda b: {'top': metrics.top_k(b['logits'], b['label'], b['weight'], k=2)}, ratios
  ),
  'calibration': Kind(
    lambda b: metrics.calibration_sums(probabilities(b), b['label'], b['weight']),
    metrics.calibration_error,
  ),
  'ranking': Kind(
    lambda b: metrics.place_scores(
      b['logits'][:, 0], b['label'] == 0, b['index'], b['weight'], ROWS
    ),
    ranked,
  ),
  'ranking_of_bins': Kind(
    lambda b: metrics.score_sums(b['logits'][:, 0], b['label'] == 0, b['weight']),
    metrics.ranking_of_bins,
  ),
  'pictures': Kind(
    lambda b: {
      name: metrics.mean(
        metric(b['image'], b['target'], **options).astype(b['image'].dtype), b['weight']
      )
      for name, metric, options in (
        ('psnr', metrics.psnr, {}),
        ('ssim', metrics.ssim, {'window': 3}),
      )
    },
    ratios,
  ),
  'segmentation': Kind(
    lambda b: metrics.segmentation_sums(
      b['image'] * b['logits'][:, None, None, :],
      (b['label'][:, None, None] + np.arange(25).reshape(1, 5, 5)) % CLASSES,
      b['weight'],
      ignore=3,
    ),
    metrics.segmentation_summary,
  ),
  'detection': Kind(
    lambda b: metrics.detection_sums(
      (boxes_in(b['image']), five(b['label']), b['target'][:, 0, :, 0]),
      (boxes_in(b['target']), five(b['label']), b['image'][:, 1, :, 0] < 0.7),
      b['index'],
      b['weight'],
      num_classes=CLASSES,
      num_rows=ROWS,
    ),
    metrics.detection_summary,
  ),
  'inception': Kind(
    lambda b: metrics.inception_sums(probabilities(b), b['weight']),
    metrics.inception_score,
  ),
  'frechet': Kind(
    lambda b: metrics.feature_moments(b['logits'], b['weight']),
    lambda found: metrics.frechet_of(found, jax.tree.map(lambda x: 2 * x, found)),
  ),
  'mmd': Kind(
    lambda b: {
      name: metrics.place_rows(b[name], b['index'], b['weight'], ROWS)
      for name in ('image', 'target')
    },
    lambda rows: metrics.mmd(
      rows['image'], rows['target'], metrics.gaussian_kernel(1.0)
    ),
  ),
  'regression': Kind(
    lambda b: metrics.regression_sums(
      b['logits'][:, 0], b['logits'][:, 1], b['weight'], shift=0.25
    ),
    metrics.regression_summary,
  ),
}


def whole():
  rng = np.random.default_rng(0)
  image, noise = rng.uniform(size=(2, ROWS, 5, 5, 1))
  return {
    'logits': rng.normal(size=(ROWS, CLASSES)),
    'label': np.arange(ROWS) % CLASSES,
    'weight': np.ones(ROWS, np.float32),
    'index': np.arange(ROWS),
    'image': image,
    'target': np.clip(image + 0.1 * noise, 0, 1),
  }


def padded(batch, size):
  """The batch with repeated rows of weight 0."""
  real = len(batch['weight'])
  rows = np.concatenate([np.arange(real), np.zeros(size - real, int)])
  found = {name: x[rows] for name, x in batch.items()}
  found['weight'] = np.where(np.arange(size) < real, found['weight'], 0)
  return found


def sums(batch):
  return {name: kind.sums(batch) for name, kind in KINDS.items()}


def micro(batch):
  parts = steps.strided(batch, 4)
  return jax.tree.map(lambda x: x.sum(0), jax.lax.map(lambda part: sums(part), parts))


def of_texts(found):
  """BLEU of one text after the other, of unequal parts, and of all."""
  texts = ['the cat sat on the mat', 'a dog', 'it is what it is , is it', 'no', 'x y z']
  other = lambda text: ' '.join(text.split()[::-1])
  real = [[t.replace('it', 'he')] + [other(t)] * (len(t) > 5) for t in texts]

  def count(rows):
    total = BleuCounts()
    for i in rows:
      own = metrics.bleu_tokens(texts[i])
      those = [metrics.bleu_tokens(reference) for reference in real[i]]
      total = total.plus(metrics.bleu_counts(own, those))
    return total

  one = metrics.corpus_bleu(texts, real)
  assert 0 < one < 1, one
  parts = count([3, 0]).plus(count([])).plus(count([1, 4, 2]))
  found['bleu unequal'] = abs(metrics.bleu(parts) - one)


def main():
  found = {'devices': jax.device_count()}
  data = whole()
  report = jax.jit(lambda s: {name: k.report(s[name]) for name, k in KINDS.items()})
  wanted = report(jax.jit(sums)(data))
  cuts = (0, 9), (9, 10), (10, 22)
  of_part = jax.jit(sums)
  parts = [of_part(padded({k: x[a:b] for k, x in data.items()}, 12)) for a, b in cuts]
  ways = {
    'unequal': add(add(parts[2], parts[0]), parts[1]),
    'micro': jax.jit(micro)(padded(data, 24)),
  }
  for text in ('data=8', 'data=2,fsdp=4'):
    mesh = sharding.make_mesh(text)
    rows = sharding.on_mesh(mesh, P(('data', 'fsdp')))
    placed = jax.tree.map(lambda x, r=rows: jax.device_put(x, r), padded(data, 24))
    ways[text] = jax.jit(
      sharding.traced_under(mesh, sums), out_shardings=sharding.replicated(mesh)
    )(placed)
  for way, total in ways.items():
    got = report(jax.device_get(total))
    for name in KINDS:
      pairs = zip(
        jax.tree.leaves(got[name]), jax.tree.leaves(wanted[name]), strict=True
      )
      off = [np.abs(np.asarray(a, np.float64) - b).max() for a, b in pairs]
      found[f'{name} {way}'] = float(np.max(off))  # nan where one is.
  of_texts(found)
  print(json.dumps(found))


if __name__ == '__main__':
  main()
