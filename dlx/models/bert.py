"""BERT: an encoder of texts that learns from masked tokens (arXiv:1810.04805).

B rows, T tokens of a row, M masked ones that are predicted, V tokens of the vocabulary,
D the width of the stream, N layers, K classes.

Bert            the encoder: tokens in, states and the pooled first one out
BertPretrainer  with the heads of masked tokens and of the next sentence
BertClassifier  with a head on the pooled first token, [CLS]

Both heads keep the encoder under `bert`, so that `--init_from` hands it over. What the
parameters are called in published checkpoints: `checkpoint_names`.
"""

import dataclasses
import functools
from typing import Any, Mapping, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from dlx import labels
from dlx.layers import mesh, transformer
from dlx.layers.activations import gelu
from dlx.layers.attention.multihead import MultiHeadAttention
from dlx.layers.block_config import BlockConfig
from dlx.layers.matmul import Dense, rows_dot_general
from dlx.layers.normalisation import LayerNorm
from dlx.layers.transformer import STREAM, FeedForward, over_layers

Array = jax.Array

# Where the state lies on a mesh; dimensions that an axis does not divide stay whole.
PLACEMENT = (
  (r'token/embedding$', P('tensor', 'fsdp')),
  (r'(position|segment)_embedding$', P(None, 'fsdp')),
  *transformer.PLACEMENT,
)
PAD = 0  # Token that fills rows up; nobody looks at it.
EPSILON = 1e-12  # Of every norm, as published.
SEGMENTS = 2


class Shape(NamedTuple):
  """What tells one published model from another: N, D and the heads."""

  num_layers: int
  width: int
  num_heads: int


# Of arXiv:1810.04805 (base, large) and arXiv:1908.08962. With 30522 tokens and 512
# positions the encoder has 4,385,920, 11,170,560, 28,763,648, 41,373,184, 109,482,240
# and 335,141,888 parameters.
SHAPES = {
  'tiny': Shape(2, 128, 2),
  'mini': Shape(4, 256, 4),
  'small': Shape(4, 512, 8),
  'medium': Shape(8, 512, 8),
  'base': Shape(12, 768, 12),
  'large': Shape(24, 1024, 16),
}


class Block(nn.Module):
  """norm(x + attention(x)), then norm(x + mlp(x)): norms come last, as published.

  Attributes:
    config: of the block.
    train: drop units; a field, so that a scan over layers keeps it static.
    return_weights: likewise.
  """

  config: BlockConfig
  train: bool = False
  return_weights: bool = False

  @nn.compact
  def __call__(self, x_BTD: Array, mask_BHTT: Array | None = None):
    """(x, mask) -> (x, weights), the form of the body of a scan."""
    c = self.config
    norm = functools.partial(LayerNorm, epsilon=EPSILON, **c.dtypes)
    drop = nn.Dropout(c.dropout, deterministic=not self.train)
    attended = MultiHeadAttention(c, name='attention')(
      x_BTD, train=self.train, mask_BHLM=mask_BHTT, return_weights=self.return_weights
    )
    x_BTD = norm(name='norm_attention')(x_BTD + drop(attended.x_BLD))
    y_BTD = FeedForward(c, name='mlp')(x_BTD, train=self.train)
    x_BTD = norm(name='norm_mlp')(x_BTD + y_BTD)
    return mesh.constrain(x_BTD, *STREAM), attended.weights_BHLM


class Encoded(NamedTuple):
  """What `Bert` gives.

  Attributes:
    x_BTD: states of all tokens; those of padding mean nothing.
    pooled_BD: tanh of a map of the first token's.
    weights_NBHTT: attention of each layer, rows sum to 1; None unless asked for.
  """

  x_BTD: Array
  pooled_BD: Array
  weights_NBHTT: Array | None = None


class Bert(nn.Module):
  """Token, position and segment embeddings, a norm, N blocks, the pooler.

  Weights start from N(0, 0.02^2), as published.

  Attributes:
    vocabulary_size: V.
    context: most tokens of a row.
    num_layers: N.
    block: of each layer; the model sets the initial weights. `dropout` is that of the
      embeddings, too.
    pad_vocabulary_to: the table has V rounded up to a multiple of this many rows, so
      that a mesh can divide it.
    init_scale: standard deviation of the initial weights.
  """

  vocabulary_size: int
  context: int
  num_layers: int
  block: BlockConfig
  pad_vocabulary_to: int = 1
  init_scale: float = 0.02

  def setup(self):
    c, normal = self.blocks, self.normal
    self.token = nn.Embed(self.num_rows, c.width, embedding_init=normal, **c.dtypes)
    self.position_embedding = self.param(
      'position_embedding', normal, (self.context, c.width), c.param_dtype
    )
    self.segment_embedding = self.param(
      'segment_embedding', normal, (SEGMENTS, c.width), c.param_dtype
    )
    self.norm = LayerNorm(epsilon=EPSILON, **c.dtypes)
    self.drop = nn.Dropout(c.dropout)
    self.pooler = dense(self, c.width)

  @property
  def normal(self) -> nn.initializers.Initializer:
    """Of every weight."""
    return nn.initializers.normal(self.init_scale)

  @property
  def blocks(self) -> BlockConfig:
    """`block` with what makes the layers those of this model."""
    return dataclasses.replace(
      self.block, causal=False, kernel_init=self.normal, residual_init=self.normal
    )

  @property
  def num_rows(self) -> int:
    """V, padded."""
    multiple = self.pad_vocabulary_to
    return -(-self.vocabulary_size // multiple) * multiple

  @nn.compact
  def __call__(
    self,
    token_BT: Array,
    segment_BT: Array | None = None,
    *,
    train: bool,
    return_weights: bool = False,
  ) -> Encoded:
    """States of all tokens.

    Args:
      token_BT: int in [0, V), nan for others; PAD from the end of a row on. T at most
        `context`.
      segment_BT: int, 0 or 1, of which text a token is, nan for others; None: 0.
      train: drop units (rng 'dropout').
      return_weights: also give the attention weights of every layer.

    Raises:
      ValueError: more tokens than `context`.
    """
    length, c = token_BT.shape[1], self.blocks
    if length > self.context:
      raise ValueError(
        f'{length} tokens are not allowed: must be at most context={self.context}.'
      )
    # As one look-up in rows that are whole, see dlx/models/gpt.py.
    kernel_VD = mesh.constrain(jnp.asarray(self.token.embedding, c.dtype), 'tensor')
    x_BTD = labels.rows(kernel_VD, token_BT, self.vocabulary_size)
    x_BTD += self.position_embedding[None, :length].astype(c.dtype)
    if segment_BT is None:
      x_BTD += self.segment_embedding[0][None, None].astype(c.dtype)
    else:
      x_BTD += labels.rows(self.segment_embedding, segment_BT).astype(c.dtype)
    x_BTD = mesh.constrain(self.norm(x_BTD), *STREAM)
    x_BTD = self.drop(x_BTD, deterministic=not train)
    scanned = over_layers(Block, c, self.num_layers, nn.broadcast)
    mask_BHTT = (token_BT != PAD)[:, None, None]
    x_BTD, weights = scanned(c, train, return_weights, name='blocks')(x_BTD, mask_BHTT)
    return Encoded(x_BTD, jnp.tanh(self.pooler(x_BTD[:, 0])), weights)


def dense(bert: Bert, features: int, wide: bool = False, **kwargs: Any) -> nn.Dense:
  """A map of the states of an encoder.

  Args:
    bert: whose arithmetic and initial weights it has.
    features: of the output.
    wide: computed in float32 at least, as logits are.
    **kwargs: of nn.Dense.
  """
  c = bert.blocks
  dtype = jnp.promote_types(c.dtype, jnp.float32) if wide else c.dtype
  return Dense(
    features, kernel_init=bert.normal, dtype=dtype, param_dtype=c.param_dtype, **kwargs
  )


class BertPretrainer(nn.Module):
  """The encoder, logits of masked tokens, and whether two texts follow each other.

  A masked token's state goes through a map, GELU and a norm (`transform`), and gets its
  logits by the token embeddings and a bias.

  With 30522 tokens and 512 positions base has 110,106,428 parameters.

  Attributes:
    bert: the encoder.
    next_sentence: whether there is the head of pairs.
  """

  bert: Bert
  next_sentence: bool = True

  @nn.compact
  def __call__(self, inputs: Mapping[str, Array], *, train: bool) -> dict[str, Array]:
    """Logits, float32 or wider.

    Args:
      inputs: `token` and `segment` int [B, T], see `Bert`; `position` int [B, M], of
        the tokens that are predicted, in [0, T), nan for others.
      train: drop units (rng 'dropout').

    Returns:
      `masked` [B, M, V], V padded, -inf past the vocabulary; with `next_sentence` also
      `next` [B, 2]: the second text is another one, follows the first.
    """
    bert, c = self.bert, self.bert.blocks
    found = bert(inputs['token'], inputs['segment'], train=train)
    x_BMD = jax.vmap(labels.rows)(found.x_BTD, inputs['position'])
    x_BMD = gelu(dense(bert, c.width, name='transform')(x_BMD))
    x_BMD = LayerNorm(epsilon=EPSILON, name='transform_norm', **c.dtypes)(x_BMD)
    wide = jnp.promote_types(c.dtype, jnp.float32)
    kernel_VD = jnp.asarray(bert.token.embedding, c.dtype)
    logits_BMV = rows_dot_general(
      x_BMD, kernel_VD.T, (((2,), (0,)), ((), ())), preferred_element_type=wide
    )
    bias_V = self.param(
      'output_bias', nn.initializers.zeros, (bert.num_rows,), c.param_dtype
    )
    logits_BMV += bias_V[None, None].astype(wide)
    if bert.num_rows > bert.vocabulary_size:
      real_V = jnp.arange(bert.num_rows) < bert.vocabulary_size
      logits_BMV = jnp.where(real_V[None, None], logits_BMV, -jnp.inf)
    outputs = {'masked': mesh.constrain(logits_BMV, *STREAM[:1], None, 'tensor')}
    if self.next_sentence:
      head = dense(bert, 2, wide=True, name='next_sentence')
      outputs['next'] = head(found.pooled_BD)
    return outputs


class BertClassifier(nn.Module):
  """The encoder and a head on the pooled first token.

  Rows come as texts do, without marks: [CLS] is put before, [SEP] behind. Of a longer
  row the first tokens are read, as many as the context has room for.

  Attributes:
    bert: the encoder.
    num_outputs: K.
    first: token [CLS].
    end: token [SEP].
    dropout: share of units dropped before the head.
  """

  bert: Bert
  num_outputs: int
  first: int
  end: int
  dropout: float = 0.1

  def __call__(self, token_BT: Array, *, train: bool) -> Array:
    """Logits [B, K], float32 or wider; padding changes them by nothing.

    Args:
      token_BT: int, PAD from the end of a row on.
      train: drop units (rng 'dropout').
    """
    return self.forward(token_BT, train)[0]

  def features(self, token_BT: Array, train: bool = False) -> Array:
    """What `head` reads [B, D]: the pooled first token."""
    return self.forward(token_BT, train)[1]

  @nn.compact
  def forward(self, token_BT: Array, train: bool) -> tuple[Array, Array]:
    """Logits and features."""
    marked_BT = between(token_BT[:, : self.bert.context - 2], self.first, self.end)
    pooled_BD = self.bert(marked_BT, train=train).pooled_BD
    pooled_BD = nn.Dropout(self.dropout, deterministic=not train)(pooled_BD)
    head = dense(self.bert, self.num_outputs, wide=True, name='head')
    return head(pooled_BD), pooled_BD


def between(token_BT: Array, first: int, end: int) -> Array:
  """Rows with a token before and one behind the last that is no padding, [B, T + 2]."""
  length_B1 = (token_BT != PAD).sum(1)[:, None]
  marked = jnp.pad(token_BT, ((0, 0), (1, 1)), constant_values=((0, 0), (first, PAD)))
  place_1T = jnp.arange(marked.shape[1])[None]
  return jnp.where(place_1T == length_B1 + 1, end, marked)


def checkpoint_names(num_layers: int) -> dict[str, tuple[str, ...]]:
  """Names in the published checkpoints of each parameter of a `BertPretrainer`.

  A parameter of `blocks` has one a layer, in order. There a kernel lies the other way
  round, [outputs, inputs], and its heads on one axis; `norm` is `LayerNorm`, whose
  scale and bias are `weight` and `bias`.

  Args:
    num_layers: N.
  """
  inside = {
    'attention/query': 'attention.self.query',
    'attention/key': 'attention.self.key',
    'attention/value': 'attention.self.value',
    'attention/out': 'attention.output.dense',
    'norm_attention': 'attention.output.LayerNorm',
    'mlp/in': 'intermediate.dense',
    'mlp/out': 'output.dense',
    'norm_mlp': 'output.LayerNorm',
  }
  found: dict[str, tuple[str, ...]] = {
    'bert/token/embedding': ('bert.embeddings.word_embeddings.weight',),
    'bert/position_embedding': ('bert.embeddings.position_embeddings.weight',),
    'bert/segment_embedding': ('bert.embeddings.token_type_embeddings.weight',),
    'output_bias': ('cls.predictions.bias',),
  }
  maps: dict[str, tuple[str, ...]] = {
    'bert/norm': ('bert.embeddings.LayerNorm',),
    'bert/pooler': ('bert.pooler.dense',),
    'transform': ('cls.predictions.transform.dense',),
    'transform_norm': ('cls.predictions.transform.LayerNorm',),
    'next_sentence': ('cls.seq_relationship',),
  }
  for here, there in inside.items():
    maps[f'bert/blocks/{here}'] = tuple(
      f'bert.encoder.layer.{n}.{there}' for n in range(num_layers)
    )
  for here, there in maps.items():
    weight = 'scale' if 'norm' in here.rsplit('/', 1)[-1] else 'kernel'
    found[f'{here}/{weight}'] = tuple(f'{name}.weight' for name in there)
    found[f'{here}/bias'] = tuple(f'{name}.bias' for name in there)
  return found


def flops_per_row(model: BertPretrainer, length: int, masked: int) -> float:
  """Floating-point operations of one training step over a row, a multiply-add two.

  As `gpt.flops_per_token`: the maps of the blocks and the attention of all pairs for
  every token, the transform and the product with the vocabulary for masked ones, the
  pooler once.

  Args:
    model: its fields alone are read.
    length: T.
    masked: M.
  """
  c, layers = model.bert.block, model.bert.num_layers
  blocks = layers * (4 + 2 * c.mlp_ratio) * c.width**2
  attention = 2.0 * layers * c.width * length
  head = c.width**2 + model.bert.num_rows * c.width
  return 6.0 * (length * (blocks + attention) + masked * head + c.width**2)
