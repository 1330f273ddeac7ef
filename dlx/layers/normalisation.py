"""Norms over a batch, groups of channels, one channel, features; fast on a CPU, too.

Batch normalisation (arXiv:1502.03167) has a derivative of its own: two sums over the
batch and one pass over the input with three numbers a channel. What autodiff makes of
the forward keeps the centred input: value and gradients of [64, 28, 28, 32] with a ReLU
take 1.0 ms here and 2.1 ms with flax's layer, [64, 32, 32, 64] 4.7 and 7.3 ms (one
core, other programs beside).

Group normalisation with SiLU, [64, 28, 28, 32] and [64, 28, 28, 96]: 1.5 and 4.5 ms by
C++, 2.8 and 12.8 by XLA, 4.2 and 16.0 with flax's layer (two cores).

All float32, jax 0.10.2, medians of 7 or 9, November 2026.
"""

import functools
import math
from typing import Any, Callable

import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.layers.bias import written
from kernels.onednn import batch_norm as batch_norm_calls
from kernels.onednn import library, norm
from kernels.onednn.calls import wide as _wide

Array = jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def batch_norm(
  x: Array, scale_C: Array, bias_C: Array, epsilon: float
) -> tuple[Array, Array, Array]:
  """(normalised x, mean [C], variance [C]) over all axes but the last.

  Reverse mode only, of any order. Sums are in float32 or wider, the variance is that of
  the batch (divided by n), in a pass after that for the mean: as the mean of squares
  less the squared mean, no digit is left of it where the mean is 3000 deviations. On a
  CPU both take the same time (two cores, jax 0.11.2, November 2026).

  Args:
    x: [..., C].
    scale_C: times what has mean 0 and variance 1.
    bias_C: added after that.
    epsilon: added to the variance.
  """
  return _forward(x, scale_C, bias_C, epsilon)[0]


def _over_batch(x: Array) -> Array:
  return x.sum(tuple(range(x.ndim - 1)))


def _rows(like: Array, *of_channels: Array) -> list[Array]:
  """[C] each as [1, ..., 1, C]: ranks are not promoted silently here."""
  return [x.reshape((1,) * (like.ndim - 1) + (-1,)) for x in of_channels]


def _forward(x, scale_C, bias_C, epsilon):
  n, wide = x.size // x.shape[-1], _wide(x)
  mean_C = _over_batch(wide) / n
  (mean,) = _rows(x, mean_C)
  centred = wide - mean
  var_C = _over_batch(centred * centred) / n
  root_C = lax.rsqrt(var_C + epsilon)
  slope, bias = _rows(x, root_C * _wide(scale_C), _wide(bias_C))
  y = centred * slope + bias
  return (y.astype(x.dtype), mean_C, var_C), (x, scale_C, bias_C, mean_C, root_C)


def _backward(epsilon, residuals, slopes):
  del epsilon
  x, scale_C, bias_C, mean_C, root_C = residuals
  dy, d_mean_C, d_var_C = slopes
  n, dy, wide = x.size // x.shape[-1], _wide(dy), _wide(x)
  (mean,) = _rows(x, mean_C)
  sum_C, along_C = _over_batch(dy), _over_batch(dy * (wide - mean))
  # dx is one number a channel times dy, another times x, and a third.
  of_dy_C = _wide(scale_C) * root_C
  of_x_C = (2 * d_var_C - of_dy_C * root_C**2 * along_C) / n
  rest_C = (d_mean_C - of_dy_C * sum_C) / n - of_x_C * mean_C
  of_dy, of_x, rest = _rows(x, of_dy_C, of_x_C, rest_C)
  dx = dy * of_dy + wide * of_x + rest
  return (
    dx.astype(x.dtype),
    (along_C * root_C).astype(scale_C.dtype),
    sum_C.astype(bias_C.dtype),
  )


batch_norm.defvjp(_forward, _backward)


def batch_norm_activation(
  x: Array,
  scale_C: Array,
  bias_C: Array,
  epsilon: float,
  leak: float = 1.0,
  added: Array | None = None,
) -> tuple[Array, Array, Array]:
  """`batch_norm`, plus what is added to it, then z where z > 0 and leak * z elsewhere.

  Where kernels/onednn is built, a CPU computes float32 and bfloat16 (with scale and
  bias in float32) by one call of C++ each way: in a network of convolutions the passes
  over memory are what norms cost, and it makes two each way where XLA makes four and
  more.

  Args:
    x: [..., C].
    scale_C: see `batch_norm`.
    bias_C: likewise.
    epsilon: likewise.
    leak: of the activation: 0 is ReLU, 1 none.
    added: like x; None: nothing.
  """
  rows_of = (x,) if added is None else (x, added)
  if not _calls(rows_of, (scale_C, bias_C)):
    found: Any = batch_norm(x, scale_C, bias_C, epsilon)
    y, mean_C, var_C = found
    return activate(y, leak, added), mean_C, var_C
  rows = (-1, x.shape[-1])
  x_NC = x.reshape(rows)
  added_NC = x_NC[:0] if added is None else added.reshape(rows)
  form = batch_norm_calls.Form(epsilon, leak)
  found: Any = _batch_norm_call(form, x_NC, added_NC, scale_C, bias_C)
  y_NC, mean_C, var_C = found
  return y_NC.reshape(x.shape), mean_C, var_C


def activate(y: Array, leak: float, added: Array | None = None) -> Array:
  """y, plus what is added, z where z > 0 and leak * z elsewhere."""
  y = y if added is None else y + added
  if leak == 1:
    return y
  return nn.relu(y) if leak == 0 else nn.leaky_relu(y, leak)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _batch_norm_call(form: batch_norm_calls.Form, x_NC, added_NC, scale_C, bias_C):
  return _batch_norm_forward(form, x_NC, added_NC, scale_C, bias_C)[0]


def _batch_norm_forward(form, x_NC, added_NC, scale_C, bias_C):
  found: Any = batch_norm_calls.forward(form, x_NC, added_NC, scale_C, bias_C)
  y_NC, mean_C, var_C, root_C = found
  kept_NC = y_NC[: added_NC.shape[0]]
  residuals = (x_NC, kept_NC, scale_C, bias_C, mean_C, root_C)
  return (y_NC, mean_C, var_C), residuals


def _batch_norm_backward(form, residuals, slopes):
  return batch_norm_calls.backward(form, *residuals, *slopes)


_batch_norm_call.defvjp(_batch_norm_forward, _batch_norm_backward)


class BatchNorm(nn.Module):
  """`batch_norm` with running statistics; parameters and statistics as flax's layer.

  Attributes:
    use_running_average: normalise by the statistics kept in `batch_stats`, not by those
      of the batch, and leave them.
    momentum: of the running statistics: their share that a step keeps.
    epsilon: added to the variance.
    leak: of the activation that follows: 0 is ReLU, 1 none.
    dtype: of the result; None: that of the input.
    param_dtype: of the parameters.
    use_bias: whether there is `bias`.
    use_scale: whether there is `scale`.
    bias_init: of `bias`.
    scale_init: of `scale`.
  """

  use_running_average: bool
  momentum: float = 0.99
  epsilon: float = 1e-5
  leak: float = 1.0
  dtype: Any = None
  param_dtype: Any = jnp.float32
  use_bias: bool = True
  use_scale: bool = True
  bias_init: Callable[..., Array] = nn.initializers.zeros
  scale_init: Callable[..., Array] = nn.initializers.ones

  @nn.compact
  def __call__(self, x: Array, added: Array | None = None) -> Array:
    """[..., C] -> the same; statistics are over all axes but the last.

    Args:
      x: what is normalised.
      added: like x: to the result, before the activation.

    Raises:
      ConfigError: statistics of one value a channel, which would leave the bias alone,
        or of none, as of a batch without rows, which have no mean.
    """
    channels = (x.shape[-1],)
    kept_mean = self.variable('batch_stats', 'mean', jnp.zeros, channels, jnp.float32)
    kept_var = self.variable('batch_stats', 'var', jnp.ones, channels, jnp.float32)

    def param(name, used, init, without):
      if not used:
        return jnp.full(channels, without, self.param_dtype)
      return self.param(name, init, channels, self.param_dtype)

    scale_C = param('scale', self.use_scale, self.scale_init, 1)
    bias_C = param('bias', self.use_bias, self.bias_init, 0)
    x = x if self.dtype is None else x.astype(self.dtype)
    if self.use_running_average:
      root_C = lax.rsqrt(kept_var.value + self.epsilon)
      mean, slope, bias = _rows(x, kept_mean.value, root_C * scale_C, bias_C)
      y = ((_wide(x) - mean) * slope + bias).astype(x.dtype)
      return activate(y, self.leak, added)
    if not self.is_initializing():
      _at_least_two(x.size // x.shape[-1], 'value a channel', 'examples in a batch')
    found = batch_norm_activation(x, scale_C, bias_C, self.epsilon, self.leak, added)
    y, mean_C, var_C = found
    if not self.is_initializing():
      for kept, new in ((kept_mean, mean_C), (kept_var, var_C)):
        kept.value = self.momentum * kept.value + (1 - self.momentum) * new
    return y


def group_norm(
  x: Array,
  slope_SC: Array,
  bias_SC: Array,
  groups: int,
  epsilon: float = 1e-6,
  silu: bool = False,
) -> Array:
  """Group normalisation (arXiv:1803.08494), and z * sigmoid(z) of it with `silu`.

  Mean and variance are an example's, over all positions and the channels of a group;
  in float32 or wider. Reverse mode only, of any order. Where kernels/onednn is built, a
  CPU computes float32 and bfloat16 (with slope and bias in float32) by one call of C++
  each way.

  Args:
    x: [B, ..., C].
    slope_SC: times what has mean 0 and variance 1; [1, C], or [B, C]: of each example.
    bias_SC: added after that, like it.
    groups: number of groups of channels, a divisor of C.
    epsilon: added to the variance.
    silu: fused, since it would read and write all of it once more.

  Raises:
    ConfigError: groups of one value an example, which would leave the bias alone.
  """
  positions = math.prod(x.shape[1:-1])  # Also of no rows, where -1 is no size.
  count = positions * x.shape[-1] // groups
  _at_least_two(count, 'value a group', 'channels a group or larger maps')
  form = norm.Form(groups, epsilon, silu)
  x_BPC = x.reshape(x.shape[0], positions, x.shape[-1])
  args = (x_BPC, slope_SC, bias_SC)
  y: Any = _group_norm(form, _calls((x_BPC,), (slope_SC, bias_SC)), *args)
  return y.reshape(x.shape)


def _at_least_two(count: int, what: str, remedy: str):
  """Refuses statistics of one number, its own mean: 0, whatever it is; and of none."""
  if count < 2:
    raise ConfigError(
      f'A norm over {count} {what} is not allowed: its result does not depend on the '
      f'input; must be over at least 2: take more {remedy}.'
    )


def _calls(rows: tuple[Array, ...], numbers: tuple[Array, ...]) -> bool:
  """Whether the call of C++ takes these rows, and these scales and biases."""
  dtype = rows[0].dtype
  fits = dtype in (jnp.float32, jnp.bfloat16) and all(x.dtype == dtype for x in rows)
  fits = fits and all(x.dtype == jnp.float32 for x in numbers)
  return fits and all(x.size for x in (*rows, *numbers)) and library.usable()


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _group_norm(form: norm.Form, calls: bool, x_BPC, slope_SC, bias_SC) -> Any:
  return _group_forward(form, calls, x_BPC, slope_SC, bias_SC)[0]


def _group_forward(form, calls, *args):
  forward: Any = norm.forward if calls else norm.plain_forward
  y, *statistics = forward(form, *args)
  return y, (*args, *statistics)


def _group_backward(form, calls, residuals, dy):
  backward: Any = norm.backward if calls else norm.plain_backward
  return backward(form, *residuals, dy)


_group_norm.defvjp(_group_forward, _group_backward)


class LayerNorm(nn.LayerNorm):
  """Layer normalisation (arXiv:1607.06450), parameters and fields as flax's layer.

  The variance is the mean squared distance from the mean; flax's default, mean of
  squares less squared mean, has no digit left from a mean of some 3000 deviations on.
  """

  use_fast_variance: bool = False

  @nn.compact
  def __call__(self, x: Array, *, mask: Array | None = None) -> Array:
    """[..., D] -> the same; statistics are over the last axis.

    Raises:
      ConfigError: one feature, of which the bias alone would be left.
    """
    _at_least_two(x.shape[-1], 'feature', 'features')
    return written(nn.LayerNorm)(self, x, mask=mask)


class GroupNorm(nn.Module):
  """`group_norm`; parameters as flax's layer.

  Attributes:
    groups: number of groups of channels, a divisor of C.
    epsilon: added to the variance.
    silu: z * sigmoid(z) of the result.
    dtype: of the result; None: that of the input.
    param_dtype: of the parameters.
  """

  groups: int
  epsilon: float = 1e-6
  silu: bool = False
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Array, scale_BC: Array | None = None, shift_BC: Array | None = None
  ) -> Array:
    """[B, ..., C] -> the same.

    Args:
      scale_BC, shift_BC: of each example: the normalised x times 1 + scale, plus shift.
    """
    channels = (x.shape[-1],)
    param = lambda name, init: self.param(name, init, channels, self.param_dtype)[None]
    slope_SC = param('scale', nn.initializers.ones)
    bias_SC = param('bias', nn.initializers.zeros)
    x = x if self.dtype is None else x.astype(self.dtype)
    if scale_BC is not None:
      slope_SC, bias_SC = (_wide(v) * (1 + scale_BC) for v in (slope_SC, bias_SC))
    if shift_BC is not None:
      bias_SC = bias_SC + shift_BC
    if slope_SC.shape != bias_SC.shape:
      slope_SC = jnp.broadcast_to(slope_SC, bias_SC.shape)
    return group_norm(x, slope_SC, bias_SC, self.groups, self.epsilon, self.silu)


class InstanceNorm(nn.Module):
  """Mean 0 and variance 1 of each channel of each example (arXiv:1607.08022).

  `group_norm` with as many groups as channels.

  Attributes:
    epsilon: added to the variance.
    use_affine: whether there are `scale` and `bias`, one of each a channel.
    dtype: of the result; None: that of the input.
    param_dtype: of the parameters.
  """

  epsilon: float = 1e-5
  use_affine: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B, ..., C] -> the same; statistics are over all axes but the first and the last.

    Raises:
      ConfigError: maps of one position, of which the bias alone would be left.
    """
    channels = (x.shape[-1],)
    scale_C, bias_C = jnp.ones(channels), jnp.zeros(channels)
    if self.use_affine:
      scale_C = self.param('scale', nn.initializers.ones, channels, self.param_dtype)
      bias_C = self.param('bias', nn.initializers.zeros, channels, self.param_dtype)
    x = x if self.dtype is None else x.astype(self.dtype)
    return group_norm(x, scale_C[None], bias_C[None], *channels, self.epsilon)


# Over the root of the mean square, without a mean (arXiv:1910.07467). Flax's: no large
# numbers are subtracted in it.
RMSNorm = nn.RMSNorm
