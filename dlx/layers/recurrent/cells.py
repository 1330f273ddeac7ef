"""Recurrent cells: RNN, LSTM with peepholes or without, GRU, and cells of one gate.

A cell is one pure function of the old state and of two projections, that of the input
and that of the old output, each with all its gates side by side. Gates, kernels and
both biases are those of torch and cuDNN.
"""

from typing import Any, Callable, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.config import check_choice

Array = jax.Array
State = tuple[Array, ...]  # [B, H] each; the first is the output h.


class Cell(NamedTuple):
  """One recurrent cell.

  Attributes:
    gates: names of the G blocks of the projections, in their order.
    state: names of the state's parts; the first is h.
    step: (state, x_BG, u_BG, *own_BH) -> state. x is the projected input with its bias,
      u the projected h with its bias, G*H wide each; then the parameters in `own`, each
      repeated in every row.
    ones: gates whose input bias starts at 1, not 0, so that the cell remembers.
    own: names of further parameters, [H] each, which start at 0.
  """

  gates: tuple[str, ...]
  state: tuple[str, ...]
  step: Callable[..., State]
  ones: tuple[str, ...] = ()
  own: tuple[str, ...] = ()


def _split(x: Array, parts: int) -> list[Array]:
  return jnp.split(x, parts, axis=-1)


def _rnn(state: State, x: Array, u: Array) -> State:
  del state
  return (jnp.tanh(x + u),)


def _relu(state: State, x: Array, u: Array) -> State:
  del state
  return (nn.relu(x + u),)


def _lstm(state: State, x: Array, u: Array) -> State:
  _, c = state
  i, f, g, o = _split(x + u, 4)
  c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
  return nn.sigmoid(o) * jnp.tanh(c), c


def _peephole(
  state: State, x: Array, u: Array, p_i: Array, p_f: Array, p_o: Array
) -> State:
  _, c = state
  i, f, g, o = _split(x + u, 4)
  c = nn.sigmoid(f + p_f * c) * c + nn.sigmoid(i + p_i * c) * jnp.tanh(g)
  return nn.sigmoid(o + p_o * c) * jnp.tanh(c), c


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


def _minimal(state: State, x: Array, u: Array) -> State:
  (h,) = state
  (xf, xn), (uf, un) = _split(x, 2), _split(u, 2)
  f = nn.sigmoid(xf + uf)
  return ((1 - f) * h + f * jnp.tanh(xn + f * un),)


# h = tanh(W x + b + U h + b'), Elman 1990.
RNN = Cell(('h',), ('h',), _rnn)

# The same with max(0, x) for tanh. It is for a hidden kernel that starts as the
# identity (`hidden_init` of `Recurrent`): h is then a sum over all steps (IRNN,
# arXiv:1504.00941).
RELU = Cell(('h',), ('h',), _relu)

# Input, forget, cell and output gate: c = f c + i g, h = o tanh(c), arXiv:1909.09586.
# The forget gate is open at first (Jozefowicz et al. 2015).
LSTM = Cell(('input', 'forget', 'cell', 'output'), ('h', 'c'), _lstm, ones=('forget',))

# Each unit's gates also see its c: that before the step the input and forget gates,
# that after it the output gate (Gers and Schmidhuber 2000,
# doi:10.1109/IJCNN.2000.861302; arXiv:1402.1128). It starts as an LSTM.
PEEPHOLE = Cell(
  LSTM.gates,
  LSTM.state,
  _peephole,
  ones=('forget',),
  own=('input_peephole', 'forget_peephole', 'output_peephole'),
)

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

# The minimal gated unit: one gate that forgets, two thirds of a GRU's weights, with the
# gate after the product, as in `GRU` (arXiv:1603.09420, where it stands before it):
#
#   f = sigmoid(W_f x + b_f + U_f h + b'_f)
#   n = tanh(W_n x + b_n + f (U_n h + b'_n))
#   h = (1 - f) h + f n
MGU = Cell(('forget', 'new'), ('h',), _minimal)

CELLS = {
  'rnn': RNN,
  'lstm': LSTM,
  'gru': GRU,
  'reset': RESET,
  'relu': RELU,
  'peephole': PEEPHOLE,
  'mgu': MGU,
}


def cell_by_name(name: str) -> Cell:
  """One of CELLS.

  Raises:
    ConfigError: another name.
  """
  check_choice('cell', name, CELLS)
  return CELLS[name]


def zero_state(cell: Cell, batch: int, features: int, dtype: Any) -> State:
  """The state before the first token."""
  return tuple(jnp.zeros((batch, features), dtype) for _ in cell.state)
