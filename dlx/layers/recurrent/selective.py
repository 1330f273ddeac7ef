"""The selective state space of Mamba (arXiv:2312.00752), by an associative scan.

B rows, T steps, D channels, N numbers of state a channel.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers.recurrent.linear import Linear, inside, run

Array = jax.Array


class BlockState(NamedTuple):
  """What a block carries from one piece of a sequence to the next.

  Attributes:
    before_BKD: the last inputs of the convolution, `window` - 1 of them.
    h_BDN: of the state space.
  """

  before_BKD: Array
  h_BDN: Array


def selective_scan(
  x_BTD: Array,
  delta_BTD: Array,
  a_DN: Array,
  b_BTN: Array,
  c_BTN: Array,
  skip_D: Array,
  length_B: Array | None = None,
  state_BDN: Array | None = None,
) -> tuple[Array, Array]:
  """h = exp(delta A) h + delta B x,  y = C h + D x, of each channel alone.

  exp(delta A) is the exact step of h' = A h over the time delta; B is held over it as
  the paper's code has it (Euler), not as its equation 4.

  Args:
    x_BTD: inputs.
    delta_BTD: length of each step, above 0: 0 keeps h and does not see x, a large one
      forgets h. That it depends on the input makes the scan selective.
    a_DN: below 0.
    b_BTN, c_BTN: how x enters h, and how h is read.
    skip_D: D, of x.
    length_B: steps of each row; None: all T. Past its end a row keeps its state.
    state_BDN: before the first step; None: zeros.

  Returns:
    (y_BTD; h_BDN after each row's last step).
  """
  decay_BTDN = jnp.exp(delta_BTD[..., None] * a_DN[None, None])
  added_BTDN = (delta_BTD * x_BTD)[..., None] * b_BTN[:, :, None]
  h_BTDN, last_BDN = run(decay_BTDN, added_BTDN, length_B, state_BDN)
  y_BTD = jnp.einsum('btdn,btn->btd', h_BTDN, c_BTN)
  y_BTD += skip_D[None, None] * x_BTD
  return y_BTD, last_BDN


class MambaBlock(Linear):
  """Gate times a selective scan behind a short causal convolution.

  Attributes:
    features: width of inputs and outputs.
    expand: channels of the scan over `features`.
    states: N.
    window: steps that the convolution sees.
    rank: of the map to delta; None: a sixteenth of `features`, at least 1.
    least_delta, most_delta: delta at first, uniform in its logarithm.
    dtype: of the matrix products and outputs; the recurrence is at least float32.
    param_dtype: of the parameters.
  """

  expand: int = 2
  states: int = 16
  window: int = 4
  rank: int | None = None
  least_delta: float = 1e-3
  most_delta: float = 1e-1

  @nn.compact
  def __call__(
    self, x_BTD: Array, length_B: Array | None = None, state: BlockState | None = None
  ) -> tuple[Array, BlockState]:
    """(outputs [B, T, features], 0 past the end of a row; state after its last step).

    Args:
      x_BTD: inputs, filled up with any finite numbers past the end of a row.
      length_B: steps of each row; None: all T.
      state: of the steps before; None: none.
    """
    wide = self.wide
    channels, steps = self.expand * self.features, x_BTD.shape[1]
    rank = self.rank or max(1, self.features // 16)
    dense = functools.partial(self.dense, use_bias=False)

    def param(name, init, *shape):
      return self.param(name, init, shape, self.param_dtype).astype(wide)

    inner, gate = jnp.split(dense(2 * channels, 'input')(x_BTD), 2, axis=-1)
    before = None if state is None else state.before_BKD
    if before is None:
      before = jnp.zeros((len(x_BTD), self.window - 1, channels), inner.dtype)
    padded = jnp.concatenate([before.astype(inner.dtype), inner], axis=1)
    uniform = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform')
    kernel = param('conv_kernel', uniform, self.window, channels)
    conv_bias = param('conv_bias', nn.initializers.zeros, channels)
    taps = [
      kernel[None, None, k] * padded[:, k : k + steps] for k in range(self.window)
    ]
    x = nn.silu(sum(taps) + conv_bias[None, None])
    x = x.astype(self.dtype)
    read = dense(rank + 2 * self.states, 'parameters')(x)
    low, b, c = jnp.split(read, [rank, rank + self.states], axis=-1)
    delta = dense(
      channels,
      'delta',
      use_bias=True,
      kernel_init=nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform'),
      bias_init=self._delta_bias,
    )(low)
    growing = lambda key, shape, dtype: jnp.broadcast_to(
      jnp.log(jnp.arange(1, shape[-1] + 1, dtype=dtype)), shape
    )
    a_DN = -jnp.exp(param('log_decay', growing, channels, self.states))
    y, last = selective_scan(
      x.astype(wide),
      nn.softplus(delta.astype(wide)),
      a_DN,
      b.astype(wide),
      c.astype(wide),
      param('skip', nn.initializers.ones, channels),
      length_B,
      None if state is None else state.h_BDN,
    )
    y = dense(self.features, 'output')((y * nn.silu(gate)).astype(self.dtype))
    within = inside(length_B, steps, y)
    y = y if within is None else jnp.where(within, y, 0)
    return y, BlockState(self._last_inputs(padded, length_B), last)

  def _last_inputs(self, padded: Array, length_B: Array | None) -> Array:
    """Those of the convolution before the step after each row's end."""
    kept = self.window - 1
    if length_B is None:
      return padded[:, padded.shape[1] - kept :]
    index_BK = length_B[:, None] + jnp.arange(kept)[None]
    return jnp.take_along_axis(padded, index_BK[..., None], axis=1)

  def _delta_bias(self, key, shape, dtype):
    """The inverse of softplus, of steps between the least and the most."""
    low, high = np.log(self.least_delta), np.log(self.most_delta)
    delta = jnp.exp(jax.random.uniform(key, shape, dtype, low, high))
    return delta + jnp.log(-jnp.expm1(-delta))
