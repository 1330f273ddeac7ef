"""Dense convolution of stride 1 as a matrix product on Hopper's wgmma, [N, H, W, C].

A block computes rows x columns pixels of an image for some features, over channels in
blocks of 64. One warpgroup fetches, the others multiply:

- For each channel block and each tap column kw, one box of x, with a halo of rows, but
  none of columns: it starts at column + kw. The KH taps of that column are the same
  shared memory, read from another row on: a row holds a multiple of 8 pixels, so that
  each starts where the pattern of the swizzle does. So x is read KW (1 + halo) times
  and not KH KW times.
- For each tap, a block of the filter, in a ring of its own.

A box is [rows, columns, 64] for the copy and [rows * columns, 64] for the product: two
views of the same memory, of the same order of bytes. The obvious form, a copy under an
(8, 64) tiling that starts at any row, is right in the simulator only: it makes the row
(row // 8, row % 8), and a start within a tile reads past the tile's end, which is zero
(jax 0.10.2 and 0.11.2, TileTransform.transform_index of mosaic/gpu/launch_context.py).

A 1x1 filter takes the pixels of all images as one column of them. Scale, shift,
residual and activation are of the float32 sums, in registers.
"""

import functools
from typing import Any, Mapping

import jax
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
import jax.numpy as jnp

from kernels import mosaic_gpu_compat as compat
from kernels.conv import epilogue
from kernels.conv import mosaic_gpu_tiles as tiles
from kernels.conv.case import FILTER, Case, Operands, Pair
from kernels.conv.mosaic_gpu_gemm_blocks import DEEP, chosen
from kernels.dispatch import Refusal

Array = jax.Array

_DTYPES = ('bfloat16', 'float16')


def refusal(case: Case) -> Refusal | None:
  """Of a dense case."""
  if case.groups != 1:
    reason = f'groups={case.groups}, channels={case.channels}'
    return Refusal(f'{reason}: neither dense nor depthwise', 'groups=1')
  if case.dtype not in _DTYPES:
    return Refusal(f'dtype={case.dtype}', ' or '.join(_DTYPES))
  if case.function == FILTER:
    return Refusal('the gradient of a dense filter', 'forward or input_gradient')
  if case.stride != (1, 1) or case.dilation != (1, 1):
    reason = f'stride={case.stride}, dilation={case.dilation}'
    return Refusal(reason, 'both (1, 1)')
  for name in ('channels', 'features'):
    n = getattr(case, name)
    if n % DEEP:
      nearest = f'{name}={tiles.ceil(n, DEEP) * DEEP}'
      return Refusal(f'{name}={n} is not a multiple of {DEEP}', nearest)
  if case.kernel[0] > 7:
    return Refusal(f'kernel={case.kernel} has more than 7 rows', '(7, 7)')
  return tiles.refusal(case)


def forward(
  case: Case, operands: Operands, *, interpret: Any, config: Mapping[str, Any]
) -> Array:
  """y [N, H', W', O] in the dtype of x."""
  low = (case.padding[0][0], case.padding[1][0])
  return _product(case, operands, low, case.out_shape, interpret, config)


def input_gradient(
  case: Case, dy: Array, w: Array, *, interpret: Any, config: Mapping[str, Any]
) -> Array:
  """dx [N, H, W, C] in the dtype of dy."""
  turned = w[::-1, ::-1].swapaxes(2, 3)
  shape = (case.batch, case.height, case.width, case.channels)
  bare = case.bare(case.function)
  low = tiles.turned_low(case)
  return _product(bare, Operands(dy, turned), low, shape, interpret, config)


def _product(case, operands, low: Pair, shape, interpret, config) -> Array:
  """Sums over the taps of x, shifted by -low, in [N, H, W, O] = shape."""
  x: Any
  residual: Any
  x, w, scale, shift, residual = operands
  as_given = shape
  if case.kernel == (1, 1) and case.padding == ((0, 0), (0, 0)):
    column = lambda a: a if a is None else a.reshape(1, -1, 1, a.shape[-1])
    x, residual = column(x), column(residual)
    shape = (1, x.shape[1], 1, shape[-1])
  (kh, kw), dtype, channels = case.kernel, jnp.dtype(x.dtype), x.shape[-1]
  blocks = chosen(case, shape, channels, config)
  steps, chunks = channels // DEEP * kw, blocks.features // DEEP
  resident = blocks.filters >= kh * steps
  halo, count = blocks.height + kh - 1, blocks.warpgroups
  box, out_box = (halo, blocks.columns, DEEP), (blocks.rows, blocks.columns, DEEP)
  whole = (blocks.height, *out_box[1:])
  down = tiles.ceil(shape[1], blocks.height)
  along = tiles.ceil(shape[2], blocks.columns)
  parts, areas = shape[3] // blocks.features, shape[0] * down * along
  lanes = min(max(blocks.blocks // parts, 1), areas)
  ends = (down * blocks.height, along * blocks.columns, shape[3])
  x = tiles.boxes(x, low, (ends[0] + kh, ends[1] + kw, channels), interpret)
  w_TCO = w.reshape(kh, kw * channels, shape[3])
  given = [v for v in (scale, shift) if v is not None]
  vectors = [v.reshape(1, -1).astype(jnp.float32) for v in given]
  if residual is not None:
    residual = tiles.boxes(residual, (0, 0), ends, interpret)
  added = [] if residual is None else [residual.array]

  def body(
    x_ref, w_ref, *refs,
    x_u, x_full, x_empty, w_s, w_full, w_empty, y_u, y_full, y_empty,
    vectors_s, vectors_full,
  ):  # fmt: skip
    *given_refs, y_ref = refs
    vector_refs, added_ref = given_refs[: len(vectors)], given_refs[len(vectors) :]
    x_box, x_rows = _views(x_u, interpret)
    y_box, y_rows = _views(y_u, interpret)
    lane, me = lax.axis_index('lane'), lax.axis_index('warpgroup')
    feature = lax.axis_index('part') * blocks.features
    mine = lax.div(areas - lane + lanes - 1, lanes)

    def place(t):
      """Image, row and column of the t-th area of this block."""
      at = lane + t * lanes
      n, rest = lax.div(at, down * along), lax.rem(at, down * along)
      row, column = lax.div(rest, along), lax.rem(rest, along)
      return n, row * blocks.height, column * blocks.columns

    def fetch_area(t, _):
      n, row, column = place(t)

      def fetch(i, _):
        k, channel = lax.rem(i, kw), lax.div(i, kw) * DEEP
        at = t * steps + i
        slot = lax.rem(at, blocks.boxes)

        @pl.when(at >= blocks.boxes)
        def _():
          plgpu.barrier_wait(x_empty.at[slot])

        seen = x.at(x_ref, n, row - low[0], column + k - low[1], channel, box)
        plgpu.copy_gmem_to_smem(seen, x_box.at[slot], x_full.at[slot])

        @pl.when((t == 0) | (not resident))
        def _():
          for j in range(kh):
            tap = at * kh + j
            slot = lax.rem(tap, blocks.filters)

            @pl.when(tap >= blocks.filters)
            def _(slot=slot):
              plgpu.barrier_wait(w_empty.at[slot])

            of_tap = pl.ds(k * channels + channel, DEEP)
            of_part = w_ref.at[j, of_tap, pl.ds(feature, blocks.features)]
            plgpu.copy_gmem_to_smem(of_part, w_s.at[slot], w_full.at[slot])

        return None

      lax.fori_loop(0, steps, fetch, None)
      if residual is not None:  # Into y's memory, once what was there is stored.

        @pl.when(t > 0)
        def _():
          plgpu.barrier_wait(y_empty)

        for j in range(chunks):
          channel = feature + j * DEEP
          seen = residual.at(added_ref[0], n, row, column, channel, whole)
          plgpu.copy_gmem_to_smem(seen, y_box.at[j], y_full)
      return None

    @pl.when(me == count)
    def _():
      if not interpret and count == 2:
        plgpu.set_max_registers(40, action='decrease')
      for ref, shared in zip(vector_refs, vectors_s, strict=True):
        of_part = ref.at[:, pl.ds(feature, blocks.features)]
        plgpu.copy_gmem_to_smem(of_part, shared, vectors_full)
      lax.fori_loop(0, mine, fetch_area, None)

    def step(t, i, total):
      at = t * steps + i
      box_slot = lax.rem(at, blocks.boxes)
      plgpu.barrier_wait(x_full.at[box_slot])
      for j in range(kh):
        tap = at * kh + j
        slot = lax.rem(i * kh + j if resident else tap, blocks.filters)

        @pl.when((t == 0) | (not resident))
        def _(slot=slot):
          plgpu.barrier_wait(w_full.at[slot])

        first = me * blocks.rows + j
        if interpret:
          pixels = x_box[box_slot, pl.ds(first, blocks.rows)]
          pixels = pixels.reshape(blocks.pixels, DEEP)
          total += jnp.dot(pixels, w_s[slot], preferred_element_type=jnp.float32)
          plgpu.commit_smem()  # wgmma reads by the proxy of the copies; this does not.
        else:
          pixels = pl.ds(first * blocks.columns, blocks.pixels)
          plgpu.wgmma(total, x_rows.at[box_slot, pixels], w_s.at[slot])
          plgpu.wgmma_wait(1)  # All but this one are through: their slots are free.
        # Only what is waited for is given back: nobody fetches after the last.
        if not resident:

          @pl.when((tap > 0) & (tap - 1 + blocks.filters < mine * steps * kh))
          def _(tap=tap):
            plgpu.barrier_arrive(w_empty.at[lax.rem(tap - 1, blocks.filters)])

        if j == 0:

          @pl.when((at > 0) & (at - 1 + blocks.boxes < mine * steps))
          def _():
            plgpu.barrier_arrive(x_empty.at[lax.rem(at - 1, blocks.boxes)])

      return total if interpret else None

    def products(t):
      """Float32 sums [pixels, features] of this warpgroup."""
      size = (blocks.pixels, blocks.features)
      of_area = functools.partial(step, t)
      if interpret:
        return lax.fori_loop(0, steps, of_area, jnp.zeros(size, jnp.float32))

      def scoped(total):
        lax.fori_loop(0, steps, lambda i, _: of_area(i, total), None)
        return total[...]

      return pl.run_scoped(scoped, plgpu.ACC(size, jnp.float32))

    def area(t, _):
      n, row, column = place(t)
      total = products(t)
      if vectors:

        @pl.when(t == 0)
        def _():
          plgpu.barrier_wait(vectors_full)

      if added_ref:
        plgpu.barrier_wait(y_full)
      lines = pl.ds(me * blocks.rows, blocks.rows)
      pixels = pl.ds(me * blocks.pixels, blocks.pixels)
      for j in range(chunks):
        part = total[:, j * DEEP : (j + 1) * DEEP]
        of_columns = iter([_columns(v, j, part, interpret) for v in vectors_s])
        scaled = None if scale is None else next(of_columns)
        moved = None if shift is None else next(of_columns)
        plus = None
        if added_ref and interpret:
          plus = y_box[j, lines].reshape(part.shape)
        elif added_ref:
          at = y_rows.at[j, pixels], *compat.NO_INDEX
          plus = plgpu.load(*at, layout=plgpu.Layout.WGMMA)
        y = epilogue.apply(case, part, scaled, moved, plus).astype(dtype)
        if interpret:
          y_box[j, lines] = y.reshape(out_box)
        else:
          y_rows[j, pixels] = y
      plgpu.commit_smem()
      of_image = pl.ds(row + me * blocks.rows, blocks.rows), pl.ds(column, box[1])
      for j in range(chunks):
        channel = pl.ds(feature + j * DEEP, DEEP)
        plgpu.copy_smem_to_gmem(y_box.at[j, lines], y_ref.at[(n, *of_image, channel)])
      plgpu.wait_smem_to_gmem(0, wait_read_only=True)
      if added_ref:

        @pl.when(t + 1 < mine)
        def _():
          plgpu.barrier_arrive(y_empty)

      return None

    @pl.when(me < count)
    def _():
      if not interpret and count == 2:
        plgpu.set_max_registers(232, action='increase')
      lax.fori_loop(0, mine, area, None)
      plgpu.wait_smem_to_gmem(0)

  tiling = compat.TilingTransform((8, DEEP)), compat.SwizzleTransform(128)
  taps = (blocks.filters, DEEP, blocks.features)
  filled = functools.partial(plgpu.Barrier, num_arrivals=1)
  given_back = functools.partial(plgpu.Barrier, num_arrivals=count)
  y = compat.kernel(
    body,
    interpret=interpret,
    out_type=tiles.result(shape, ends, dtype, interpret),
    grid=(lanes, parts),
    grid_names=('lane', 'part'),
    num_threads=count + 1,
    thread_name='warpgroup',
    scratch_types={
      'x_u': _shared((blocks.boxes, *box), dtype, interpret),
      'x_full': filled(num_barriers=blocks.boxes),
      'x_empty': given_back(num_barriers=blocks.boxes),
      'w_s': plgpu.SMEM(taps, dtype, transforms=tiling),
      'w_full': filled(num_barriers=blocks.filters),
      'w_empty': given_back(num_barriers=blocks.filters),
      'y_u': _shared((chunks, *whole), dtype, interpret),
      'y_full': plgpu.Barrier(num_arrivals=chunks),
      'y_empty': given_back(),
      'vectors_s': [plgpu.SMEM((1, blocks.features), jnp.float32) for _ in vectors],
      'vectors_full': plgpu.Barrier(num_arrivals=max(len(vectors), 1)),
    },
  )(x.array, w_TCO, *vectors, *added)
  return tiles.cut(y, shape).reshape(as_given)


def _shared(shape: tuple[int, ...], dtype: Any, interpret: Any) -> Any:
  """[slots, rows, columns, 64] in shared memory; `_views` has its two forms."""
  slots, rows, columns, channels = shape
  swizzle = compat.SwizzleTransform(128)
  image = plgpu.SMEM(shape, dtype, transforms=(swizzle,))
  if interpret:
    return image
  tiling = compat.TilingTransform((8, channels))
  flat = (slots, rows * columns, channels)
  return plgpu.RefUnion(image, plgpu.SMEM(flat, dtype, transforms=(tiling, swizzle)))


def _views(shared: Any, interpret: Any) -> tuple[Any, Any]:
  """[slots, rows, columns, 64] and, on the device, [slots, rows * columns, 64]."""
  return (shared, None) if interpret else tuple(shared)


def _columns(vector_s: Any, j: int, part: Array, interpret: Any) -> Array:
  """Of the 64 features of chunk j, as rows of `part`."""
  layout = plgpu.Layout.WGMMA
  index = (0, pl.ds(j * DEEP, DEEP))
  of_chunk = tiles.load(vector_s, index, layout.reduce(0), interpret)
  return tiles.rows(of_chunk, part.shape, layout, interpret)
