"""Sentiment of a sentence with a recurrent net: RNN, LSTM or GRU (arXiv:1503.00075).

  python -m launch.train --exp=sst2
  python -m launch.train --exp=sst2 --config.dataset=sst2 --data_dir=DATA \
      --config.embedding_dropout=0.5 --config.word_dropout=0.1
  python -m launch.train --exp=sst2 --config.dataset=sst2 --data_dir=DATA \
      --config.phrases=True --config.batch_size=64 --config.num_steps=3165 \
      --config.eval_every_steps=211 --config.embedding=150 --config.features=150 \
      --config.ema_decay=0.995 --config.embedding_dropout=0.5 \
      --config.word_dropout=0.1

grammar (generated, the default: negations and contrasts, where word order decides) or
sst2 (Stanford Sentiment Treebank, two classes; the third command trains on its phrases
too), or a labelled set of your own with any number of classes. No pretrained vectors.
--config.head=sigmoid has one output for two classes; --config.recurrent.dropout and
.input_dropout are variational dropout (arXiv:1512.05287), .zoneout and .cell_zoneout
arXiv:1606.01305. The checkpoint of the best validation accuracy is kept
beside the last one; its test accuracy:

  python -m launch.evaluate --workdir=WORKDIR --step=best --data_dir=DATA

Measured: SST-2, third command, LSTM 84.93 % (sd 0.33, 3 seeds), 75 s of CPU.
"""

import dataclasses

from dlx import experiment, optim
from dlx.data.sets.sentences import sentences
from dlx.layers.recurrent.cells import CELLS
from dlx.layers.recurrent.noise import RecurrentNoise
from dlx.models.text_classifier import POOLINGS, TextClassifier
from dlx.tasks.text_classification import HEADS, num_outputs, sentence_classifier


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 700  # Optimiser steps of the whole run; 5 epochs of SST-2.
  batch_size: int = 50  # Examples of one global batch.
  eval_every_steps: int | None = 70  # Steps between evaluations; None: at the end.
  # Metric whose best checkpoint is kept.
  best_metric: str | None = 'validation/accuracy'
  clip_norm: float | None = 1.0  # Largest global norm of the gradient.
  dataset: str = 'grammar'  # grammar (generated), sst2, or a set of your own.
  phrases: bool = False  # Whether sst2 trains on the phrases of the training sentences.
  min_count: int = 1  # Occurrences below which a training word is unknown.
  bucket_lengths: tuple[int, ...] = ()  # Lengths of batches; none: the data set's own.
  bucket_block_steps: int = 1  # Steps in a row with batches of one length.
  cell: str = 'lstm'  # rnn, lstm, gru, reset, relu, peephole or mgu.
  bidirectional: bool = False  # Whether sentences are read from both ends.
  embedding: int = 128  # Width of the word vectors.
  features: tuple[int, ...] = (128,)  # State of each recurrent layer, e.g. 128,64.
  pooling: str = 'last'  # last state, or max or mean of the outputs over the sentence.
  # softmax: an output a class; sigmoid: one output, of two classes.
  head: str = 'softmax'
  embedding_dropout: float = 0.3  # Share of entries of word vectors dropped.
  dropout: float = 0.5  # Share of units dropped between layers and before the output.
  recurrent: RecurrentNoise = RecurrentNoise()
  word_dropout: float = 0.0  # Share of training words replaced by the unknown one.
  lr: float = 2e-3  # Peak of the cosine learning rate.
  weight_decay: float = 1e-4  # Decoupled decay of kernels and word vectors.

  def __post_init__(self):
    super().__post_init__()
    self.unused('stream', why='buckets lie on the devices')
    self.choice('cell', of=CELLS)
    self.choice('pooling', of=POOLINGS)
    self.choice('head', of=HEADS)
    self.bounds('features', least=1, some=True)
    if 'c' not in CELLS[self.cell].state:
      self.unused('recurrent.cell_zoneout', why=f'{self.cell} has no memory c')
    self.bounds('embedding_dropout', 'dropout', 'word_dropout', least=0, below=1)
    self.bounds('embedding', 'min_count', 'bucket_block_steps', least=1)
    self.bounds('lr', above=0)
    self.bounds('weight_decay', least=0)


# The least run that still has every part.
SMALL = Config.small(embedding=8, features=(8,))


def build(config: Config) -> experiment.Experiment:
  data = sentences(
    config.dataset,
    phrases=config.phrases,
    min_count=config.min_count,
    max_length=config.bucket_lengths[-1] if config.bucket_lengths else None,
  )
  model = TextClassifier(
    vocabulary_size=data.vocabulary_size,
    num_outputs=num_outputs(data, config.head),
    embedding=config.embedding,
    cell=CELLS[config.cell],
    hidden=config.features,
    bidirectional=config.bidirectional,
    pooling=config.pooling,
    embedding_dropout=config.embedding_dropout,
    dropout=config.dropout,
    noise=config.recurrent,
    **config.dtypes,
  )
  return sentence_classifier(
    config,
    data,
    model=model,
    tx=optim.adamw(
      optim.cosine(config.lr, config.num_steps), weight_decay=config.weight_decay
    ),
    lengths=config.bucket_lengths,
    block_steps=config.bucket_block_steps,
    word_dropout=config.word_dropout,
  )
