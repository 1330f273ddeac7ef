"""Recurrent encoder and decoder over one vocabulary, with and without attention.

Without, all that the decoder knows of a source is the last state of the encoder
(arXiv:1409.3215). With it, each step looks at all outputs m of the encoder, by scores

  bahdanau  v tanh(W s + U m), of the state s before the step (arXiv:1409.0473)
  dot       s m, of the state after it (arXiv:1508.04025)
  general   s W m, likewise

B pairs, S tokens of a source, T of a target, V of the vocabulary, E the width of the
embeddings, H of the states, N layers, L for T with the time first, G gates.
"""

from typing import Any, Mapping, NamedTuple

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from dlx import labels
from dlx.config import check_choice
from dlx.errors import ConfigError
from dlx.layers.matmul import Dense, rows_dot_general
from dlx.layers.recurrent.cells import Cell, State
from dlx.layers.recurrent.stack import CellWeights, RecurrentStack, cell_weights
from dlx.layers.recurrent.unroll import by_row, unroll
from dlx.models.encoder_decoder import PAD

Array = jax.Array
NONE, BAHDANAU, DOT, GENERAL = ATTENTIONS = ('none', 'bahdanau', 'dot', 'general')


class Decoding(NamedTuple):
  """What a decoder remembers of a source and of the tokens that it has written.

  Attributes:
    states: of each layer.
    vector: the attention vector of the last token, [B, H], where it is fed to the next
      step; () where it is not.
    memory: outputs of the encoder, [B, S, H]; () without attention.
    keys: what scores are of, [B, S, H]; () likewise.
    real_BS: bool, False where the source is padding.
  """

  states: tuple[State, ...]
  vector: Any
  memory: Any
  keys: Any
  real_BS: Array


class _Weights(nn.Module):
  """The parameters of one layer of the decoder."""

  cell: Cell
  inputs: int
  features: int
  param_dtype: Any

  @nn.compact
  def __call__(self) -> CellWeights:
    return cell_weights(self, self.cell, self.inputs, self.features, self.param_dtype)


class Seq2Seq(nn.Module):
  """Sources in, logits of their targets out.

  The decoder starts from the last states of the encoder, layer by layer; those of two
  directions, each H / 2 wide, lie side by side (as OpenNMT's, arXiv:1701.02810), and so
  do the outputs that are looked at. What a step gives to the logits is
  tanh(W [context; state]), of `bahdanau` tanh(W [context; state; embedding]), and
  without attention the state.

  `bahdanau` reads the context with each embedding. `dot` and `general` look after the
  step: all of them at once, unless `input_feeding` gives each step what the last one
  gave to the logits.

  Attributes:
    vocabulary_size: V; token PAD fills rows up.
    embedding: E; sources and targets have a table each.
    features: H, even where `bidirectional`.
    cell: of both sides.
    num_layers: N, of each side.
    bidirectional: the encoder reads from both ends.
    attention: one of ATTENTIONS.
    input_feeding: see above; of `dot` and `general` alone.
    dropout: share dropped of the embeddings, between layers and before the logits.
    dtype: of the matrix products; states, softmax and logits are at least float32.
    param_dtype: of the parameters.

  Raises:
    ConfigError: another attention; an odd width of two directions; input feeding
      without something to feed.
  """

  vocabulary_size: int
  embedding: int
  features: int
  cell: Cell
  num_layers: int = 1
  bidirectional: bool = False
  attention: str = GENERAL
  input_feeding: bool = False
  dropout: float = 0.0
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  def setup(self):
    check_choice('attention', self.attention, ATTENTIONS)
    if self.bidirectional and self.features % 2:
      raise ConfigError(
        f'features={self.features} is not allowed: must be even, as half of it is the '
        'width of each direction.'
      )
    if self.input_feeding and self.attention not in (DOT, GENERAL):
      raise ConfigError(
        f'input_feeding=True is not allowed with attention={self.attention}: must be '
        f'{DOT} or {GENERAL}.'
      )
    size, width, own = self.vocabulary_size, self.features, self.param_dtype
    # Of variance 1, which the kernels of the cells ask for: with 0.1 for the deviation
    # addition has 15 % exact after 600 steps in place of 92.
    embed = lambda: nn.Embed(
      size, self.embedding, embedding_init=nn.initializers.normal(1.0), param_dtype=own
    )
    self.source_embedding, self.target_embedding = embed(), embed()
    sides = 1 + self.bidirectional
    self.encoder = RecurrentStack(
      self.cell,
      (width // sides,) * self.num_layers,
      bidirectional=self.bidirectional,
      dropout=self.dropout,
      dtype=self.dtype,
      param_dtype=own,
    )
    fed = width if self._feeds else 0
    self.decoder = [
      _Weights(self.cell, width if i else self.embedding + fed, width, own)
      for i in range(self.num_layers)
    ]
    init, param = nn.initializers.lecun_normal(), self.param
    if self.attention in (BAHDANAU, GENERAL):
      self.key_kernel = param('key_kernel', init, (width, width), own)
    if self.attention == BAHDANAU:
      self.query_kernel = param('query_kernel', init, (width, width), own)
      self.score_kernel = param('score_kernel', init, (width, 1), own)
    if self.attention != NONE:
      read = 2 * width + (self.embedding if self.attention == BAHDANAU else 0)
      self.read_kernel = param('read_kernel', init, (read, width), own)
      self.read_bias = param('read_bias', nn.initializers.zeros, (width,), own)
    self.head = Dense(
      size, dtype=self._wide, param_dtype=own, dot_general=rows_dot_general
    )
    self.drop = nn.Dropout(self.dropout)

  @property
  def _wide(self) -> Any:
    return jnp.promote_types(self.dtype, jnp.float32)

  @property
  def _feeds(self) -> bool:
    """Whether a step reads what the attention gives."""
    return self.input_feeding or self.attention == BAHDANAU

  def __call__(self, pair: Mapping[str, Array], *, train: bool) -> Array:
    """Logits [B, T, V], float32 or wider, of the token after each.

    Args:
      pair: `source` int [B, S], PAD after its end; `input` int [B, T], what the decoder
        reads: PAD, then the target without its last token. Both in [0, V), nan for
        others.
      train: drop units (rng 'dropout').
    """
    decoding = self._read(pair['source'], train)
    return self._decode(pair['input'], decoding, train)[0]

  def start(self, source_BS: Array, capacity: int = 0) -> Decoding:
    """For `extend`: a source is read, no token is written. Any number of them fits."""
    del capacity
    return self._read(source_BS, False)

  def extend(self, token_BT: Array, decoding: Decoding) -> tuple[Array, Decoding]:
    """Logits [B, T, V] of T more tokens, and what holds them too.

    The first of all tokens is PAD.
    """
    logits_BTV, _, decoding = self._decode(token_BT, decoding, False)
    return logits_BTV, decoding

  def cross_attention(self, pair: Mapping[str, Array]) -> Array:
    """How the decoder looks at the source, [1, B, 1, T, S]; rows sum to 1.

    Of one layer and one head, as of `EncoderDecoder`. A source without a token has 0.

    Raises:
      ConfigError: a model without attention.
    """
    if self.attention == NONE:
      raise ConfigError('attention=none gives no weights: must be another one.')
    decoding = self._read(pair['source'], False)
    weights_BTS = self._decode(pair['input'], decoding, False)[1]
    assert weights_BTS is not None
    return weights_BTS[None, :, None]

  def _read(self, source_BS: Array, train: bool) -> Decoding:
    real_BS = source_BS != PAD
    x_BSE = self._embedded(self.source_embedding, source_BS, train)
    memory, finals = self.encoder(x_BSE, real_BS.sum(1), train=train)
    states = tuple(
      tuple(jnp.concatenate(parts, -1) for parts in zip(*directions))
      for directions in finals
    )
    keys, vector = memory, ()
    if self.attention == NONE:
      memory = keys = ()
    elif self.attention != DOT:
      keys = self._product(memory, self.key_kernel)
    if self.input_feeding:
      vector = jnp.zeros_like(states[-1][0])
    return Decoding(states, vector, memory, keys, real_BS)

  def _embedded(self, table: nn.Embed, token_BT: Array, train: bool) -> Array:
    x_BTE = labels.rows(jnp.asarray(table.embedding, self.dtype), token_BT)
    return self.drop(x_BTE, deterministic=not train)

  def _product(self, x: Array, kernel: Array) -> Array:
    """[..., D] times [D, H] in `dtype`, float32 or wider."""
    axes = (((x.ndim - 1,), (0,)), ((), ()))
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    return rows_dot_general(x, kernel, axes, preferred_element_type=self._wide)

  def _look(self, query_BTH: Array, decoding: Decoding) -> tuple[Array, Array]:
    """Contexts [B, T, H] of states, and their weights [B, T, S]."""
    if self.attention == BAHDANAU:
      both = self._product(query_BTH, self.query_kernel)[:, :, None]
      both_BTSH = jnp.tanh(both + decoding.keys[:, None])
      score_BTS = self._product(both_BTSH, self.score_kernel)[..., 0]
    else:
      score_BTS = self._summed('bth,bsh->bts', query_BTH, decoding.keys)
    real_B1S = decoding.real_BS[:, None]
    low = jnp.finfo(score_BTS.dtype).min
    weights_BTS = jax.nn.softmax(jnp.where(real_B1S, score_BTS, low))
    weights_BTS = jnp.where(real_B1S, weights_BTS, 0)  # Of a source without a token.
    return self._summed('bts,bsh->bth', weights_BTS, decoding.memory), weights_BTS

  def _summed(self, axes: str, a: Array, b: Array) -> Array:
    a, b = a.astype(self.dtype), b.astype(self.dtype)
    return jnp.einsum(axes, a, b, preferred_element_type=self._wide)

  def _readout(self, *parts: Array) -> Array:
    found = self._product(jnp.concatenate(parts, -1), self.read_kernel)
    bias = self.read_bias.astype(found.dtype)
    return jnp.tanh(found + bias.reshape((1,) * (found.ndim - 1) + (-1,)))

  def _decode(
    self, token_BT: Array, decoding: Decoding, train: bool
  ) -> tuple[Array, Array | None, Decoding]:
    """Logits, weights of the attention [B, T, S], and what is known after."""
    x_BTE = self._embedded(self.target_embedding, token_BT, train)
    weights_BTS = None
    if self._feeds:
      out_BTH, weights_BTS, decoding = self._fed(x_BTE, decoding, train)
    else:
      x_LBD, states = x_BTE.swapaxes(0, 1), []
      for i, (state, weights) in enumerate(zip(decoding.states, self.decoder)):
        if i:
          x_LBD = self.drop(x_LBD, deterministic=not train)
        own = weights()
        x_LBG = self._product(x_LBD, own.input_kernel)
        x_LBG = x_LBG + own.input_bias.astype(self._wide)[None, None]
        hidden = own.hidden_kernel.astype(self.dtype)
        x_LBD, state = unroll(
          self.cell, x_LBG, hidden, own.hidden_bias, state, own=own.own
        )
        states.append(state)
      out_BTH = x_LBD.swapaxes(0, 1)
      decoding = decoding._replace(states=tuple(states))
      if self.attention != NONE:
        context_BTH, weights_BTS = self._look(out_BTH, decoding)
        out_BTH = self._readout(context_BTH, out_BTH)
    out_BTH = self.drop(out_BTH, deterministic=not train)
    return self.head(out_BTH), weights_BTS, decoding

  def _fed(
    self, x_BTE: Array, decoding: Decoding, train: bool
  ) -> tuple[Array, Array, Decoding]:
    """A step after the other, each with what the attention gives it.

    What embeddings bring to the first layer is one product before the scan.
    """
    kernels = [weights() for weights in self.decoder]
    wide, features = self._wide, self.features
    of_token, of_vector = jnp.split(kernels[0].input_kernel, [self.embedding])
    bias_G = kernels[0].input_bias.astype(wide)
    x_BTG = self._product(x_BTE, of_token) + bias_G[None, None]
    # Drawn outside of the scan; 1 where nothing is dropped.
    ones = jnp.ones((self.num_layers - 1, *x_BTG.shape[1::-1], features), wide)
    kept_NLBH = self.drop(ones, deterministic=not train)

    def step(carry, inputs):
      states, vector = carry
      x_BG, kept_NBH = inputs
      weights_BS: Any = None
      if self.attention == BAHDANAU:
        vector, weights_BS = self._at(states[-1][0], decoding)
      x_BG = x_BG + self._product(vector, of_vector)
      new = []
      for i, own in enumerate(kernels):
        if i:
          x_BG = self._product(new[-1][0] * kept_NBH[i - 1], own.input_kernel)
          x_BG = x_BG + own.input_bias.astype(wide)[None]
        u_BG = self._product(states[i][0], own.hidden_kernel)
        u_BG = u_BG + own.hidden_bias.astype(wide)[None]
        further = by_row(own.own, states[i][0])
        new.append(self.cell.step(states[i], x_BG, u_BG, *further))
      state_BH = new[-1][0]
      if self.attention == BAHDANAU:
        return (tuple(new), ()), (state_BH, vector, weights_BS)
      context_BH, weights_BS = self._at(state_BH, decoding)
      vector = self._readout(context_BH, state_BH)
      return (tuple(new), vector), (state_BH, vector, weights_BS)

    (states, vector), found = lax.scan(
      step,
      (decoding.states, decoding.vector),
      (x_BTG.swapaxes(0, 1), kept_NLBH.swapaxes(0, 1)),
    )
    state_BTH, vector_BTH, weights_BTS = (x.swapaxes(0, 1) for x in found)
    if self.attention == BAHDANAU:
      vector_BTH = self._readout(vector_BTH, state_BTH, x_BTE.astype(wide))
    return vector_BTH, weights_BTS, decoding._replace(states=states, vector=vector)

  def _at(self, query_BH: Array, decoding: Decoding) -> tuple[Array, Array]:
    """`_look` of one step: [B, H] and [B, S]."""
    context_B1H, weights_B1S = self._look(query_BH[:, None], decoding)
    return context_B1H[:, 0], weights_B1S[:, 0]


def take(decoding: Decoding, rows: Array) -> Decoding:
  """Some rows of B, int [R], in this order: what `beam_search` moves about."""
  return jax.tree.map(lambda x: jnp.take(x, rows, axis=0), decoding)


def flops_per_pair(model: Seq2Seq, source: int, target: int) -> float:
  """Floating-point operations of one training step over a pair, a multiply-add two.

  Forward once, backward twice as much. Products of weights and of attention count, with
  padding; cells, softmax and the look-up of tokens do not.

  Args:
    model: its fields alone are read.
    source: S, tokens of the source.
    target: T, of the target.
  """
  width, gates = model.features, len(model.cell.gates)
  sides = 1 + model.bidirectional
  each = width // sides

  def layers(first: int, own: int) -> int:
    """Weights of all layers of one direction: inputs and the state."""
    more = (model.num_layers - 1) * (width + own)
    return gates * own * (first + own + more)

  feeds = model.input_feeding or model.attention == BAHDANAU
  of_source = sides * layers(model.embedding, each)
  of_target = layers(model.embedding + feeds * width, width)
  of_target += width * model.vocabulary_size
  looks = 0
  if model.attention != NONE:
    of_target += 2 * width * width
    looks = 2 * width
  if model.attention in (BAHDANAU, GENERAL):
    of_source += width * width
  if model.attention == BAHDANAU:
    of_target += (model.embedding + width) * width
  return 6.0 * (source * of_source + target * (of_target + source * looks))
