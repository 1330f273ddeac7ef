"""Compiles the library, tries it, and says where it lies."""

import sys

import jax
import jax.numpy as jnp

from kernels.onednn import conv, library


def main() -> int:
  """Returns the exit status."""
  try:
    built = library.build()
    library.load()
  except (library.NotUsable, OSError) as error:
    print(f'error: oneDNN is not used: {error}', file=sys.stderr)
    return 1
  with jax.default_device(jax.devices('cpu')[0]):
    x = jnp.arange(2 * 5 * 5 * 3, dtype=jnp.float32).reshape(2, 5, 5, 3)
    w = jnp.arange(3 * 3 * 3 * 4, dtype=jnp.float32).reshape(3, 3, 3, 4)
    pads = ((1, 1), (1, 1))
    ours = conv.forward(x, w, (1, 1), pads, (1, 1))
    theirs = jax.lax.conv_general_dilated(
      x, w, (1, 1), pads, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
  if not jnp.allclose(ours, theirs, rtol=1e-6):
    print('error: oneDNN and XLA disagree on a small convolution', file=sys.stderr)
    return 1
  print(f'oneDNN is used for convolutions on the CPU: {built}')
  return 0


if __name__ == '__main__':
  sys.exit(main())
