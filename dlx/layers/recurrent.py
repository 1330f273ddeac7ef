"""Recurrent layers: RNN, LSTM, GRU and a cell with one reset gate, over padded rows.

A cell is one pure function of the old state and of two projections, that of the input
and that of the old output, each with all its gates side by side. The input's is one
matrix product for all steps, before the scan; only the other stands inside it.

Gates, kernels and both biases are those of torch and cuDNN, so that weights move over
by a transposition: input_kernel [D, G*H] is weight_ih_l0.T, hidden_kernel [H, G*H] is
weight_hh_l0.T, input_bias and hidden_bias are bias_ih_l0 and bias_hh_l0.

Rows are packed in effect: after its end a row keeps its state and its outputs are 0,
and the backward direction begins at each row's own last token.
"""

from typing import Any, Callable, NamedTuple, Sequence

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from dlx.errors import ConfigError

Array = jax.Array
State = tuple[Array, ...]  # [B, H] each; the first is the output h.


class Cell(NamedTuple):
  """One recurrent cell.

  Attributes:
    gates: names of the G blocks of the projections, in their order.
    state: names of the state's parts; the first is h.
    step: (state, x_BG, u_BG) -> state. x is the projected input with its bias, u the
      projected h with its bias, G*H wide each.
    ones: gates whose input bias starts at 1, not 0, so that the cell remembers.
  """

  gates: tuple[str, ...]
  state: tuple[str, ...]
  step: Callable[[State, Array, Array], State]
  ones: tuple[str, ...] = ()


def _split(x: Array, parts: int) -> list[Array]:
  return jnp.split(x, parts, axis=-1)


def _rnn(state: State, x: Array, u: Array) -> State:
  del state
  return (jnp.tanh(x + u),)


def _lstm(state: State, x: Array, u: Array) -> State:
  _, c = state
  i, f, g, o = _split(x + u, 4)
  c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
  return nn.sigmoid(o) * jnp.tanh(c), c


def _gru(state: State, x: Array, u: Array) -> State:
  (h,) = state
  (xr, xz, xn), (ur, uz, un) = _split(x, 3), _split(u, 3)
  z = nn.sigmoid(xz + uz)
  n = jnp.tanh(xn + nn.sigmoid(xr + ur) * un)
  return ((1 - z) * n + z * h,)


def _reset(state: State, x: Array, u: Array) -> State:
  (h,) = state
  (xr, xn), (ur, un) = _split(x, 2), _split(u, 2)
  r = nn.sigmoid(xr + ur)
  return (r * h + (1 - r) * jnp.tanh(xn + r * un),)


# h = tanh(W x + b + U h + b'), Elman 1990.
RNN = Cell(('h',), ('h',), _rnn)

# Input, forget, cell and output gate: c = f c + i g, h = o tanh(c), arXiv:1909.09586.
# The forget gate is open at first (Jozefowicz et al. 2015).
LSTM = Cell(('input', 'forget', 'cell', 'output'), ('h', 'c'), _lstm, ones=('forget',))

# Reset, update and new: n = tanh(W x + b + r (U h + b')), h = (1 - z) n + z h,
# arXiv:1406.1078, with the reset after the product, as in cuDNN.
GRU = Cell(('reset', 'update', 'new'), ('h',), _gru)

# One gate that is a true reset, two thirds of a GRU's weights. The same r scales both
# ways in which the past enters:
#
#   r = sigmoid(W_r x + b_r + U_r h + b'_r)
#   n = tanh(W_n x + b_n + r (U_n h + b'_n))
#   h = r h + (1 - r) n
#
# r = 1 holds the state and passes gradients through unchanged; r = 0 begins anew from
# this token alone, which neither a GRU's reset (its update gate may still hold h) nor
# the minimal gated unit (arXiv:1603.09420: its candidate sees all of h when it forgets)
# does with one gate.
RESET = Cell(('reset', 'new'), ('h',), _reset, ones=('reset',))

CELLS = {'rnn': RNN, 'lstm': LSTM, 'gru': GRU, 'reset': RESET}


def cell_by_name(name: str) -> Cell:
  """One of CELLS.

  Raises:
    ConfigError: another name.
  """
  if name not in CELLS:
    raise ConfigError(f'cell={name} is not allowed: must be one of {", ".join(CELLS)}.')
  return CELLS[name]


def zero_state(cell: Cell, batch: int, features: int, dtype: Any) -> State:
  """The state before the first token."""
  return tuple(jnp.zeros((batch, features), dtype) for _ in cell.state)


def unroll(
  cell: Cell,
  x_TBG: Array,
  hidden_kernel: Array,
  hidden_bias: Array,
  state: State,
  length_B: Array | None = None,
  *,
  reverse: bool = False,
  nudge_TBH: Array | None = None,
) -> tuple[Array, State]:
  """Applies a cell to every step.

  Args:
    cell: one of CELLS, or your own.
    x_TBG: projected inputs with their bias, time first, G*H wide.
    hidden_kernel: [H, G*H].
    hidden_bias: [G*H].
    state: before the first step; of the arithmetic's dtype.
    length_B: steps of each row; None: all T.
    reverse: from each row's last step to its first.
    nudge_TBH: added to h after every step. Zeros change nothing, and the gradient of a
      loss for them is that for every h_t.

  Returns:
    (h_TBH, 0 past the end of a row; the state after a row's last step).
  """
  steps = jnp.arange(x_TBG.shape[0], dtype=jnp.int32)
  wide = state[0].dtype

  def body(state, inputs):
    t, x, nudge = inputs
    u = jnp.matmul(
      state[0].astype(hidden_kernel.dtype), hidden_kernel, preferred_element_type=wide
    )
    new = cell.step(state, x.astype(wide), u + hidden_bias.astype(wide)[None])
    if nudge is not None:
      new = (new[0] + nudge, *new[1:])
    if length_B is None:
      return new, new[0]
    inside = (t < length_B)[:, None]
    kept = tuple(jnp.where(inside, a, b) for a, b in zip(new, state))
    return kept, jnp.where(inside, new[0], 0)

  state, h_TBH = lax.scan(body, state, (steps, x_TBG, nudge_TBH), reverse=reverse)
  return h_TBH, state


def gradient_by_distance(
  score: Callable[[Array], Array], h_TBH: Array, length_B: Array
) -> Array:
  """How much scores depend on the state some steps before the end of a row.

  Args:
    score: nudge_TBH (see `unroll`) -> one score a row, of its state at the end.
    h_TBH: zeros of the shape and dtype of all states.
    length_B: steps of each row.

  Returns:
    [T]: at distance n from a row's last step, the norm of d score / d h over that at
    the last step, averaged over the rows of more than n steps; nan where there is none.
  """
  back_TB = length_B[None] - 1 - jnp.arange(h_TBH.shape[0])[:, None]
  norm_TB = jnp.linalg.norm(jax.grad(lambda x: score(x).sum())(h_TBH), axis=-1)
  last_B = jnp.where(back_TB == 0, norm_TB, 0).sum(0)
  share_TB = norm_TB / jnp.maximum(last_B, jnp.finfo(h_TBH.dtype).tiny)[None]

  def at(distance):
    hit_TB = back_TB == distance
    return jnp.where(hit_TB, share_TB, 0).sum() / hit_TB.sum()

  return jax.vmap(at)(jnp.arange(h_TBH.shape[0]))


def _orthogonal_blocks(gates: int) -> Callable[..., Array]:
  """Initialiser of [H, G*H]: each gate's block is orthogonal (arXiv:1312.6120)."""

  def init(key, shape, dtype):
    keys = jax.random.split(key, gates)
    one = nn.initializers.orthogonal()
    blocks = [one(k, (shape[0], shape[1] // gates), dtype) for k in keys]
    return jnp.concatenate(blocks, axis=1)

  return init


def _bias(cell: Cell, features: int) -> Callable[..., Array]:
  def init(key, shape, dtype):
    del key
    ones = [jnp.full((features,), gate in cell.ones, dtype) for gate in cell.gates]
    return jnp.concatenate(ones).reshape(shape)

  return init


class Recurrent(nn.Module):
  """One cell along time, in one direction.

  Attributes:
    cell: one of CELLS.
    features: H.
    reverse: from each row's last token to its first.
    dtype: of the matrix products and outputs; gates and state are at least float32.
    param_dtype: of the parameters.
  """

  cell: Cell
  features: int
  reverse: bool = False
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x_BTD: Array,
    length_B: Array | None = None,
    state: State | None = None,
    nudge_TBH: Array | None = None,
  ) -> tuple[Array, State]:
    """(h_BTH, 0 past the end of a row; state after each row's last token).

    Args:
      x_BTD: inputs, filled up with anything past the end of a row.
      length_B: tokens of each row, 0 to T; None: all T.
      state: before the first token; None: zeros.
      nudge_TBH: see `unroll`.
    """
    cell, width = self.cell, len(self.cell.gates) * self.features
    wide = jnp.promote_types(self.dtype, jnp.float32)

    def param(name, init, *shape):
      return self.param(name, init, shape, self.param_dtype)

    fan_in = nn.initializers.lecun_normal()
    input_kernel = param('input_kernel', fan_in, x_BTD.shape[-1], width)
    hidden_kernel = param(
      'hidden_kernel', _orthogonal_blocks(len(cell.gates)), self.features, width
    )
    input_bias = param('input_bias', _bias(cell, self.features), width)
    hidden_bias = param('hidden_bias', nn.initializers.zeros, width)
    x_TBD = x_BTD.swapaxes(0, 1).astype(self.dtype)
    x_TBG = x_TBD @ input_kernel.astype(self.dtype)
    x_TBG = x_TBG + input_bias.astype(self.dtype)[None, None]
    if state is None:
      state = zero_state(cell, x_BTD.shape[0], self.features, wide)
    h_TBH, state = unroll(
      cell,
      x_TBG,
      hidden_kernel.astype(self.dtype),
      hidden_bias,
      state,
      length_B,
      reverse=self.reverse,
      nudge_TBH=nudge_TBH,
    )
    return h_TBH.swapaxes(0, 1).astype(self.dtype), state


class RecurrentStack(nn.Module):
  """Layers of one cell, each of one direction or of both.

  Attributes:
    cell: one of CELLS.
    features: H of each layer, e.g. (128, 64); with both directions outputs are 2H wide.
    bidirectional: a second scan from each row's last token to its first; outputs of the
      two lie side by side, forward first.
    dropout: share of units dropped between layers, not after the last.
    dtype: of the matrix products and outputs.
    param_dtype: of the parameters.
  """

  cell: Cell
  features: Sequence[int]
  bidirectional: bool = False
  dropout: float = 0.0
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x_BTD: Array, length_B: Array | None = None, *, train: bool
  ) -> tuple[Array, list[list[State]]]:
    """(outputs [B, T, H or 2H] of the last layer, final states by layer and direction).

    Args:
      x_BTD: inputs, filled up with anything past the end of a row.
      length_B: tokens of each row; None: all T.
      train: drop units (rng 'dropout').
    """
    finals = []
    for i, features in enumerate(self.features):
      if i:
        x_BTD = nn.Dropout(self.dropout, deterministic=not train)(x_BTD)
      outputs, states = [], []
      for direction in ('forward', 'backward')[: 1 + self.bidirectional]:
        layer = Recurrent(
          self.cell,
          features,
          reverse=direction == 'backward',
          dtype=self.dtype,
          param_dtype=self.param_dtype,
          name=f'{direction}_{i}',
        )
        output, state = layer(x_BTD, length_B)
        outputs.append(output)
        states.append(state)
      x_BTD = jnp.concatenate(outputs, axis=-1)
      finals.append(states)
    return x_BTD, finals
