"""What the machine gives at best: square matrix products."""

import jax
import jax.numpy as jnp

SIZES = {'cpu': 1024, 'gpu': 8192, 'tpu': 8192}


class Side:
  """A step is one product of two n x n matrices, n by SIZES.

  Attributes:
    flops: of a step.
  """

  def __init__(self, dtype: str):
    size = SIZES.get(jax.default_backend(), 1024)
    key = jax.random.key(0)
    self._a = jax.random.normal(key, (size, size), dtype)
    self.flops = 2.0 * size**3
    # Scaled so that repeated products stay finite.
    scale = jnp.asarray(size**-0.5, dtype)
    self._product = jax.jit(lambda x, a: (x @ a) * scale)
    self._x = self._a

  def step(self, n: int) -> float:
    """n products, each of the one before."""
    for _ in range(n):
      self._x = self._product(self._x, self._a)
    return float(self._x[0, 0].astype(jnp.float32))


def build(dtype: str) -> Side:
  """`dtype`: 'float32' or 'bfloat16'."""
  return Side(dtype)
