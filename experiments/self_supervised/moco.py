"""MoCo: contrastive learning with a momentum encoder and a queue (arXiv:1911.05722).

  python -m launch.train --exp=moco
  python -m launch.train --exp=moco --config.dataset=mnist --config.num_steps=1500 \
      --config.batch_size=256 --config.queue=4096 --config.probe.labels=5000 \
      --config.encoder.strides=2,2,2,1 --data_dir=DATA

CIFAR-10: the second command with `cifar10` and 3000 steps. Training reads no label: an
encoder learns to find, among the keys of a queue, the one of another view of the same
image; a slow average of it makes the keys. Views of grey images are those of
drawings, of colour images those of photographs: dlx/data/images/views.py.

`probe` is a linear probe of the frozen pooled features: with all labels (`accuracy`)
and with `probe.few_per_class` labels a class (`few_accuracy`). Beside it stand the same
encoder with its first random weights (`random`), that one before pooling (`random_map`)
and `pixels`. `knn` is the vote of the nearest of the labelled images.

Measured: MNIST, 10 labels a class, 90.68 % (sd 0.32, 3 seeds), 150 s.
"""

import dataclasses
import functools
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
from dlx.models.conv_encoder import EncoderConfig, ProjectedEncoder, ProjectionHead
from dlx.precision import unit
from dlx.state import create, stream
from dlx.tasks import probes, representation
from dlx.tasks.probes import ProbeConfig, evaluations
from dlx.tasks.representation import pictures
from dlx.train import curves, steps
from dlx.train.queue import init_queue, momentum_update, push

OTHERS = {
  'random': 'the features of a random encoder',
  'random_map': 'the map of a random encoder before pooling',
  'pixels': 'the pixels',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 400  # Optimiser steps of the whole run.
  batch_size: int = 128  # Images of one global batch; each gives a query and a key.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  encoder: EncoderConfig = EncoderConfig()
  hidden: int = 128  # Width of the hidden layer of the projection head.
  projection: int = 64  # Length of the vectors that are compared.
  queue: int = 512  # Keys that are kept as negatives.
  momentum: float = 0.99  # Decay of the averaged weights that make the keys.
  temperature: float = 0.1  # Divisor of the similarities in the loss.
  lr: float = 2e-3  # Peak of the cosine learning rate of Adam.
  warmup_steps: int = 100  # Steps in which the learning rate rises; at most all.
  probe: ProbeConfig = ProbeConfig()

  def __post_init__(self):
    super().__post_init__()
    self.bounds('hidden', 'projection', 'queue', least=1)
    self.bounds('temperature', 'lr', above=0)
    self.bounds('warmup_steps', least=0)
    self.bounds('momentum', least=0, below=1)
    self.unused('ema_decay', why='set momentum instead')
    self.choice('compute_dtype', of=experiment.UNSCALED_DTYPES)


# The least run that still has every part.
SMALL = Config.small(
  encoder=EncoderConfig(features=(8, 8), strides=(2, 2), groups=4),
  hidden=16,
  projection=8,
  queue=32,
  warmup_steps=2,
  probe=ProbeConfig(labels=200, test=64),
)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  head = ProjectionHead(config.hidden, config.projection, **config.dtypes)
  model = ProjectedEncoder(config.encoder.module(**config.dtypes), head)
  view = view_of(data.shape)
  # Without a warm-up the encoder moves faster than the queue: keys are told from old
  # ones by their age alone (top1 0.99, positive 0.15), and probes end below random.
  warmup = min(config.warmup_steps, config.num_steps)
  schedule = optim.warmup_cosine(config.lr, config.num_steps, warmup)
  tx = optim.clip(optim.adam(schedule), **config.clipping)
  gradients = functools.partial(steps.gradients, micro_batches=config.micro_batches)

  def encode(params, image, method='features') -> Any:
    image = normalise(image, data.mean, data.std)
    return model.apply({'params': params}, image, method=method)

  def project(params, image):
    return unit(encode(params, image, '__call__'))

  def first_params(rng):  # A probe draws the random encoder again: by the state's key.
    key = stream(rng, 'encoder')
    return model.init(key, jnp.zeros((1, *data.shape), jnp.float32))['params']

  def init(key):
    rng = jax.random.fold_in(key, 1)
    params = first_params(rng)
    queue = init_queue(jax.random.fold_in(key, 0), config.queue, config.projection)
    model_state = {'key_encoder': steps.wide_copy(params), 'queue': queue}
    return create(params, tx.init(params), rng, model_state=model_state)

  def train_step(state, batch):
    rng = jax.random.fold_in(state.rng, state.step)
    first, second = two_views(view, rng, data.to_unit(batch['image']))
    queue, slow = state.model_state['queue'], state.model_state['key_encoder']
    slow = momentum_update(slow, state.params, config.momentum)
    rows = {'view': first, 'key': project(slow, second)}

    def loss_fn(params, model_state, batch, rng):
      del rng
      pair = project(params, batch['view']), batch['key']
      found = contrastive.info_nce(*pair, queue.keys_ND, config.temperature)
      seen = {'top1': found.hit_B, 'positive': found.positive_B}
      sums = {name: metrics.mean(x_B) for name, x_B in seen.items()}
      return metrics.mean(found.loss_B), (model_state, sums)

    grads, _, sums = gradients(loss_fn, state.params, (), rows, rng)
    model_state = {'key_encoder': slow, 'queue': push(queue, rows['key'])}
    new = steps.apply(tx, state, grads, model_state=model_state)
    return new, {**sums, **curves.of(config, tx, state, new, grads)}

  def pooled(state, image):
    return encode(state.params, image).pooled_BF

  def features(state, image):
    image = data.to_unit(image)
    flat = lambda x: x.reshape(x.shape[0], -1)
    random = encode(first_params(state.rng), image)
    beside = {'random': random.pooled_BF, 'random_map': flat(random.map_BHWF)}
    return {'encoder': pooled(state, image), **beside, 'pixels': flat(image)}

  evals, labelled = evaluations(features, data, config.probe)
  compared = lambda state, image: project(state.params, image)
  return experiment.Experiment(
    init,
    train_step,
    training(unlabelled(data.train), config),
    evals,
    functions={'encode': representation.encoding(data, pooled, config.encoder)},
    metrics={**probes.probed(OTHERS), **contrastive.among(config.queue)},
    headline=('probe/accuracy', 'probe/few_accuracy', 'knn/accuracy'),
    figures=pictures(data, labelled, pooled=pooled, project=compared, view=view),
    overfit='of one repeated batch the queue holds copies of every key',
  )
