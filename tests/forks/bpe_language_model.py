"""A language model over byte pairs that are learnt from the text (arXiv:1508.07909)."""

import collections
import dataclasses
import functools

from dlx import experiment, optim
from dlx.data.batches.windows import AllWindows, Windows
from dlx.data.sets.characters import pydoc_text
from dlx.data.sources import of_arrays
from dlx.layers.block_config import BlockConfig
from dlx.models.gpt import GPT
from dlx.tasks.language_modelling import (
  next_token_accuracy,
  next_token_loss,
  split_window,
)
from dlx.train.supervised import supervised


@functools.cache
def byte_pairs(merges: int, size: int) -> tuple[list[int], int]:
  """Tokens of the first characters of the text, and how many kinds there are."""
  token = list(pydoc_text()[:size].encode())
  for new in range(256, 256 + merges):
    pair = collections.Counter(zip(token, token[1:])).most_common(1)[0][0]
    merged, i = [], 0
    while i < len(token):
      found = tuple(token[i : i + 2]) == pair
      merged.append(new if found else token[i])
      i += 1 + found
    token = merged
  return token, 256 + merges


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 300  # Optimiser steps of the whole run.
  merges: int = 64  # Pairs that become one token.
  context: int = 32  # Tokens of a window.
  lr: float = 3e-3  # Peak of the one-cycle learning rate.


SMALL = Config.small(merges=2, context=8)


def build(config: Config) -> experiment.Experiment:
  token, kinds = byte_pairs(config.merges, 20_000)
  cut = len(token) * 9 // 10
  train, held = (
    of_arrays({'token': x}, 'byte_pairs') for x in (token[:cut], token[cut:])
  )
  block = BlockConfig(num_heads=2, width=32, **config.dtypes)
  return supervised(
    config,
    model=GPT(vocabulary_size=kinds, context=config.context, num_layers=1, block=block),
    inputs='input',
    prepare=split_window,
    loss=next_token_loss,
    tx=optim.adam(optim.one_cycle(config.lr, config.num_steps)),
    train_data=Windows(train, config.batch_size, config.context, config.seed),
    eval_data={'validation': AllWindows(held, config.eval_batch_size, config.context)},
    metrics=next_token_accuracy,
    overfit=experiment.Overfit(above=1.0),
  )
