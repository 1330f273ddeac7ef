"""The Transformer, an encoder and a decoder (arXiv:1706.03762), over pairs of texts.

  python -m launch.train --exp=transformer
  python -m launch.train --exp=transformer --config.dataset=sort
  python -m launch.train --exp=transformer --config.dataset=multi30k --data_dir=DATA \
      --config.num_words=8000 --config.num_layers=3 --config.width=256 \
      --config.dropout=0.3 --config.label_smoothing=0.1 --config.num_steps=4500 \
      --config.best_metric=validation/loss --config.best_mode=min --config.bleu=1,4

reverse and sort (generated, strings of up to 10 characters of 62) ask for every
character right: `exact` is the share of unseen strings without a fault. Of a set of
your own, two columns of a file:

  python -m launch.data pairs own.tsv --data_dir=DATA
  python -m launch.train --exp=transformer --config.dataset=own --data_dir=DATA \
      --workdir=runs/own
  python -m launch.call --workdir=runs/own translate source='A dog .' beams=4

WMT14 English to German with the paper's base model, on one host of accelerators. Not
run: the pairs are no part of dlx; train, dev and test are files of two columns, en and
de. Rows are filled up to 128 tokens, longer ones are cut. The paper has 27.3 BLEU after
100000 steps of some 25000 tokens a side; `launch.call --workdir=runs/wmt14 translate
--dataset=:test beams=4 --out=test.csv` writes what a scorer of BLEU reads.

  python -m launch.data pairs wmt14_train.tsv wmt14_dev.tsv wmt14_test.tsv \
      --name=wmt14 --tokens=bpe --vocab_size=37000 --repeats=keep --data_dir=DATA
  python -m launch.train --exp=transformer --config.dataset=wmt14 --data_dir=DATA \
      --config.max_length=128 --config.batch_size=768 --config.num_steps=100000 \
      --config.num_layers=6 --config.num_heads=8 --config.width=512 \
      --config.use_bias=true --config.dropout=0.1 --config.label_smoothing=0.1 \
      --config.lr=1e-3 --config.warmup_fraction=0.04 --config.pad_vocabulary_to=128 \
      --config.compute_dtype=bfloat16 --config.eval_every_steps=5000 \
      --config.ema_decay=0.999 --workdir=runs/wmt14

Norms come first in each branch, and the learning rate rises and falls as a cosine; the
paper's come last and need its own schedule. Loss is in nats a token.

Measured: reverse, 100.00 % of 2000 unseen strings exact (1 seed), 97 s.
"""

import dataclasses

from dlx import experiment, optim
from dlx.data.sets.translation import translation
from dlx.layers.block_config import BlockConfig
from dlx.layers.transformer import REMAT, matrices
from dlx.models.encoder_decoder import PLACEMENT, EncoderDecoder, flops_per_pair, take
from dlx.tasks import translation as task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 2500  # Optimiser steps of the whole run.
  log_every_steps: int = 100  # Steps between lines of training metrics.
  eval_every_steps: int | None = 500  # Steps between evaluations; None: at the end.
  clip_norm: float | None = 1.0  # Largest global norm of the gradient.
  # reverse, sort, phrases (generated), multi30k, or the name of a set of your own.
  dataset: str = 'reverse'
  # Most frequent words that are known, of a vocabulary of words; None: all.
  num_words: int | None = None
  # Tokens after which sources and targets are cut; None: as the longest.
  max_length: int | None = None
  # Lengths of batches of pairs of like length; none: the data set's own.
  bucket_lengths: tuple[int, ...] = ()
  num_layers: int = 2  # Blocks of the encoder, and of the decoder.
  num_heads: int = 4  # Attention heads, a divisor of width.
  width: int = 128  # Width of both streams, a quarter of the feed-forward parts.
  # Multiple to which the vocabulary is padded, so that a mesh divides the table.
  pad_vocabulary_to: int = 1
  dropout: float = 0.0  # Dropout of embeddings, attention weights and branches.
  use_bias: bool = False  # Biases in maps and norms, as in the paper.
  label_smoothing: float = 0.0  # Probability that is spread over all tokens.
  unroll: int = 2  # Layers in one turn of the scan over layers, changes bits.
  # Computed again on the way back, to save memory: off (nothing), dots (all but the
  # results of products), full (everything inside a block).
  remat: str = 'off'
  lr: float = 2e-3  # Peak learning rate.
  warmup_fraction: float = 0.1  # Share of the steps with a linear rise from 0.
  beta2: float = 0.98  # Decay of AdamW's second moment.
  weight_decay: float = 0.01  # Decoupled weight decay, on kernels and embeddings only.
  beams: int = 1  # Beams of translations where no others are asked for; 1: greedy.
  # Numbers of beams with which the test set is translated at the end, for BLEU.
  bleu: tuple[int, ...] = ()

  def __post_init__(self):
    super().__post_init__()
    self.bounds('num_words', 'max_length', 'num_layers', 'num_heads', least=1)
    self.bounds('pad_vocabulary_to', 'unroll', 'beams', 'bleu', least=1)
    self.require('bleu', len(set(self.bleu)) == len(self.bleu), 'numbers that differ')
    fits = self.width % self.num_heads == 0 and self.width % 2 == 0
    self.require(
      'width',
      fits and self.width >= 4,
      f'even, at least 4 and a multiple of num_heads={self.num_heads}',
    )
    self.choice('remat', of=REMAT)
    self.bounds('dropout', 'label_smoothing', 'beta2', least=0, below=1)
    self.bounds('warmup_fraction', least=0, most=1)
    self.bounds('lr', above=0)
    self.bounds('weight_decay', least=0)


# Fields that are used by arithmetic alone: runs that differ in them share a program.
SWEPT = ('lr', 'weight_decay')
# The least run that still has every part.
SMALL = Config.small(num_layers=1, width=16, num_heads=2, max_length=8, unroll=1)


def build(config: Config) -> experiment.Experiment:
  data = translation(
    config.dataset, num_words=config.num_words, max_length=config.max_length
  )
  model = EncoderDecoder(
    vocabulary_size=data.vocabulary_size,
    num_layers=config.num_layers,
    pad_vocabulary_to=config.pad_vocabulary_to,
    block=BlockConfig(
      width=config.width,
      num_heads=config.num_heads,
      use_bias=config.use_bias,
      dropout=config.dropout,
      unroll=config.unroll,
      remat=config.remat,
      **config.dtypes,
    ),
  )
  rate = optim.warmup_cosine(
    config.lr, config.num_steps, config.warmup_fraction * config.num_steps
  )
  return task.translation(
    config,
    data,
    task.Architecture(model, take, flops_per_pair, PLACEMENT),
    tx=optim.adamw(
      rate, weight_decay=config.weight_decay, b2=config.beta2, mask=matrices
    ),
    label_smoothing=config.label_smoothing,
    beams=config.beams,
    bleu=config.bleu,
    bucket_lengths=config.bucket_lengths,
  )
