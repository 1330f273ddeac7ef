"""Dropout and its relatives: what is set to 0 in training, so that the mean stays.

  plain          single entries, flax's nn.Dropout              arXiv:1207.0580
  SpatialDropout whole channels of a map                        arXiv:1411.4280
  DropPath       whole examples, of a residual branch           arXiv:1603.09382
  AlphaDropout   entries to SELU's lower end, not 0             arXiv:1706.02515
  DropConnect    weights of a dense layer                       Wan et al. 2013

What is kept is divided by 1 - rate (alpha dropout: an affine map that keeps mean 0 and
variance 1), so that evaluation is the identity: deterministic=True, without a random
stream. Each layer draws from its stream by name, `dropout` unless told otherwise, and
from its place in the model; a step gives `rngs={'dropout': key}`.

The functions take a traced rate, too: runs that differ in it may share a program.
"""

from typing import Any, Callable, Sequence

import flax.linen as nn
from flax.linen.dtypes import promote_dtype
import jax
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.layers.matmul import rows_product
from dlx.state import Array, Key

# Where SELU goes far below 0: -scale * alpha.
_LOW = -1.7580993408473766


def drop(key: Key, x: Array, rate: float | Array, shared: Sequence[int] = ()) -> Array:
  """x / (1 - rate), entries of it 0 with probability `rate`.

  Args:
    key: the same key drops the same entries.
    x: of any shape and float dtype, both kept.
    rate: in [0, 1).
    shared: axes along which one draw is for all: (1, 2) of [B, H, W, C] drops channels.

  Raises:
    ConfigError: another rate.
  """
  kept = draw_kept(key, x, rate, shared)
  return jnp.where(kept, x / jnp.asarray(1 - rate, x.dtype), jnp.zeros_like(x))


def drop_path(key: Key, branch: Array, rate: float | Array) -> Array:
  """`drop` of whole examples [B, ...]: x + drop_path(key, f(x), rate) skips f."""
  return drop(key, branch, rate, range(1, branch.ndim))


def alpha_drop(key: Key, x: Array, rate: float | Array) -> Array:
  """Entries at SELU's lower end with probability `rate`, then an affine map.

  Inputs of mean 0 and variance 1 give outputs of mean 0 and variance 1.

  Args:
    key: the same key drops the same entries.
    x: what SELU gave.
    rate: in [0, 1).

  Raises:
    ConfigError: another rate.
  """
  kept = draw_kept(key, x, rate)
  slope = ((1 - rate) * (1 + rate * _LOW**2)) ** -0.5
  dropped = jnp.where(kept, x, jnp.full_like(x, _LOW))
  shift = -slope * rate * _LOW
  return dropped * jnp.asarray(slope, x.dtype) + jnp.asarray(shift, x.dtype)


def path_rates(num_blocks: int, last: float) -> list[float]:
  """Rates of `DropPath` by block: rising evenly to `last`, section 4 of the paper."""
  return [last * (i + 1) / num_blocks for i in range(num_blocks)]


class _Drop(nn.Module):
  """A layer that drops in training.

  Attributes:
    rate: probability of being dropped, in [0, 1).
    deterministic: nothing is dropped.
    stream: name of the random stream.
  """

  rate: float
  deterministic: bool
  stream: str = 'dropout'

  def __call__(self, x: Array) -> Array:
    """x, of the same shape and dtype."""
    return x if self.deterministic else self.dropped(self.make_rng(self.stream), x)

  def dropped(self, key: Key, x: Array) -> Array:
    raise NotImplementedError


class SpatialDropout(_Drop):
  """Drops channels of an example [B, ..., C], at all positions together."""

  def dropped(self, key: Key, x: Array) -> Array:
    return drop(key, x, self.rate, range(1, x.ndim - 1))


class DropPath(_Drop):
  """Drops a residual branch of an example: stochastic depth."""

  def dropped(self, key: Key, x: Array) -> Array:
    return drop_path(key, x, self.rate)


class AlphaDropout(_Drop):
  """`alpha_drop`, after SELU."""

  def dropped(self, key: Key, x: Array) -> Array:
    return alpha_drop(key, x, self.rate)


class DropConnect(nn.Module):
  """A dense layer whose weights, not its biases, are dropped in training.

  One draw is for the whole batch. Parameters as flax's nn.Dense.

  Attributes:
    features: F, units.
    rate: probability that a weight is dropped, in [0, 1).
    deterministic: nothing is dropped.
    use_bias: whether there is `bias`.
    stream: name of the random stream.
    dtype: of the result; None: that of input and parameters together.
    param_dtype: of the parameters.
    kernel_init: of `kernel`.
  """

  features: int
  rate: float
  deterministic: bool
  use_bias: bool = True
  stream: str = 'dropout'
  dtype: Any = None
  param_dtype: Any = jnp.float32
  kernel_init: Callable[..., Array] = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[..., D] -> [..., F]."""
    shape = (x.shape[-1], self.features)
    kernel = self.param('kernel', self.kernel_init, shape, self.param_dtype)
    bias = None
    if self.use_bias:
      bias = self.param(
        'bias', nn.initializers.zeros, (self.features,), self.param_dtype
      )
    if not self.deterministic:
      kernel = drop(self.make_rng(self.stream), kernel, self.rate)
    x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
    y = rows_product(x, kernel)
    return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


def draw_kept(key: Key, x: Array, rate, shared: Sequence[int] = ()) -> Array:
  """Whether entries are kept, bool, of the shape of x; see `drop`."""
  if isinstance(rate, int | float) and not 0 <= rate < 1:
    raise ConfigError(f'rate={rate} is not allowed: must be in [0, 1).')
  shape = [1 if axis in shared else size for axis, size in enumerate(x.shape)]
  return jnp.broadcast_to(jax.random.bernoulli(key, 1 - rate, shape), x.shape)
