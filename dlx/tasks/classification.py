"""What every classifier of labelled images shares: data, metrics and figures.

AuxiliaryCnn            flags of a CNN that judges or teaches
image_classifier        a whole Experiment: one model, loss and optimiser
loss_of                 cross-entropy of a model with running statistics, a `LossFn`
sums, evaluation        what a test pass of a classifier reports
confusion, predictions  pictures of it
"""

import dataclasses
import math
from typing import Any, Callable, Mapping, Sequence

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec as P
import optax

from dlx import figures as draw
from dlx import losses, metrics, optim
from dlx.data.batches.choose import splits
from dlx.data.dataset import Dataset
from dlx.data.images.levels import normalise
from dlx.data.sets.images import ImageData
from dlx.experiment import (
  LEARNT,
  Config,
  Eval,
  Experiment,
  Field,
  Figure,
  Function,
  Overfit,
)
from dlx.metrics import accuracy, classification_summary, classification_sums
from dlx.models.cnn import CNN
from dlx.state import Array, Batch, Key, Metric, Metrics, PyTree, TrainState
from dlx.train import auxiliary, steps
from dlx.train.averaging import Averaging
from dlx.train.objective import Terms, joined
from dlx.train.plateau import Plateau
from dlx.train.supervised import LOSS, make_predict, supervised


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuxiliaryCnn(auxiliary.Config):
  """A CNN that another run or the first steps train, frozen afterwards."""

  workdir: str | None = None  # Workdir of a run of cnn, for this net; None: own steps.
  num_steps: int = 300  # First steps of the run that train this net without a workdir.
  features: tuple[int, ...] = (32, 64)  # Channels of this net's blocks.
  dense: int = 128  # Width of this net's hidden layer.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('features', least=1, some=True)
    self.bounds('dense', least=1)

  def model(self, num_classes: int, **dtypes: Any) -> CNN:
    """The net; `dtypes` as `Config.dtypes`."""
    return CNN(
      channels=self.features, dense=self.dense, num_outputs=num_classes, **dtypes
    )


# What every classifier reports; what a student of distillation reports besides.
CLASSIFIER: Mapping[str, Metric] = {
  'loss': metrics.CROSS_ENTROPY,
  **metrics.CLASSIFICATION,
}
TRAINED = LOSS._replace(unit='nats')
DISTILLATION: Mapping[str, Metric] = {
  'train/loss': Metric(
    'Loss',
    'lower',
    'Cross-entropy while the teacher learns, then the weighted sum of soft and hard '
    'targets.',
    'nats',
    'loss',
  ),
  'teacher_accuracy': Metric(
    'Accuracy of the teacher',
    'higher',
    'Share of the examples whose likeliest class is the true one for the teacher.',
    '%',
    'share',
  ),
  'agreement': Metric(
    'Agreement',
    'higher',
    'Share of the examples for which student and teacher choose one class.',
    '%',
    'share',
  ),
}


def normalised(
  data: ImageData, fit: Callable[[Array], Array] = lambda image: image
) -> Callable[[Batch], Batch]:
  """batch -> batch with `image` of mean 0 and deviation 1 over the training set.

  Args:
    data: the set.
    fit: of the images after that: to another size.
  """

  def prepare(batch: Batch) -> Batch:
    image = data.to_unit(batch['image'])
    return {**batch, 'image': fit(normalise(image, data.mean, data.std))}

  return prepare


def class_probabilities(
  logits: Callable[[TrainState, Batch], Array],
  inputs: Mapping[str, Field],
  class_names: Sequence[str],
) -> Function:
  """The function `predict` of a classifier: `probabilities` of each class.

  Args:
    logits: (state, raw inputs by name) -> [B, K], with the averaged parameters where
      they are kept.
    inputs: of one example.
    class_names: K names.
  """

  def call(state: TrainState, inputs: Batch) -> dict[str, Array]:
    return {'probabilities': jax.nn.softmax(logits(state, inputs))}

  field = Field(
    'probabilities', (len(class_names),), 'float32', names=tuple(class_names)
  )
  return Function(call, inputs, {'probabilities': field})


def loss_of(model: nn.Module, *, train: bool = True) -> steps.LossFn:
  """(params, batch_stats, prepared batch, rng) -> mean cross-entropy, and `accuracy`.

  Args:
    model: `model(image_BHWC, train=...)` -> logits [B, K], with running statistics.
    train: drop units and use and update statistics of the batch; False: the running
      statistics stay as they are.
  """

  def loss_fn(params, batch_stats, batch, rng):
    logits, new = model.apply(
      {'params': params, 'batch_stats': batch_stats},
      batch['image'],
      train=train,
      rngs={'dropout': rng},
      mutable=['batch_stats'],
    )
    loss = metrics.mean(losses.softmax_cross_entropy(logits, batch['label']))
    found = {'accuracy': accuracy(logits, batch['label'])}
    return loss, (new.get('batch_stats', batch_stats), found)

  return loss_fn


def sums(logits_BK: Array, label_B: Array, weight_B: Array) -> Metrics:
  """Of one batch of a test pass: `loss`, and `metrics.classification_sums`."""
  loss_B = losses.softmax_cross_entropy(logits_BK, label_B)
  return {
    'loss': metrics.mean(loss_B, weight_B),
    **classification_sums(logits_BK, label_B, weight_B),
  }


def evaluation(step: Callable[[TrainState, Batch], Metrics], data: Dataset) -> Eval:
  """A test pass over `data` whose `step` gives `sums`, and more where it likes."""
  return Eval(step, data, summarize=classification_summary)


def confusion(class_names: Sequence[str], eval: str = 'test') -> Figure:
  """The confusion matrix of an evaluation."""
  return Figure(
    lambda found: draw.confusion_matrix(found['confusion'], class_names), eval=eval
  )


def predictions(
  data: ImageData, predict: Function, test_data: Dataset, **titled: Any
) -> Figure:
  """Images of the first test batch, with what is predicted of them.

  Args:
    predict: from `image` to `probabilities`, see `class_probabilities`.
    titled: `title`, where they are not those of the net that is trained.
  """

  def compute(state, key, batch):
    del key
    probs = predict.call(state, {'image': batch['image']})['probabilities']
    return {'image': batch['image'], 'label': batch['label'], 'probs': probs}

  def show(tree):
    image = data.to_unit(tree['image'])
    probs, names = tree['probs'], data.class_names
    return draw.predictions(image, tree['label'], probs, names, **titled)

  return Figure(show, compute, test_data)


def of_classes(num_classes: int) -> dict[str, Metric]:
  """CLASSIFIER, with what guessing each of so many classes alike would give."""
  return {
    **CLASSIFIER,
    'loss': CLASSIFIER['loss']._replace(chance=math.log(num_classes)),
    'accuracy': CLASSIFIER['accuracy']._replace(chance=1 / num_classes),
  }


def guessed(num_classes: int, split: str = 'test') -> dict[str, Metric]:
  """Loss and accuracy of a split as in `of_classes`, where training is of more."""
  found = of_classes(num_classes)
  return {f'{split}/{name}': found[name] for name in ('loss', 'accuracy')}


def image_classifier(
  config: Config,
  data: ImageData,
  *,
  model: nn.Module,
  loss: Callable[[Any, Batch], Terms],
  tx: optax.GradientTransformation,
  logits: Callable[[Any], Array] = lambda outputs: outputs,
  metrics: Callable[[Any, Batch, Array], Metrics] | None = None,
  train_metrics: Callable[[Any, Batch, Array], Metrics] | None = None,
  eval_loss: Callable[[Any, Batch], Terms] | None = None,
  fit: Callable[[Array], Array] = lambda image: image,
  augment: Callable[[Key, Batch], Batch] | None = None,
  penalty: Callable[[PyTree, Mapping[str, PyTree]], Terms] | None = None,
  rngs: tuple[str, ...] = (),
  frozen: optim.Mask | None = None,
  plateau: Plateau | None = None,
  radius: float | None = None,
  averaging: Averaging | None = None,
  train_data: Dataset | None = None,
  eval_data: Mapping[str, Dataset] | None = None,
  functions: Mapping[str, Function] | None = None,
  figures: Mapping[str, Figure] | None = None,
  declared: Mapping[str, Metric] | None = None,
  overfit: Overfit | str | None = LEARNT,
  placement: tuple[tuple[str, P], ...] = (),
) -> Experiment:
  """A classifier with accuracy, precision, recall, F1, confusion and sample figures.

  Args:
    config: see `supervised`; `stream` and `stream_workers` choose how data is read,
      `validation` the share of every class that is held out as a split of that name.
    data: `image` is scaled to [0, 1] and then to mean 0 and deviation 1 of the
      training set, channel by channel.
    model: `model(image_BHWC, train=...)` -> logits [B, K], or any tree.
    loss: (outputs, batch) -> losses in training, see `supervised`.
    tx: the optimiser.
    logits: from the outputs of the model to the logits [B, K] of `label`.
    metrics: (outputs, batch, weight [B]) -> sums of evaluations besides the usual ones.
    train_metrics: the same for training, besides `accuracy`; None: `metrics`.
    eval_loss: (outputs, batch) -> losses that evaluations report; None: the
      cross-entropy of the logits, whatever the training smooths or adds.
    fit: of the normalised images [B, H, W, C], in training and evaluation: what brings
      them to the size that the model reads.
    augment: (key, batch of images after `fit`) -> batch, in training.
    penalty, rngs, frozen, plateau, radius, averaging: see `supervised`.
    train_data: an own stream of `image` and `label` in place of `data.train`.
    eval_data: own splits by name, of which the first is shown in figures.
    functions: besides `predict`, from images as read to probabilities.
    figures: besides `confusion` and `predictions`.
    declared: besides the loss and CLASSIFICATION.
    overfit: see `Experiment`.
    placement: rules for leaves of the state, see `Experiment`.
  """
  prepare = normalised(data, fit)
  outputs = make_predict(config, model, prepare=prepare)
  predict = class_probabilities(
    lambda state, inputs: logits(outputs(state, inputs)),
    {'image': Field('image', data.shape, 'uint8', data.max_value)},
    data.class_names,
  )
  if train_data is None or eval_data is None:
    stream, passes = splits(data.train, data.test, config, by_class='label')
    train_data = stream if train_data is None else train_data
    eval_data = passes if eval_data is None else eval_data
  shown = 'test' if 'test' in eval_data else next(iter(eval_data))
  more = metrics or (lambda outputs, batch, weight: {})
  more_of_training = train_metrics or more

  def test_sums(outputs, batch, weight):
    found = classification_sums(logits(outputs), batch['label'], weight)
    return joined(found, more(outputs, batch, weight))

  def train_sums(outputs, batch, weight):
    found = {'accuracy': accuracy(logits(outputs), batch['label'], weight)}
    return joined(found, more_of_training(outputs, batch, weight))

  def cross_entropy(outputs, batch):
    return losses.softmax_cross_entropy(logits(outputs), batch['label'])

  return supervised(
    config,
    model=model,
    loss=loss,
    eval_loss=eval_loss or cross_entropy,
    tx=tx,
    prepare=prepare,
    augment=augment,
    penalty=penalty,
    rngs=rngs,
    frozen=frozen,
    plateau=plateau,
    radius=radius,
    averaging=averaging,
    train_data=train_data,
    eval_data=eval_data,
    metrics=test_sums,
    train_metrics=train_sums,
    summarize=classification_summary,
    # What is smoothed or weighted in training is no cross-entropy.
    declared={
      **of_classes(data.num_classes),
      'train/loss': TRAINED,
      **(declared or {}),
    },
    headline=(*(f'{name}/accuracy' for name in eval_data), f'{shown}/loss'),
    functions={'predict': predict, **(functions or {})},
    figures={
      'confusion': confusion(data.class_names, shown),
      'predictions': predictions(data, predict, eval_data[shown]),
      **(figures or {}),
    },
    overfit=overfit,
    placement=placement,
  )
