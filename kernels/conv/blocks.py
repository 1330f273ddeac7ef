"""Space to depth: a strided convolution of few channels as one of stride 1 of many.

Blocks of stride x stride pixels become channels, and a filter of as many blocks, with
zeros where it has no tap, gives the same sums. An infinite pixel times one of those
zeros is NaN. Patches, whose stride is their filter's size, become a 1x1 convolution.
"""

import jax
from jax import lax
import jax.numpy as jnp

from kernels.conv.case import Case

Array = jax.Array


def suits(case: Case) -> bool:
  """A stem or patches: at most 4 channels, stride 2 or 4, no pixel left out."""
  return (
    case.groups == 1
    and case.channels <= 4
    and case.stride in ((2, 2), (4, 4))
    and min(case.kernel) >= case.stride[0]
    and case.dilation == (1, 1)
  )


def inner(case: Case) -> Case:
  """The case of the blocks, of stride 1."""
  _, height, width, channels = _shape(case)
  rows, columns = (-(-k // case.stride[0]) for k in case.kernel)
  return case._replace(
    height=height, width=width, channels=channels, kernel=(rows, columns),
    stride=(1, 1), padding=((0, 0), (0, 0)),
  )  # fmt: skip


def _shape(case: Case) -> tuple[int, int, int, int]:
  """Shape of the input as blocks: as many as the filter covers."""
  s = case.stride[0]
  height, width = (
    n_out - 1 + -(-k // s) for n_out, k in zip(case.out_shape[1:3], case.kernel)
  )
  return case.batch, height, width, case.channels * s * s


def _margins(case: Case) -> list[tuple[int, int]]:
  """(before, after) of H and W that make it whole blocks; after may be negative."""
  s, blocks = case.stride[0], _shape(case)[1:3]
  return [
    (p, s * m - n - p)
    for p, m, n in zip(
      (pads[0] for pads in case.padding), blocks, (case.height, case.width)
    )
  ]


def gather(case: Case, x: Array) -> Array:
  """[N, H, W, C] -> [N, blocks, blocks, stride * stride * C]."""
  s, (n, height, width, channels) = case.stride[0], _shape(case)
  x = _pad(x, [(0, 0), *_margins(case), (0, 0)])
  x = x.reshape(n, height, s, width, s, case.channels).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(n, height, width, channels)


def scatter(case: Case, x: Array) -> Array:
  """The transpose of `gather`."""
  s, (n, height, width, _) = case.stride[0], _shape(case)
  x = x.reshape(n, height, width, s, s, case.channels).transpose(0, 1, 3, 2, 4, 5)
  x = x.reshape(n, height * s, width * s, case.channels)
  pads = [(-low, -high) for low, high in _margins(case)]
  return _pad(x, [(0, 0), *pads, (0, 0)])


def fold(case: Case, w: Array) -> Array:
  """[KH, KW, C, O] -> [blocks, blocks, stride * stride * C, O], zeros at the end."""
  s, (c, o) = case.stride[0], w.shape[2:]
  rows, columns = (-(-k // s) for k in case.kernel)
  w = _pad(w, [*((0, -k % s) for k in case.kernel), (0, 0), (0, 0)])
  w = w.reshape(rows, s, columns, s, c, o).transpose(0, 2, 1, 3, 4, 5)
  return w.reshape(rows, columns, s * s * c, o)


def unfold(case: Case, dw: Array) -> Array:
  """The transpose of `fold`."""
  s, (rows, columns, _, o) = case.stride[0], dw.shape
  dw = dw.reshape(rows, columns, s, s, -1, o).transpose(0, 2, 1, 3, 4, 5)
  dw = dw.reshape(rows * s, columns * s, -1, o)
  return dw[: case.kernel[0], : case.kernel[1]]


def _pad(x: Array, pads: list[tuple[int, int]]) -> Array:
  """Zeros around x; negative: cropped."""
  config = [(low, high, 0) for low, high in pads]
  return lax.pad(x, jnp.zeros((), x.dtype), config)
