"""GPT: a causal transformer over tokens, as in GPT-2 (Radford et al. 2019)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from dlx.layers import mesh, transformer
from dlx.layers.attention.multihead import KVCache, empty_cache
from dlx.layers.matmul import rows_dot_general
from dlx.layers.transformer import STREAM, Stacked, Transformer, stacked_cache

Array = jax.Array

# Where the state lies on a mesh; dimensions that an axis does not divide stay whole.
PLACEMENT = (
  (r'(token/embedding|output_embedding)$', P('tensor', 'fsdp')),
  (r'position_embedding$', P(None, 'fsdp')),
  *transformer.PLACEMENT,
)
POSITIONS = ('learned', 'rotary')
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
    context: most tokens of a sequence.
    num_layers: N.
    num_heads: H, a divisor of width.
    width: D of the stream; the feed-forward parts are four times as wide.
    num_kv_heads: G, a divisor of H: so many heads of keys and values, each read by
      H / G neighbouring heads of queries (arXiv:2305.13245); None: H.
    positions: 'learned': a table of one embedding a position, added to that of the
      token; 'rotary': queries and keys are turned instead (arXiv:2104.09864).
    pad_vocabulary_to: the tables of tokens and outputs have V rounded up to a multiple
      of this many rows, so that a mesh can divide them; the logits of the rows past V
      are -inf, their gradients 0.
    use_bias: in maps and norms.
    exact_gelu: by erf; False: the tanh form.
    tie_embeddings: logits are products with the token embeddings; False: a map of
      their own, without bias.
    dropout: of embeddings, attention weights and residual branches.
    init_scale: standard deviation of the initial weights.
    unroll: layers in one turn of the scan, see `Transformer`.
    remat: see `Transformer`.
    dtype: of the arithmetic; logits are at least float32.
    param_dtype: of the parameters.
  """

  vocabulary_size: int
  context: int
  num_layers: int = 4
  num_heads: int = 4
  width: int = 128
  num_kv_heads: int | None = None
  positions: str = 'learned'
  pad_vocabulary_to: int = 1
  use_bias: bool = True
  exact_gelu: bool = True
  tie_embeddings: bool = True
  dropout: float = 0.0
  init_scale: float = 0.02
  unroll: int = 1
  remat: str = 'none'
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def __call__(self, token_BT: Array, *, train: bool) -> Array:
    """Logits [B, T, V], V padded, float32 or wider, of the token after each.

    Args:
      token_BT: int in [0, V), T at most `context`.
      train: drop units (rng 'dropout').

    Raises:
      ValueError: more tokens than `context`, or another word for `positions`.
    """
    return self.forward(token_BT, train=train)[0]

  def extend(self, token_BT: Array, cache: KVCache) -> tuple[Array, KVCache]:
    """Logits [B, T, V] of T more tokens, and the cache that holds them too.

    The caller sees to it that `cache.length + T` is at most `context`.
    """
    logits_BTV, stacked = self.forward(token_BT, train=False, cache=cache)
    assert stacked.cache is not None
    return logits_BTV, stacked.cache

  def attention(self, token_BT: Array) -> Array:
    """Attention weights [N, B, H, T, T]; rows sum to 1."""
    stacked = self.forward(token_BT, train=False, return_weights=True)[1]
    assert stacked.weights_NBHLM is not None
    return stacked.weights_NBHLM

  def empty_cache(self, batch_size: int) -> KVCache:
    """A cache with room for `context` tokens and none in it."""
    kv_heads = self.num_heads if self.num_kv_heads is None else self.num_kv_heads
    head_dim = self.width // self.num_heads
    one = empty_cache(batch_size, self.context, kv_heads, head_dim, self.dtype)
    return stacked_cache(one, self.num_layers)

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
    cache: KVCache | None = None,
    return_weights: bool = False,
  ) -> tuple[Array, Stacked]:
    """Logits, and what the stack gives besides."""
    length = token_BT.shape[1]
    if length > self.context:
      raise ValueError(
        f'{length} tokens are not allowed: must be at most context={self.context}.'
      )
    if self.positions not in POSITIONS:
      raise ValueError(
        f'positions={self.positions!r} is not allowed: must be one of '
        f'{", ".join(POSITIONS)}.'
      )
    learned = self.positions == 'learned'
    dtypes = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    normal = nn.initializers.normal
    embed = nn.Embed(
      self.num_rows,
      self.width,
      embedding_init=normal(self.init_scale),
      name='token',
      **dtypes,
    )
    # As one look-up in rows that are whole: of rows divided over fsdp, as they are
    # stored, XLA would gather the result on every device (warned of by jax 0.10.2).
    kernel_VD = jnp.asarray(embed.embedding, self.dtype)
    x_BTD = jnp.take(mesh.constrain(kernel_VD, 'tensor', None), token_BT, axis=0)
    if learned:
      position_TD = self.param(
        'position_embedding',
        normal(self.init_scale),
        (self.context, self.width),
        self.param_dtype,
      )
      start = 0 if cache is None else cache.length[0]
      position_TD = jax.lax.dynamic_slice_in_dim(position_TD, start, length)
      x_BTD = x_BTD + position_TD[None].astype(self.dtype)
    x_BTD = mesh.constrain(x_BTD, *STREAM)
    x_BTD = nn.Dropout(self.dropout, deterministic=not train)(x_BTD)
    stacked = Transformer(
      self.num_layers,
      self.num_heads,
      4 * self.width,
      num_kv_heads=self.num_kv_heads,
      rotary=None if learned else ROTARY_BASE,
      causal=True,
      use_bias=self.use_bias,
      exact_gelu=self.exact_gelu,
      dropout=self.dropout,
      kernel_init=normal(self.init_scale),
      residual_init=normal(self.init_scale / (2 * self.num_layers) ** 0.5),
      unroll=self.unroll,
      remat=self.remat,
      name='transformer',
      **dtypes,
    )(x_BTD, train=train, cache=cache, return_weights=return_weights)
    x_BTD = nn.LayerNorm(epsilon=1e-5, use_bias=self.use_bias, name='norm', **dtypes)(
      stacked.x_BLD
    )
    wide = jnp.promote_types(self.dtype, jnp.float32)
    if self.tie_embeddings:
      kernel_VD = embed.embedding
    else:
      kernel_VD = self.param(
        'output_embedding',
        normal(self.init_scale),
        (self.num_rows, self.width),
        self.param_dtype,
      )
    # Narrow operands, wide sums: the largest product of a small net.
    logits_BTV = rows_dot_general(
      x_BTD,
      jnp.asarray(kernel_VD, self.dtype).T,
      (((2,), (0,)), ((), ())),
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
  width, heads = model.width, model.num_heads
  kv_heads = heads if model.num_kv_heads is None else model.num_kv_heads
  maps = 2 * width**2 + 2 * width**2 * kv_heads // heads + 8 * width**2
  weights = model.num_layers * maps + model.num_rows * width
  return 6.0 * weights + attention_flops_per_token(model, length)


def attention_flops_per_token(model: GPT, length: int) -> float:
  """The second part of `flops_per_token`: scores and values, of all pairs."""
  return 12.0 * model.num_layers * model.width * length
