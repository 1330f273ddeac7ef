"""Depthwise convolution of stride 1 on Hopper's float32 units, [N, H, W, C].

Blocks of (image, rows, columns, channels): the box of x with its halo comes by one TMA
copy. A thread owns a few neighbouring channels of one column of pixels. With a tap
column kw fixed, it goes down the box: each pixel is loaded and made float32 once and
multiplied with all KH taps of that column, into as many sums of the column. So with
`rows` rows there are rows * KH multiply-adds for rows + KH - 1 loads.

The gradient of the input is the same with the filter turned by 180 degrees. That of
the filter keeps a sum for each tap in registers, over all boxes that the block is
given, and adds up its pixels at the end; the blocks' partial sums are added by XLA: two
passes, no atomics, the same bits every time.
"""

import functools
import itertools
from typing import Any, Mapping, NamedTuple

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
import jax.numpy as jnp

from kernels import mosaic_gpu_compat as compat
from kernels.conv import epilogue
from kernels.conv import mosaic_gpu_tiles as tiles
from kernels.conv.case import FILTER, Case, Operands, Pair
from kernels.dispatch import Refusal, known

Array = jax.Array

_LARGEST = 7  # Of the filter: 49 sums a channel are about what registers hold.


class Blocks(NamedTuple):
  """What a block of threads computes; each field may stand in `config`.

  Attributes:
    rows: of the output.
    columns: of the output, in units of Threads.pixels.
    channels: 32, 64 or 128.
    vector: channels of a thread.
    splits: of the filter's gradient: blocks that share the boxes of a channel block.
  """

  rows: int
  columns: int
  channels: int
  vector: int
  splits: int = 1

  @property
  def threads(self) -> tiles.Threads:
    return tiles.Threads(self.channels, self.vector)

  @property
  def width(self) -> int:
    """Columns of the output."""
    return self.columns * self.threads.pixels

  def grid(self, size: tuple[int, ...]) -> tuple[int, int, int]:
    """Blocks along H, W, C."""
    steps = (self.rows, self.width, self.channels)
    return tuple(map(tiles.ceil, size, steps))  # pyright: ignore[reportReturnType]

  def box(self, kernel: Pair) -> tuple[int, int, int]:
    """[rows, columns, channels] of x; columns even, as copies are of 128 bytes."""
    columns = self.width + kernel[1] - 1
    return self.rows + kernel[0] - 1, columns + columns % 2, self.channels


def refusal(case: Case) -> Refusal | None:
  """Of a depthwise case."""
  if case.dtype not in tiles.DTYPES:
    return Refusal(f'dtype={case.dtype}', ' or '.join(tiles.DTYPES))
  if case.stride != (1, 1) or case.dilation != (1, 1):
    reason = f'stride={case.stride}, dilation={case.dilation} of a depthwise filter'
    return Refusal(reason, 'both (1, 1)')
  if max(case.kernel) > _LARGEST:
    return Refusal(f'kernel={case.kernel} is larger than {_LARGEST}', '(7, 7)')
  if case.channels % tiles.alignment(case):
    unit = tiles.alignment(case)
    nearest = tiles.ceil(case.channels, unit) * unit
    reason = f'channels={case.channels} is not a multiple of {unit} for {case.dtype}'
    return Refusal(reason, f'channels={nearest}')
  return tiles.refusal(case)


def forward(
  case: Case, operands: Operands, *, interpret: Any, config: Mapping[str, Any]
) -> Array:
  """y [N, H', W', C] in the dtype of x."""
  low = (case.padding[0][0], case.padding[1][0])
  x, w, *rest = operands
  return _correlate(case, x, w, rest, low, case.out_shape, interpret, config)


def input_gradient(
  case: Case, dy: Array, w: Array, *, interpret: Any, config: Mapping[str, Any]
) -> Array:
  """dx [N, H, W, C] in the dtype of dy."""
  case = case.bare(case.function)
  turned = w[::-1, ::-1]
  shape = (case.batch, case.height, case.width, case.channels)
  rest = (None, None, None)
  low = tiles.turned_low(case)
  return _correlate(case, dy, turned, rest, low, shape, interpret, config)


def _correlate(case, x, w, rest, low: Pair, shape, interpret, config) -> Array:
  """Sums over the taps of x, shifted by -low, in [N, H, W, C] = shape."""
  blocks = chosen(case, shape, config)
  (kh, kw), dtype, unit = case.kernel, jnp.dtype(x.dtype), blocks.threads.pixels
  across = (unit, blocks.channels)
  layout = blocks.threads.layout
  of_channels = layout.reduce(0)
  box, out_box = blocks.box(case.kernel), (blocks.rows, blocks.width, blocks.channels)
  grid = blocks.grid(shape[1:])
  ends = tuple(n * step for n, step in zip(grid, out_box))
  x_ends = (ends[0] + box[0], ends[1] + box[1], ends[2])
  x = tiles.boxes(x, low, x_ends, interpret)
  w_TC = w.reshape(kh * kw, -1).astype(jnp.float32)
  scale, shift, residual = rest
  vectors = [v for v in (scale, shift) if v is not None]
  vectors = [w_TC, *(v.reshape(1, -1).astype(jnp.float32) for v in vectors)]
  vectors = [tiles.channels_padded(v, ends[2], interpret) for v in vectors]
  if residual is not None:
    residual = tiles.boxes(residual, (0, 0), ends, interpret)
  images = [x] if residual is None else [x, residual]

  def body(*refs, x_s, y_s, vectors_s, full):
    *given_refs, y_ref = refs
    image_refs, vector_refs = given_refs[: len(images)], given_refs[len(images) :]
    n, h, v, c = (lax.axis_index(name) for name in 'nhvc')
    row, column, channel = h * blocks.rows, v * blocks.width, c * blocks.channels
    seen = x.at(image_refs[0], n, row - low[0], column - low[1], channel, box)
    plgpu.copy_gmem_to_smem(seen, x_s, full)
    for ref, shared in zip(vector_refs, vectors_s, strict=True):
      of_block = ref.at[:, pl.ds(channel, blocks.channels)]
      plgpu.copy_gmem_to_smem(of_block, shared, full)
    if residual is not None:  # Into the block of y, where each thread adds to its own.
      added = residual.at(image_refs[1], n, row, column, channel, out_box)
      plgpu.copy_gmem_to_smem(added, y_s, full)
    plgpu.barrier_wait(full)
    of_epilogue = iter(vectors_s[1:])
    scale_s = None if scale is None else next(of_epilogue)
    shift_s = None if shift is None else next(of_epilogue)

    def repeated(ref, index):
      of_block = tiles.load(ref, (index,), of_channels, interpret)
      return tiles.rows(of_block, across, layout, interpret)

    def columns(i, _):
      def taps(k, sums):
        sums = list(sums)
        filters = [repeated(vectors_s[0], j * kw + k) for j in range(kh)]
        for r in range(box[0]):
          pixels = tiles.load(x_s, (r, pl.ds(i * unit + k, unit)), layout, interpret)
          for j in range(max(r - blocks.rows + 1, 0), min(r + 1, kh)):
            sums[r - j] = sums[r - j] + filters[j] * pixels
        return tuple(sums)

      zeros = (compat.full(across, 0.0, layout, interpret),) * blocks.rows
      for r, total in enumerate(lax.fori_loop(0, kw, taps, zeros)):
        place = (r, pl.ds(i * unit, unit))
        added = None
        if residual is not None:
          added = tiles.load(y_s, place, layout, interpret)
        y = epilogue.apply(
          case,
          total,
          None if scale_s is None else repeated(scale_s, 0),
          None if shift_s is None else repeated(shift_s, 0),
          added,
        )
        y_s[place] = y.astype(dtype)
      return None

    lax.fori_loop(0, blocks.columns, columns, None)
    plgpu.commit_smem()
    out = pl.ds(row, out_box[0]), pl.ds(column, out_box[1]), pl.ds(channel, out_box[2])
    plgpu.copy_smem_to_gmem(y_s, y_ref.at[(n, *out)])
    plgpu.wait_smem_to_gmem(0)

  y = compat.kernel(
    body,
    interpret=interpret,
    approximate=dtype.itemsize < 4,
    out_type=tiles.result(shape, ends, dtype, interpret),
    grid=(shape[0], *grid),
    grid_names=tuple('nhvc'),
    scratch_types={
      'x_s': plgpu.SMEM(box, dtype),
      'y_s': plgpu.SMEM(out_box, dtype),
      'vectors_s': [
        plgpu.SMEM((len(v), blocks.channels), jnp.float32) for v in vectors
      ],
      'full': plgpu.Barrier(num_arrivals=len(images) + len(vectors)),
    },
  )(*(image.array for image in images), *vectors)
  return tiles.cut(y, shape)


def filter_gradient(
  case: Case, x: Array, dy: Array, *, interpret: Any, config: Mapping[str, Any]
) -> Array:
  """dw [*kernel, 1, C] in float32."""
  shape = case.out_shape
  blocks = chosen(case._replace(function=FILTER), shape, config)
  (kh, kw), dtype, unit = case.kernel, jnp.dtype(x.dtype), blocks.threads.pixels
  across, layout = (unit, blocks.channels), blocks.threads.layout
  low = (case.padding[0][0], case.padding[1][0])
  box, out_box = blocks.box(case.kernel), (blocks.rows, blocks.width, blocks.channels)
  down, along, deep = blocks.grid(shape[1:])
  boxes = shape[0] * down * along
  ends = (down * blocks.rows, along * blocks.width, deep * blocks.channels)
  x_boxes = tiles.boxes(
    x, low, (ends[0] + box[0], ends[1] + box[1], ends[2]), interpret
  )
  dy_boxes = tiles.boxes(dy, (0, 0), ends, interpret)

  def body(x_ref, dy_ref, sums_ref, *, x_s, dy_s, sums_s, full):
    split, c = lax.axis_index('s'), lax.axis_index('c')
    channel = c * blocks.channels
    count = lax.div(boxes - split + blocks.splits - 1, blocks.splits)

    def fetch(i, slot):
      at = split + i * blocks.splits
      n, rest = lax.div(at, down * along), lax.rem(at, down * along)
      row, column = lax.div(rest, along) * blocks.rows, lax.rem(rest, along)
      column *= blocks.width
      seen = x_boxes.at(x_ref, n, row - low[0], column - low[1], channel, box)
      plgpu.copy_gmem_to_smem(seen, x_s.at[slot], full.at[slot])
      given = dy_boxes.at(dy_ref, n, row, column, channel, out_box)
      plgpu.copy_gmem_to_smem(given, dy_s.at[slot], full.at[slot])

    fetch(0, 0)

    def one_box(i, sums):
      slot = lax.rem(i, 2)

      @pl.when(i + 1 < count)
      def _():  # Its slot was read one box ago: those loads come before the copy.
        plgpu.commit_smem()
        fetch(i + 1, 1 - slot)

      plgpu.barrier_wait(full.at[slot])
      return lax.fori_loop(0, blocks.columns, functools.partial(columns, slot), sums)

    def columns(slot, i, sums):
      sums, given = list(sums), []
      for r in range(box[0]):
        if r < blocks.rows:
          place = (slot, r, pl.ds(i * unit, unit))
          given.append(tiles.load(dy_s, place, layout, interpret))
        for k in range(kw):
          place = (slot, r, pl.ds(i * unit + k, unit))
          pixels = tiles.load(x_s, place, layout, interpret)
          for j in range(max(r - blocks.rows + 1, 0), min(r + 1, kh)):
            sums[j * kw + k] = sums[j * kw + k] + given[r - j] * pixels
      return tuple(sums)

    zeros = (compat.full(across, 0.0, layout, interpret),) * (kh * kw)
    for tap, total in enumerate(lax.fori_loop(0, count, one_box, zeros)):
      sums_s[tap] = total.sum(0)
    plgpu.commit_smem()
    place = sums_ref.at[split, :, pl.ds(channel, blocks.channels)]
    plgpu.copy_smem_to_gmem(sums_s, place)
    plgpu.wait_smem_to_gmem(0)

  channels = ends[2] if interpret else case.channels
  sums = compat.kernel(
    body,
    interpret=interpret,
    out_type=jax.ShapeDtypeStruct((blocks.splits, kh * kw, channels), jnp.float32),
    grid=(blocks.splits, deep),
    grid_names=('s', 'c'),
    scratch_types={
      'x_s': plgpu.SMEM((2, *box), dtype),
      'dy_s': plgpu.SMEM((2, *out_box), dtype),
      'sums_s': plgpu.SMEM((kh * kw, blocks.channels), jnp.float32),
      'full': plgpu.Barrier(num_arrivals=2, num_barriers=2),
    },
  )(x_boxes.array, dy_boxes.array)
  return sums.sum(0)[:, : case.channels].reshape(kh, kw, 1, case.channels)


def chosen(case: Case, shape: tuple[int, ...], config: Mapping[str, Any]) -> Blocks:
  """Blocks for an output [N, H, W, C]: of the fewest instructions, then `config`.

  Counted: loads from shared memory, conversions and multiply-adds of a thread, those on
  pixels and channels outside the image too. Bounds: sums in registers, and a length of
  the unrolled code. Not measured on a device.

  Raises:
    ValueError: a name in `config` that is no field of Blocks.
  """
  config = known(config, Blocks._fields)
  (kh, kw), of_filter = case.kernel, case.function == FILTER
  sums = kh * kw if of_filter else 1

  def cost(blocks: Blocks) -> float:
    rows, vector = blocks.rows, blocks.vector
    loads = (rows + kh - 1) * kw + (rows if of_filter else kh * kw)
    work = loads * (1 + vector) + rows * kh * kw * vector + 100
    across = blocks.grid(shape[1:])
    return across[0] * across[1] * across[2] * work

  found = []
  for rows, channels, vector in itertools.product(range(1, 17), (128, 64, 32), (4, 2)):
    blocks = Blocks(rows, 1, channels, vector)
    held = (sums + kh + kw) * vector if of_filter else rows * vector
    if channels > 32 * vector or held > (128 if of_filter else 64):
      continue
    if of_filter and rows * kh * kw * vector > 1000:
      continue
    found.append(blocks)
  best = min(found, key=cost)
  if of_filter:
    columns = min(2, tiles.ceil(shape[2], best.threads.pixels))
    best = best._replace(columns=columns)
    down, along, deep = best.grid(shape[1:])
    wanted = max(2 * tiles.MULTIPROCESSORS // deep, 1)
    best = best._replace(splits=min(wanted, shape[0] * down * along))
  best = best._replace(**config)
  if of_filter and 'splits' not in config:
    down, along, _ = best.grid(shape[1:])
    best = best._replace(splits=min(best.splits, shape[0] * down * along))
  return best
