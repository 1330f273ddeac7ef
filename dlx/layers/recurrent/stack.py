"""Recurrent layers over padded rows: one cell along time, and stacks of them.

The input's projection is one matrix product for all steps, before the scan; only that
of the old output stands inside it (dlx/layers/recurrent/unroll.py).

Gates, kernels and both biases are those of torch and cuDNN, so that weights move over
by a transposition: input_kernel [D, G*H] is weight_ih_l0.T, hidden_kernel [H, G*H] is
weight_hh_l0.T, input_bias and hidden_bias are bias_ih_l0 and bias_hh_l0.

Rows are packed in effect: after its end a row keeps its state and its outputs are 0,
and the backward direction begins at each row's own last token.
"""

from typing import Any, Callable, NamedTuple, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.config import check_choice
from dlx.layers.matmul import rows_dot_general
from dlx.layers.recurrent.cells import Cell, State, zero_state
from dlx.layers.recurrent.noise import RecurrentNoise
from dlx.layers.recurrent.unroll import unroll

Array = jax.Array


def _orthogonal_blocks(gates: int) -> Callable[..., Array]:
  """Initialiser of [H, G*H]: each gate's block is orthogonal (arXiv:1312.6120)."""

  def init(key, shape, dtype):
    keys = jax.random.split(key, gates)
    one = nn.initializers.orthogonal()
    blocks = [one(k, (shape[0], shape[1] // gates), dtype) for k in keys]
    return jnp.concatenate(blocks, axis=1)

  return init


def _identity_blocks(gates: int) -> Callable[..., Array]:
  """Initialiser of [H, G*H]: each gate's block is the identity (arXiv:1504.00941)."""

  def init(key, shape, dtype):
    del key
    return jnp.tile(jnp.eye(shape[0], shape[1] // gates, dtype=dtype), (1, gates))

  return init


# How hidden kernels may start, by name.
HIDDEN_INITS = {'orthogonal': _orthogonal_blocks, 'identity': _identity_blocks}


def _bias(cell: Cell, features: int) -> Callable[..., Array]:
  def init(key, shape, dtype):
    del key
    ones = [jnp.full((features,), gate in cell.ones, dtype) for gate in cell.gates]
    return jnp.concatenate(ones).reshape(shape)

  return init


class CellWeights(NamedTuple):
  """The parameters of a cell: D inputs, H features, G gates.

  Attributes:
    input_kernel: [D, G*H].
    hidden_kernel: [H, G*H].
    input_bias: [G*H].
    hidden_bias: [G*H].
    own: [H] each, see `Cell.own`.
  """

  input_kernel: Array
  hidden_kernel: Array
  input_bias: Array
  hidden_bias: Array
  own: tuple[Array, ...]


def cell_weights(
  module: nn.Module,
  cell: Cell,
  inputs: int,
  features: int,
  param_dtype: Any,
  hidden_init: str = 'orthogonal',
) -> CellWeights:
  """Declares a cell's parameters in a module that is being called.

  Args:
    module: whose parameters they are.
    cell: one of CELLS.
    inputs: D.
    features: H.
    param_dtype: of all.
    hidden_init: how the hidden kernel starts, a name of HIDDEN_INITS.

  Raises:
    ConfigError: another `hidden_init`.
  """
  check_choice('hidden_init', hidden_init, HIDDEN_INITS)
  gates, zeros = len(cell.gates), nn.initializers.zeros
  fan_in, hidden = nn.initializers.lecun_normal(), HIDDEN_INITS[hidden_init](gates)
  width = gates * features

  def param(name, init, *shape):
    return module.param(name, init, shape, param_dtype)

  return CellWeights(
    param('input_kernel', fan_in, inputs, width),
    param('hidden_kernel', hidden, features, width),
    param('input_bias', _bias(cell, features), width),
    param('hidden_bias', zeros, width),
    tuple(param(name, zeros, features) for name in cell.own),
  )


class Recurrent(nn.Module):
  """One cell along time, in one direction.

  Attributes:
    cell: one of CELLS.
    features: H.
    reverse: from each row's last token to its first.
    hidden_init: how the hidden kernel starts, a name of HIDDEN_INITS.
    noise: what is dropped in training, see noise.py.
    dtype: of the matrix products and outputs; gates and state are at least float32.
    param_dtype: of the parameters.

  Raises:
    ConfigError: another `hidden_init`, when it is applied.
  """

  cell: Cell
  features: int
  reverse: bool = False
  hidden_init: str = 'orthogonal'
  noise: RecurrentNoise = RecurrentNoise()
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x_BTD: Array,
    length_B: Array | None = None,
    state: State | None = None,
    nudge_TBH: Array | None = None,
    *,
    train: bool = False,
  ) -> tuple[Array, State]:
    """(h_BTH, 0 past the end of a row; state after each row's last token).

    Args:
      x_BTD: inputs, filled up with anything past the end of a row.
      length_B: tokens of each row, 0 to T; None: all T.
      state: before the first token; None: zeros.
      nudge_TBH: see `dlx.layers.recurrent.unroll.unroll`.
      train: draw what `noise` drops (rng 'dropout').
    """
    cell = self.cell
    wide = jnp.promote_types(self.dtype, jnp.float32)
    input_kernel, hidden_kernel, input_bias, hidden_bias, own = cell_weights(
      self, cell, x_BTD.shape[-1], self.features, self.param_dtype, self.hidden_init
    )
    if length_B is not None:
      # What fills a row up has a slope of 0, which times nan would still be nan.
      inside_BT = jnp.arange(x_BTD.shape[1])[None] < length_B[:, None]
      x_BTD = jnp.where(inside_BT[..., None], x_BTD, 0)
    key = None
    if train and self.noise.draws:
      of_inputs, key = jax.random.split(self.make_rng('dropout'))
      x_BTD = self.noise.of_inputs(of_inputs, x_BTD)
    x_TBD = x_BTD.swapaxes(0, 1).astype(self.dtype)
    axes = (((2,), (0,)), ((), ()))
    x_TBG = rows_dot_general(x_TBD, input_kernel.astype(self.dtype), axes)
    x_TBG = x_TBG + input_bias.astype(self.dtype)[None, None]
    if state is None:
      state = zero_state(cell, x_BTD.shape[0], self.features, wide)
    shape = (*x_TBD.shape[:2], self.features)
    h_TBH, state = unroll(
      cell,
      x_TBG,
      hidden_kernel.astype(self.dtype),
      hidden_bias,
      state,
      length_B,
      own=own,
      reverse=self.reverse,
      nudge_TBH=nudge_TBH,
      noise=self.noise.of_steps(key, cell, shape, state[0].dtype),
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
    hidden_init: see `Recurrent`.
    noise: what each layer drops in training, see noise.py.
    dtype: of the matrix products and outputs.
    param_dtype: of the parameters.
  """

  cell: Cell
  features: Sequence[int]
  bidirectional: bool = False
  dropout: float = 0.0
  hidden_init: str = 'orthogonal'
  noise: RecurrentNoise = RecurrentNoise()
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x_BTD: Array,
    length_B: Array | None = None,
    states: Sequence[Sequence[State]] | None = None,
    *,
    train: bool,
  ) -> tuple[Array, list[list[State]]]:
    """(outputs [B, T, H or 2H] of the last layer, final states by layer and direction).

    Args:
      x_BTD: inputs, filled up with anything past the end of a row.
      length_B: tokens of each row; None: all T.
      states: before the first token, by layer and direction, as this returns them;
        None: zeros.
      train: drop units (rng 'dropout').
    """
    finals = []
    for i, features in enumerate(self.features):
      if i:
        x_BTD = nn.Dropout(self.dropout, deterministic=not train)(x_BTD)
      outputs, after = [], []
      for j, direction in enumerate(('forward', 'backward')[: 1 + self.bidirectional]):
        layer = Recurrent(
          self.cell,
          features,
          reverse=direction == 'backward',
          hidden_init=self.hidden_init,
          noise=self.noise,
          dtype=self.dtype,
          param_dtype=self.param_dtype,
          name=f'{direction}_{i}',
        )
        before = None if states is None else states[i][j]
        output, state = layer(x_BTD, length_B, before, train=train)
        outputs.append(output)
        after.append(state)
      x_BTD = jnp.concatenate(outputs, axis=-1)
      finals.append(after)
    return x_BTD, finals
