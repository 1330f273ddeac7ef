"""Sentiment or topic of a sentence by convolutions: TextCNN (arXiv:1408.5882).

  python -m launch.train --exp=text_cnn
  python -m launch.train --exp=text_cnn --config.dataset=sst2 --data_dir=DATA \
      --config.embedding_dropout=0.5 --config.word_dropout=0.1
  python -m launch.train --exp=text_cnn --config.dataset=sst2 --data_dir=DATA \
      --config.phrases=True --config.batch_size=64 --config.num_steps=3165 \
      --config.eval_every_steps=211 --config.ema_decay=0.995 --config.embedding=300 \
      --config.embedding_dropout=0.5 --config.word_dropout=0.1

Filters that see 3, 4 and 5 words, the largest output of each over the sentence,
dropout, one Dense layer whose weights into an output are at most 3 long. No pretrained
vectors: CNN-rand, 82.7 % on SST-2 with phrases in the paper. grammar (generated, the
default), sst2, or a labelled set of your own with any number of classes, from
`launch.data text`.

The checkpoint of the best validation accuracy is kept beside the last one:

  python -m launch.evaluate --workdir=WORKDIR --step=best --data_dir=DATA

Measured: SST-2, third command, 81.64 % (sd 0.25, 3 seeds), 112 s of CPU.
"""

import dataclasses

from dlx import experiment, optim
from dlx.data.sets.sentences import sentences
from dlx.models.text_cnn import TextCNN
from dlx.tasks.text_classification import HEADS, num_outputs, sentence_classifier


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 700  # Optimiser steps of the whole run; 5 epochs of SST-2.
  batch_size: int = 50  # Examples of one global batch.
  eval_every_steps: int | None = 70  # Steps between evaluations; None: at the end.
  # Metric whose best checkpoint is kept.
  best_metric: str | None = 'validation/accuracy'
  dataset: str = 'grammar'  # grammar (generated), sst2, or a set of your own.
  phrases: bool = False  # Whether sst2 trains on the phrases of the training sentences.
  min_count: int = 1  # Occurrences below which a training word is unknown.
  bucket_lengths: tuple[int, ...] = ()  # Lengths of batches; none: the data set's own.
  bucket_block_steps: int = 1  # Steps in a row with batches of one length.
  embedding: int = 128  # Width of the word vectors.
  widths: tuple[int, ...] = (3, 4, 5)  # Words that the filters see, each width once.
  filters: int = 100  # Filters of each width.
  # softmax: an output a class; sigmoid: one output, of two classes.
  head: str = 'softmax'
  embedding_dropout: float = 0.3  # Share of entries of word vectors dropped.
  dropout: float = 0.5  # Share of the filters' outputs dropped before the output.
  word_dropout: float = 0.0  # Share of training words replaced by the unknown one.
  # Largest norm of the weights into an output; None: not bounded.
  max_norm: float | None = 3.0
  lr: float = 2e-3  # Peak of the cosine learning rate.
  weight_decay: float = 1e-4  # Decoupled decay of kernels and word vectors.

  def __post_init__(self):
    super().__post_init__()
    self.unused('stream', why='buckets lie on the devices')
    self.bounds('widths', least=1, some=True)
    self.require(
      'widths',
      len(set(self.widths)) == len(self.widths),
      'widths of which each is once',
    )
    self.choice('head', of=HEADS)
    self.bounds('embedding_dropout', 'dropout', 'word_dropout', least=0, below=1)
    self.bounds('embedding', 'filters', 'min_count', 'bucket_block_steps', least=1)
    self.bounds('max_norm', 'lr', above=0)
    self.bounds('weight_decay', least=0)


# The least run that still has every part.
SMALL = Config.small(embedding=8, widths=(2,), filters=8, bucket_lengths=(18,))


def build(config: Config) -> experiment.Experiment:
  data = sentences(
    config.dataset,
    phrases=config.phrases,
    min_count=config.min_count,
    max_length=config.bucket_lengths[-1] if config.bucket_lengths else None,
  )
  model = TextCNN(
    vocabulary_size=data.vocabulary_size,
    embedding=config.embedding,
    widths=config.widths,
    filters=config.filters,
    num_outputs=num_outputs(data, config.head),
    embedding_dropout=config.embedding_dropout,
    dropout=config.dropout,
    **config.dtypes,
  )
  tx = optim.adamw(
    optim.cosine(config.lr, config.num_steps), weight_decay=config.weight_decay
  )
  if config.max_norm is not None:
    tx = optim.max_norm(tx, config.max_norm, optim.by_path('head/kernel'))
  return sentence_classifier(
    config,
    data,
    model=model,
    tx=tx,
    lengths=config.bucket_lengths,
    block_steps=config.bucket_block_steps,
    word_dropout=config.word_dropout,
  )
