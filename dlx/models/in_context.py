"""A transformer that learns from the examples in its input (arXiv:2208.01066)."""

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp

from dlx.layers import mesh
from dlx.layers.block_config import BlockConfig
from dlx.layers.matmul import Dense
from dlx.layers.normalisation import LayerNorm
from dlx.layers.transformer import STREAM, Transformer
from dlx.state import Array


class InContextRegressor(nn.Module):
  """Predicts each y of a row of pairs (x, y) from its x and the pairs before it.

  The pairs stand as tokens x_0, y_0, x_1, y_1, ...: a causal transformer with learned
  positions reads them, and a linear layer gives the prediction of y_k at the token x_k,
  which sees no later token.

  Attributes:
    num_layers: blocks.
    block: of each of them; `causal` is set here.
  """

  num_layers: int
  block: BlockConfig

  @nn.compact
  def __call__(self, pairs: tuple[Array, Array], *, train: bool) -> Array:
    """Predictions [B, K], at least float32.

    Args:
      pairs: x [B, K, D] and y [B, K]; the last y is not read by any prediction.
      train: drop units (rng 'dropout').
    """
    x_BKD, y_BK = pairs
    c = self.block
    dense = functools.partial(Dense, **c.dtypes)
    of_x_BKW = dense(c.width, name='x')(x_BKD)
    of_y_BKW = dense(c.width, name='y')(y_BK[:, :, None])
    batch, count, width = of_x_BKW.shape
    tokens_BTW = jnp.stack([of_x_BKW, of_y_BKW], 2).reshape(batch, 2 * count, width)
    position_TW = self.param(
      'position_embedding',
      nn.initializers.normal(0.02),
      (2 * count, width),
      c.param_dtype,
    )
    tokens_BTW += position_TW[None].astype(c.dtype)
    tokens_BTW = mesh.constrain(tokens_BTW, *STREAM)
    causal = dataclasses.replace(c, causal=True)
    stacked = Transformer(self.num_layers, causal, name='transformer')(
      tokens_BTW, train=train
    )
    last_BTW = LayerNorm(epsilon=1e-5, name='norm', **c.dtypes)(stacked.x_BLD)
    head = Dense(
      1,
      kernel_init=nn.initializers.zeros,
      dtype=jnp.promote_types(c.dtype, jnp.float32),
      param_dtype=c.param_dtype,
      name='head',
    )
    return head(last_BTW[:, ::2])[:, :, 0]
