"""GPT that writes text character by character (Radford et al. 2019; arXiv:1706.03762).

  python -m launch.train --exp=char_gpt
  python -m launch.train --exp=char_gpt --config.dataset=tiny_shakespeare \
      --config.num_steps=2000 --data_dir=DATA

pydoc (Python's own manual, the default) needs no file; its text differs between
versions of Python. The second command is nanoGPT's setting for a CPU at a higher
learning rate that falls to 0, with evaluation over the whole validation text in place
of 20 random batches; nanoGPT's own rate: --config.lr=1e-3 --config.final_fraction=0.1.
Its setting for a GPU:

  python -m launch.train --exp=char_gpt --config.dataset=tiny_shakespeare \
      --config.num_layers=6 --config.num_heads=6 --config.width=384 \
      --config.context=256 --config.dropout=0.2 --config.batch_size=64 \
      --config.num_steps=5000 --config.warmup_fraction=0.02 \
      --config.lr=1e-3 --config.final_fraction=0.1 \
      --config.compute_dtype=bfloat16 --config.unroll=6 \
      --config.best_metric=validation/loss --config.best_mode=min --data_dir=DATA

Loss is in nats a character. Measured figures: see experiments/README.md.
"""

import dataclasses

from dlx import experiment, optim
from dlx.data import characters
from dlx.language_model import language_model
from dlx.layers.transformer import matrices
from dlx.models.gpt import GPT


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 1200  # Optimiser steps of the whole run.
  batch_size: int = 12  # Windows of one global batch.
  eval_every_steps: int | None = 250  # Steps between evaluations; None: at the end.
  clip_norm: float | None = 1.0  # Largest global norm of the gradient.
  dataset: str = 'pydoc'  # pydoc (embedded) or tiny_shakespeare.
  num_layers: int = 4  # Transformer blocks.
  num_heads: int = 4  # Attention heads of a block; a divisor of width.
  width: int = 128  # Of the stream; feed-forward parts are four times as wide.
  context: int = 64  # Characters of a window, and the most that attention sees.
  dropout: float = 0.0  # Of embeddings, attention weights and residual branches.
  use_bias: bool = False  # Biases in maps and norms, as in GPT-2.
  unroll: int = 4  # Layers in one turn of the scan over layers; changes bits.
  remat: bool = False  # Compute blocks again on the way back: less memory, more time.
  lr: float = 4e-3  # Peak learning rate.
  final_fraction: float = 0.0  # Of the peak, at the last step of the cosine.
  warmup_fraction: float = 0.05  # Of the steps, with a linear rise from 0.
  beta1: float = 0.9  # Decay of AdamW's first moment.
  beta2: float = 0.99  # Decay of AdamW's second moment.
  weight_decay: float = 0.1  # Decoupled, on kernels and embeddings only.
  sample_length: int = 400  # Characters of each sample in the report.
  temperature: float = 0.8  # Of the samples; 0: always the likeliest character.
  top_k: int | None = None  # Samples draw from this many characters; None: all.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('num_layers', 'num_heads', 'width', 'unroll', 'sample_length', least=1)
    heads = self.width % self.num_heads == 0
    self.require('num_heads', heads, f'a divisor of width={self.width}')
    self.bounds('context', least=2)
    self.bounds('dropout', 'beta1', 'beta2', least=0, below=1)
    self.bounds('final_fraction', 'warmup_fraction', least=0, most=1)
    self.bounds('lr', above=0)
    self.bounds('weight_decay', 'temperature', least=0)
    self.bounds('top_k', least=1)


def build(config: Config) -> experiment.Experiment:
  data = characters.characters(config.dataset)
  model = GPT(
    vocabulary_size=len(data.vocabulary),
    context=config.context,
    num_layers=config.num_layers,
    num_heads=config.num_heads,
    width=config.width,
    use_bias=config.use_bias,
    dropout=config.dropout,
    unroll=config.unroll,
    remat=config.remat,
    dtype=config.compute_dtype,
    param_dtype=config.param_dtype,
  )
  rate = optim.warmup_cosine(
    config.lr,
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
