"""The Transformer: an encoder and a decoder over one vocabulary (arXiv:1706.03762).

B pairs, S tokens of a source, T of a target, V tokens of the vocabulary, D the width of
the streams, N layers of each side.
"""

import dataclasses
from typing import Mapping, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from dlx import labels
from dlx.layers import mesh, transformer
from dlx.layers.attention.multihead import KVCache, Memory, empty_cache
from dlx.layers.block_config import BlockConfig
from dlx.layers.decoder import Decoded, Decoder
from dlx.layers.embeddings import sinusoidal
from dlx.layers.matmul import rows_dot_general
from dlx.layers.normalisation import LayerNorm
from dlx.layers.transformer import STREAM, Transformer, stacked_cache

Array = jax.Array

# Where the state lies on a mesh; dimensions that an axis does not divide stay whole.
PLACEMENT = ((r'token/embedding$', P('tensor', 'fsdp')), *transformer.PLACEMENT)
PAD = 0  # Token that fills up rows; the first token that a decoder reads, too.


class Decoding(NamedTuple):
  """What a decoder remembers of a source and of the tokens that it has written.

  Attributes:
    cache: of its own tokens, leading axis N.
    memory: what the encoder gave, [B, S, D]; after the first tokens its keys and values
      in each layer, leading axis N.
    real_BS: bool, False where the source is padding.
  """

  cache: KVCache
  memory: Array | Memory
  real_BS: Array


class EncoderDecoder(nn.Module):
  """Sources in, logits of their targets out.

  As in the paper one table embeds sources and targets and gives the logits; embeddings
  are multiplied by sqrt(D), and positions are sines and cosines, which have no end.
  Unlike it norms come before each branch and once more after each side
  (arXiv:2002.04745), and hidden units are GELU.

  The paper's base model: 37000 tokens, 6 layers, 8 heads, width 512.

  Attributes:
    vocabulary_size: V; token PAD fills rows up.
    num_layers: N, of the encoder and of the decoder.
    block: of each layer; the model sets `causal`. `dropout` is that of the embeddings,
      too; logits are at least float32.
    pad_vocabulary_to: the table has V rounded up to a multiple of this many rows, so
      that a mesh can divide it; the logits of the rows past V are -inf.
  """

  vocabulary_size: int
  num_layers: int
  block: BlockConfig
  pad_vocabulary_to: int = 1

  def setup(self):
    c = self.block
    normal = nn.initializers.normal(c.width**-0.5)
    self.token = nn.Embed(self.num_rows, c.width, embedding_init=normal, **c.dtypes)
    norm = lambda: LayerNorm(epsilon=1e-5, use_bias=c.use_bias, **c.dtypes)
    self.encoder = Transformer(self.num_layers, dataclasses.replace(c, causal=False))
    self.encoder_norm = norm()
    self.decoder = Decoder(self.num_layers, dataclasses.replace(c, causal=True))
    self.decoder_norm = norm()
    self.drop = nn.Dropout(c.dropout)

  @property
  def num_rows(self) -> int:
    """V, padded."""
    multiple = self.pad_vocabulary_to
    return -(-self.vocabulary_size // multiple) * multiple

  def __call__(self, pair: Mapping[str, Array], *, train: bool) -> Array:
    """Logits [B, T, V], V padded, float32 or wider, of the token after each.

    Args:
      pair: `source` int [B, S], PAD after its end; `input` int [B, T], what the decoder
        reads: PAD, then the target without its last token. Both in [0, V), nan for
        others.
      train: drop units (rng 'dropout').
    """
    memory_BSD, real_BS = self.encode(pair['source'], train=train)
    return self._decode(pair['input'], memory_BSD, real_BS, train=train)[0]

  def encode(self, source_BS: Array, *, train: bool = False) -> tuple[Array, Array]:
    """What the decoder looks at, [B, S, D], and where it is no padding, bool [B, S]."""
    real_BS = source_BS != PAD
    x_BSD = self._embedded(source_BS, 0, train)
    stacked = self.encoder(x_BSD, train=train, mask_BHLM=real_BS[:, None, None])
    return self.encoder_norm(stacked.x_BLD), real_BS

  def start(self, source_BS: Array, capacity: int) -> Decoding:
    """For `extend`: a source is read, no token is written; there is room for some."""
    c = self.block
    memory_BSD, real_BS = self.encode(source_BS)
    one = empty_cache(len(source_BS), capacity, c.kv_heads, c.head_dim, c.dtype)
    return Decoding(stacked_cache(one, self.num_layers), memory_BSD, real_BS)

  def extend(self, token_BT: Array, decoding: Decoding) -> tuple[Array, Decoding]:
    """Logits [B, T, V] of T more tokens, and what holds them too.

    The first of all tokens is PAD. The caller sees to it that there is room.
    """
    logits_BTV, found = self._decode(
      token_BT, decoding.memory, decoding.real_BS, cache=decoding.cache
    )
    assert found.cache is not None and found.memory is not None
    return logits_BTV, Decoding(found.cache, found.memory, decoding.real_BS)

  def cross_attention(self, pair: Mapping[str, Array]) -> Array:
    """How the decoder looks at the source, [N, B, H, T, S]; rows sum to 1."""
    memory_BSD, real_BS = self.encode(pair['source'])
    found = self._decode(pair['input'], memory_BSD, real_BS, return_weights=True)[1]
    assert found.weights_NBHTM is not None
    return found.weights_NBHTM

  def _embedded(self, token_BT: Array, start: Array | int, train: bool) -> Array:
    c = self.block
    # As one look-up in rows that are whole, see dlx/models/gpt.py.
    kernel_VD = mesh.constrain(jnp.asarray(self.token.embedding, c.dtype), 'tensor')
    x_BTD = labels.rows(kernel_VD, token_BT, self.vocabulary_size)
    position_TD = sinusoidal(start + jnp.arange(token_BT.shape[1]), c.width)
    x_BTD = x_BTD * c.width**0.5 + position_TD[None].astype(c.dtype)
    return self.drop(mesh.constrain(x_BTD, *STREAM), deterministic=not train)

  def _decode(
    self,
    token_BT: Array,
    memory: Array | Memory,
    real_BS: Array,
    *,
    train: bool = False,
    cache: KVCache | None = None,
    return_weights: bool = False,
  ) -> tuple[Array, Decoded]:
    start = 0 if cache is None else cache.length[0]
    found = self.decoder(
      self._embedded(token_BT, start, train),
      memory,
      train=train,
      mask_BHTM=real_BS[:, None, None],
      cache=cache,
      return_weights=return_weights,
    )
    c = self.block
    logits_BTV = rows_dot_general(
      self.decoder_norm(found.x_BTD),
      jnp.asarray(self.token.embedding, c.dtype),
      (((2,), (1,)), ((), ())),
      preferred_element_type=jnp.promote_types(c.dtype, jnp.float32),
    )
    if self.num_rows > self.vocabulary_size:
      real_V = jnp.arange(self.num_rows) < self.vocabulary_size
      logits_BTV = jnp.where(real_V[None, None], logits_BTV, -jnp.inf)
    return mesh.constrain(logits_BTV, *STREAM, 'tensor'), found


def take(decoding: Decoding, rows: Array) -> Decoding:
  """Some rows of B, int [R], in this order: what `beam_search` moves about."""
  pick = lambda x, axis: jnp.take(x, rows, axis=axis)
  memory = decoding.memory
  if isinstance(memory, Memory):
    memory = Memory(*(pick(x, 1) for x in memory))
  else:
    memory = pick(memory, 0)
  cache = decoding.cache
  cache = KVCache(pick(cache.key_BMGK, 1), pick(cache.value_BMGK, 1), cache.length)
  return Decoding(cache, memory, pick(decoding.real_BS, 0))


def flops_per_pair(model: EncoderDecoder, source: int, target: int) -> float:
  """Floating-point operations of one training step over a pair, a multiply-add two.

  Forward once, backward twice as much. Weights that are multiplied with a stream count,
  that of the logits once and the look-up of tokens not; all pairs of queries and keys
  count, padding and what a causal mask hides too.

  Args:
    model: its fields alone are read.
    source: S, tokens of the source.
    target: T, of the target.
  """
  c, width, layers = model.block, model.block.width, model.num_layers
  queries, keys = 2 * width**2, 2 * width**2 * c.kv_heads // c.num_heads
  mlp = c.mlp_weights
  of_source = layers * (queries + keys + mlp) + layers * keys  # Encoder, cross keys.
  of_target = layers * (2 * queries + keys + mlp) + model.num_rows * width
  looks = source * source + target * target + target * source
  weights = source * of_source + target * of_target
  return 6.0 * weights + 12.0 * layers * width * looks
