"""A small encoder that is asked at one token, and tells what that token looked at."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx import labels
from dlx.layers import mesh, transformer
from dlx.layers.block_config import BlockConfig
from dlx.layers.embeddings import sinusoidal
from dlx.layers.matmul import Dense
from dlx.layers.normalisation import LayerNorm
from dlx.layers.transformer import STREAM, Transformer

Array = jax.Array

PLACEMENT = transformer.PLACEMENT  # Of the state on a mesh; the rest lies by size.
PAD = 0  # Token that fills up rows from their end.


class Read(NamedTuple):
  """What `TokenReader` gives.

  Attributes:
    logits_BK: of the classes, float32 or wider.
    place_B: int32, of the token that was asked.
    weights_BHT: how much it looked at each token in the last layer; rows sum to 1.
  """

  logits_BK: Array
  place_B: Array
  weights_BHT: Array


class TokenReader(nn.Module):
  """Embeddings with sinusoidal positions, blocks, a norm, logits of one token.

  Attributes:
    vocabulary_size: V.
    num_outputs: K.
    asked: tokens of which the first in a row is asked; where there is none the first
      token is.
    num_layers: N.
    block: of each layer.
  """

  vocabulary_size: int
  num_outputs: int
  asked: tuple[int, ...]
  num_layers: int
  block: BlockConfig

  @nn.compact
  def __call__(self, token_BT: Array, *, train: bool) -> Read:
    """Answers for rows of tokens.

    Args:
      token_BT: int in [0, V), PAD after the end, nan for others.
      train: drop units (rng 'dropout').
    """
    c, rows = self.block, jnp.arange(token_BT.shape[0])
    asked_BT = jnp.isin(token_BT, jnp.asarray(self.asked, token_BT.dtype))
    place_B = asked_BT.argmax(1).astype(jnp.int32)
    normal = nn.initializers.normal(c.width**-0.5)
    embed = nn.Embed(
      self.vocabulary_size, c.width, embedding_init=normal, name='token', **c.dtypes
    )
    kernel_VD = mesh.constrain(jnp.asarray(embed.embedding, c.dtype), None, None)
    x_BTD = labels.rows(kernel_VD, token_BT) * c.width**0.5
    wave_TD = sinusoidal(jnp.arange(token_BT.shape[1]), c.width)
    x_BTD = mesh.constrain(x_BTD + wave_TD[None].astype(c.dtype), *STREAM)
    stacked = Transformer(self.num_layers, c, name='transformer')(
      x_BTD,
      train=train,
      mask_BHLM=(token_BT != PAD)[:, None, None],
      return_weights=True,
    )
    assert stacked.weights_NBHLM is not None
    weights_BHT = stacked.weights_NBHLM[-1][rows, :, place_B]
    x_BD = stacked.x_BLD[rows, place_B]
    head = Dense(
      self.num_outputs,
      dtype=jnp.promote_types(c.dtype, jnp.float32),
      param_dtype=c.param_dtype,
      name='head',
    )
    norm = LayerNorm(epsilon=1e-5, name='norm', **c.dtypes)
    return Read(head(norm(x_BD)), place_B, weights_BHT)
