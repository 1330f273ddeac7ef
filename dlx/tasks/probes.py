"""Probes: what frozen features are worth, by a linear classifier and by neighbours.

ProbeConfig  flags of the two evaluations below
TrainTest    labelled training images and test images as one batch, for an Eval
probe_eval   linear probes with many and with few labels
knn_eval     nearest neighbours by their vote
evaluations  both, as a ProbeConfig says

Nothing here trains an encoder: an experiment says how its features are computed.
"""

import dataclasses
from typing import Any, Callable, Mapping

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np

from dlx import labels, metrics
from dlx.config import Group
from dlx.data.dataset import Loaded, Resident, Source
from dlx.data.sets.images import ImageData
from dlx.data.sources import num_examples, read
from dlx.errors import ConfigError, DataError
from dlx.experiment import Eval
from dlx.metrics.linear_probe import draw_labels, fit_linear, in_chunks, standardiser
from dlx.metrics.neighbours import nearest, vote
from dlx.state import Array, Batch, Mean, Metric, TrainState, ratios

# (state, images as read) -> features [B, F] by name: those called `encoder` are judged,
# the others stand beside them.
FeaturesFn = Callable[[TrainState, Array], Mapping[str, Array]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProbeConfig(Group):
  """Flags of `evaluations`, `--config.probe.NAME`."""

  labels: int = 1437  # Labelled training images of probe and knn, at most.
  test: int = 10000  # Test images of probe and knn, at most.
  every_steps: int | None = None  # Steps between probes; None: as evaluations.
  l2: float = 10.0  # Weight of half the sum of squared weights; 1 / C of scikit-learn.
  few_per_class: int = 10  # Labels a class of the small probe.
  few_draws: int = 5  # Draws of the labels of the small probe.
  neighbours: int = 20  # Neighbours that vote in knn.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('labels', 'test', 'every_steps', least=1)
    self.bounds('few_per_class', 'neighbours', least=1, most=self.labels)
    self.bounds('few_draws', least=2)  # For a deviation.
    self.bounds('l2', above=0)


class TrainTest(Resident):
  """The first images of a training and of a test split as one batch, replicated.

  A probe needs all features at once: the one batch of a pass has the fields `train_X`
  and `test_X` of each field X of the sources, and no `weight`.
  """

  def __init__(
    self,
    train: Source,
    test: Source,
    *,
    num_train: int | None = None,
    num_test: int | None = None,
  ):
    """Reads nothing.

    Args:
      train, test: sources with the same fields.
      num_train, num_test: examples, at most as many as there are; None: all.

    Raises:
      ConfigError: a number below 1, or None where the source declares no size.
    """
    self._parts = {'train': (train, num_train), 'test': (test, num_test)}
    self._sizes = {}
    shapes = {}
    for part, (source, limit) in self._parts.items():
      if limit is not None and limit < 1:
        raise ConfigError(f'num_{part}={limit} is not allowed: must be at least 1.')
      if limit is None and source.size is None:
        raise ConfigError(
          f'num_{part}=None is not allowed for {source.name}, whose size is known only '
          'once it was read: give a number.'
        )
      self._sizes[part] = n = min(x for x in (source.size, limit) if x is not None)
      for name, x in source.shapes.items():
        shapes[f'{part}_{name}'] = jax.ShapeDtypeStruct((n, *x.shape), x.dtype)
    self.shapes = (shapes,)
    self.placement = dict.fromkeys(shapes, P())
    self.size = sum(self._sizes.values())

  def array_shapes(self) -> Mapping[str, jax.ShapeDtypeStruct]:
    return self.shapes[0]

  def load(self, data_dir=None) -> Loaded:
    data, origins = {}, {}
    for part, (source, _) in self._parts.items():
      loaded, n = read(source, data_dir), self._sizes[part]
      if (found := num_examples(loaded.data)) < n:
        raise DataError(
          f'{source.name}/{source.split}: {found} examples, fewer than {n}.'
        )
      data |= {f'{part}_{name}': np.array(x[:n]) for name, x in loaded.data.items()}
      origins[part] = {**loaded.origin, 'size': n}
    return Loaded(data, {**origins['train'], 'size': self.size, 'parts': origins})

  def num_batches(self, data) -> int:
    del data
    return 1

  def get(self, arrays, step: Array) -> Mapping[str, Array]:
    del step
    return arrays


def prefix(name: str) -> str:
  """What stands before the names of figures of these features."""
  return '' if name == 'encoder' else f'{name}_'


def _accuracy(what: str, of: str) -> Metric:
  meaning = f'Share of the test images that {what} on {of} classifies rightly.'
  return Metric(f'Accuracy, {of}', 'higher', meaning, '%', 'share')


def probe_metrics(others: Mapping[str, str] = {}) -> dict[str, Metric]:
  """Declarations of what `probe_eval` reports.

  Args:
    others: by name of features beside `encoder`, what they are.
  """
  found = {
    'loss': Metric(
      'Cross-entropy of the probe',
      'lower',
      'Mean over the test images of the negative logarithm of the probability that the '
      'linear probe of the encoder gives to the true class.',
      'nats',
      'loss',
    ),
    'few_sd': Metric(
      'Deviation with few labels',
      None,
      'Standard deviation of the accuracy with few labels over the draws of labels.',
      '%',
      'deviation',
    ),
    'gradient': Metric(
      'Gradient of the probes',
      'lower',
      'Largest norm of the gradient that a solver of a probe left: how far from the '
      'optimum a probe is.',
      '',
      'norm',
    ),
  }
  for name, of in {'encoder': 'the features of the encoder', **others}.items():
    found[f'{prefix(name)}accuracy'] = _accuracy('a linear probe', of)
    few = _accuracy('a linear probe with few labels', of)
    found[f'{prefix(name)}few_accuracy'] = few._replace(title=f'Few labels, {of}')
  return found


def knn_metrics(others: Mapping[str, str] = {}) -> dict[str, Metric]:
  """Declarations of what `knn_eval` reports; see `probe_metrics`."""
  found = {
    'loss': Metric(
      'Error of the vote',
      'lower',
      'Share of the test images that the vote of the nearest neighbours gets wrong.',
      '%',
      'share',
    )
  }
  for name, of in {'encoder': 'the features of the encoder', **others}.items():
    vote_of = 'the vote of the nearest neighbours'
    found[f'{prefix(name)}accuracy'] = _accuracy(vote_of, of)
  return found


def both_parts(
  features: FeaturesFn, state: TrainState, batch: Batch, chunk: int
) -> tuple[dict[str, Array], dict[str, Array]]:
  """Features of the training and of the test images of a `TrainTest` batch.

  Of both in one call, so that the encoder is compiled once.
  """
  parts = batch['train_image'], batch['test_image']
  compute = lambda image: dict(features(state, image))
  found = in_chunks(compute, jnp.concatenate(parts), chunk)
  n = parts[0].shape[0]
  return {k: x[:n] for k, x in found.items()}, {k: x[n:] for k, x in found.items()}


def probe_eval(
  features: FeaturesFn,
  data: TrainTest,
  *,
  num_classes: int,
  per_class: int = 10,
  draws: int = 5,
  l2: float = 10.0,
  chunk: int = 500,
  every: int | None = None,
) -> Eval:
  """Linear probes of frozen features: with all labels of `data`, and with few.

  Reports, for the features `encoder`: `accuracy` and `loss` (nats) with all labels and
  `few_accuracy` with `per_class` labels a class, the mean over `draws` draws, which are
  the same in every pass and run; `few_sd` is the deviation over them. For each other
  entry NAME: `NAME_accuracy`, `NAME_few_accuracy`. `gradient` is the largest that a
  solver left. Features are standardised by all training images, labelled or not.

  Args:
    features: applied to chunks; see FeaturesFn.
    data: fields `image` and `label`.
    num_classes: K.
    per_class: labels a class of the small probe.
    draws: of those.
    l2: see `fit_linear`; the same for both probes.
    chunk: images whose features are computed at a time.
    every: see `Eval`.
  """

  def one(name: str, train_NF: Array, test_MF: Array, batch: Batch) -> dict[str, Any]:
    scaled = standardiser(train_NF)
    train_NF, test_MF = scaled(train_NF), scaled(test_MF)
    label_N, label_M = batch['train_label'], batch['test_label']
    linear = fit_linear(train_NF, label_N, num_classes=num_classes, l2=l2)
    logits_MK = linear(test_MF)
    log_probs_MK = jax.nn.log_softmax(logits_MK)
    hit_MK = labels.hits(label_M, num_classes)
    known_M = labels.is_index(label_M, num_classes)
    picked_M = jnp.where(known_M, jnp.where(hit_MK, log_probs_MK, 0).sum(1), jnp.nan)

    def few(i):
      key = jax.random.fold_in(jax.random.key(0), i)
      rows, weight = draw_labels(
        key, label_N, per_class=per_class, num_classes=num_classes
      )
      fitted = fit_linear(
        train_NF[rows], label_N[rows], weight, num_classes=num_classes, l2=l2
      )
      right = metrics.accuracy(fitted(test_MF), label_M)
      return right.total / right.count, fitted.gradient

    # One after the other: a vmapped solver would go on until the last is done.
    few_D, gradient_D = jax.lax.map(few, jnp.arange(draws, dtype=jnp.int32))
    return {
      f'{name}loss': metrics.mean(-picked_M),
      f'{name}accuracy': metrics.accuracy(logits_MK, label_M),
      f'{name}few': few_D,
      f'{name}gradient': jnp.maximum(gradient_D.max(), linear.gradient),
    }

  def step(state: TrainState, batch: Batch) -> dict[str, Any]:
    train, test = both_parts(features, state, batch, chunk)
    found = {}
    for name in train:
      found |= one(prefix(name), train[name], test[name], batch)
    return found

  def summarize(found):
    gradients = [found[k] for k in found if k.endswith('gradient')]
    report = {
      'gradient': jnp.stack(gradients).max(),
      'few_sd': found['few'].std(ddof=1),
    }
    for name, value in found.items():
      if name.endswith('few'):
        report[f'{name}_accuracy'] = value.mean()
      elif name == 'loss' or name.endswith('accuracy'):
        report[name] = value.total / value.count
    return report

  return Eval(step, data, every, summarize)


def knn_eval(
  features: FeaturesFn,
  data: TrainTest,
  *,
  num_classes: int,
  k: int = 20,
  temperature: float = 0.07,
  chunk: int = 500,
  every: int | None = None,
  euclidean: bool = False,
) -> Eval:
  """Accuracy of the nearest neighbours' vote; the training images are the bank.

  Reports `accuracy`, and `loss`, the share of wrong answers, for the features
  `encoder`, and `NAME_accuracy` for the others. See `probe_eval`; `euclidean` as in
  `nearest`.
  """

  def step(state: TrainState, batch: Batch) -> dict[str, Mean]:
    bank, query = both_parts(features, state, batch, chunk)
    found = {}
    for name in bank:
      near = nearest(query[name], bank[name], k=k, euclidean=euclidean)
      votes = vote(
        near, batch['train_label'], num_classes=num_classes, temperature=temperature
      )
      right = metrics.accuracy(votes, batch['test_label'])
      found[f'{prefix(name)}accuracy'] = right
      if name == 'encoder':
        found['loss'] = Mean(right.count - right.total, right.count)
    return found

  return Eval(step, data, every, ratios)


def evaluations(
  features: FeaturesFn, data: ImageData, config: ProbeConfig
) -> tuple[dict[str, Eval], TrainTest]:
  """`probe` and `knn` of a run that learns features; and the images that they see."""
  labelled = TrainTest(
    data.train, data.test, num_train=config.labels, num_test=config.test
  )
  shared = {'num_classes': data.num_classes, 'every': config.every_steps}
  probe = probe_eval(
    features,
    labelled,
    per_class=config.few_per_class,
    draws=config.few_draws,
    l2=config.l2,
    **shared,
  )
  knn = knn_eval(features, labelled, k=config.neighbours, **shared)
  return {'probe': probe, 'knn': knn}, labelled


def probed(others: Mapping[str, str] = {}) -> dict[str, Metric]:
  """Declarations of what `evaluations` report; see `probe_metrics`."""
  votes = {f'knn/{name}': metric for name, metric in knn_metrics(others).items()}
  return {**probe_metrics(others), **votes}
