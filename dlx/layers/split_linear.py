"""A dense layer that treats parts of its input alike, by one small matrix."""

from typing import Any, Callable

import flax.linen as nn
import jax.numpy as jnp

from dlx.errors import ConfigError
from dlx.layers.matmul import Dense
from dlx.state import Array


class SplitLinear(nn.Module):
  """Splits the input into k parts, maps each by the same matrix, puts them together.

  Equals nn.Dense with a block-diagonal kernel of k equal blocks: D F / k^2 weights in
  place of D F, and F / k biases; as many multiplications as D F / k. No part sees
  another, so that something else has to mix them.

  Attributes:
    features: F, outputs; a multiple of `parts`.
    parts: k, a divisor of the number of inputs D.
    use_bias: whether there is `bias`, that of one part.
    dtype: of the result; None: that of input and parameters together.
    param_dtype: of the parameters.
    kernel_init: of `kernel` [D / k, F / k].
  """

  features: int
  parts: int
  use_bias: bool = True
  dtype: Any = None
  param_dtype: Any = jnp.float32
  kernel_init: Callable[..., Array] = nn.initializers.lecun_normal()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[..., D] -> [..., F].

    Raises:
      ConfigError: D or F that `parts` does not divide.
    """
    k = self.parts
    for name, size in (('inputs', x.shape[-1]), ('features', self.features)):
      if k < 1 or size % k:
        raise ConfigError(
          f'parts={k} is not allowed with {size} {name}: must be a divisor of it.'
        )
    dense = Dense(
      self.features // k,
      use_bias=self.use_bias,
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      kernel_init=self.kernel_init,
      name='shared',
    )
    # Sizes are written out: of no rows -1 is none.
    parts = x.reshape(*x.shape[:-1], k, x.shape[-1] // k)
    return dense(parts).reshape(*x.shape[:-1], self.features)
