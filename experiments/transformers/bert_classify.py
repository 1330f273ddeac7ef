"""Sentences classified by BERT, pretrained or from scratch (arXiv:1810.04805).

  python -m launch.train --exp=bert_mlm --workdir=PRE
  python -m launch.train --exp=bert_classify --init_from=PRE
  python -m launch.train --exp=bert_classify

The first run learns from the texts of the training split alone, the second goes on from
it with labels, the third has labels alone. --config.num_labels=100 has so few of them,
as many of each class, others for each seed. The encoder, the corpus, of which the
tokens are learnt, and the size of the vocabulary must be those of the first run: it
hands its tokens over, and another corpus is refused. On SST-2, pretrained on its own
training sentences and their phrases:

  python -m launch.train --exp=bert_mlm --config.dataset=sst2 --config.phrases=True \
      --config.encoder.max_length=64 --config.num_steps=6000 --data_dir=DATA \
      --workdir=PRE
  python -m launch.train --exp=bert_classify --config.dataset=sst2 \
      --config.corpus=sst2 --config.phrases=True --config.encoder.max_length=64 \
      --config.num_labels=500 --init_from=PRE --data_dir=DATA

Measured: grammar, 100 labels, at chance with and without: 48.50 and 52.00 % (1 seed).
"""

import dataclasses

from dlx import experiment, optim
from dlx.data.batches.resident import Shuffled
from dlx.data.sets.corpora import LEAST_TOKENS, corpus, labelled
from dlx.data.sources import subset
from dlx.data.text.marked import END, FIRST
from dlx.layers.transformer import matrices
from dlx.models.bert import PLACEMENT, BertClassifier
from dlx.models.bert_config import BertConfig
from dlx.tasks.masked_language import with_tokenizer
from dlx.tasks.text_classification import sentence_classifier


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 200  # Optimiser steps of the whole run.
  batch_size: int = 32  # Sentences of one global batch.
  eval_every_steps: int | None = 100  # Steps between evaluations; None: at the end.
  clip_norm: float | None = 1.0  # Largest global norm of the gradient.
  dataset: str = 'grammar'  # grammar (generated), sst2, or a set of your own.
  # Labelled sentences that are trained on, as many of each class; None: all.
  num_labels: int | None = None
  corpus: str = 'grammar'  # Set of which the tokens are learnt, as of bert_mlm.
  phrases: bool = False  # Whether the corpus is read as phrases, as of bert_mlm.
  encoder: BertConfig = BertConfig()
  dropout: float = 0.1  # Share of units dropped before the head.
  lr: float = 5e-4  # Peak learning rate.
  warmup_fraction: float = 0.1  # Share of the steps with a linear rise from 0.
  weight_decay: float = 0.01  # Decoupled decay of kernels and embeddings.

  def __post_init__(self):
    super().__post_init__()
    self.unused('stream', why='sentences lie on the devices')
    self.unused('validation', why='every set of sentences has its own')
    self.bounds('num_labels', least=1)
    self.bounds('encoder.vocabulary_size', least=LEAST_TOKENS)
    self.bounds('dropout', least=0, below=1)
    self.bounds('lr', above=0)
    self.bounds('warmup_fraction', least=0, most=1)
    self.bounds('weight_decay', least=0)


# The least run that still has every part.
SMALL = Config.small(
  num_labels=64,
  encoder=BertConfig(
    num_layers=1, width=16, vocabulary_size=280, max_length=24, unroll=1
  ),
)


def build(config: Config) -> experiment.Experiment:
  encoder = config.encoder.module(**config.dtypes)
  room = config.encoder.max_length - 2  # Of [CLS] and [SEP].
  words = corpus(
    config.corpus,
    vocabulary_size=config.encoder.vocabulary_size,
    max_length=room,
    phrases=config.phrases,
  )
  data = labelled(config.dataset, words, max_length=room)
  train = data.train
  if config.num_labels is not None:
    train = subset(train, config.num_labels, config.seed, by_class='label')
  rate = optim.warmup_cosine(
    config.lr, config.num_steps, config.warmup_fraction * config.num_steps
  )
  classifier = sentence_classifier(
    config,
    data,
    model=BertClassifier(
      encoder, len(data.class_names), first=FIRST, end=END, dropout=config.dropout
    ),
    tx=optim.adamw(rate, weight_decay=config.weight_decay, mask=matrices),
    train_data=Shuffled(train, config.batch_size, config.seed),
    placement=PLACEMENT,
  )
  return with_tokenizer(classifier, words)
