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

A size sets what a model of that size is made of and trained with; fields that are given
stand above it. Larger ones have bfloat16, rotary positions from 300m (arXiv:2104.09864)
and grouped queries from 1b (arXiv:2305.13245); rates are those of arXiv:2005.14165.
Embeddings of characters are few: 124m would be 124 M with GPT-2's 50257 tokens.

  size  layers  width  heads / of keys  context  windows  parameters with 96 characters
  cpu        4    128            4 / 4       64       12        808,064
  gpu        6    384            6 / 6      256       64     10,756,992
  124m      12    768          12 / 12     1024      256     85,838,592
  300m      24   1024          16 / 16     1024      256    302,171,136
  1b        24   2048           16 / 4     2048      256  1,057,327,104
  3b        30   3072           24 / 8     2048      256  3,020,479,488
  7b        40   4096           32 / 8     2048      256  7,047,286,784

From 300m blocks are computed again on the way back, as `remat` says. Ask launch.plan
what fits where.

Loss is in nats a character. Measured figures: see experiments/README.md.
"""

import dataclasses
from typing import Any

from dlx import experiment, optim
from dlx.data.sets import characters
from dlx.layers.transformer import REMAT, matrices
from dlx.models.gpt import GPT, POSITIONS
from dlx.tasks.language_modelling import language_model

# What a size sets where it is not given. nanoGPT's two, then those of GPT-2 and more.
_CPU: dict[str, Any] = dict(
  num_layers=4,
  num_heads=4,
  num_kv_heads=None,
  width=128,
  context=64,
  positions='learned',
  pad_vocabulary_to=1,
  dropout=0.0,
  batch_size=12,
  lr=4e-3,
  compute_dtype='float32',
  unroll=4,
  remat='none',
)
_GPU = _CPU | dict(compute_dtype='bfloat16', unroll=6, batch_size=64, lr=1e-3)
_GPU |= dict(num_layers=6, num_heads=6, width=384, context=256, dropout=0.2)
_GPT2 = _CPU | dict(compute_dtype='bfloat16', unroll=1, batch_size=256, lr=6e-4)
_GPT2 |= dict(num_layers=12, num_heads=12, width=768, context=1024)
_GPT2 |= dict(pad_vocabulary_to=128)
_300M = _GPT2 | dict(num_layers=24, num_heads=16, width=1024, lr=3e-4)
_300M |= dict(positions='rotary', remat='dots')
_1B = _300M | dict(num_kv_heads=4, width=2048, context=2048, lr=2e-4)
_3B = _1B | dict(num_layers=30, num_heads=24, num_kv_heads=8, width=3072, lr=1.6e-4)
_3B |= dict(remat='full')
_7B = _3B | dict(num_layers=40, num_heads=32, width=4096, lr=1.2e-4)
SIZES = {
  'cpu': _CPU,
  'gpu': _GPU,
  '124m': _GPT2,
  '300m': _300M,
  '1b': _1B,
  '3b': _3B,
  '7b': _7B,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  """What is None here and in SIZES has the value of the size once this is made.

  A copy by dataclasses.replace keeps these values: of another size make another Config.
  """

  size: str = 'cpu'  # cpu, gpu, 124m, 300m, 1b, 3b or 7b: sets what is none below.
  num_steps: int = 1200  # Optimiser steps of the whole run.
  batch_size: int | None = None  # Windows of one global batch; none: of the size.
  eval_every_steps: int | None = 250  # Steps between evaluations; None: at the end.
  clip_norm: float | None = 1.0  # Largest global norm of the gradient.
  compute_dtype: str | None = None  # See above; none: of the size.
  dataset: str = 'pydoc'  # pydoc (embedded) or tiny_shakespeare.
  num_layers: int | None = None  # Transformer blocks; none: of the size.
  num_heads: int | None = None  # Heads, a divisor of width; none: of the size.
  num_kv_heads: int | None = None  # Heads of keys; none: of the size, or num_heads.
  width: int | None = None  # Of the stream, a quarter of the MLP; none: of the size.
  context: int | None = None  # Characters of a window; none: of the size.
  positions: str | None = None  # learned or rotary; none: of the size.
  pad_vocabulary_to: int | None = None  # Its multiple; none: of the size.
  tie_embeddings: bool = True  # Logits by the embeddings, not by a map of their own.
  dropout: float | None = None  # Of embeddings, weights, branches; none: of the size.
  use_bias: bool = False  # Biases in maps and norms, as in GPT-2.
  unroll: int | None = None  # Layers in a turn of their scan; bits; none: of the size.
  remat: str = 'size'  # Computed twice, for memory: none, dots (all but maps), full.
  lr: float | None = None  # Peak learning rate; none: of the size.
  final_fraction: float = 0.0  # Of the peak, at the last step of the cosine.
  warmup_fraction: float = 0.05  # Of the steps, with a linear rise from 0.
  beta1: float = 0.9  # Decay of AdamW's first moment.
  beta2: float = 0.99  # Decay of AdamW's second moment.
  weight_decay: float = 0.1  # Decoupled, on kernels and embeddings only.
  sample_length: int = 400  # Characters of each sample in the report.
  temperature: float = 0.8  # Of the samples; 0: always the likeliest character.
  top_k: int | None = None  # Samples draw from this many characters; None: all.

  def __post_init__(self):
    self.choice('size', of=SIZES)
    for name, value in SIZES[self.size].items():
      # Once and for all: config.json says what was used.
      if getattr(self, name) in (None, 'size'):
        object.__setattr__(self, name, value)
    super().__post_init__()
    self.bounds('num_layers', 'num_heads', 'num_kv_heads', 'width', least=1)
    self.bounds('pad_vocabulary_to', 'unroll', 'sample_length', least=1)
    width, heads, kv_heads = self.width or 0, self.num_heads or 1, self.num_kv_heads
    self.require('num_heads', width % heads == 0, f'a divisor of width={width}')
    groups = kv_heads is None or heads % kv_heads == 0
    self.require('num_kv_heads', groups, f'a divisor of num_heads={heads}')
    self.choice('positions', of=POSITIONS)
    turns = self.positions == 'learned' or width // heads % 2 == 0
    even = f'learned where width={width} over num_heads={heads} is odd'
    self.require('positions', turns, even)
    self.choice('remat', of=REMAT)
    self.bounds('context', least=2)
    self.bounds('dropout', 'beta1', 'beta2', least=0, below=1)
    self.bounds('final_fraction', 'warmup_fraction', least=0, most=1)
    self.bounds('lr', above=0)
    self.bounds('weight_decay', 'temperature', least=0)
    self.bounds('top_k', least=1)


def build(config: Config) -> experiment.Experiment:
  data = characters.characters(config.dataset)
  of_model = ('num_layers', 'num_heads', 'num_kv_heads', 'width', 'context')
  of_model += ('positions', 'pad_vocabulary_to', 'tie_embeddings', 'dropout')
  of_model += ('use_bias', 'unroll', 'remat', 'param_dtype')
  model = GPT(
    vocabulary_size=len(data.vocabulary),
    dtype=config.compute_dtype,
    **{name: getattr(config, name) for name in of_model},
  )
  peak: Any = config.lr  # Not None any more.
  rate = optim.warmup_cosine(
    peak,
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
