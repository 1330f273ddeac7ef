"""What every classifier of sentences shares: buckets, heads, metrics and figures.

HEADS                what the last layer gives: a logit a class, or one of two classes
num_outputs          how many outputs that are
sentence_classifier  a whole Experiment: one model and one optimiser
"""

from typing import Any, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import optax

from dlx import figures, losses, metrics
from dlx.data.batches.buckets import Bucketed
from dlx.data.batches.resident import InOrder
from dlx.data.dataset import Dataset
from dlx.data.sets.sentences import SentenceData, texts_of
from dlx.data.text import vocabulary
from dlx.errors import ConfigError
from dlx.experiment import Config, Experiment, Field, Figure
from dlx.state import Array, Batch, Key, TrainState
from dlx.tasks.classification import class_probabilities, of_classes
from dlx.train.supervised import make_predict, supervised

HEADS = ('softmax', 'sigmoid')


def num_outputs(data: SentenceData, head: str) -> int:
  """Outputs of the last layer: K, or 1 of a sigmoid head.

  Raises:
    ConfigError: a sigmoid head for other than two classes, or no head of HEADS.
  """
  if head not in HEADS:
    raise ConfigError(
      f'--config.head={head} is not allowed: must be {" or ".join(HEADS)}.'
    )
  classes = len(data.class_names)
  if head == 'sigmoid' and classes != 2:
    raise ConfigError(
      f'--config.head=sigmoid is not allowed: {data.name} has {classes} classes, and '
      'one output tells two apart; set --config.head=softmax.'
    )
  return 1 if head == 'sigmoid' else classes


def class_logits(outputs_BN: Array) -> Array:
  """A logit a class [B, K], of as many outputs or of one.

  The sigmoid of one output is the softmax of 0 and that output: so the loss is the
  binary cross-entropy, and all that is reported is that of two outputs.
  """
  if outputs_BN.shape[-1] > 1:
    return outputs_BN
  return jnp.concatenate([jnp.zeros_like(outputs_BN), outputs_BN], axis=-1)


def sentence_classifier(
  config: Config,
  data: SentenceData,
  *,
  model: nn.Module,
  tx: optax.GradientTransformation,
  lengths: Sequence[int] = (),
  block_steps: int = 1,
  word_dropout: float = 0.0,
  train_data: Dataset | None = None,
  placement: tuple[tuple[str, P], ...] = (),
) -> Experiment:
  """An Experiment of one model of token sequences and one optimiser.

  Cross-entropy in batches of a few lengths; accuracy, confusion and calibration on
  validation and test; function `predict`; figures of the confusion and of sentences.

  Args:
    config: see `supervised`.
    data: the set, cut at the last of `lengths` where they are given.
    model: `model(tokens_BT, train=...)` -> `num_outputs` outputs [B, K] or [B, 1];
      token 0 pads.
    tx: the optimiser.
    lengths: of the buckets; none: those of the set.
    block_steps: steps in a row with batches of one length.
    word_dropout: share of training words replaced by the unknown one.
    train_data: the training stream; None: buckets of `lengths`.
    placement: see `Experiment`.
  """
  test_data = InOrder(data.test, config.eval_batch_size)
  outputs = make_predict(config, model, inputs='tokens')
  tokens = Field(
    'tokens', ('length',), 'int32', vocabulary=data.vocabulary, pad=vocabulary.PAD
  )
  predict = class_probabilities(
    lambda state, inputs: class_logits(outputs(state, inputs)),
    {'tokens': tokens},
    data.class_names,
  )

  def drop_words(key: Key, batch: Batch) -> Batch:
    tokens = batch['tokens']
    dropped = jax.random.bernoulli(key, word_dropout, tokens.shape)
    dropped &= tokens != vocabulary.PAD
    return {**batch, 'tokens': jnp.where(dropped, vocabulary.UNKNOWN, tokens)}

  def predictions(state: TrainState, key: Key, batch: Batch) -> dict[str, Any]:
    del key
    probs = predict.call(state, {'tokens': batch['tokens']})['probabilities']
    return {'text': batch['text'], 'label': batch['label'], 'probs': probs}

  def draw_sentences(tree: Any) -> Any:
    texts = texts_of(tree['text'])
    return figures.sentence_predictions(
      texts, tree['label'], tree['probs'], data.class_names
    )

  return supervised(
    config,
    model=model,
    inputs='tokens',
    loss=lambda outputs, batch: losses.softmax_cross_entropy(
      class_logits(outputs), batch['label']
    ),
    tx=tx,
    augment=drop_words if word_dropout else None,
    train_data=train_data
    or Bucketed(
      data.train,
      data.length_counts,
      lengths=lengths or data.lengths,
      batch_size=config.batch_size,
      seed=config.seed,
      block_steps=block_steps,
    ),
    placement=placement,
    eval_data={
      'validation': InOrder(data.validation, config.eval_batch_size),
      'test': test_data,
    },
    metrics=lambda outputs, batch, weight: metrics.classification_sums(
      class_logits(outputs), batch['label'], weight
    ),
    train_metrics=lambda outputs, batch, weight: {
      'accuracy': metrics.accuracy(class_logits(outputs), batch['label'], weight)
    },
    summarize=metrics.classification_summary,
    declared=of_classes(len(data.class_names)),
    headline=('validation/accuracy', 'test/accuracy'),
    functions={'predict': predict},
    figures={
      'confusion': Figure(
        lambda found: figures.confusion_matrix(found['confusion'], data.class_names),
        eval='test',
      ),
      'sentences': Figure(draw_sentences, compute=predictions, data=test_data),
    },
  )
