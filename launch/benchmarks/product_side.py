"""What the machine gives at best: square matrix products, by each library that is here.

A library that is slow on a processor (MKL on AMD's, XLA on some of Intel's) must not
set the limit that rows are measured by; so each is timed in turns, and the best counts.
"""

import importlib
import importlib.util
from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np

from kernels.onednn import library as onednn

SIZES = {'cpu': 1024, 'gpu': 8192, 'tpu': 8192}
ONEDNN = onednn.PACKAGES[0]
# By name: the package that must be here, and the dtypes that it multiplies fast.
LIBRARIES = {
  'xla': ('jax', ('float32', 'bfloat16')),
  'numpy': ('numpy', ('float32',)),
  'onednn': (ONEDNN, ('float32', 'bfloat16')),
  'torch': ('torch', ('float32', 'bfloat16')),
  'torch_onednn': ('torch', ('float32',)),  # Its bfloat16 is oneDNN's anyway.
}


def here(dtype: str) -> list[str]:
  """Libraries that multiply matrices of a dtype, and are installed."""
  return [
    name
    for name, (package, dtypes) in LIBRARIES.items()
    if dtype in dtypes and _installed(package)
  ]


def _installed(package: str) -> bool:
  if package != ONEDNN:
    return importlib.util.find_spec(package) is not None
  try:
    onednn.installed()
  except onednn.NotUsable:
    return False
  return True


class Side:
  """A step is one product of two n x n matrices.

  Attributes:
    flops: of a step.
  """

  def __init__(
    self, size: int, multiply: Callable[[], Any], read: Callable[[Any], Any]
  ):
    """`multiply`: the product; `read`: its result -> a number, once it is there."""
    self.flops = 2.0 * size**3
    self._multiply, self._read = multiply, read

  def step(self, n: int) -> float:
    """n products; the first number of the last."""
    made = None
    for _ in range(n):
      made = self._multiply()
    return float(self._read(made))


def build(dtype: str, library: str = 'xla', size: int | None = None) -> Side:
  """Products by a library.

  Args:
    dtype: 'float32' or 'bfloat16'.
    library: one of LIBRARIES.
    size: n; None: by SIZES.
  """
  size = size or SIZES.get(jax.default_backend(), 1024)
  if library == 'xla':
    return _xla(dtype, size)
  if library == 'numpy':
    a, out = np.ones((size, size), dtype), np.empty((size, size), dtype)
    return Side(size, lambda: np.matmul(a, a, out=out), lambda out: out[0, 0])
  package = 'torch_peer.product' if library.startswith('torch') else 'onednn_product'
  module = importlib.import_module(f'launch.benchmarks.{package}')
  return Side(size, *module.product(dtype, size, library))


def _xla(dtype: str, size: int) -> Side:
  """Each product is of the one before, so that none is left out."""
  a = jax.random.normal(jax.random.key(0), (size, size), dtype)
  # Scaled so that repeated products stay finite.
  scale = jnp.asarray(size**-0.5, dtype)
  product = jax.jit(lambda x, a: (x @ a) * scale)
  last = [a]

  def multiply():
    last[0] = product(last[0], a)
    return last[0]

  return Side(size, multiply, lambda x: x[0, 0].astype(jnp.float32))
