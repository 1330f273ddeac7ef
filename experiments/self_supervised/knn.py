"""Nearest neighbours: classification by a vote of the most similar training images.

  python -m launch.train --exp=knn
  python -m launch.train --exp=knn --config.dataset=mnist --config.num_steps=235 \
      --config.batch_size=256 --config.bank=60000 --data_dir=DATA
  python -m launch.train --exp=knn --config.encoder=RUN

By cosine similarity of pixels, or of the pooled features of the encoder in the workdir
RUN (of moco; `features`, `strides` and `groups` as there). Votes have the weight
exp(similarity / temperature) (arXiv:1805.01978). A step puts the features of its batch
into the bank in model_state, each image in its own place: after one epoch it is full,
further steps change nothing, and no step changes the encoder.

The loss in training is the share of the batch that the bank as it stands gets wrong
without the image itself; over the epoch after the first it is the leave-one-out error.
Nothing is fitted, so there is no learning rate, and no floor for `overfit`: the bank of
one batch holds a few images of each class and no more. All measured figures stand in
experiments/README.md.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from dlx import experiment, figures, metrics
from dlx.data.batches.choose import training
from dlx.data.batches.resident import InOrder
from dlx.data.images.levels import normalise
from dlx.data.sets import images
from dlx.data.sources import indexed
from dlx.metrics.neighbours import nearest, vote
from dlx.models.conv_encoder import ConvEncoder, check_encoder
from dlx.run.warm_start import restore_encoder
from dlx.state import Mean, Metric, create
from dlx.tasks.representation import TrainTest, knn_metrics, pictures

METRICS = {
  **metrics.CLASSIFICATION,
  'loss': knn_metrics()['loss'],
  'train/loss': Metric(
    'Error of the bank',
    'lower',
    'Share of the batch that the other images of the bank, full or not, get wrong.',
    '%',
    'share',
  ),
  'filled': Metric(
    'Filled places',
    None,
    'Share of the places of the bank that hold an image.',
    '%',
    'share',
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 12  # Batches that are put into the bank; one epoch fills it.
  batch_size: int = 128  # Images of one global batch.
  log_every_steps: int = 4  # Steps between lines of training metrics.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  encoder: str | None = None  # Workdir of the run whose encoder is used; None: pixels.
  features: tuple[int, ...] = (32, 64, 128, 128)  # Channels of the encoder's layers.
  strides: tuple[int, ...] = (1, 2, 2, 1)  # Of each layer; 2,2,2,1 for 28 pixels.
  groups: int = 8  # Of the encoder's group norm; divides every number of features.
  bank: int = 1437  # Places: the first so many training images are used.
  k: int = 5  # Neighbours that vote.
  temperature: float = 0.07  # Of the votes; large: all count alike.

  def __post_init__(self):
    super().__post_init__()
    check_encoder(self)
    self.bounds('bank', least=1)
    self.require('k', 1 <= self.k <= self.bank, f'in [1, {self.bank}], up to bank')
    self.bounds('temperature', above=0)
    nothing = 'nothing is fitted'
    self.unused('micro_batches', 'clip_norm', 'clip_value', 'ema_decay', why=nothing)
    self.unused('early_stop_metric', why=nothing)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  size = min(config.bank, data.train.size or config.bank)
  train = indexed(data.train, size)
  encoder = ConvEncoder(config.features, config.strides, config.groups, **config.dtypes)

  def embed(state, image) -> Any:
    """Features of images in [0, 1]."""
    if config.encoder is None:
      return image.reshape(image.shape[0], -1)
    image = normalise(image, data.mean, data.std)
    weights = {'params': state.model_state['encoder']}
    features: Any = encoder.apply(weights, image)
    return features.pooled_BF

  def init(key):
    image, weights = jnp.zeros((1, *data.shape), jnp.float32), ()
    if config.encoder:
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
    near = nearest(
      query, bank['features'], k=config.k, valid_N=bank['filled'], itself_M=itself
    )
    return vote(
      near, bank['label'], num_classes=data.num_classes, temperature=config.temperature
    )

  def sums(votes, label, weight=None):
    found = metrics.classification_sums(votes, label, weight)
    right = found['accuracy']
    return {**found, 'loss': Mean(right.count - right.total, right.count)}

  def train_step(state, batch):
    query, index = embed(state, data.to_unit(batch['image'])), batch['index']
    found = sums(votes(state, query, index), batch['label'])
    bank = state.model_state['bank']
    put = lambda name, x: bank[name].at[index].set(x, mode='promise_in_bounds')
    bank = {
      'features': put('features', query),
      'label': put('label', batch['label']),
      'filled': put('filled', True),
    }
    filled = Mean(bank['filled'].mean(), jnp.ones(()))
    state = state._replace(
      step=state.step + 1, model_state={**state.model_state, 'bank': bank}
    )
    return state, {'loss': found['loss'], 'filled': filled}

  def predict(state, inputs):
    """Votes; all 0 while the bank is empty."""
    query = encode(state, inputs)['features']
    return {'probabilities': votes(state, query)}

  def encode(state, inputs):
    return {'features': embed(state, data.to_unit(inputs['image']))}

  def evaluate(state, batch):
    found = predict(state, {'image': batch['image']})['probabilities']
    return sums(found, batch['label'], batch['weight'])

  Field, Function = experiment.Field, experiment.Function
  image = {'image': Field('image', data.shape, 'uint8')}
  probabilities = Field('probabilities', (data.num_classes,), 'float32')
  width = config.features[-1] if config.encoder else math.prod(data.shape)
  features = Field('features', (width,), 'float32')

  def load(state):
    weights, origin = restore_encoder(config, state.model_state['encoder'])
    return state._replace(model_state={**state.model_state, 'encoder': weights}), origin

  labelled = TrainTest(data.train, data.test, num_train=min(size, 5000), num_test=2000)
  return experiment.Experiment(
    init,
    train_step,
    training(train, config),
    {
      'test': experiment.Eval(
        evaluate,
        InOrder(data.test, config.eval_batch_size),
        summarize=metrics.classification_summary,
      )
    },
    warm_start=load if config.encoder else None,
    functions={
      'predict': Function(predict, image, {'probabilities': probabilities}),
      'encode': Function(encode, image, {'features': features}),
    },
    metrics=METRICS,
    headline=('test/accuracy',),
    figures={
      'confusion': experiment.Figure(
        lambda found: figures.confusion_matrix(found['confusion'], data.class_names),
        eval='test',
      ),
      **pictures(data, labelled, pooled=embed),
    },
    overfit=None,
  )
