"""Transformer blocks, and a stack of them as one scan over layers.

x <- x + attention(norm(x)); x <- x + mlp(norm(x)); or norm(x + ...), by `norm` of the
config. The parameters of a stack have a
leading axis of layers, so that a deep net compiles as fast as a shallow one.
"""

import functools
from typing import Any, Callable, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from dlx.config import check_choice
from dlx.layers import mesh
from dlx.layers.activations import gelu
from dlx.layers.attention.multihead import Array, KVCache, MultiHeadAttention
from dlx.layers.block_config import BlockConfig
from dlx.layers.matmul import Dense
from dlx.layers.normalisation import LayerNorm
from kernels.matmul import saveable

# Of the parameters of `Transformer`, whose leading axis is that of layers: heads and
# hidden units over tensor (arXiv:1909.08053), the stream over fsdp.
PLACEMENT = (
  (r'attention/(query|key|value)/kernel$', P(None, 'fsdp', 'tensor', None)),
  (r'attention/(query|key|value)/bias$', P(None, 'tensor', None)),
  (r'attention/out/kernel$', P(None, 'tensor', None, 'fsdp')),
  (r'attention/relative_bias$', P(None, 'tensor', None)),
  (r'mlp/(in|gate)/kernel$', P(None, 'fsdp', 'tensor')),
  (r'mlp/(in|gate)/bias$', P(None, 'tensor')),
  (r'mlp/out/kernel$', P(None, 'tensor', 'fsdp')),
)
STREAM = (('data', 'fsdp'), 'sequence')  # Where x [B, L, D] lies on a mesh.

# What of a block is kept for the way back, and what is computed again.
REMAT = {
  'off': None,  # All is kept.
  'dots': saveable,
  'full': jax.checkpoint_policies.nothing_saveable,
}


class Stacked(NamedTuple):
  """What `Transformer` gives.

  Attributes:
    x_BLD: the stream after the last block, not normalised once more.
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


class FeedForward(nn.Module):
  """Position by position; `mlp` of the config says which.

  Dense `in`, GELU (arXiv:1606.08415), Dense `out`; or with the units of `in` multiplied
  by the activation of a third map, `gate` (arXiv:2002.05202).
  """

  config: BlockConfig

  @nn.compact
  def __call__(self, x_BLD: Array, *, train: bool) -> Array:
    c = self.config
    dense = functools.partial(Dense, use_bias=c.use_bias, **c.dtypes)
    hidden = lambda name: dense(c.mlp_width, kernel_init=c.kernel_init, name=name)
    out = dense(x_BLD.shape[-1], kernel_init=c.residual_init, name='out')
    bent = gelu if c.exact_gelu else functools.partial(nn.gelu, approximate=True)
    y_BLF = hidden('in')(x_BLD)
    if c.mlp == 'gelu':
      y_BLF = bent(y_BLF)
    else:
      bent = nn.silu if c.mlp == 'swiglu' else bent
      y_BLF = bent(hidden('gate')(x_BLD)) * y_BLF
    return nn.Dropout(c.dropout, deterministic=not train)(out(y_BLF))


def places(config: BlockConfig) -> tuple[Callable, Callable]:
  """(before a branch, after the sum): each (norm, x) -> x, one applies the norm."""
  does, not_ = (lambda norm, x: norm(x)), (lambda norm, x: x)
  return (does, not_) if config.norm == 'pre' else (not_, does)


class Block(nn.Module):
  """One block: attention and feed-forward, each on a residual branch.

  Layers are `norm_attention`, `attention`, `norm_mlp` and `mlp`.

  Attributes:
    config: of the block.
    train: drop units; a field, not an argument, so that a scan over layers keeps it
      static.
    return_weights: likewise.
  """

  config: BlockConfig
  train: bool = False
  return_weights: bool = False

  @nn.compact
  def __call__(
    self, x_BLD: Array, cache: KVCache | None = None, mask_BHLM: Array | None = None
  ):
    """(x, cache, mask) -> (x, (cache, weights)), the form of the body of a scan."""
    c = self.config
    norm = functools.partial(LayerNorm, epsilon=1e-5, use_bias=c.use_bias, **c.dtypes)
    first, last = places(c)
    norm_attention, norm_mlp = norm(name='norm_attention'), norm(name='norm_mlp')
    attended = MultiHeadAttention(c, name='attention')(
      first(norm_attention, x_BLD),
      train=self.train,
      mask_BHLM=mask_BHLM,
      cache=cache,
      return_weights=self.return_weights,
    )
    drop = nn.Dropout(c.dropout, deterministic=not self.train)
    x_BLD = last(norm_attention, x_BLD + drop(attended.x_BLD))
    mlp = FeedForward(c, name='mlp')
    x_BLD = last(norm_mlp, x_BLD + mlp(first(norm_mlp, x_BLD), train=self.train))
    x_BLD = mesh.constrain(x_BLD, *STREAM)
    return x_BLD, (attended.cache, attended.weights_BHLM)


def over_layers(
  block: type[nn.Module], config: BlockConfig, num_layers: int, in_axes: Any
) -> Any:
  """A block as one scan over layers, whose parameters have a leading axis of them.

  Args:
    block: (x, *inputs) -> (x, outputs), with outputs of each layer stacked.
    config: `unroll` and `remat` are read.
    num_layers: N.
    in_axes: of each input, 0 or nn.broadcast.

  Raises:
    ValueError: another `remat`.
  """
  remat, unroll = config.remat, config.unroll
  check_choice('remat', remat, REMAT)
  if (policy := REMAT[remat]) is not None:
    # In two loops XLA cannot merge the second computation into the first.
    block = nn.remat(block, prevent_cse=unroll >= num_layers, policy=policy)
  return nn.scan(
    block,
    variable_axes={'params': 0},
    split_rngs={'params': True, 'dropout': True},
    in_axes=in_axes,
    out_axes=0,
    length=num_layers,
    unroll=min(unroll, num_layers),
  )


class Transformer(nn.Module):
  """N blocks in a row, scanned: the parameters of all lie stacked under `blocks`.

  Attributes:
    num_layers: N.
    config: of each block; `unroll` and `remat` are those of the stack.
  """

  num_layers: int
  config: BlockConfig

  @nn.compact
  def __call__(
    self,
    x_BLD: Array,
    *,
    train: bool,
    mask_BHLM: Array | None = None,
    cache: KVCache | None = None,
    return_weights: bool = False,
  ) -> Stacked:
    """The stream after N blocks.

    Args:
      x_BLD: the stream.
      train: drop units (rng 'dropout').
      mask_BHLM: of every layer, see `MultiHeadAttention`; None: no padding.
      cache: of the tokens before `x_BLD`, leading axis N; see `stacked_cache`.
      return_weights: also give the attention weights of every layer.

    Raises:
      ValueError: another `remat`; see also `MultiHeadAttention`.
    """
    scanned = over_layers(Block, self.config, self.num_layers, (0, nn.broadcast))
    blocks = scanned(self.config, train, return_weights, name='blocks')
    x_BLD, (cache, weights_NBHLM) = blocks(x_BLD, cache, mask_BHLM)
    return Stacked(x_BLD, cache, weights_NBHLM)


def stacked_cache(cache: KVCache, num_layers: int) -> KVCache:
  """An empty cache of one layer -> that of a stack."""
  return jax.tree.map(
    lambda x: jnp.broadcast_to(x, (num_layers, *x.shape)).copy(), cache
  )
