"""Nearest neighbours: classification by a vote of the most similar training images.

  python -m launch.train --exp=knn
  python -m launch.train --exp=knn --config.dataset=mnist --config.num_steps=235 \
      --config.batch_size=256 --config.bank=60000 --data_dir=DATA
  python -m launch.train --exp=knn --config.encoder.workdir=RUN

By cosine similarity of pixels, or of the pooled features of the encoder in RUN, a run
of moco. Votes have the weight exp(similarity / temperature) (arXiv:1805.01978). A step
puts the features of its batch into the bank in model_state, each image in its own
place: after one epoch it is full; no step changes the encoder.

The loss in training is the share of the batch that the bank as it stands gets wrong
without the image itself; over the epoch after the first it is the leave-one-out error.

Measured: MNIST, pixels, 97.45 % (1 seed).
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from dlx import experiment, metrics
from dlx.data.batches.choose import in_order, parts, training
from dlx.data.images.levels import normalise
from dlx.data.sets import images
from dlx.data.sources import indexed
from dlx.metrics.neighbours import nearest, vote
from dlx.models.conv_encoder import EncoderConfig
from dlx.run.warm_start import restore_encoder
from dlx.state import Mean, create
from dlx.tasks import classification
from dlx.tasks.probes import TrainTest, knn_metrics
from dlx.tasks.representation import pictures
from dlx.train import auxiliary


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder(EncoderConfig):
  workdir: str | None = None  # Workdir of the run whose encoder is used; None: pixels.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 12  # Batches that are put into the bank; an epoch fills the bank.
  batch_size: int = 128  # Images of one global batch.
  log_every_steps: int = 4  # Steps between lines of training metrics.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  encoder: Encoder = Encoder()
  bank: int = 1437  # Places of the bank: the first so many training images are used.
  k: int = 5  # Neighbours that vote.
  temperature: float = 0.07  # Temperature of the votes; large: all count alike.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('bank', least=1)
    self.require('k', 1 <= self.k <= self.bank, f'in [1, {self.bank}], up to bank')
    self.bounds('temperature', above=0)
    fitting = 'micro_batches', 'clip_norm', 'clip_value', 'ema_decay', 'curves'
    self.unused(*fitting, why='nothing is fitted')


SWEPT = ()  # Runs that differ in their seed alone share a program.
# The least run that still has every part.
SMALL = Config.small(bank=96)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  source, held = parts(data.train, config, by_class='label')
  size = min(config.bank, source.size or config.bank)
  encoder, workdir = config.encoder.module(**config.dtypes), config.encoder.workdir

  def embed(state, image) -> Any:
    """Features of images in [0, 1]."""
    if workdir is None:
      return image.reshape(image.shape[0], -1)
    image = normalise(image, data.mean, data.std)
    features: Any = encoder.apply({'params': state.model_state['encoder']}, image)
    return features.pooled_BF

  def init(key):
    image, weights = jnp.zeros((1, *data.shape), jnp.float32), ()
    if workdir:
      weights = encoder.init(jax.random.fold_in(key, 0), image)['params']
    state = create((), (), jax.random.fold_in(key, 1), model_state={'encoder': weights})
    width = jax.eval_shape(embed, state, image).shape[1]
    bank = {
      'features': jnp.zeros((size, width), jnp.float32),
      'label': jnp.zeros((size,), jnp.int32),
      'filled': jnp.zeros((size,), bool),
    }
    return state._replace(model_state={'encoder': weights, 'bank': bank})

  def votes(state, query, itself=None):
    bank = state.model_state['bank']
    rows = {'valid_N': bank['filled'], 'itself_M': itself}
    near = nearest(query, bank['features'], k=config.k, **rows)
    of = {'num_classes': data.num_classes, 'temperature': config.temperature}
    return vote(near, bank['label'], **of)

  def sums(votes, label, weight=None):
    found = metrics.classification_sums(votes, label, weight)
    right, count = found['accuracy']
    return {**found, 'loss': Mean(count - right, count)}

  put = lambda state, **x: state._replace(model_state={**state.model_state, **x})

  def train_step(state, batch):
    query, index = embed(state, data.to_unit(batch['image'])), batch['index']
    found = sums(votes(state, query, index), batch['label'])
    rows = {'features': query, 'label': batch['label'], 'filled': True}
    bank = {
      name: x.at[index].set(rows[name], mode='promise_in_bounds')
      for name, x in state.model_state['bank'].items()
    }
    filled = Mean(bank['filled'].mean(), jnp.ones(()))
    state = put(state, bank=bank)._replace(step=state.step + 1)
    return state, {'loss': found['loss'], 'filled': filled}

  def encode(state, inputs):
    return {'features': embed(state, data.to_unit(inputs['image']))}

  # Of raw images; the votes are all 0 while the bank is empty.
  predict = lambda state, inputs: votes(state, encode(state, inputs)['features'])

  def test(state, batch):
    return sums(predict(state, batch), batch['label'], batch['weight'])

  width = config.encoder.features[-1] if workdir else math.prod(data.shape)
  image = {'image': experiment.Field('image', data.shape, 'uint8', data.max_value)}
  features = {'features': experiment.Field('features', (width,), 'float32')}
  probabilities = experiment.Field(
    'probabilities', (data.num_classes,), 'float32', names=data.class_names
  )
  functions = {
    'encode': experiment.Function(encode, image, features),
    'predict': experiment.Function(
      lambda state, inputs: {'probabilities': predict(state, inputs)},
      image,
      {'probabilities': probabilities},
    ),
  }
  labelled = TrainTest(source, data.test, num_train=min(size, 5000), num_test=2000)
  tested = {'test': data.test, **({} if held is None else {'validation': held})}
  confusion = classification.confusion(data.class_names)
  restore = functools.partial(restore_encoder, encoder=config.encoder)
  weights = lambda state: state.model_state['encoder']
  restored = lambda state, found: put(state, encoder=found)
  return experiment.Experiment(
    init,
    train_step,
    training(indexed(source, size), config),
    {
      split: classification.evaluation(test, in_order(of, config.eval_batch_size))
      for split, of in tested.items()
    },
    auxiliary.warm_start(workdir, restore, weights, restored),
    functions=functions,
    metrics={
      **metrics.CLASSIFICATION,
      **metrics.BANK,
      'loss': knn_metrics()['loss']._replace(chance=1 - 1 / data.num_classes),
      'accuracy': knn_metrics()['accuracy']._replace(chance=1 / data.num_classes),
    },
    headline=('test/accuracy',),
    figures={'confusion': confusion, **pictures(data, labelled, pooled=embed)},
    overfit='nothing is fitted: features are remembered',
  )
