"""Biases, whose gradients are summed in float32 or wider.

The gradient of a bias is a sum over all rows. In half precision that of flax's layers
is summed in half precision, rounded after each row; and XLA on a CPU takes a slow loop
for it: 544 of the 1787 ms of a step of `vit` in bfloat16, 265 of the 1418 of `ddpm`
(two cores of an AMD EPYC with other programs beside, jax 0.11.2, 2026-12-01).
"""

import inspect
from typing import Any, Callable

import flax.linen as nn
from flax.linen.dtypes import promote_dtype
import jax
import jax.numpy as jnp

Array = jax.Array


def wide(bias: Array) -> Array:
  """In float32, or in its own dtype where that is wider."""
  return bias.astype(jnp.promote_types(bias.dtype, jnp.float32))


def add_bias(y: Array, bias: Array) -> Array:
  """y [..., *shape] + bias [*shape], added in float32 or wider, in the dtype of y."""
  leading = (1,) * (y.ndim - bias.ndim)
  return (y + wide(bias).reshape(*leading, *bias.shape)).astype(y.dtype)


def keep_bias_wide(x: Array, kernel: Array, bias: Array | None, *, dtype: Any) -> Any:
  """The field `promote_dtype` of a layer of flax that `narrow`s what it returns.

  Args:
    x, kernel: get the dtype of the arithmetic.
    bias: gets float32 or wider, so that it is added, and its gradient summed, in it.
    dtype: of the arithmetic; None: that of x and the kernel.
  """
  x, kernel = promote_dtype(x, kernel, dtype=dtype)
  return x, kernel, None if bias is None else wide(bias)


def written(layer: type[nn.Module]) -> Callable[..., Array]:
  """`__call__` of a layer of flax as it is written, for the `nn.compact` one of ours.

  By `super().__call__` the layer would stand twice in the paths of its operations, and
  so in what launch.inspect and profiles call it.
  """
  return inspect.unwrap(layer.__call__)


def narrow(y: Array, x: Array, dtype: Any, param_dtype: Any) -> Array:
  """What a layer with `keep_bias_wide` gives, in the dtype of its arithmetic."""
  return y.astype(jnp.result_type(x, param_dtype) if dtype is None else dtype)
