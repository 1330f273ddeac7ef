"""BERT learns from hidden tokens and pairs of texts, without labels (arXiv:1810.04805).

  python -m launch.train --exp=bert_mlm
  python -m launch.train --exp=bert_mlm --config.dataset=pydoc \
      --config.encoder.max_length=64 --config.num_steps=6000
  python -m launch.train --exp=bert_mlm --config.dataset=sst2 --config.phrases=True \
      --config.encoder.max_length=64 --config.num_steps=6000 --data_dir=DATA

grammar (generated sentences, the default), pydoc (Python's own manual),
tiny_shakespeare, sst2, pairs of texts (multi30k, its English) or a set of your own;
tokens are byte pairs that are learnt from it. 15 % of the tokens are predicted: 80 % of
them are hidden, 10 % become another, 10 % stay; which, follows from the seed and the
step. Where texts follow each other, as lines of pydoc and tiny_shakespeare do, the
model also says whether two do, unless --config.next_sentence=False. `unigram` is the
entropy of the hidden tokens by their own frequencies, `gain` what the loss is below it.
The paper's base model, 110 M parameters:

  python -m launch.plan --exp=bert_mlm --config.dataset=tiny_shakespeare \
      --config.encoder.size=base --config.encoder.vocabulary_size=30522 \
      --config.encoder.max_length=512 --config.lines=16 \
      --config.batch_size=256 --config.num_steps=1000000 --config.lr=1e-4 \
      --config.warmup_fraction=0.01 --config.compute_dtype=bfloat16 \
      --config.encoder.pad_vocabulary_to=128 --config.encoder.unroll=1 \
      --topology=v5e:4x4

`bert_classify` goes on from such a run. Loss is in nats a token.

Measured: grammar 1.450 nats, a gain of 2.425 (1 seed), 37 s of CPU.
"""

import dataclasses
import functools

from dlx import experiment, optim
from dlx.data.sets.corpora import LEAST_TOKENS, corpus
from dlx.layers.transformer import matrices
from dlx.models.bert import BertPretrainer
from dlx.models.bert_config import BertConfig
from dlx.tasks.masked_language import masked_language_model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 400  # Optimiser steps of the whole run.
  batch_size: int = 64  # Rows of one global batch, each a text or two.
  eval_every_steps: int | None = 100  # Steps between evaluations; None: at the end.
  clip_norm: float | None = 1.0  # Largest global norm of the gradient.
  # grammar, pydoc, tiny_shakespeare, sst2, phrases, multi30k or a set of your own.
  dataset: str = 'grammar'
  phrases: bool = False  # Whether sst2 is read as phrases of the training sentences.
  lines: int = 1  # Lines of a document that are one text.
  # Whether rows are pairs, of which the model says if the second follows the first;
  # None: where texts of the corpus follow each other.
  next_sentence: bool | None = None
  masked_share: float = 0.15  # Share of the tokens that are predicted.
  encoder: BertConfig = BertConfig(dropout=0.0)
  lr: float = 2e-3  # Peak learning rate.
  warmup_fraction: float = 0.1  # Share of the steps with a linear rise from 0.
  weight_decay: float = 0.01  # Decoupled decay of kernels and embeddings.

  def __post_init__(self):
    super().__post_init__()
    self.unused('stream', why='texts lie on the devices')
    self.unused('validation', why='every corpus has its own')
    self.bounds('lines', least=1)
    self.bounds('masked_share', above=0, below=1)
    self.bounds('encoder.vocabulary_size', least=LEAST_TOKENS)
    self.bounds('lr', above=0)
    self.bounds('warmup_fraction', least=0, most=1)
    self.bounds('weight_decay', least=0)


# The least run that still has every part.
SMALL = Config.small(
  dataset='pydoc',
  encoder=BertConfig(
    num_layers=1, width=16, vocabulary_size=280, max_length=23, dropout=0.0, unroll=1
  ),
)


def build(config: Config) -> experiment.Experiment:
  room, pairs = config.encoder.max_length, config.next_sentence
  of_length = functools.partial(
    corpus,
    config.dataset,
    vocabulary_size=config.encoder.vocabulary_size,
    phrases=config.phrases,
    lines=config.lines,
  )
  data = of_length(max_length=room - 2)
  pairs = data.documents if pairs is None else pairs
  if pairs:  # Two texts and one mark more share the room.
    data = of_length(max_length=(room - 3) // 2)
  rate = optim.warmup_cosine(
    config.lr, config.num_steps, config.warmup_fraction * config.num_steps
  )
  return masked_language_model(
    config,
    data,
    model=BertPretrainer(config.encoder.module(**config.dtypes), pairs),
    tx=optim.adamw(rate, weight_decay=config.weight_decay, mask=matrices),
    share=config.masked_share,
  )
