"""What the Mosaic GPU convolutions share: layouts in registers, boxes of shared memory.

A box of an image comes by one TMA copy: what it covers outside the image, before it or
behind it, is zero, and what a copy back covers outside is not written. So no array is
padded on the device. The simulator has neither (jax 0.10.2): there, and only there,
`Boxes` pads the array and shifts the indices. The TMA's zeros are not simulated.
"""

from typing import Any, NamedTuple

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
import jax.numpy as jnp

from kernels import mosaic_gpu_compat as compat
from kernels.conv.case import Case, Pair
from kernels.dispatch import Refusal

Array = jax.Array

# Of an H200. Static figures and choices of blocks are for it.
MULTIPROCESSORS = 132
DTYPES = ('bfloat16', 'float16', 'float32')


class Boxes(NamedTuple):
  """An image array of which boxes are copied: [N, H, W, C].

  Attributes:
    array: on the device, what was given; simulated, with zeros around it.
    shift: what to add to the row, the column of a box.
  """

  array: Array
  shift: Pair

  def at(self, ref, n: Any, row: Any, column: Any, channel: Any, box: tuple):
    """The box [rows, columns, channels] of image n of `array`'s ref."""
    rows, columns, channels = box
    row, column = row + self.shift[0], column + self.shift[1]
    slices = pl.ds(row, rows), pl.ds(column, columns), pl.ds(channel, channels)
    return ref.at[(n, *slices)]


def boxes(array: Array, low: Pair, ends: tuple[int, ...], interpret: Any) -> Boxes:
  """Boxes that start at -low at the earliest, and end before `ends` of H, W, C."""
  if not interpret:
    return Boxes(array, (0, 0))
  low = (max(low[0], 0), max(low[1], 0))
  high = [max(end - n, 0) for end, n in zip(ends, array.shape[1:], strict=True)]
  pads = ((0, 0), (low[0], high[0]), (low[1], high[1]), (0, high[2]))
  return Boxes(jnp.pad(array, pads), low)


def channels_padded(array: Array, end: int, interpret: Any) -> Array:
  """The last axis up to `end`, as a TMA copy would see it."""
  missing = end - array.shape[-1]
  if not interpret or missing <= 0:
    return array
  return jnp.pad(array, ((0, 0),) * (array.ndim - 1) + ((0, missing),))


def result(shape: tuple[int, ...], ends: tuple, dtype: Any, interpret: Any):
  """Type of the result [N, H, W, C]; simulated, as large as what is copied to it."""
  if interpret:
    sizes = (max(n, end) for n, end in zip(shape[1:], ends, strict=True))
    shape = (shape[0], *sizes)
  return jax.ShapeDtypeStruct(shape, dtype)


def cut(y: Array, shape: tuple[int, ...]) -> Array:
  """What of a simulated result the device would have written."""
  return y if y.shape == shape else y[tuple(slice(n) for n in shape)]


def load(ref: Any, index: tuple, layout: Any, interpret: Any) -> Array:
  """A block of shared memory in registers, float32."""
  if interpret:
    return ref[index].astype(jnp.float32)
  at = ref.at[index], *compat.NO_INDEX
  loaded = plgpu.load(*at, layout=layout, optimized=False)
  return loaded.astype(jnp.float32)


def rows(
  of_columns: Array, shape: tuple[int, ...], layout: Any, interpret: Any
) -> Array:
  """[columns] repeated to [rows, columns]."""
  wide = lax.broadcast_in_dim(of_columns, shape, (1,))
  return compat.layout_cast(wide, layout, interpret)


class Threads(NamedTuple):
  """How a warpgroup's 128 threads hold [pixels, channels] in registers.

  Each has `vector` neighbouring channels of a pixel: a warp reads whole rows of
  channels, so that loads from shared memory meet no bank twice.
  """

  channels: int
  vector: int

  @property
  def pixels(self) -> int:
    """That the warpgroup covers with one vector a thread."""
    return 128 * self.vector // self.channels

  @property
  def layout(self) -> Any:
    """Of [pixels, channels]."""
    lanes = self.pixels // 4
    block, vector = (self.pixels, self.channels), (self.vector,)
    if lanes == 1:
      tiles, warps, lane_dims = (block, vector), (-3,), (-2,)
    else:
      tiles, warps, lane_dims = (block, (lanes, self.channels), vector), (-5,), (-3, -2)
    return plgpu.Layout.TILED(
      plgpu.Tiling(tiles), warp_dims=warps, lane_dims=lane_dims, vector_dim=-1
    )


def refusal(case: Case) -> Refusal | None:
  """Of what no kernel here computes."""
  if case.empty:
    return Refusal('no element to compute', 'sizes of at least 1')
  if any(k == 1 and any(pads) for k, pads in zip(case.kernel, case.padding)):
    # A copy drops axes of which box and array have one element: no place for zeros.
    reason = f'padding={case.padding} where kernel={case.kernel} is 1'
    return Refusal(reason, 'no padding there')
  if any(pad < 0 for pads in case.padding for pad in pads):
    return Refusal(f'padding={case.padding} is negative', 'padding of at least 0')
  return None


def turned_low(case: Case) -> Pair:
  """Padding before dy in the gradient of the input, which is a convolution of it."""
  rows, columns = case.kernel
  return rows - 1 - case.padding[0][0], columns - 1 - case.padding[1][0]


def alignment(case: Case) -> int:
  """Of the number of channels: the TMA steps over multiples of 16 bytes."""
  return 16 // jnp.dtype(case.dtype).itemsize


def ceil(a: int, b: int) -> int:
  return -(-a // b)
