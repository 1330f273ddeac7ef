"""Pre-norm transformer blocks, and a stack of them as one scan over layers.

x <- x + attention(norm(x)); x <- x + mlp(norm(x)). The parameters of a stack have a
leading axis of layers, so that a deep net compiles as fast as a shallow one.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np

from dlx.layers import mesh
from dlx.layers.attention.multihead import (
  Array,
  Initializer,
  KVCache,
  MultiHeadAttention,
)
from dlx.layers.matmul import rows_dot_general

# Of the parameters of `Transformer`, whose leading axis is that of layers: heads and
# hidden units over tensor (arXiv:1909.08053), the stream over fsdp.
PLACEMENT = (
  (r'attention/(query|key|value)/kernel$', P(None, 'fsdp', 'tensor', None)),
  (r'attention/(query|key|value)/bias$', P(None, 'tensor', None)),
  (r'attention/out/kernel$', P(None, 'tensor', None, 'fsdp')),
  (r'mlp/in/kernel$', P(None, 'fsdp', 'tensor')),
  (r'mlp/in/bias$', P(None, 'tensor')),
  (r'mlp/out/kernel$', P(None, 'tensor', 'fsdp')),
)
STREAM = (('data', 'fsdp'), 'sequence')  # Where x [B, L, D] lies on a mesh.

# What of a block is kept for the way back, and what is computed again.
REMAT = {
  'none': None,  # All is kept.
  'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  'full': jax.checkpoint_policies.nothing_saveable,
}


class Stacked(NamedTuple):
  """What `Transformer` gives.

  Attributes:
    x_BLD: the stream after the last block, not normalised.
    cache: one for each layer, stacked along axis 0; None where none was given.
    weights_NBHLM: attention of each of the N layers; None unless asked for.
  """

  x_BLD: Array
  cache: KVCache | None = None
  weights_NBHLM: Array | None = None


def matrices(params: Any) -> Any:
  """True for kernels and embeddings, by name: what weight decay is for.

  By name, since the biases and scales of stacked layers have rank 2 as well.
  """

  def one(path, leaf):
    del leaf
    name = jax.tree_util.keystr(path[-1:], simple=True)
    return name == 'kernel' or name.endswith('embedding')

  return jax.tree_util.tree_map_with_path(one, params)


def gelu(x: Array) -> Array:
  """x Phi(x), Phi the normal distribution function (arXiv:1606.08415).

  Float32 by erf, as exact as PyTorch's. XLA's erfc keeps all digits of the tiny values
  far below 0: value and gradient of [4160, 768] take 3.45 ms with it, 1.8 with erf (two
  cores).
  """
  if x.dtype != jnp.float32:
    return nn.gelu(x, approximate=False)
  return 0.5 * x * (1 + jax.lax.erf(x * np.float32(0.5**0.5)))


class FeedForward(nn.Module):
  """Dense, GELU (arXiv:1606.08415), Dense, position by position.

  Attributes:
    hidden: width in between.
    use_bias: in both maps.
    exact_gelu: x Phi(x) by erf; False: the tanh form, as in GPT-2.
    dropout: probability that an entry of the result is dropped (rng 'dropout').
    kernel_init: of the first map.
    out_init: of the second.
    dtype: of the arithmetic.
    param_dtype: of the parameters.
  """

  hidden: int
  use_bias: bool = True
  exact_gelu: bool = True
  dropout: float = 0.0
  kernel_init: Initializer = nn.initializers.xavier_uniform()
  out_init: Initializer = nn.initializers.xavier_uniform()
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BLD: Array, *, train: bool) -> Array:
    shared = {
      'use_bias': self.use_bias,
      'dtype': self.dtype,
      'param_dtype': self.param_dtype,
      'dot_general': rows_dot_general,
    }
    y_BLF = nn.Dense(self.hidden, kernel_init=self.kernel_init, name='in', **shared)(
      x_BLD
    )
    y_BLF = gelu(y_BLF) if self.exact_gelu else nn.gelu(y_BLF, approximate=True)
    y_BLD = nn.Dense(x_BLD.shape[-1], kernel_init=self.out_init, name='out', **shared)(
      y_BLF
    )
    return nn.Dropout(self.dropout, deterministic=not train)(y_BLD)


class Block(nn.Module):
  """One pre-norm block: attention and feed-forward, each on a residual branch.

  Attributes:
    num_heads: of the attention.
    hidden: width of the feed-forward part.
    num_kv_heads: see `MultiHeadAttention`.
    rotary: see `MultiHeadAttention`.
    causal: no token sees a later one.
    use_bias: in all maps and norms.
    exact_gelu: see `FeedForward`.
    dropout: of attention weights and of both branches.
    kernel_init: of the maps that read the stream.
    residual_init: of the two maps that write to the stream.
    train: drop units; a field, not an argument, so that a scan over layers keeps it
      static.
    return_weights: likewise.
    dtype: of the arithmetic; softmax and statistics are at least float32.
    param_dtype: of the parameters.
  """

  num_heads: int
  hidden: int
  num_kv_heads: int | None = None
  rotary: float | None = None
  causal: bool = False
  use_bias: bool = True
  exact_gelu: bool = True
  dropout: float = 0.0
  kernel_init: Initializer = nn.initializers.xavier_uniform()
  residual_init: Initializer = nn.initializers.xavier_uniform()
  train: bool = False
  return_weights: bool = False
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BLD: Array, cache: KVCache | None = None):
    """(x, cache) -> (x, (cache, weights)), the form of the body of a scan."""
    shared = {
      'use_bias': self.use_bias,
      'dropout': self.dropout,
      'kernel_init': self.kernel_init,
      'out_init': self.residual_init,
      'dtype': self.dtype,
      'param_dtype': self.param_dtype,
    }

    def norm(name):
      return nn.LayerNorm(
        epsilon=1e-5,
        use_bias=self.use_bias,
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name=name,
      )

    attended = MultiHeadAttention(
      self.num_heads,
      num_kv_heads=self.num_kv_heads,
      rotary=self.rotary,
      causal=self.causal,
      name='attention',
      **shared,
    )(
      norm('norm_attention')(x_BLD),
      train=self.train,
      cache=cache,
      return_weights=self.return_weights,
    )
    x_BLD += nn.Dropout(self.dropout, deterministic=not self.train)(attended.x_BLD)
    x_BLD += FeedForward(self.hidden, exact_gelu=self.exact_gelu, name='mlp', **shared)(
      norm('norm_mlp')(x_BLD), train=self.train
    )
    x_BLD = mesh.constrain(x_BLD, *STREAM)
    return x_BLD, (attended.cache, attended.weights_BHLM)


class Transformer(nn.Module):
  """N blocks in a row, scanned: the parameters of all lie stacked under `blocks`.

  Attributes:
    num_layers: N.
    num_heads: of each block.
    hidden: width of the feed-forward parts.
    num_kv_heads: see `MultiHeadAttention`.
    rotary: see `MultiHeadAttention`.
    causal: no token sees a later one.
    use_bias: in all maps and norms.
    exact_gelu: see `FeedForward`.
    dropout: see `Block`.
    kernel_init: see `Block`.
    residual_init: see `Block`.
    unroll: layers in one turn of the scan; N is a plain loop over the same parameters:
      slower to compile, faster to run on a CPU.
    remat: what is kept for the way back (arXiv:1604.06174), memory for time: 'none':
      everything; 'dots': the stream between blocks and what the maps give, the rest
      (norms, GELU, attention between its maps) is computed again; 'full': the stream
      alone.
    dtype: of the arithmetic.
    param_dtype: of the parameters.
  """

  num_layers: int
  num_heads: int
  hidden: int
  num_kv_heads: int | None = None
  rotary: float | None = None
  causal: bool = False
  use_bias: bool = True
  exact_gelu: bool = True
  dropout: float = 0.0
  kernel_init: Initializer = nn.initializers.xavier_uniform()
  residual_init: Initializer = nn.initializers.xavier_uniform()
  unroll: int = 1
  remat: str = 'none'
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x_BLD: Array,
    *,
    train: bool,
    cache: KVCache | None = None,
    return_weights: bool = False,
  ) -> Stacked:
    """The stream after N blocks.

    Args:
      x_BLD: the stream.
      train: drop units (rng 'dropout').
      cache: of the tokens before `x_BLD`, leading axis N; see `stacked_cache`.
      return_weights: also give the attention weights of every layer.

    Raises:
      ValueError: another `remat`; see also `MultiHeadAttention`.
    """
    if self.remat not in REMAT:
      raise ValueError(
        f'remat={self.remat!r} is not allowed: must be one of {", ".join(REMAT)}.'
      )
    block = Block
    if (policy := REMAT[self.remat]) is not None:
      # In two loops XLA cannot merge the second computation into the first.
      unrolled = self.unroll >= self.num_layers
      block = nn.remat(Block, prevent_cse=unrolled, policy=policy)
    scanned = nn.scan(
      block,
      variable_axes={'params': 0},
      split_rngs={'params': True, 'dropout': True},
      in_axes=0,
      out_axes=0,
      length=self.num_layers,
      unroll=min(self.unroll, self.num_layers),
    )
    x_BLD, (cache, weights_NBHLM) = scanned(
      num_heads=self.num_heads,
      hidden=self.hidden,
      num_kv_heads=self.num_kv_heads,
      rotary=self.rotary,
      causal=self.causal,
      use_bias=self.use_bias,
      exact_gelu=self.exact_gelu,
      dropout=self.dropout,
      kernel_init=self.kernel_init,
      residual_init=self.residual_init,
      train=train,
      return_weights=return_weights,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name='blocks',
    )(x_BLD, cache)
    return Stacked(x_BLD, cache, weights_NBHLM)


def stacked_cache(cache: KVCache, num_layers: int) -> KVCache:
  """An empty cache of one layer -> that of a stack."""
  return jax.tree.map(
    lambda x: jnp.broadcast_to(x, (num_layers, *x.shape)).copy(), cache
  )
