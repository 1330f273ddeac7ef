"""Decoder blocks (arXiv:1706.03762): a stream that looks at itself and at a memory.

x <- x + attention(norm(x)); x <- x + cross_attention(norm(x), memory);
x <- x + mlp(norm(x)). Norms come first, as in the blocks of an encoder
(dlx/layers/transformer.py; arXiv:2002.04745), or last, as in the paper, by `norm` of
the config: then they need a warm-up.
"""

import functools
from typing import NamedTuple

import flax.linen as nn

from dlx.layers import mesh
from dlx.layers.attention.multihead import Array, KVCache, Memory, MultiHeadAttention
from dlx.layers.block_config import BlockConfig
from dlx.layers.normalisation import LayerNorm
from dlx.layers.transformer import STREAM, FeedForward, over_layers, places


class Decoded(NamedTuple):
  """What `Decoder` gives.

  Attributes:
    x_BTD: the stream after the last block, not normalised.
    cache: one for each layer, stacked along axis 0; None where none was given.
    memory: keys and values of the memory for each layer, likewise.
    weights_NBHTM: how much each of the N layers looks at the memory; None unless asked
      for.
  """

  x_BTD: Array
  cache: KVCache | None = None
  memory: Memory | None = None
  weights_NBHTM: Array | None = None


class DecoderBlock(nn.Module):
  """One block with three residual branches.

  Layers are `norm_attention`, `attention`, `norm_cross`, `cross_attention`, `norm_mlp`
  and `mlp`.

  Attributes:
    config: of the block; `causal` and positions are those of `attention` alone.
    train: drop units; a field, as of `Block`.
    return_weights: likewise.
  """

  config: BlockConfig
  train: bool = False
  return_weights: bool = False

  @nn.compact
  def __call__(
    self,
    x_BTD: Array,
    cache: KVCache | None,
    made: Memory | None,
    memory_BMD: Array | None,
    mask_BHTM: Array | None,
  ):
    """The body of a scan: the stream, and (cache, memory, weights).

    Args:
      x_BTD: the stream.
      cache: of the tokens before.
      made: keys and values of the memory; None: `memory_BMD` is given.
      memory_BMD: the memory itself.
      mask_BHTM: True where a token may look at the memory.
    """
    c = self.config
    norm = functools.partial(LayerNorm, epsilon=1e-5, use_bias=c.use_bias, **c.dtypes)
    drop = nn.Dropout(c.dropout, deterministic=not self.train)
    first, last = places(c)
    norm_attention, norm_cross = norm(name='norm_attention'), norm(name='norm_cross')
    norm_mlp = norm(name='norm_mlp')
    attended = MultiHeadAttention(c, name='attention')(
      first(norm_attention, x_BTD), train=self.train, cache=cache
    )
    x_BTD = last(norm_attention, x_BTD + drop(attended.x_BLD))
    crossed = MultiHeadAttention(c.across(), name='cross_attention')(
      first(norm_cross, x_BTD),
      memory_BMD if made is None else made,
      train=self.train,
      mask_BHLM=mask_BHTM,
      return_weights=self.return_weights,
    )
    x_BTD = last(norm_cross, x_BTD + drop(crossed.x_BLD))
    mlp = FeedForward(c, name='mlp')
    x_BTD = last(norm_mlp, x_BTD + mlp(first(norm_mlp, x_BTD), train=self.train))
    x_BTD = mesh.constrain(x_BTD, *STREAM)
    kept = None if cache is None else crossed.memory
    return x_BTD, (attended.cache, kept, crossed.weights_BHLM)


class Decoder(nn.Module):
  """N decoder blocks, scanned: the parameters of all lie stacked under `blocks`.

  Attributes:
    num_layers: N.
    config: of each block; `unroll` and `remat` are those of the stack.
  """

  num_layers: int
  config: BlockConfig

  @nn.compact
  def __call__(
    self,
    x_BTD: Array,
    memory: Array | Memory,
    *,
    train: bool,
    mask_BHTM: Array | None = None,
    cache: KVCache | None = None,
    return_weights: bool = False,
  ) -> Decoded:
    """The stream after N blocks.

    Args:
      x_BTD: the stream.
      memory: what all blocks look at, [B, M, D]; or its keys and values, as an earlier
        call with a cache gave them: then a new token costs nothing in M but the look.
      train: drop units (rng 'dropout').
      mask_BHTM: bool, True where a token may look at the memory; None: everywhere.
      cache: of the tokens before `x_BTD`, leading axis N; see `stacked_cache`.
      return_weights: also give how every layer looks at the memory.

    Raises:
      ValueError: another `remat`; see also `MultiHeadAttention`.
    """
    axes = (0, 0, nn.broadcast, nn.broadcast)
    scanned = over_layers(DecoderBlock, self.config, self.num_layers, axes)
    blocks = scanned(self.config, train, return_weights, name='blocks')
    made, memory_BMD = (memory, None) if isinstance(memory, Memory) else (None, memory)
    x_BTD, (cache, made, weights) = blocks(x_BTD, cache, made, memory_BMD, mask_BHTM)
    return Decoded(x_BTD, cache, made, weights)
