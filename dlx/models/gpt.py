"""GPT: a causal transformer over tokens, as in GPT-2 (Radford et al. 2019)."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from dlx import labels
from dlx.config import check_choice
from dlx.layers import mesh, transformer
from dlx.layers.attention.multihead import (
  KVCache,
  empty_cache,
  segment_mask,
  segment_positions,
)
from dlx.layers.block_config import BlockConfig, Relative
from dlx.layers.embeddings import sinusoidal
from dlx.layers.matmul import rows_dot_general
from dlx.layers.normalisation import LayerNorm
from dlx.layers.transformer import STREAM, Stacked, Transformer, stacked_cache

Array = jax.Array

# Where the state lies on a mesh; dimensions that an axis does not divide stay whole.
PLACEMENT = (
  (r'(token/embedding|output_embedding)$', P('tensor', 'fsdp')),
  (r'position_embedding$', P(None, 'fsdp')),
  *transformer.PLACEMENT,
)
POSITIONS = ('learned', 'sinusoidal', 'rotary', 'alibi', 'relative', 'none')
ROTARY_BASE = 10_000.0  # Of arXiv:2104.09864.


class GPT(nn.Module):
  """Token and position embeddings, pre-norm blocks, a norm, logits by the embedding.

  All weights start from N(0, 0.02^2); those of the two maps of each block that write to
  the residual stream are divided by sqrt(2 N), so that its size does not grow with the
  N layers.

  GPT-2's smallest: vocabulary_size 50257, context 1024, 12 layers, 12 heads, width 768,
  exact_gelu False: 124,439,808 parameters. With use_bias False (of maps and norms), as
  nanoGPT trains, 65 characters, context 64, 4 layers and width 128: 804,096.

  Attributes:
    vocabulary_size: V.
    context: tokens that a sequence is meant to have; with learned positions the most.
    num_layers: N.
    block: of each layer; the model sets `causal`, what belongs to the positions and the
      initial weights (`blocks`). `dropout` is that of the embeddings, too; logits are
      at least float32.
    positions: 'learned': a table of one embedding a position, added to that of the
      token. 'sinusoidal': sines and cosines in its place, and embeddings of tokens
      times sqrt(D) (arXiv:1706.03762). Or in every layer: 'rotary': queries and keys
      are turned (arXiv:2104.09864); 'alibi', 'relative': biases by distance, see
      `BlockConfig`. 'none': the causal order alone tells tokens apart
      (arXiv:2305.19466).
    pad_vocabulary_to: the tables of tokens and outputs have V rounded up to a multiple
      of this many rows, so that a mesh can divide them; the logits of the rows past V
      are -inf, their gradients 0.
    tie_embeddings: logits are products with the token embeddings; False: a map of
      their own, without bias.
    init_scale: standard deviation of the initial weights.
  """

  vocabulary_size: int
  context: int
  num_layers: int
  block: BlockConfig
  positions: str = 'learned'
  pad_vocabulary_to: int = 1
  tie_embeddings: bool = True
  init_scale: float = 0.02

  def __call__(
    self, token_BT: Array, *, train: bool, segment_BT: Array | None = None
  ) -> Array:
    """Logits [B, T, V], V padded, float32 or wider, of the token after each.

    Args:
      token_BT: int in [0, vocabulary_size), nan for others; T at most `context` where
        positions are learned.
      train: drop units (rng 'dropout').
      segment_BT: int, of rows that hold several texts (dlx/data/text/packed.py) the
        text that each token is of: each gets the logits that it gets alone. Attention
        then keeps its weights [B, H, T, T], as no kernel is asked. None: one text a
        row.

    Raises:
      ValueError: more tokens than learned positions, or another word for `positions`.
    """
    return self.forward(token_BT, train=train, segment_BT=segment_BT)[0]

  def extend(self, token_BT: Array, cache: KVCache) -> tuple[Array, KVCache]:
    """Logits [B, T, V] of T more tokens, and the cache that holds them too.

    The caller sees to it that `cache.length + T` is at most the room of the cache,
    which does not end with a window, and `context` where positions are learned.
    """
    logits_BTV, stacked = self.forward(token_BT, train=False, cache=cache)
    assert stacked.cache is not None
    return logits_BTV, stacked.cache

  def attention(self, token_BT: Array) -> Array:
    """Attention weights [N, B, H, T, T]; rows sum to 1."""
    stacked = self.forward(token_BT, train=False, return_weights=True)[1]
    assert stacked.weights_NBHLM is not None
    return stacked.weights_NBHLM

  def empty_cache(self, batch_size: int, capacity: int | None = None) -> KVCache:
    """A cache with no token in it.

    Args:
      batch_size: B.
      capacity: tokens that it has room for; None: `context`. With a window W it is a
        ring of at most W, which texts of any length go through.
    """
    c = self.block
    room = self.context if capacity is None else capacity
    room = room if c.window is None else min(room, c.window)
    one = empty_cache(batch_size, room, c.kv_heads, c.head_dim, c.dtype)
    return stacked_cache(one, self.num_layers)

  @property
  def blocks(self) -> BlockConfig:
    """`block`, with what makes the layers those of this model."""
    normal, relative = nn.initializers.normal, self.positions == 'relative'
    return dataclasses.replace(
      self.block,
      causal=True,
      rotary=ROTARY_BASE if self.positions == 'rotary' else None,
      alibi=self.positions == 'alibi',
      relative=(self.block.relative or Relative()) if relative else None,
      kernel_init=normal(self.init_scale),
      residual_init=normal(self.init_scale / (2 * self.num_layers) ** 0.5),
    )

  @property
  def num_rows(self) -> int:
    """V, padded."""
    multiple = self.pad_vocabulary_to
    return -(-self.vocabulary_size // multiple) * multiple

  @nn.compact
  def forward(
    self,
    token_BT: Array,
    *,
    train: bool,
    segment_BT: Array | None = None,
    cache: KVCache | None = None,
    return_weights: bool = False,
  ) -> tuple[Array, Stacked]:
    """Logits, and what the stack gives besides; a cache is of one text a row."""
    length = token_BT.shape[1]
    if self.positions == 'learned' and length > self.context:
      raise ValueError(
        f'{length} tokens are not allowed: must be at most context={self.context}.'
      )
    check_choice('positions', self.positions, POSITIONS)
    c = self.blocks
    normal = nn.initializers.normal(self.init_scale)
    embed = nn.Embed(
      self.num_rows, c.width, embedding_init=normal, name='token', **c.dtypes
    )
    # As one look-up in rows that are whole: of rows divided over fsdp, as they are
    # stored, XLA would gather the result on every device (warned of by jax 0.10.2).
    kernel_VD = jnp.asarray(embed.embedding, c.dtype)
    kernel_VD = mesh.constrain(kernel_VD, 'tensor', None)
    # Rows that only fill the vocabulary up stand for no token.
    x_BTD = labels.rows(kernel_VD, token_BT, self.vocabulary_size)
    if self.positions == 'learned':
      position_TD = self.param(
        'position_embedding', normal, (self.context, c.width), c.param_dtype
      )
      if segment_BT is None:
        start = 0 if cache is None else cache.length[0]
        found = jax.lax.dynamic_slice_in_dim(position_TD, start, length)[None]
      else:
        found = labels.rows(position_TD, segment_positions(segment_BT))
      x_BTD = x_BTD + found.astype(c.dtype)
    elif self.positions == 'sinusoidal':
      if segment_BT is None:
        start = 0 if cache is None else cache.length[0]
        place_BT = (start + jnp.arange(length))[None]
      else:
        place_BT = segment_positions(segment_BT)
      wave = sinusoidal(place_BT.reshape(-1), c.width).reshape(*place_BT.shape, -1)
      x_BTD = x_BTD * c.width**0.5 + wave.astype(c.dtype)
    x_BTD = mesh.constrain(x_BTD, *STREAM)
    x_BTD = nn.Dropout(c.dropout, deterministic=not train)(x_BTD)
    # What depends on differences of positions alone needs no more of segments.
    mask_BHTT = None if segment_BT is None else segment_mask(segment_BT)
    stacked = Transformer(self.num_layers, c, name='transformer')(
      x_BTD,
      train=train,
      mask_BHLM=mask_BHTT,
      cache=cache,
      return_weights=return_weights,
    )
    norm = LayerNorm(epsilon=1e-5, use_bias=c.use_bias, name='norm', **c.dtypes)
    x_BTD = norm(stacked.x_BLD)
    wide = jnp.promote_types(c.dtype, jnp.float32)
    if self.tie_embeddings:
      kernel_VD = embed.embedding
    else:
      kernel_VD = self.param(
        'output_embedding', normal, (self.num_rows, c.width), c.param_dtype
      )
    # Narrow operands, wide sums: the largest product of a small net.
    logits_BTV = rows_dot_general(
      x_BTD,
      jnp.asarray(kernel_VD, c.dtype),
      (((2,), (1,)), ((), ())),
      preferred_element_type=wide,
    )
    if self.num_rows > self.vocabulary_size:
      real_V = jnp.arange(self.num_rows) < self.vocabulary_size
      logits_BTV = jnp.where(real_V[None, None], logits_BTV, -jnp.inf)
    return mesh.constrain(logits_BTV, *STREAM, 'tensor'), stacked


def flops_per_token(model: GPT, length: int) -> float:
  """Floating-point operations of one training step over its tokens, a multiply-add two.

  6 N + 12 N_layers D L as in arXiv:2204.02311: N counts the weights that are multiplied
  with the stream, those of the blocks and of the output once (padded rows included, the
  look-up of tokens and positions, biases and norms not); then the scores and their
  products with the values. Forward once, backward twice as much.

  All L x L pairs of queries and keys count. A causal kernel that skips what nobody sees
  computes (L + 1) / 2 L of that second part: subtract it for the work really done. What
  is computed twice to save memory (remat, and the scores on the way back of a kernel)
  does not count.

  Args:
    model: its fields alone are read.
    length: L, tokens of a sequence.
  """
  c, width = model.block, model.block.width
  attention = 2 * width**2 + 2 * width**2 * c.kv_heads // c.num_heads
  maps = attention + c.mlp_weights
  weights = model.num_layers * maps + model.num_rows * width
  return 6.0 * weights + attention_flops_per_token(model, length)


def attention_flops_per_token(model: GPT, length: int) -> float:
  """The second part of `flops_per_token`: scores and values, of all pairs.

  With a window of W a query has W keys.
  """
  window = model.block.window
  keys = length if window is None else min(length, window)
  return 12.0 * model.num_layers * model.block.width * keys
