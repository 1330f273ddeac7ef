"""Linear recurrences: h_t = a_t h_{t-1} + b_t for all t at once, and layers of them.

What a_t and b_t are does not depend on h, so that the steps can be joined in pairs, in
pairs of pairs and so on: about 2 log2(T) passes over [B, T, D] instead of T steps, one
after the other.
"""

from typing import Any

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from dlx.layers.matmul import Dense, rows_dot_general

Array = jax.Array


def linear_scan(
  a_BTD: Array, b_BTD: Array, state_BD: Array | None = None, *, reverse: bool = False
) -> Array:
  """h_t = a_t h_{t-1} + b_t along axis 1, by an associative scan.

  Its gradient is one more such scan, in the other direction. Products of many factors
  below 1 go to 0 without harm, as nothing is divided by them.

  Args:
    a_BTD: factors, real or complex; h stays bounded where their magnitude is below 1.
    b_BTD: what is added, of the same shape and dtype; further axes may follow.
    state_BD: h before the first step; None: 0.
    reverse: from the last step to the first: h_t = a_t h_{t+1} + b_t.

  Returns:
    h_BTD of every step.
  """
  if state_BD is not None:
    first = -1 if reverse else 0
    b_BTD = b_BTD.at[:, first].add(a_BTD[:, first] * state_BD)
  return _scan(a_BTD, b_BTD, reverse)


def _joined(a: Array, b: Array, reverse: bool) -> Array:
  def join(before, after):
    return before[0] * after[0], after[0] * before[1] + after[1]

  return lax.associative_scan(join, (a, b), axis=1, reverse=reverse)[1]


@jax.custom_vjp
def _forward(a: Array, b: Array) -> Array:
  return _joined(a, b, reverse=False)


def _shifted(x: Array, steps: int) -> Array:
  """x of `steps` later along axis 1, 0 where there is none; steps is 1 or -1."""
  none = jnp.zeros_like(x[:, :1])
  parts = (x[:, 1:], none) if steps > 0 else (none, x[:, :-1])
  return jnp.concatenate(parts, axis=1)


def _forward_saving(a, b):
  h = _joined(a, b, reverse=False)
  return h, (a, h)


def _forward_slopes(residuals, dh):
  a, h = residuals
  db = _joined(_shifted(a, 1), dh, reverse=True)
  return db * _shifted(h, -1), db


_forward.defvjp(_forward_saving, _forward_slopes)


def _scan(a: Array, b: Array, reverse: bool) -> Array:
  if reverse:
    return _forward(a[:, ::-1], b[:, ::-1])[:, ::-1]
  return _forward(a, b)


def inside(length_B: Array | None, steps: int, like: Array) -> Array | None:
  """[B, T, 1 ...]: which steps lie within each row; None: all of them."""
  if length_B is None:
    return None
  inside_BT = jnp.arange(steps)[None] < length_B[:, None]
  return inside_BT.reshape(*inside_BT.shape, *[1] * (like.ndim - 2))


def run(
  a_BTD: Array, b_BTD: Array, length_B: Array | None, state_BD: Array | None
) -> tuple[Array, Array]:
  """(h of every step, h after each row's last one) of rows of their own lengths.

  Past its end a row keeps its state: its factors are 1 there, and nothing is added.
  """
  within = inside(length_B, a_BTD.shape[1], a_BTD)
  if within is not None:
    a_BTD, b_BTD = jnp.where(within, a_BTD, 1), jnp.where(within, b_BTD, 0)
  h_BTD = linear_scan(a_BTD, b_BTD, state_BD)
  return h_BTD, h_BTD[:, -1]


class Linear(nn.Module):
  """What layers with a linear recurrence share.

  Attributes:
    features: D of the outputs.
    dtype: of the matrix products and outputs; the recurrence is at least float32.
    param_dtype: of the parameters.
  """

  features: int
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @property
  def wide(self) -> Any:
    return jnp.promote_types(self.dtype, jnp.float32)

  def dense(self, features: int, name: str, **fields: Any) -> Dense:
    return Dense(
      features, dtype=self.dtype, param_dtype=self.param_dtype, name=name, **fields
    )


class MinGRU(Linear):
  """A GRU whose gate and candidate see the input alone (arXiv:2410.01201).

    z = sigmoid(W_z x + b_z),  n = W_n x + b_n,  h = (1 - z) h + z n

  h is a weighted mean of the candidates so far, so that it needs no tanh.
  """

  @nn.compact
  def __call__(
    self, x_BTD: Array, length_B: Array | None = None, state_BD: Array | None = None
  ) -> tuple[Array, Array]:
    """(h_BTD, 0 past the end of a row; state after each row's last step).

    Args:
      x_BTD: inputs, filled up with any finite numbers past the end of a row.
      length_B: steps of each row; None: all T.
      state_BD: before the first step; None: zeros.
    """
    z_BTD = nn.sigmoid(self.dense(self.features, 'update')(x_BTD).astype(self.wide))
    n_BTD = self.dense(self.features, 'candidate')(x_BTD).astype(self.wide)
    h_BTD, last_BD = run(1 - z_BTD, z_BTD * n_BTD, length_B, state_BD)
    return _cut(h_BTD, length_B).astype(self.dtype), last_BD


def _cut(x_BTD: Array, length_B: Array | None) -> Array:
  within = inside(length_B, x_BTD.shape[1], x_BTD)
  return x_BTD if within is None else jnp.where(within, x_BTD, 0)


class LRU(Linear):
  """The linear recurrent unit: a diagonal of complex numbers (arXiv:2303.06349).

    h = lambda h + gamma B x,  y = Re(C h) + D x

  with lambda = exp(-exp(nu) + i exp(theta)), whose magnitude is below 1 whatever nu is,
  and gamma, begun as sqrt(1 - |lambda|^2), which keeps the size of h near that of x.

  Attributes:
    states: N, the complex numbers of h.
    least, most: |lambda| at first, uniform in area between the two circles.
    most_phase: the largest angle of lambda at first; a tenth of pi for long rows.
  """

  states: int = 64
  least: float = 0.0
  most: float = 1.0
  most_phase: float = 2 * np.pi

  @nn.compact
  def __call__(
    self, x_BTD: Array, length_B: Array | None = None, state_BN: Array | None = None
  ) -> tuple[Array, Array]:
    """(y_BTD, 0 past the end of a row; complex state after each row's last step).

    Arguments as of `MinGRU`; the state is complex [B, N].
    """
    wide, inputs, n = self.wide, x_BTD.shape[-1], self.states

    def param(name, init, *shape):
      return self.param(name, init, shape, self.param_dtype).astype(wide)

    def normal(fan_in):
      return nn.initializers.normal(1 / np.sqrt(2 * fan_in))

    def nu_init(key, shape, dtype):
      low, high = self.least**2, self.most**2
      area = jax.random.uniform(key, shape, wide) * (high - low) + low
      # At most 1 - 1e-6, where a logarithm has still something to say.
      magnitude = jnp.sqrt(jnp.clip(area, 1e-6, 1 - 1e-6))
      return jnp.log(-jnp.log(magnitude)).astype(dtype)

    def theta_init(key, shape, dtype):
      angle = self.most_phase * jax.random.uniform(key, shape, wide, 1e-6)
      return jnp.log(angle).astype(dtype)

    nu_N, theta_N = param('nu', nu_init, n), param('theta', theta_init, n)
    decay_N = jnp.exp(nu_N)
    size = lambda key, shape, dtype: (
      0.5 * jnp.log(-jnp.expm1(-2 * decay_N)).astype(dtype)
    )
    gamma_N = jnp.exp(param('log_gamma', size, n))
    b_real = param('input_real', normal(inputs), inputs, n)
    b_imaginary = param('input_imaginary', normal(inputs), inputs, n)
    # The real part of C h alone is read: twice the variance of a real product.
    c_real = param('output_real', normal(n / 2), n, self.features)
    c_imaginary = param('output_imaginary', normal(n / 2), n, self.features)
    product = lambda x, kernel: rows_dot_general(
      x.astype(self.dtype), kernel.astype(self.dtype), (((2,), (0,)), ((), ()))
    ).astype(wide)
    lambda_N = jnp.exp(lax.complex(-decay_N, jnp.exp(theta_N)))
    b_BTN = gamma_N[None, None] * lax.complex(
      product(x_BTD, b_real), product(x_BTD, b_imaginary)
    )
    a_BTN = jnp.broadcast_to(lambda_N, b_BTN.shape)
    h_BTN, last_BN = run(a_BTN, b_BTN, length_B, state_BN)
    y_BTD = product(h_BTN.real, c_real) - product(h_BTN.imag, c_imaginary)
    if inputs == self.features:
      skip_D = param('skip', nn.initializers.normal(1.0), inputs)
      y_BTD += skip_D[None, None] * x_BTD.astype(wide)
    return _cut(y_BTD, length_B).astype(self.dtype), last_BN
