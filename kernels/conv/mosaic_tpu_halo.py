"""Depthwise blocks of the Pallas TPU kernels: rows that a grid step reads, its halo.

Both depthwise kernels see sums over taps of a zero-padded image. The padding is never
in HBM: a scratch in VMEM holds the rows of a block in float32, with zeros where the
padding is, and rows of the neighbouring blocks above and below.

A register of a TPU has 8 sublanes of 128 lanes. Channels are on lanes. On sublanes are

- images, where their number is a multiple of 8: XLA's own convolutions lay the arrays
  out like that, as [H, W, N, C], and a tap is another register: nothing is shifted;
- columns otherwise: a tap is a load from an odd sublane.

A depthwise gradient of the input is the same sum with the filter turned by half a turn,
`spread` = stride, and what is left of the kernel as padding.
"""

from typing import Any, Iterator, Mapping, NamedTuple

import jax
from jax import lax
from jax.experimental import pallas as pl
import jax.numpy as jnp

from kernels.conv.case import Case, Pair
from kernels.dispatch import known

Array = jax.Array
Shape = tuple[int, ...]
LANES, SUBLANES = 128, 8
VREGS = 28  # Of accumulators: of 64, beside taps and what is in flight.
# Of the 16 MiB that v4, v5e and v5p give a kernel by default.
VMEM_BYTES = 13 * 2**20
STEP_BYTES = 2**20  # Enough of a block that the cost of a step is a small part.
FEW_ROWS = 4  # Of a block: below, the halo is most of what is read.


class Layout(NamedTuple):
  """Blocks of y[h] = sum_a w[a] p[stride h + a], p[before + spread g] = x[g], else 0.

  Attributes:
    shape: [N, H, W, C] of x.
    out: [N, H', W', C] of y.
    kernel, stride, spread, before: of the formula, for H and W.
    inner: whether images are on sublanes; else columns are.
    images: of a block.
    rows: of y in a block.
    channels: of a block.
    group: rows of y that are summed together.
    chunk: columns of y that are summed together.
  """

  shape: Shape
  out: Shape
  kernel: Shape
  stride: Shape
  spread: Shape
  before: Shape
  inner: bool
  images: int
  rows: int
  channels: int
  group: int
  chunk: int

  @property
  def blocks(self) -> int:
    """Of rows."""
    return pl.cdiv(self.out[1], self.rows)

  @property
  def grid(self) -> tuple[int, int, int]:
    """Of images, channels, rows."""
    images, channels = self.shape[0], self.shape[3]
    return pl.cdiv(images, self.images), pl.cdiv(channels, self.channels), self.blocks

  @property
  def own(self) -> int:
    """Rows of x in a block."""
    cut = self.rows * self.stride[0] // self.spread[0]
    return self.shape[1] if self.blocks == 1 else cut

  @property
  def halo(self) -> int:
    """Rows of a neighbour's that a block reads, above as below; divides `own`."""
    return 0 if self.blocks == 1 else _halo(self.kernel, self.before, self.spread)

  @property
  def width(self) -> int:
    """Columns of y in a block: W' and what fills the last chunk."""
    return pl.cdiv(self.out[2], self.chunk) * self.chunk

  @property
  def whole(self) -> bool:
    """Whether a chunk is a whole row, and taps beyond its ends are left out."""
    once = self.stride == self.spread == (1, 1)
    return self.inner and once and self.chunk == self.out[2]

  @property
  def left(self) -> int:
    """Column of x[0] in the scratch; on sublanes a store of a whole tile is cheap."""
    beside = self.before[1] if self.inner else SUBLANES
    return 0 if self.whole else beside

  @property
  def scratch(self) -> tuple[int, ...]:
    """[rows, columns, C], or [rows, columns, N, C] where images are on sublanes."""
    rows = (self.rows - 1) * self.stride[0] + self.kernel[0]
    read = self.left - self.before[1] + (self.width - 1) * self.stride[1]
    written = self.left + self.spread[1] * (self.shape[2] - 1)
    columns = max(read + self.kernel[1], written + 1)
    if self.whole:
      columns = self.shape[2]
    if self.inner:
      return rows, columns, self.images, self.channels
    return rows, _round(columns, SUBLANES), self.channels

  @property
  def slopes(self) -> tuple[int, ...]:
    """Of a scratch for the y of a block."""
    return (self.rows, self.width, *self.scratch[2:])

  def block(self, rows: int, width: int) -> Shape:
    """Shape of a block of an array as `view` gives it."""
    if self.inner:
      return rows, width, self.images, self.channels
    return self.images, rows, width, self.channels

  def at(self, n: Any, row: Any, *columns: Any) -> tuple:
    """Index of a row of image n, or of all images of the block, in a block."""
    return (row, *columns) if self.inner else (n, row, *columns)

  def view(self, x_NHWC: Array) -> Array:
    """As the kernel sees it; no copy in the layout that XLA prefers."""
    return x_NHWC.transpose(1, 2, 0, 3) if self.inner else x_NHWC

  def back(self, y: Array) -> Array:
    """[N, H, W, C] of what `view` gave."""
    return y.transpose(2, 0, 1, 3) if self.inner else y

  def viewed(self, shape: Shape) -> Shape:
    """The shape of `view`."""
    n, h, w, c = shape
    return (h, w, n, c) if self.inner else shape

  def spec(self, rows: int, width: int, row: Any, order: Any) -> pl.BlockSpec:
    """Of blocks of so many rows and columns; row(h): which one step h reads."""

    def index(*ids):
      n, c, h = order(*ids)
      return (row(h), 0, n, c) if self.inner else (n, row(h), 0, c)

    return pl.BlockSpec(self.block(rows, width), index)


def _round(n: int, multiple: int) -> int:
  return pl.cdiv(n, multiple) * multiple


def _halo(kernel: Shape, before: Shape, spread: Shape) -> int:
  rows = max(before[0], kernel[0] - 1 - before[0])
  return max(pl.cdiv(rows, spread[0]), 1)


def plan(
  shape: Shape,
  out: Shape,
  case: Case,
  before: Shape,
  *,
  stride: Shape = (1, 1),
  spread: Shape = (1, 1),
  config: Mapping[str, Any],
  wide: int = 0,
) -> Layout:
  """The blocks of a case.

  Args:
    shape, out, before, stride, spread: of the Layout.
    case: for kernel, dtype and residual.
    config: any of images, rows (rounded up to what the halo divides), group, chunk.
    wide: scratches for y in float32.

  Raises:
    ValueError: not even one row fits in VMEM, or a name in config is unknown.
  """

  config = known(config, ('images', 'rows', 'group', 'chunk'))

  def layout(inner: bool, rows: int) -> Layout:
    rows = min(rows, out[1])
    if rows < out[1]:
      # The halo divides the rows of x in a block, which are rows * stride / spread.
      step = _halo(case.kernel, before, spread) * spread[0]
      blocks = pl.cdiv(out[1], _round(rows, step))
      rows = min(_round(pl.cdiv(out[1], blocks), step), out[1])
    chunk = config.get('chunk') or _chunk(out[2], inner)
    lines = chunk if inner else chunk // SUBLANES
    group = min(config.get('group') or max(VREGS // lines, 1), rows)
    # As few groups as there would be, of one size: the last one may repeat rows.
    group = pl.cdiv(rows, pl.cdiv(rows, group))
    channels = min(shape[3], LANES)
    images = SUBLANES if inner else 1
    found = Layout(
      shape, out, case.kernel, stride, spread, before, inner, images, rows, channels,
      group, chunk,
    )  # fmt: skip
    if inner or found.blocks > 1:
      return found
    images = config.get('images') or max(STEP_BYTES // vmem(found, case, wide)[0], 1)
    return found._replace(images=min(images, shape[0]))

  found = []
  for inner in (True, False) if case.batch % SUBLANES == 0 else (False,):
    for rows in range(config.get('rows') or out[1], 0, -1):
      candidate = layout(inner, rows)
      if sum(vmem(candidate, case, wide)) <= VMEM_BYTES:
        found.append(candidate)
        break
    if found and found[-1].rows >= min(FEW_ROWS, out[1]):
      return found[-1]
  if not found:
    raise ValueError(f'{case} is not allowed: no row of it fits in VMEM.')
  return found[-1]


def _chunk(width: int, inner: bool) -> int:
  """Columns of a chunk: few beyond the width, at most 28 or 8 registers."""
  unit, most = (1, VREGS) if inner else (SUBLANES, 8)
  tiles = pl.cdiv(width, unit)
  waste = lambda n: (pl.cdiv(tiles, n) * n, -n)
  return unit * min(range(1, min(tiles, most) + 1), key=waste)


def vmem(layout: Layout, case: Case, wide: int) -> Pair:
  """(bytes of the blocks that are copied, in two buffers; bytes of the scratches)."""
  size = jnp.dtype(case.dtype).itemsize
  tile = SUBLANES if layout.inner else 32 // size

  def block(rows: int, width: int) -> int:
    *outer, sublanes, _ = layout.block(rows, width)
    return 2 * size * outer[0] * outer[1] * _round(sublanes, tile) * LANES

  reads = block(layout.own, layout.shape[2]) + 2 * block(layout.halo, layout.shape[2])
  outs = 2 if case.residual else 1
  blocks = reads + outs * block(layout.rows, layout.width)
  lines = lambda shape: 4 * LANES * shape[0] * shape[1] * (shape[2:-1] or (1,))[0]
  return blocks, lines(layout.scratch) + wide * lines(layout.slopes)


def in_specs(layout: Layout, order=lambda n, c, h: (n, c, h)) -> list[pl.BlockSpec]:
  """Of x: its block, and where there are several, the halo above and below.

  Args:
    order: (n, c, h) of the indices of the grid.
  """
  _, height, width, _ = layout.shape
  own, halo = layout.own, layout.halo
  # More rows of y than of x: the last blocks may have none of their own.
  most = pl.cdiv(height, own) - 1
  specs = [layout.spec(own, width, lambda h: jnp.minimum(h, most), order)]
  if halo:
    each, last = own // halo, pl.cdiv(height, halo) - 1
    for first in (lambda h: h * each - 1, lambda h: (h + 1) * each):
      row = lambda h, first=first: jnp.clip(first(h), 0, last)
      specs.append(layout.spec(halo, width, row, order))
  return specs


def clear(layout: Layout, p_ref: Any):
  """Zeros where `fill` writes nothing."""
  if layout.spread != (1, 1):
    p_ref[...] = jnp.zeros_like(p_ref)
    return
  (rows, columns), right = layout.scratch[:2], layout.left + layout.shape[2]
  if not layout.inner:
    right = right // SUBLANES * SUBLANES
  top, bottom = 0, rows
  if not layout.halo:
    top = layout.before[0]
    bottom = min(top + layout.shape[1], rows)
  for part in (
    (slice(None), slice(0, layout.left)),
    (slice(None), slice(right, columns)),
    (slice(0, top),),
    (slice(bottom, rows),),
  ):
    shape = tuple(len(range(n)[s]) for n, s in zip(layout.scratch, part, strict=False))
    if min(shape) > 0:
      shape += layout.scratch[len(part) :]
      p_ref[part] = jnp.zeros(shape, jnp.float32)


def fill(layout: Layout, block: Any, refs: Any, image: Any, p_ref: Any):
  """Writes the rows that a block reads.

  Args:
    block: index of the block of rows.
    refs: of `in_specs`.
    image: of the block; nothing where images are on sublanes.
    p_ref: of the layout's scratch, after `clear`.
  """
  height, width = layout.shape[1:3]
  before, spread, stop = layout.before[0], layout.spread[0], layout.scratch[0]
  columns = _ds(layout.left, width, layout.spread[1])

  def copy(ref, row, m):
    x = ref[layout.at(image, row)].astype(jnp.float32)
    if layout.halo:
      true = block * layout.own + m
      # Rows that are not of the image hold anything, nan too.
      x = jnp.where((true >= 0) & (true < height), x, 0)
    p_ref[pl.ds(before + spread * m, 1), columns] = x[None]

  own = min(layout.own, pl.cdiv(stop - before, spread))
  each(own, lambda m: copy(refs[0], m, m))
  for m in range(layout.halo):
    if before + spread * (m - layout.halo) >= 0:
      copy(refs[1], m, m - layout.halo)
    if before + spread * (layout.own + m) < stop:
      copy(refs[2], m, layout.own + m)


def _ds(start: Any, size: int, stride: int) -> Any:
  return pl.ds(start, size, stride=None if stride == 1 else stride)


def each(n: int, body: Any):
  """Calls body for 0 to n - 1, in a loop of the compiler's where they are many."""
  if n <= 16:
    for m in range(n):
      body(m)
    return
  lax.fori_loop(0, n, lambda m, _: body(m), None)


def groups(layout: Layout, body: Any):
  """Calls body(row, column, first) of every group of rows and chunk of columns.

  The last group ends with the block, and may repeat rows: those before `first`. None:
  no group does.
  """
  n, chunks = pl.cdiv(layout.rows, layout.group), layout.width // layout.chunk

  def of_chunk(w):
    column = w * layout.chunk
    if chunks > 1 and not layout.inner:
      column = pl.multiple_of(column, SUBLANES)

    def of_group(g):
      first = g * layout.group
      if layout.rows % layout.group == 0:
        return body(first, column, None)
      return body(jnp.minimum(first, layout.rows - layout.group), column, first)

    _loop(n, of_group)

  _loop(chunks, of_chunk)


def _loop(n: int, body: Any):
  if n == 1:
    body(0)
  else:
    lax.fori_loop(0, n, lambda i, _: body(i), None)


def span(layout: Layout, tap: int) -> Pair:
  """First and last + 1 of the columns of a chunk that a column of taps adds to."""
  if not layout.whole:
    return 0, layout.chunk
  off = layout.before[1] - tap
  first = max(off, 0)
  return first, max(min(layout.chunk, layout.shape[2] + off), first)


def load(layout: Layout, p_ref: Any, row: Any, column: Any, r: int, tap: int) -> Array:
  """[columns of `span`, ..]: what `tap` of the r-th row of the scratch finds.

  Args:
    row, column: of a group.
  """
  step = layout.stride
  first, last = span(layout, tap)
  start = column * step[1] + layout.left - layout.before[1] + tap + first
  # A slice of one row: the interpreter gathers an index beside a stride.
  rows = pl.ds(row * step[0] + r, 1)
  return p_ref[rows, _ds(start, last - first, step[1])][0]


def tap_rows(layout: Layout) -> Iterator[tuple[int, list[Pair]]]:
  """(row of the group's part of the scratch, [(tap, row of the group)]) in order."""
  step, kernel = layout.stride[0], layout.kernel[0]
  for row in range((layout.group - 1) * step + kernel):
    uses = [
      (a, (row - a) // step)
      for a in range(kernel)
      if (row - a) % step == 0 and 0 <= row - a < layout.group * step
    ]
    if uses:
      yield row, uses
