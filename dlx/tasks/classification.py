"""What every classifier of labelled images shares: data, metrics and figures.

An experiment gives the data set, the model, the loss and the optimiser.
"""

from typing import Callable, Mapping

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec as P
import optax

from dlx import figures as draw
from dlx import metrics
from dlx.data.batches.choose import training
from dlx.data.batches.resident import InOrder
from dlx.data.images.levels import normalise
from dlx.data.sets.images import ImageData
from dlx.experiment import Config, Experiment, Field, Figure, Function
from dlx.state import Array, Batch, Key, Metric, TrainState
from dlx.train.supervised import make_predict, supervised


def normalised(data: ImageData) -> Callable[[Batch], Batch]:
  """batch -> batch with `image` of mean 0 and deviation 1 over the training set."""

  def prepare(batch: Batch) -> Batch:
    image = data.to_unit(batch['image'])
    return {**batch, 'image': normalise(image, data.mean, data.std)}

  return prepare


def class_probabilities(
  logits: Callable[[TrainState, Batch], Array],
  inputs: Mapping[str, Field],
  num_classes: int,
) -> Function:
  """The function `predict` of a classifier: `probabilities` of each class.

  Args:
    logits: (state, raw inputs by name) -> [B, K], with the averaged parameters where
      they are kept.
    inputs: of one example.
    num_classes: K.
  """

  def call(state: TrainState, inputs: Batch) -> dict[str, Array]:
    return {'probabilities': jax.nn.softmax(logits(state, inputs))}

  outputs = {'probabilities': Field('probabilities', (num_classes,), 'float32')}
  return Function(call, inputs, outputs)


def image_classifier(
  config: Config,
  data: ImageData,
  *,
  model: nn.Module,
  loss: Callable[[Array, Batch], Array],
  tx: optax.GradientTransformation,
  augment: Callable[[Key, Batch], Batch] | None = None,
  functions: Mapping[str, Function] | None = None,
  figures: Mapping[str, Figure] | None = None,
  declared: Mapping[str, Metric] | None = None,
  overfit: tuple[str, float] | None = ('loss', 0.05),
  placement: tuple[tuple[str, P], ...] = (),
) -> Experiment:
  """A classifier with accuracy, precision, recall, F1, confusion and sample figures.

  Args:
    config: see `supervised`; `stream` and `stream_workers` choose how data is read.
    data: `image` is scaled to [0, 1] and then to mean 0 and deviation 1 of the
      training set, channel by channel.
    model: `model(image_BHWC, train=...)` -> logits [B, K].
    loss: (logits, batch) -> loss of each example [B].
    tx: the optimiser.
    augment: (key, batch of normalised images) -> batch, in training.
    functions: besides `predict`, from images as read to probabilities.
    figures: besides `confusion` and `predictions`.
    declared: besides the loss and CLASSIFICATION.
    overfit: floor for the generic test.
    placement: rules for leaves of the state, see `Experiment`.
  """
  prepare = normalised(data)
  predict = class_probabilities(
    make_predict(config, model, prepare=prepare),
    {'image': Field('image', data.shape, 'uint8')},
    data.num_classes,
  )
  test_data = InOrder(data.test, config.eval_batch_size)

  def predictions(state, key, batch):
    del key
    image = batch['image']
    probs = predict.call(state, {'image': image})['probabilities']
    return {'image': image, 'label': batch['label'], 'probs': probs}

  return supervised(
    config,
    model=model,
    loss=loss,
    tx=tx,
    prepare=prepare,
    augment=augment,
    train_data=training(data.train, config),
    eval_data={'test': test_data},
    metrics=lambda logits, batch, weight: metrics.classification_sums(
      logits, batch['label'], weight
    ),
    train_metrics=lambda logits, batch, weight: {
      'accuracy': metrics.accuracy(logits, batch['label'], weight)
    },
    summarize=metrics.classification_summary,
    declared={
      'loss': metrics.CROSS_ENTROPY,
      **metrics.CLASSIFICATION,
      **(declared or {}),
    },
    headline=('test/accuracy', 'test/loss'),
    functions={'predict': predict, **(functions or {})},
    figures={
      'confusion': Figure(
        lambda found: draw.confusion_matrix(found['confusion'], data.class_names),
        eval='test',
      ),
      'predictions': Figure(
        lambda tree: draw.predictions(
          data.to_unit(tree['image']), tree['label'], tree['probs'], data.class_names
        ),
        compute=predictions,
        data=test_data,
      ),
      **(figures or {}),
    },
    overfit=overfit,
    placement=placement,
  )
