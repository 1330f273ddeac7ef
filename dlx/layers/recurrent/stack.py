"""Recurrent layers over padded rows: one cell along time, and stacks of them.

The input's projection is one matrix product for all steps, before the scan; only that
of the old output stands inside it (dlx/layers/recurrent/unroll.py).

Gates, kernels and both biases are those of torch and cuDNN, so that weights move over
by a transposition: input_kernel [D, G*H] is weight_ih_l0.T, hidden_kernel [H, G*H] is
weight_hh_l0.T, input_bias and hidden_bias are bias_ih_l0 and bias_hh_l0.

Rows are packed in effect: after its end a row keeps its state and its outputs are 0,
and the backward direction begins at each row's own last token.
"""

from typing import Any, Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

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


def _bias(cell: Cell, features: int) -> Callable[..., Array]:
  def init(key, shape, dtype):
    del key
    ones = [jnp.full((features,), gate in cell.ones, dtype) for gate in cell.gates]
    return jnp.concatenate(ones).reshape(shape)

  return init


def cell_weights(
  module: nn.Module, cell: Cell, inputs: int, features: int, param_dtype: Any
) -> tuple[Array, Array, Array, Array]:
  """Declares a cell's parameters in a module that is being called.

  Args:
    module: whose parameters they are.
    cell: one of CELLS.
    inputs: D.
    features: H.
    param_dtype: of all four.

  Returns:
    input_kernel [D, G*H], hidden_kernel [H, G*H], input_bias and hidden_bias [G*H].
  """
  width = len(cell.gates) * features
  orthogonal, zeros = _orthogonal_blocks(len(cell.gates)), nn.initializers.zeros

  def param(name, init, *shape):
    return module.param(name, init, shape, param_dtype)

  return (
    param('input_kernel', nn.initializers.lecun_normal(), inputs, width),
    param('hidden_kernel', orthogonal, features, width),
    param('input_bias', _bias(cell, features), width),
    param('hidden_bias', zeros, width),
  )


class Recurrent(nn.Module):
  """One cell along time, in one direction.

  Attributes:
    cell: one of CELLS.
    features: H.
    reverse: from each row's last token to its first.
    noise: what is dropped in training, see noise.py.
    dtype: of the matrix products and outputs; gates and state are at least float32.
    param_dtype: of the parameters.
  """

  cell: Cell
  features: int
  reverse: bool = False
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
      nudge_TBH: see `recurrence.unroll`.
      train: draw what `noise` drops (rng 'dropout').
    """
    cell = self.cell
    wide = jnp.promote_types(self.dtype, jnp.float32)
    input_kernel, hidden_kernel, input_bias, hidden_bias = cell_weights(
      self, cell, x_BTD.shape[-1], self.features, self.param_dtype
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
    noise: what each layer drops in training, see noise.py.
    dtype: of the matrix products and outputs.
    param_dtype: of the parameters.
  """

  cell: Cell
  features: Sequence[int]
  bidirectional: bool = False
  dropout: float = 0.0
  noise: RecurrentNoise = RecurrentNoise()
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
          noise=self.noise,
          dtype=self.dtype,
          param_dtype=self.param_dtype,
          name=f'{direction}_{i}',
        )
        output, state = layer(x_BTD, length_B, train=train)
        outputs.append(output)
        states.append(state)
      x_BTD = jnp.concatenate(outputs, axis=-1)
      finals.append(states)
    return x_BTD, finals
