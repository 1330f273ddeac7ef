"""Compiles the library, tries it, and says where it lies."""

import sys
from typing import Any

import jax
import jax.numpy as jnp

from kernels.onednn import attention, conv, library, lstm, matmul


def _conv() -> bool:
  x = jnp.arange(2 * 5 * 5 * 3, dtype=jnp.float32).reshape(2, 5, 5, 3)
  w = jnp.arange(3 * 3 * 3 * 4, dtype=jnp.float32).reshape(3, 3, 3, 4)
  pads = ((1, 1), (1, 1))
  ours = conv.forward(x, w, (1, 1), pads, (1, 1))
  theirs = jax.lax.conv_general_dilated(
    x, w, (1, 1), pads, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  return bool(jnp.allclose(ours, theirs, rtol=1e-6))


def _lstm() -> bool:
  x = jnp.sin(jnp.arange(3 * 2 * 8, dtype=jnp.float32)).reshape(3, 2, 8)
  state = jnp.ones((2, 2)) / 2
  args = (x, x[0], x[0, 0], state, state, jnp.array([3, 1], jnp.int32))
  both: Any = lstm.forward(False, *args), lstm.plain_forward(False, *args)
  return all(jnp.allclose(a, b, atol=1e-6) for a, b in zip(*both, strict=True))


def _attention() -> bool:
  q = jnp.sin(jnp.arange(2 * 3 * 2 * 4, dtype=jnp.float32)).reshape(2, 3, 2, 4)
  args = (attention.Form(True, 0.5), q, q + 1, q - 1)
  both: Any = attention.forward(*args), attention.plain_forward(*args)
  return all(jnp.allclose(a, b, atol=1e-6) for a, b in zip(*both, strict=True))


def _product() -> bool:
  x = jnp.sin(jnp.arange(5 * 7, dtype=jnp.float32)).reshape(5, 7)
  ours = matmul.product(x, x, (5, 5), x.dtype, transpose_b=True)
  return bool(jnp.allclose(ours, x @ x.T, atol=1e-5))


def main() -> int:
  """Returns the exit status."""
  jax.config.update('jax_platforms', 'cpu')  # No other device is looked for.
  try:
    built = library.build()
    library.load()
  except (library.NotUsable, OSError) as error:
    print(f'error: oneDNN is not used: {error}', file=sys.stderr)
    return 1
  with jax.default_device(jax.devices('cpu')[0]):
    tried = {
      'convolution': _conv(),
      'LSTM': _lstm(),
      'attention': _attention(),
      'product': _product(),
    }
  wrong = [name for name, right in tried.items() if not right]
  if wrong:
    print(f'error: a small {wrong[0]} is not that of XLA', file=sys.stderr)
    return 1
  used = 'convolutions, LSTMs, attention and products'
  print(f'oneDNN is used for {used} on the CPU: {built}')
  return 0


if __name__ == '__main__':
  sys.exit(main())
