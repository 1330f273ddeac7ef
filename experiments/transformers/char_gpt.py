"""GPT that writes text character by character (Radford et al. 2019; arXiv:1706.03762).

  python -m launch.train --exp=char_gpt
  python -m launch.train --exp=char_gpt --config.dataset=tiny_shakespeare \
      --config.num_steps=2000 --data_dir=DATA

pydoc (Python's own manual, the default) needs no file; its text differs between
versions of Python. The second command is nanoGPT's setting for a CPU at a higher
learning rate that falls to 0, with evaluation over the whole validation text in place
of 20 random batches; nanoGPT's own rate: --config.lr=1e-3 --config.final_fraction=0.1.
Its setting for a GPU:

  python -m launch.train --exp=char_gpt --config.size=gpu \
      --config.dataset=tiny_shakespeare --config.num_steps=5000 \
      --config.warmup_fraction=0.02 --config.final_fraction=0.1 \
      --config.best_metric=validation/loss --config.best_mode=min --data_dir=DATA

A size gives what a model of that size is made of and trained with; fields that are
given on the command line go before the size. Larger ones have bfloat16, rotary
positions from 300m (arXiv:2104.09864) and grouped queries from 1b (arXiv:2305.13245);
rates are those of arXiv:2005.14165. Embeddings of characters are few: 124m would be
124 M with GPT-2's 50257 tokens.

  size  layers  width  heads / of keys  context  windows  parameters with 96 characters
  cpu        4    128            4 / 4       64       12        808,064
  gpu        6    384            6 / 6      256       64     10,756,992
  124m      12    768          12 / 12     1024      256     85,838,592
  300m      24   1024          16 / 16     1024      256    302,171,136
  1b        24   2048           16 / 4     2048      256  1,057,327,104
  3b        30   3072           24 / 8     2048      256  3,020,479,488
  7b        40   4096           32 / 8     2048      256  7,047,286,784

From 300m parts of a block are computed again on the way back, as `remat` says. Ask
launch.plan what fits where.

Loss is in nats a character.

Measured: tiny Shakespeare 1.783 nats (sd 0.007, 3 seeds), 100 s on two cores.
"""

import dataclasses
from typing import NamedTuple

from dlx import experiment, optim
from dlx.config import traced
from dlx.data.sets import characters
from dlx.layers.block_config import BlockConfig
from dlx.layers.transformer import REMAT, matrices
from dlx.models.gpt import GPT, POSITIONS
from dlx.tasks.language_modelling import language_model


class Size(NamedTuple):
  """What a size gives to the fields of the same names that are None in a Config."""

  num_layers: int
  num_heads: int
  num_kv_heads: int | None  # None: num_heads.
  width: int
  context: int
  batch_size: int
  lr: float
  positions: str
  remat: str
  compute_dtype: str = 'bfloat16'
  unroll: int = 1
  pad_vocabulary_to: int = 128
  dropout: float = 0.0


# nanoGPT's two, then those of GPT-2 and more.
SIZES = {
  'cpu': Size(4, 4, None, 128, 64, 12, 4e-3, 'learned', 'off', 'float32', 4, 1),
  'gpu': Size(6, 6, None, 384, 256, 64, 1e-3, 'learned', 'off', 'bfloat16', 6, 1, 0.2),
  '124m': Size(12, 12, None, 768, 1024, 256, 6e-4, 'learned', 'off'),
  '300m': Size(24, 16, None, 1024, 1024, 256, 3e-4, 'rotary', 'dots'),
  '1b': Size(24, 16, 4, 2048, 2048, 256, 2e-4, 'rotary', 'dots'),
  '3b': Size(30, 24, 8, 3072, 2048, 256, 1.6e-4, 'rotary', 'full'),
  '7b': Size(40, 32, 8, 4096, 2048, 256, 1.2e-4, 'rotary', 'full'),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  """Fields that are None and stand in `Size` are given by the size: see `sized`."""

  # cpu, gpu, 124m, 300m, 1b, 3b or 7b: the size gives every field below that is none.
  size: str = 'cpu'
  num_steps: int = 1200  # Optimiser steps of the whole run.
  batch_size: int | None = None  # Windows of one global batch; none: by size.
  eval_every_steps: int | None = 250  # Steps between evaluations; None: at the end.
  clip_norm: float | None = 1.0  # Largest global norm of the gradient.
  # float32, bfloat16, float16 (scaled loss) or float64; none: by size.
  compute_dtype: str | None = None
  dataset: str = 'pydoc'  # pydoc (embedded) or tiny_shakespeare.
  num_layers: int | None = None  # Transformer blocks; none: by size.
  num_heads: int | None = None  # Attention heads, a divisor of width; none: by size.
  # Heads of keys and values, a divisor of num_heads; none: by size, or num_heads.
  num_kv_heads: int | None = None
  # Width of the residual stream, a quarter of the feed-forward parts; none: by size.
  width: int | None = None
  context: int | None = None  # Characters of a window; none: by size.
  # How positions enter: learned, sinusoidal, rotary, alibi, relative or none (by the
  # causal order alone); not given: by size.
  positions: str | None = None
  # The vocabulary is padded to a multiple of this; none: by size.
  pad_vocabulary_to: int | None = None
  tie_embeddings: bool = True  # Logits by the token embeddings, not by another map.
  # Dropout of embeddings, attention weights and residual branches; none: by size.
  dropout: float | None = None
  use_bias: bool = False  # Biases in maps and norms, as in GPT-2.
  # Layers in one turn of the scan over layers, changes bits; none: by size.
  unroll: int | None = None
  # Computed again on the way back, to save memory: off (nothing), dots (all but the
  # results of products), full (everything inside a block); none: by size.
  remat: str | None = None
  lr: float | None = None  # Peak learning rate; none: by size.
  final_fraction: float = 0.0  # Last learning rate of the cosine over the peak.
  warmup_fraction: float = 0.05  # Share of the steps with a linear rise from 0.
  beta1: float = 0.9  # Decay of AdamW's first moment.
  beta2: float = 0.99  # Decay of AdamW's second moment.
  weight_decay: float = 0.1  # Decoupled weight decay, on kernels and embeddings only.
  sample_length: int = 400  # Characters of each sample in the report.
  temperature: float = 0.8  # Temperature of samples; 0: always the likeliest character.
  top_k: int | None = None  # Samples draw from this many characters; None: all.

  def __post_init__(self):
    self.choice('size', of=SIZES)
    sized(self).check()

  def resolved(self) -> 'Config':
    return sized(self)

  def check(self):
    """The checks of `__post_init__`, on a config that `sized` has filled."""
    super().__post_init__()
    self.bounds('num_layers', 'num_heads', 'num_kv_heads', 'width', least=1)
    self.bounds('pad_vocabulary_to', 'unroll', 'sample_length', least=1)
    width, heads, kv_heads = self.width or 0, self.num_heads or 1, self.num_kv_heads
    self.require('num_heads', width % heads == 0, f'a divisor of width={width}')
    groups = kv_heads is None or heads % kv_heads == 0
    self.require('num_kv_heads', groups, f'a divisor of num_heads={heads}')
    self.choice('positions', of=POSITIONS)
    turns = self.positions != 'rotary' or width // heads % 2 == 0
    even = f'another one than rotary where width={width} over num_heads={heads} is odd'
    self.require('positions', turns, even)
    waves = self.positions != 'sinusoidal' or (width >= 4 and width % 2 == 0)
    self.require('positions', waves, f'another one where width={width} is odd or 2')
    self.choice('remat', of=REMAT)
    self.bounds('context', least=2)
    self.bounds('dropout', 'beta1', 'beta2', least=0, below=1)
    self.bounds('final_fraction', 'warmup_fraction', least=0, most=1)
    self.bounds('lr', above=0)
    self.bounds('weight_decay', 'temperature', least=0)
    self.bounds('top_k', least=1)


def values(config: Config) -> Size:
  """The row of the size, in which what the config gives stands in place of its own."""
  given = {name: getattr(config, name) for name in Size._fields}
  given = {name: value for name, value in given.items() if value is not None}
  return SIZES[config.size]._replace(**given)


def sized(config: Config) -> Config:
  """A copy in which the size has filled what was None; may hold tracers."""
  return traced(config, **values(config)._asdict())


# The least run that still has every part.
SMALL = Config.small(num_layers=1, width=16, context=16, unroll=1, sample_length=20)


def build(config: Config) -> experiment.Experiment:
  config, size = sized(config), values(config)
  data = characters.characters(config.dataset)
  model = GPT(
    vocabulary_size=len(data.vocabulary),
    context=size.context,
    num_layers=size.num_layers,
    positions=size.positions,
    pad_vocabulary_to=size.pad_vocabulary_to,
    tie_embeddings=config.tie_embeddings,
    block=BlockConfig(
      width=size.width,
      num_heads=size.num_heads,
      num_kv_heads=size.num_kv_heads,
      use_bias=config.use_bias,
      dropout=size.dropout,
      unroll=size.unroll,
      remat=size.remat,
      **config.dtypes,
    ),
  )
  rate = optim.warmup_cosine(
    size.lr,
    config.num_steps,
    config.warmup_fraction * config.num_steps,
    config.final_fraction,
  )
  return language_model(
    config,
    data,
    model=model,
    tx=optim.adamw(
      rate,
      weight_decay=config.weight_decay,
      b1=config.beta1,
      b2=config.beta2,
      mask=matrices,
    ),
    sample_length=config.sample_length,
    temperature=config.temperature,
    top_k=config.top_k,
  )
