"""Convolutions that all implementations are tried on, and what the reference says."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from kernels.conv import reference
from kernels.conv.case import Operands, describe

# x, w, options: odd sizes, strides, every kind of padding, dilation, groups, depthwise,
# one tap, taps outside of the image everywhere.
SWEEP = (
  ((2, 7, 5, 2), (3, 3, 2, 3), dict()),
  ((2, 8, 7, 3), (3, 2, 3, 2), dict(stride=2)),
  ((1, 9, 8, 4), (3, 3, 2, 6), dict(stride=(2, 3), padding='VALID', groups=2)),
  ((2, 6, 5, 4), (5, 3, 1, 4), dict(groups=4)),
  ((2, 5, 6, 3), (3, 3, 1, 6), dict(groups=3, stride=2, dilation=(1, 2))),
  ((2, 9, 8, 2), (3, 2, 2, 3), dict(dilation=(2, 3), padding=((1, 3), (0, 4)))),
  ((2, 4, 5, 3), (1, 1, 3, 4), dict()),
  ((2, 5, 4, 3), (1, 1, 3, 2), dict(stride=2, padding=((1, 0), (2, 1)))),
  ((1, 3, 2, 2), (5, 4, 2, 2), dict()),
  ((1, 3, 2, 2), (2, 3, 2, 3), dict(padding='VALID', stride=2)),
  ((0, 4, 4, 2), (3, 3, 2, 3), dict()),
)


def arrays(x_shape, w_shape, options, dtype=np.float64):
  """x, w, scale, shift, residual, dy; of float32's numbers whatever the dtype."""
  rng = np.random.default_rng(sum(x_shape) + sum(w_shape))
  spec = jax.ShapeDtypeStruct
  case = describe(spec(x_shape, 'float32'), spec(w_shape, 'float32'), **options)
  shapes = (x_shape, w_shape, *[w_shape[-1:]] * 2, *[case.out_shape] * 2)
  return [rng.normal(size=s).astype(np.float32).astype(dtype) for s in shapes]


def run(function, dy, *inputs):
  """y, and the gradients of all inputs for the slopes dy."""
  y, pull = jax.vjp(function, *inputs)
  return y, *pull(dy.astype(y.dtype))


@functools.cache
def _wanted(x_shape, w_shape, options, activation, dtype):
  """(inputs, dy, results) in float64, of inputs that were rounded to dtype."""
  *inputs, dy = (
    np.asarray(v.astype(dtype), np.float64)
    for v in arrays(x_shape, w_shape, dict(options))
  )
  with jax.enable_x64(True):
    case = describe(*inputs[:2], **dict(options), activation=activation)
    function = lambda *args: reference.forward(case, Operands(*args))
    results = jax.jit(functools.partial(run, function))(dy, *inputs)
    return inputs, dy, [np.asarray(v) for v in results]


def wanted(x_shape, w_shape, options, activation=None, dtype='float32'):
  """(inputs, dy, results): y and the gradients of x, w, scale, shift and residual.

  By the reference in float64, and its derivative by autodiff; inputs are as they would
  be in dtype.
  """
  key = tuple(sorted(options.items()))
  return _wanted(x_shape, w_shape, key, activation, jnp.dtype(dtype))


def sums(x_shape, w_shape, results) -> list[int]:
  """How many products are summed to a number of each of `results` of `wanted`."""
  y = results[0]
  positions = max(y.size // y.shape[-1], 1)
  taps = w_shape[0] * w_shape[1]
  total = [taps * w_shape[2], taps * w_shape[3], positions, positions * taps]
  return [*total, positions, 1]
