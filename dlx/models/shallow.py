"""One hidden layer for a few inputs: its units are spread over them from the start."""

from typing import Any, Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from dlx.layers.matmul import Dense
from dlx.models.mlp import PLACEMENT

__all__ = ('PLACEMENT', 'Shallow')  # Its layers have the names of those of MLP.


class Shallow(nn.Module):
  """One hidden layer whose units begin with their turning points far apart.

  Zero biases, the usual beginning, put all of them at 0, and in one dimension most
  stay there.

  Attributes:
    width: hidden units.
    activation: of the hidden units.
    steepness: deviation of their weights at the beginning; biases are uniform between
      minus and plus so much.
    dtype: of the hidden layer's arithmetic; the output is at least float32.
    param_dtype: of the parameters.
  """

  width: int
  activation: Callable[[jax.Array], jax.Array]
  steepness: float
  dtype: Any = jnp.float32
  param_dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_BD: jax.Array, *, train: bool) -> jax.Array:
    """Outputs [B, 1]; `train` changes nothing."""
    del train

    def spread(key, shape, dtype):
      return jax.random.uniform(key, shape, dtype, -self.steepness, self.steepness)

    hidden = Dense(
      self.width,
      kernel_init=nn.initializers.normal(self.steepness),
      bias_init=spread,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name='hidden_0',
    )
    head = Dense(
      1,
      dtype=jnp.promote_types(self.dtype, jnp.float32),
      param_dtype=self.param_dtype,
      name='head',
    )
    return head(self.activation(hidden(x_BD)))
