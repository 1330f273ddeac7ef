"""MoCo: contrastive learning with a momentum encoder and a queue (arXiv:1911.05722).

  python -m launch.train --exp=moco
  python -m launch.train --exp=moco --config.dataset=mnist --config.num_steps=1500 \
      --config.batch_size=256 --config.queue=4096 --config.strides=2,2,2,1 \
      --config.probe_labels=5000 --data_dir=DATA
  python -m launch.train --exp=moco --config.dataset=cifar10 --config.num_steps=3000 \
      --config.batch_size=256 --config.queue=4096 --config.strides=2,2,2,1 \
      --config.probe_labels=5000 --data_dir=DATA

No label is read in training. An encoder learns to find, among the keys of a queue, the
one of another view of the same image; a slow average of it makes the keys. Views of
images in grey levels are those of drawings (warped, a square erased), of images in
colour those of photographs (crop, mirror, jitter, grey): dlx/data/images/views.py.

`probe` is a linear probe of the frozen pooled features: with `probe_labels` labels
(`accuracy`) and with `few_per_class` labels a class (`few_accuracy`). Beside it stand
the same encoder with its first random weights (`random`), that one before pooling
(`random_map`) and `pixels`. `knn` is the vote of the nearest of the labelled images.

Without a floor for `overfit`: of one repeated batch the queue holds many copies of each
key, so that no query can tell its own from the negatives. All measured figures stand in
experiments/README.md.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from dlx import experiment, metrics, optim
from dlx.data.batches.choose import training
from dlx.data.images.levels import normalise
from dlx.data.images.views import two_views, view_of
from dlx.data.sets import images
from dlx.data.sources import unlabelled
from dlx.losses import contrastive
from dlx.models.conv_encoder import (
  ConvEncoder,
  ProjectedEncoder,
  ProjectionHead,
  check_encoder,
)
from dlx.precision import unit
from dlx.state import Metric, create, streams
from dlx.tasks.representation import (
  TrainTest,
  knn_eval,
  knn_metrics,
  pictures,
  probe_eval,
  probe_metrics,
)
from dlx.train import steps
from dlx.train.queue import init_queue, momentum_update, push

OTHERS = {
  'random': 'the features of a random encoder',
  'random_map': 'the map of a random encoder before pooling',
  'pixels': 'the pixels',
}
METRICS = {
  **probe_metrics(OTHERS),
  **{f'knn/{name}': metric for name, metric in knn_metrics(OTHERS).items()},
  'train/loss': Metric(
    'Contrastive loss',
    'lower',
    'Mean over the queries of the negative logarithm of the probability of the key of '
    'the same image among the keys of the queue.',
    'nats',
    'loss',
  ),
  'top1': Metric(
    'Keys found',
    'higher',
    'Share of the queries to which the key of the same image is the most similar.',
    '%',
    'share',
  ),
  'positive': Metric(
    'Similarity of views',
    None,
    'Mean cosine similarity of a query and the key of the same image.',
    '',
    'similarity',
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 400  # Optimiser steps of the whole run.
  batch_size: int = 128  # Images of one global batch; each gives a query and a key.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  features: tuple[int, ...] = (32, 64, 128, 128)  # Channels of each layer.
  strides: tuple[int, ...] = (1, 2, 2, 1)  # Of each layer; 2,2,2,1 for 28 pixels.
  groups: int = 8  # Of the encoder's group norm; divides every number of features.
  hidden: int = 128  # Width of the hidden layer of the projection head.
  projection: int = 64  # Length of the vectors that are compared.
  queue: int = 512  # Keys that are kept as negatives.
  momentum: float = 0.99  # Of the average of weights that makes the keys.
  temperature: float = 0.1  # Similarities are divided by it.
  lr: float = 2e-3  # Peak of the cosine learning rate of Adam.
  warmup_steps: int = 100  # Steps in which the learning rate rises; at most all.
  probe_labels: int = 1437  # Labelled training images of probe and knn, at most.
  probe_test: int = 10000  # Test images of probe and knn, at most.
  probe_every_steps: int | None = None  # Steps between probes; None: as evaluations.
  probe_l2: float = 10.0  # Of the squared weights, times a half; 1 / C of scikit-learn.
  few_per_class: int = 10  # Labels a class of the small probe.
  few_draws: int = 5  # Draws of those labels.
  neighbours: int = 20  # Neighbours that vote in knn.

  def __post_init__(self):
    super().__post_init__()
    check_encoder(self)
    self.bounds('hidden', 'projection', 'queue', least=1)
    self.bounds('probe_labels', 'probe_test', 'probe_every_steps', least=1)
    self.bounds('few_per_class', 'neighbours', least=1, most=self.probe_labels)
    self.bounds('few_draws', least=2)  # For a deviation.
    self.bounds('temperature', 'lr', 'probe_l2', above=0)
    self.bounds('warmup_steps', least=0)
    self.bounds('momentum', least=0, below=1)
    self.unused('ema_decay', why='set momentum instead')
    self.choice('compute_dtype', of=experiment.UNSCALED_DTYPES)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  model = ProjectedEncoder(
    ConvEncoder(config.features, config.strides, config.groups, **config.dtypes),
    ProjectionHead(config.hidden, config.projection, **config.dtypes),
  )
  view = view_of(data.shape)
  # Without a warm-up the encoder moves faster than the queue: keys are told from old
  # ones by their age alone (top1 0.99, positive 0.15), and probes end below random.
  warmup_steps = min(config.warmup_steps, config.num_steps)
  schedule = optim.warmup_cosine(config.lr, config.num_steps, warmup_steps)
  tx = optim.clip(optim.adam(schedule), **config.clipping)

  def project(params, image):
    image = normalise(image, data.mean, data.std)
    return unit(jnp.asarray(model.apply({'params': params}, image)))

  def encode(params, image) -> Any:
    image = normalise(image, data.mean, data.std)
    return model.apply({'params': params}, image, method='features')

  def first_params(rng):
    # From the key of the state, so that a probe can draw the random encoder again.
    image = jnp.zeros((1, *data.shape), jnp.float32)
    (key,) = streams(rng, 'encoder')
    return model.init(key, image)['params']

  def init(key):
    rng = jax.random.fold_in(key, 1)
    params = first_params(rng)
    model_state = {
      'key_encoder': jax.tree.map(jnp.copy, params),
      'queue': init_queue(jax.random.fold_in(key, 0), config.queue, config.projection),
    }
    return create(params, tx.init(params), rng, model_state=model_state)

  def train_step(state, batch):
    rng = jax.random.fold_in(state.rng, state.step)
    first, second = two_views(view, rng, data.to_unit(batch['image']))
    slow = momentum_update(
      state.model_state['key_encoder'], state.params, config.momentum
    )
    key_BD, queue = project(slow, second), state.model_state['queue']

    def loss_fn(params, model_state, batch, rng):
      del rng
      query_BD = project(params, batch['view'])
      found = contrastive.info_nce(
        query_BD, batch['key'], queue.keys_ND, config.temperature
      )
      sums = {
        'top1': metrics.mean(found.hit_B),
        'positive': metrics.mean(found.positive_B),
      }
      return metrics.mean(found.loss_B), (model_state, sums)

    grads, _, sums = steps.gradients(
      loss_fn,
      state.params,
      (),
      {'view': first, 'key': key_BD},
      rng,
      micro_batches=config.micro_batches,
    )
    model_state = {'key_encoder': slow, 'queue': push(queue, key_BD)}
    return steps.apply(tx, state, grads, model_state=model_state), sums

  def pooled(state, inputs):
    image = data.to_unit(inputs['image'])
    return {'features': encode(state.params, image).pooled_BF}

  def features(state, image):
    found = pooled(state, {'image': image})['features']
    image = data.to_unit(image)
    flat = lambda x: x.reshape(x.shape[0], -1)
    random = encode(first_params(state.rng), image)
    return {
      'encoder': found,
      'random': random.pooled_BF,
      'random_map': flat(random.map_BHWF),
      'pixels': flat(image),
    }

  labelled = TrainTest(
    data.train, data.test, num_train=config.probe_labels, num_test=config.probe_test
  )
  every = config.probe_every_steps
  probe = probe_eval(
    features,
    labelled,
    num_classes=data.num_classes,
    per_class=config.few_per_class,
    draws=config.few_draws,
    l2=config.probe_l2,
    every=every,
  )
  knn = knn_eval(
    features, labelled, num_classes=data.num_classes, k=config.neighbours, every=every
  )
  return experiment.Experiment(
    init,
    train_step,
    training(unlabelled(data.train), config),
    {'probe': probe, 'knn': knn},
    functions={
      'encode': experiment.Function(
        pooled,
        {'image': experiment.Field('image', data.shape, 'uint8')},
        {'features': experiment.Field('features', (config.features[-1],), 'float32')},
      )
    },
    metrics=METRICS,
    headline=('probe/accuracy', 'probe/few_accuracy', 'knn/accuracy'),
    figures=pictures(
      data,
      labelled,
      pooled=lambda state, image: encode(state.params, image).pooled_BF,
      project=lambda state, image: project(state.params, image),
      view=view,
    ),
    overfit=None,
  )
