"""Flags of a recurrent encoder-decoder, the same for all experiments that have one."""

import dataclasses
from typing import Any

from dlx.config import Group
from dlx.layers.recurrent.cells import CELLS, cell_by_name
from dlx.models.seq2seq import ATTENTIONS, DOT, GENERAL, NONE, Seq2Seq


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seq2SeqConfig(Group):
  """Flags of a Seq2Seq, `--config.net.NAME`."""

  cell: str = 'gru'  # Cell of both sides: gru, lstm, rnn or reset.
  embedding: int = 64  # Width of the embeddings of the tokens.
  features: int = 128  # Width of the states; of two directions together.
  num_layers: int = 1  # Layers of the encoder, and of the decoder.
  bidirectional: bool = True  # Whether the encoder reads from both ends.
  # How the decoder looks at the source: none, bahdanau, dot or general.
  attention: str = GENERAL
  # Whether each step reads what the attention of the last one gave; dot and general.
  input_feeding: bool = False
  dropout: float = 0.0  # Dropout of embeddings, between layers and before the logits.

  def __post_init__(self):
    super().__post_init__()
    self.choice('cell', of=CELLS)
    self.bounds('embedding', 'features', 'num_layers', least=1)
    even = not self.bidirectional or self.features % 2 == 0
    self.require('features', even, 'even, as each of two directions has half of it')
    self.choice('attention', of=ATTENTIONS)
    fed = not self.input_feeding or self.attention in (DOT, GENERAL)
    self.require('input_feeding', fed, f'False with attention={self.attention}')
    self.bounds('dropout', least=0, below=1)

  @property
  def attends(self) -> bool:
    """Whether there is attention."""
    return self.attention != NONE

  def module(self, vocabulary_size: int, **dtypes: Any) -> Seq2Seq:
    """The net; `dtypes` as `Config.dtypes`."""
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    cell = cell_by_name(fields.pop('cell'))
    return Seq2Seq(vocabulary_size, cell=cell, **fields, **dtypes)
