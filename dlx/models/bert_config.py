"""Flags of BERT's encoder, the same for all experiments that have one."""

import dataclasses
from typing import Any

from dlx.config import Group
from dlx.layers.block_config import BlockConfig
from dlx.layers.transformer import REMAT
from dlx.models.bert import SHAPES, Bert

HEAD_WIDTH = 64  # Of every published size.


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig(Group):
  """Flags of a Bert, `--config.encoder.NAME`."""

  # Published size that gives the layers and the width: tiny, mini, small, medium, base
  # or large.
  size: str = 'tiny'
  num_layers: int | None = None  # Transformer blocks; none: by size.
  # Width of the states, below 64 or a multiple of 64, as a head is; none: by size.
  width: int | None = None
  vocabulary_size: int = 1024  # Tokens, byte pairs learnt from the corpus.
  max_length: int = 32  # Most tokens of a row, the marks around texts included.
  dropout: float = 0.1  # Dropout of embeddings, attention weights and branches.
  unroll: int = 2  # Layers in one turn of the scan over layers, changes bits.
  # Computed again on the way back, to save memory: off (nothing), dots (all but the
  # results of products), full (everything inside a block).
  remat: str = 'off'
  # The vocabulary is padded to a multiple of this, so that a mesh divides the table.
  pad_vocabulary_to: int = 1

  def __post_init__(self):
    super().__post_init__()
    self.choice('size', of=SHAPES)
    self.bounds('num_layers', 'width', 'unroll', 'pad_vocabulary_to', least=1)
    width = self.width or HEAD_WIDTH
    whole = width < HEAD_WIDTH or width % HEAD_WIDTH == 0
    self.require(
      'width', whole, f'below {HEAD_WIDTH}, a multiple of {HEAD_WIDTH}, or None'
    )
    self.bounds('max_length', least=8)
    self.bounds('dropout', least=0, below=1)
    self.choice('remat', of=REMAT)

  def module(self, **dtypes: Any) -> Bert:
    """The encoder; `dtypes` as `Config.dtypes`."""
    shape = SHAPES[self.size]
    width = self.width or shape.width
    return Bert(
      vocabulary_size=self.vocabulary_size,
      context=self.max_length,
      num_layers=self.num_layers or shape.num_layers,
      pad_vocabulary_to=self.pad_vocabulary_to,
      block=BlockConfig(
        width=width,
        num_heads=max(1, width // HEAD_WIDTH),
        dropout=self.dropout,
        unroll=self.unroll,
        remat=self.remat,
        **dtypes,
      ),
    )
