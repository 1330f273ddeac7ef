"""Sizes of what a block of threads of mosaic_gpu_gemm computes, and their choice."""

from typing import Any, Mapping, NamedTuple

from kernels.conv import mosaic_gpu_tiles as tiles
from kernels.conv.case import Case
from kernels.dispatch import known

DEEP = 64  # Channels of a block: 128 bytes, the widest swizzle.
_SHARED = 227 * 1024 - 4096  # Bytes; some are left for barriers, scale and shift.


class Blocks(NamedTuple):
  """What a block of threads computes; each field may stand in `config`.

  Attributes:
    rows: of the output, of one warpgroup; rows * columns is a multiple of 64.
    columns: of the output: a multiple of 8; any for a filter of one row.
    features: 64, 128, 192 or 256, a divisor of O.
    warpgroups: that multiply, one below the other.
    boxes: slots of the ring of boxes in shared memory.
    filters: those of the ring of taps; as many as there are taps: they stay there.
    blocks: of threads; each goes through its share of the output.
  """

  rows: int
  columns: int
  features: int
  warpgroups: int = 2
  boxes: int = 2
  filters: int = 4
  blocks: int = tiles.MULTIPROCESSORS

  @property
  def height(self) -> int:
    """Rows of the output, of the block."""
    return self.rows * self.warpgroups

  @property
  def pixels(self) -> int:
    """Of one warpgroup."""
    return self.rows * self.columns

  def fits(self, taps: int) -> bool:
    """In the shared memory of a block, with a filter of `taps` rows."""
    box = (self.height + taps - 1) * self.columns * DEEP
    tap, out = DEEP * self.features, self.height * self.columns * self.features
    return 2 * (self.boxes * box + self.filters * tap + out) <= _SHARED


def chosen(
  case: Case, shape: tuple[int, ...], channels: int, config: Mapping[str, Any]
) -> Blocks:
  """Blocks for an output [N, H, W, O] of `channels`: of the least cost, then `config`.

  The cost is of multiprocessor cycles: the larger of products, at wgmma's peak, and of
  fetched bytes, at 25 a cycle; 64 of waiting for each tap; and of sums that are stored.
  What lies outside the image counts too. An assumption, not measured on a device.

  Raises:
    ValueError: config asks for what the kernel does not compute.
  """
  (kh, kw), features = case.kernel, shape[3]
  steps, config = channels // DEEP * kw, known(config, Blocks._fields)

  def completed(blocks: Blocks) -> Blocks:
    if 'filters' in config:
      return blocks
    fits = [n for n in (kh * steps, 4, 3) if blocks._replace(filters=n).fits(kh)]
    return blocks._replace(filters=(fits or [2])[0])

  def cost(blocks: Blocks) -> float:
    area = blocks.height * blocks.columns
    taps = 0 if blocks.filters >= kh * steps else kh * blocks.features
    fetched = 2 * DEEP * ((blocks.height + kh - 1) * blocks.columns + taps)
    products = kh * area * blocks.features * DEEP / 2048
    cycles = steps * (max(products, fetched / 25) + 64 * kh)
    cycles += area * blocks.features / 32
    areas = shape[0] * tiles.ceil(shape[1], blocks.height)
    areas *= tiles.ceil(shape[2], blocks.columns) * (features // blocks.features)
    return tiles.ceil(areas, tiles.MULTIPROCESSORS) * cycles

  widths = (1,) if shape[2] == 1 and kh == 1 else (64, 32, 16, 8)
  found = [
    completed(Blocks(pixels // columns, columns, wide, warpgroups))
    for wide in (128, 64)
    for pixels, warpgroups in ((128, 2), (64, 2), (64, 1))
    for columns in widths
    if features % wide == 0
  ]
  fits = [blocks for blocks in found if blocks.fits(kh)] or found
  best = completed(min(fits, key=cost)._replace(**config))
  rings = best.boxes >= 2 and (best.filters >= 2 or best.filters >= kh * steps)
  whole = best.pixels % 64 == 0 and (kh == 1 or best.columns % 8 == 0)
  if not (rings and whole) or features % best.features or best.features % DEEP:
    raise ValueError(
      f'config={config} gives {best}: rows * columns must be a multiple of 64, columns '
      f'of 8, features a multiple of 64 and a divisor of {features}, and of boxes and '
      'filters there must be 2.'
    )
  return best
