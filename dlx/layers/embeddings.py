"""Embeddings of what a network is conditioned on: a time, a class or none.

sinusoidal      features of a real number
TimeEmbedding   the same through a small MLP
LabelEmbedding  a row for each class and one for "no class"
drop_labels     the label "no class" in place of some, for classifier-free guidance

And of the numbers of a table, each with weights of its own:

LinearNumbers    a multiple of a vector, and a bias
PeriodicNumbers  sines and cosines at learned frequencies, Dense, ReLU
"""

import math
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx import labels
from dlx.errors import ConfigError
from dlx.layers.matmul import Dense

Array = jax.Array


def sinusoidal(t_B: Array, features: int, max_period: float = 1e4) -> Array:
  """Sines, then cosines of t at geometrically spaced rates (arXiv:1706.03762).

  Rates fall from 1 to 1 / max_period radians a unit of t, both included.

  Args:
    t_B: numbers, int or float.
    features: F, even.
    max_period: above 1; larger than the range of t.

  Returns:
    float32 [B, F].

  Raises:
    ConfigError: an odd F or one below 4.
  """
  chex.assert_rank(t_B, 1)
  if features < 4 or features % 2:
    raise ConfigError(
      f'features={features} of a sinusoidal embedding is not allowed: must be even and '
      'at least 4.'
    )
  exponent_F = jnp.linspace(0.0, 1.0, features // 2, dtype=jnp.float32)
  angle_BF = t_B.astype(jnp.float32)[:, None] * (max_period**-exponent_F)[None]
  return jnp.concatenate([jnp.sin(angle_BF), jnp.cos(angle_BF)], axis=1)


class TimeEmbedding(nn.Module):
  """Sinusoidal features, Dense, SiLU, Dense (arXiv:2006.11239).

  Attributes:
    features: F, of the output.
    frequencies: sinusoidal features, even.
    dtype: of the arithmetic behind the sines, which are float32.
    param_dtype: of the parameters.
  """

  features: int
  frequencies: int = 64
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, t_B: Array) -> Array:
    """[B] numbers -> [B, F]."""
    dense = lambda name: Dense(
      self.features, dtype=self.dtype, param_dtype=self.param_dtype, name=name
    )
    hidden_BF = nn.silu(dense('hidden')(sinusoidal(t_B, self.frequencies)))
    return dense('out')(hidden_BF)


class LabelEmbedding(nn.Module):
  """A learned row for each class, and row `num_classes`, the null class, for none.

  Attributes:
    num_classes: K; labels are in [0, K].
    features: F.
    dtype: of the output.
    param_dtype: of the parameters.
  """

  num_classes: int
  features: int
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, label_B: Array) -> Array:
    """int [B] -> [B, F]; rows of a label outside [0, K] are nan."""
    chex.assert_rank(label_B, 1)
    table = nn.Embed(
      self.num_classes + 1, self.features, param_dtype=self.param_dtype, name='table'
    )
    return labels.rows(jnp.asarray(table.embedding, self.dtype), label_B)


def drop_labels(key: Array, label_B: Array, rate: float, null: int) -> Array:
  """Labels of which each is `null` with probability `rate` (arXiv:2207.12598).

  In int32 or wider: a narrow dtype of the labels need not hold `null`.
  """
  dropped_B = jax.random.uniform(key, label_B.shape, jnp.float32) < rate
  label_B = label_B.astype(jnp.promote_types(label_B.dtype, jnp.int32))
  return jnp.where(dropped_B, jnp.asarray(null, label_B.dtype), label_B)


class LinearNumbers(nn.Module):
  """x_j w_j + b_j for each number j, the tokens of arXiv:2106.11959.

  `weight` and `bias` start uniform within 1 / sqrt(F) and are no `kernel`: weight decay
  leaves them out, as the paper does.

  Attributes:
    features: F.
    dtype: of the arithmetic.
    param_dtype: of the parameters.
  """

  features: int
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BN: Array) -> Array:
    """[B, N] numbers, standardised -> [B, N, F]."""
    chex.assert_rank(x_BN, 2)
    shape, bound = (x_BN.shape[1], self.features), self.features**-0.5
    weight_NF, bias_NF = (
      jnp.asarray(self.param(name, _within(bound), shape, self.param_dtype), self.dtype)
      for name in ('weight', 'bias')
    )
    return x_BN.astype(self.dtype)[..., None] * weight_NF[None] + bias_NF[None]


class PeriodicNumbers(nn.Module):
  """ReLU(Dense_j([sin v, cos v])), v = 2 pi c_j x_j: "PLR" of arXiv:2203.05556.

  Attributes:
    features: F.
    frequencies: K of each number, learned; v is float32.
    sigma: standard deviation of the initial frequencies, in turns a unit of x; the
      paper tunes it within 0.01 to 100.
    dtype: of the arithmetic behind the sines.
    param_dtype: of the parameters.
  """

  features: int
  frequencies: int = 16
  sigma: float = 0.3
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BN: Array) -> Array:
    """[B, N] numbers, standardised -> [B, N, F]."""
    chex.assert_rank(x_BN, 2)
    num, init = x_BN.shape[1], nn.initializers
    frequency_NK = self.param(
      'frequency', init.normal(self.sigma), (num, self.frequencies), self.param_dtype
    )
    wide = jnp.promote_types(self.dtype, jnp.float32)
    v_BNK = 2 * math.pi * frequency_NK.astype(wide)[None] * x_BN.astype(wide)[..., None]
    wave_BNW = jnp.concatenate([jnp.sin(v_BNK), jnp.cos(v_BNK)], 2).astype(self.dtype)
    bound = (2 * self.frequencies) ** -0.5
    kernel_NWF = self.param(
      'kernel', _within(bound), (num, 2 * self.frequencies, self.features),
      self.param_dtype,
    )  # fmt: skip
    bias_NF = self.param('bias', _within(bound), (num, self.features), self.param_dtype)
    y_BNF = jnp.einsum('bnw,nwf->bnf', wave_BNW, kernel_NWF.astype(self.dtype))
    return nn.relu(y_BNF + bias_NF.astype(self.dtype)[None])


def _within(bound: float) -> nn.initializers.Initializer:
  """Uniform in [-bound, bound]."""

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init
