"""ViT: a transformer over the patches of an image (arXiv:2010.11929)."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.layers import mesh, transformer
from dlx.layers.block_config import BlockConfig
from dlx.layers.matmul import Dense
from dlx.layers.normalisation import LayerNorm
from dlx.layers.transformer import STREAM, Stacked, Transformer
from dlx.precision import EXACT

Array = jax.Array

PLACEMENT = transformer.PLACEMENT  # Of the state on a mesh; the rest lies by size.


class ViT(nn.Module):
  """Patch and position embeddings, pre-norm blocks, a norm, one token, logits.

  The first logits are 0. Patches are cut and multiplied, which is the convolution of
  the paper with as many parameters and faster on a CPU. ViT-B/16 on 224 x 224 pixels:
  patch 16, 12 layers, 12 heads, width 768, 1000 classes: 86,567,656 parameters, 197
  tokens.

  Attributes:
    num_layers: N.
    block: of each layer. `dropout` is that of the embeddings, too; logits are at least
      float32.
    num_outputs: K.
    patch: side of a patch in pixels, a divisor of height and width.
    pool: 'token': a learned class token comes first and is read at the end; 'mean':
      the mean of all tokens is read.
    position_scale: standard deviation of the initial position embeddings. 0.02 is the
      paper's. Patch embeddings start near 1, so that short runs of a small net learn
      where a patch lies much faster from 1: on MNIST (6 layers, width 64) the loss
      after 200 steps was 0.66 against 1.28.
  """

  num_layers: int
  block: BlockConfig
  num_outputs: int = 10
  patch: int = 4
  pool: str = 'token'
  position_scale: float = 0.02

  def __call__(self, x_BHWC: Array, *, train: bool) -> Array:
    """Logits [B, K], float32 or wider.

    Args:
      x_BHWC: images, normalised.
      train: drop units (rng 'dropout').

    Raises:
      ConfigError: images that the patches do not tile.
      ValueError: another `pool`.
    """
    return self.forward(x_BHWC, train=train)[0]

  def features(self, x_BHWC: Array, train: bool = False) -> Array:
    """What `head` reads [B, D]: the class token, or the mean of all tokens."""
    return self.forward(x_BHWC, train=train)[1]

  def attention(self, x_BHWC: Array) -> Array:
    """Attention weights [N, B, H, T, T]; rows sum to 1; the class token is first."""
    stacked = self.forward(x_BHWC, train=False, return_weights=True)[2]
    assert stacked.weights_NBHLM is not None
    return stacked.weights_NBHLM

  @nn.compact
  def forward(
    self, x_BHWC: Array, *, train: bool, return_weights: bool = False
  ) -> tuple[Array, Array, Stacked]:
    """Logits, features, and what the stack gives besides."""
    if self.pool not in ('token', 'mean'):
      raise ValueError(f"pool={self.pool!r} is not allowed: must be 'token' or 'mean'.")
    c = self.block
    x_BTD = Dense(
      c.width, kernel_init=nn.initializers.lecun_normal(), name='patch', **c.dtypes
    )(patches(x_BHWC, self.patch))
    if self.pool == 'token':
      token_D = self.param(
        'class_token', nn.initializers.zeros, (c.width,), c.param_dtype
      )
      token_B1D = jnp.broadcast_to(
        token_D.astype(c.dtype), (x_BTD.shape[0], 1, c.width)
      )
      x_BTD = jnp.concatenate([token_B1D, x_BTD], 1)
    position_TD = self.param(
      'position_embedding',
      nn.initializers.normal(self.position_scale),
      x_BTD.shape[1:],
      c.param_dtype,
    )
    x_BTD += position_TD[None].astype(c.dtype)
    x_BTD = mesh.constrain(x_BTD, *STREAM)
    x_BTD = nn.Dropout(c.dropout, deterministic=not train)(x_BTD)
    stacked = Transformer(self.num_layers, c, name='transformer')(
      x_BTD, train=train, return_weights=return_weights
    )
    x_BTD = LayerNorm(epsilon=1e-6, name='norm', **c.dtypes)(stacked.x_BLD)
    x_BD = x_BTD[:, 0] if self.pool == 'token' else x_BTD.mean(1)
    logits_BK = Dense(
      self.num_outputs,
      kernel_init=nn.initializers.zeros,
      dtype=jnp.promote_types(c.dtype, jnp.float32),
      param_dtype=c.param_dtype,
      name='head',
    )(x_BD)
    return logits_BK, x_BD, stacked


def num_patches(height: int, width: int, patch: int) -> int:
  """Patches of an image; tokens without a class token.

  Raises:
    ConfigError: patches that do not tile the image.
  """
  if patch < 1 or height % patch or width % patch:
    raise ConfigError(
      f'patch={patch} is not allowed on {height} x {width} images: must be a divisor '
      'of both.'
    )
  return (height // patch) * (width // patch)


def patches(x_BHWC: Array, patch: int) -> Array:
  """[B, T, patch * patch * C]: patches row by row, each row by row."""
  chex.assert_rank(x_BHWC, 4)
  batch, height, width, channels = x_BHWC.shape
  count = num_patches(height, width, patch)
  rows, columns = height // patch, width // patch
  x = x_BHWC.reshape(batch, rows, patch, columns, patch, channels)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, count, -1)


def rollout(weights_NBHTT: Array) -> Array:
  """Attention rollout (arXiv:2005.00928): how much each token drew from each input.

  The mean over heads, half of it and half the identity for the residual branch, and
  the product over layers, the last one leftmost.

  Args:
    weights_NBHTT: of all layers, rows sum to 1.

  Returns:
    [B, T, T]; rows sum to 1.
  """
  chex.assert_rank(weights_NBHTT, 5)
  mean_NBTT = weights_NBHTT.mean(2)
  mixed_NBTT = (mean_NBTT + jnp.eye(mean_NBTT.shape[-1])[None, None]) / 2
  total_BTT = mixed_NBTT[0]
  for layer_BTT in mixed_NBTT[1:]:
    total_BTT = jnp.matmul(layer_BTT, total_BTT, precision=EXACT)
  return total_BTT


def token_maps(weights_BHTT: Array, shape: tuple[int, int], pool: str) -> Array:
  """What the token that is read looks at, as pictures: [B, H, rows, columns].

  Args:
    weights_BHTT: attention of a layer or a rollout with an axis of heads.
    shape: rows and columns of patches.
    pool: of the model. 'token': the row of the class token without itself; 'mean': the
      mean of all rows.
  """
  row_BHT = weights_BHTT[:, :, 0, 1:] if pool == 'token' else weights_BHTT.mean(axis=2)
  return row_BHT.reshape(*row_BHT.shape[:2], *shape)
