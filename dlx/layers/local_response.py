"""Local response normalisation, of AlexNet (Krizhevsky et al. 2012, section 3.3)."""

import functools
import operator

import jax
import jax.numpy as jnp

from dlx.errors import ConfigError


def local_response_norm(
  x: jax.Array, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> jax.Array:
  """x / (k + alpha / size * the sum of squares of `size` channels around)^beta.

  The values of torch's LocalResponseNorm, whose alpha is divided by `size` as Caffe's
  is; the formula in the paper has no such division: 5e-4 here is its 1e-4. Channels
  that are not there count as 0; of an even size one more is before than behind.

  Args:
    x: float [..., C].
    size: channels of a window, at least 1.
    alpha: see above.
    beta: the exponent.
    k: above 0 where a window may be all zeros.

  Returns:
    Of the shape and dtype of x, computed in float32 or wider.

  Raises:
    ConfigError: a size below 1.
  """
  if size < 1:
    raise ConfigError(
      f'size={size} is not allowed for local response normalisation: must be at least '
      '1 channel.'
    )
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  before = size // 2
  around = [(0, 0)] * (x.ndim - 1) + [(before, size - 1 - before)]
  squares = jnp.pad(wide * wide, around)
  channels = x.shape[-1]
  # As in pooling: slices of one array, added in one pass.
  total = functools.reduce(
    operator.add, [squares[..., i : i + channels] for i in range(size)]
  )
  return (wide * (k + alpha / size * total) ** -beta).astype(x.dtype)
