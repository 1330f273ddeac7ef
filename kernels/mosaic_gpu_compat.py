"""Mosaic GPU on jax 0.10.2 and 0.11.2, on the device and in its simulator on a CPU.

The simulator (jax/_src/pallas/mosaic_gpu/interpret) runs TMA copies, barriers,
warpgroups as threads, and wgmma of two blocks in shared memory. It lacks, on 0.10.2,
layouts, wgmma with a transposed block or one in registers, and accumulators that start
from a value: the functions here compute these with jnp under `interpret`. What they
stand for is NOT simulated: a wrong wait between a wgmma and what reads or overwrites
its operands is found on no CPU. Reads of the operands are, so that the barriers before
a product are checked; stores to global memory are no part of the search for races. Past
the end of an array the simulator reads zeros as the TMA does, and refuses to write.

`interpret` everywhere: False compiles; True, or the parameters of `simulator`,
simulate. An error leaves state behind: `reset` it (a fixture of tests), and run what
may fail with `patience`.
"""

import contextlib
import threading
import time
from typing import Any, Callable, Iterator

import jax
from jax._src.pallas.mosaic.interpret import thread_map
from jax._src.pallas.mosaic_gpu import core
from jax._src.pallas.mosaic_gpu.interpret import gpu_callbacks, params, shared_memory
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
import jax.numpy as jnp

Array = jax.Array

# Of plgpu.load, after the ref: an argument that 0.10.2 wants and 0.11.2 warns of.
NO_INDEX = ((),) if jax.__version_info__ < (0, 11) else ()

# Concrete, though 0.11.2 declares an abstract method of theirs that nothing defines.
TilingTransform: Any = plgpu.TilingTransform
SwizzleTransform: Any = plgpu.SwizzleTransform

LANE = plgpu.LoweringSemantics.Lane
WARPGROUP = plgpu.LoweringSemantics.Warpgroup


def simulator(
  detect_races: bool = False, beyond: str = 'zero'
) -> params.InterpretGPUParams:
  """Parameters of a simulation, to be given as `interpret`.

  Args:
    detect_races: whether accesses that no barrier orders are found; see `races_found`.
    beyond: what memory holds that nobody wrote, and what is read past the end of an
      array: 'zero' as the TMA does for the latter; 'nan' to find reads of the former,
      for shapes of whole blocks.
  """
  return params.InterpretGPUParams(
    detect_races=detect_races,
    out_of_bounds_reads='uninitialized' if beyond == 'zero' else 'raise',
    uninitialized_memory=beyond,  # pyright: ignore[reportArgumentType]
  )


def races_found() -> bool:
  """Whether the last simulation with `detect_races` found any."""
  races = gpu_callbacks.get_races()
  return bool(races is not None and races.races_found)


def reset():
  """Forgets what an interrupted simulation left behind."""
  gpu_callbacks.reset_gpu_interpret_mode_state()


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
  """Makes simulated warpgroups that would wait for ever, and the process, fail instead.

  A wait for a barrier raises TimeoutError after `seconds`, and RuntimeError at once if
  another warpgroup has failed within this block: its arrivals will not come. The
  simulator of jax 0.10.2 has neither. It is an error too if a barrier opens and nobody
  ever waits for it: as simulated copies are done at once, there is else no sign of that
  where a later wait for the same warpgroup follows.

  Args:
    seconds: longer than another warpgroup takes from one arrival to the next, which can
      include its compilation.
  """
  failures: list[BaseException] = []

  class Condition(threading.Condition):
    def wait(self, timeout: float | None = None) -> bool:
      end = time.monotonic() + (timeout or seconds)
      while not super().wait(0.2):
        if failures:
          raise RuntimeError(f'another warpgroup failed: {failures[0]}')
        if time.monotonic() > end:
          raise TimeoutError(f'a barrier did not open within {seconds} s')
      return True

  class Threading:
    def __getattr__(self, name: str) -> Any:
      return Condition if name == 'Condition' else getattr(threading, name)

  def run(*args: Any) -> Any:
    try:
      return run_before(*args)
    except BaseException as error:
      failures.append(error)
      raise

  def wait(barrier: Any, *args: Any, **options: Any):
    wait_before(barrier, *args, **options)
    barrier.observed = True

  def deallocate(barrier: Any):
    deallocate_before(barrier)
    if not barrier.ref_count and barrier.phase and not hasattr(barrier, 'observed'):
      raise ValueError('a barrier opened that nobody waits for')

  of_barrier: Any = shared_memory.Barrier
  run_before = thread_map._run_jaxpr
  wait_before, deallocate_before = of_barrier.wait, of_barrier.deallocate
  changes = (
    (shared_memory, 'threading', Threading()),
    (thread_map, '_run_jaxpr', run),
    (of_barrier, 'wait', wait),
    (of_barrier, 'deallocate', deallocate),
  )
  before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
  try:
    for change in changes:
      setattr(*change)
    yield
  finally:
    for change in before:
      setattr(*change)


def kernel(
  body: Callable[..., None],
  *,
  interpret: Any,
  semantics: plgpu.LoweringSemantics = LANE,
  approximate: bool = True,
  **options: Any,
) -> Callable[..., Any]:
  """plgpu.kernel, told how to lower: the default differs between versions of jax.

  Args:
    body: of refs.
    interpret: see above.
    semantics: LANE: layouts are written down; WARPGROUP: they are inferred.
    approximate: exp2 and its like by the special function unit.
    **options: of plgpu.kernel: out_type, scratch_types, grid, grid_names, num_threads,
      thread_name.
  """
  if interpret is True:
    interpret = simulator()
  compiler_params = plgpu.CompilerParams(
    lowering_semantics=semantics, approx_math=approximate
  )
  return plgpu.kernel(
    body, compiler_params=compiler_params, interpret=interpret or False, **options
  )


def layout_cast(x: Array, layout: Any, interpret: Any) -> Array:
  """plgpu.layout_cast; the simulator has no layouts."""
  return x if interpret else plgpu.layout_cast(x, layout)


def full(shape: tuple[int, ...], value: float, layout: Any, interpret: Any) -> Array:
  """float32 in registers."""
  return layout_cast(jnp.full(shape, value, jnp.float32), layout, interpret)


def iota(shape: tuple[int, ...], axis: int, layout: Any, interpret: Any) -> Array:
  """int32 indices in registers."""
  if interpret:
    return jax.lax.broadcasted_iota(jnp.int32, shape, axis)
  return plgpu.broadcasted_iota(jnp.int32, shape, axis, layout=layout)


def multiply(
  a: Any,
  b: Any,
  interpret: Any,
  *,
  transpose_a: bool = False,
  transpose_b: bool = False,
  start: Array | None = None,
) -> Array:
  """start + a b as float32 in registers, [m, n]; waits until it is there.

  Args:
    a: block in shared memory, [m, k] ([k, m] if transposed); or an array in registers,
      not transposed.
    b: block in shared memory, [k, n] ([n, k] if transposed).
    interpret: see above.
    transpose_a, transpose_b: of blocks; free of charge on the device.
    start: float32 [m, n]; None: zeros.
  """
  in_registers = isinstance(a, jax.Array)
  m = a.shape[1] if transpose_a else a.shape[0]
  n = b.shape[0] if transpose_b else b.shape[1]
  if interpret:
    left = a if in_registers else a[...]
    left, right = left.T if transpose_a else left, b[...].T if transpose_b else b[...]
    product = jnp.dot(left, right, preferred_element_type=jnp.float32)
    plgpu.commit_smem()  # jax 0.11.2 knows that these reads were not wgmma's.
    return product if start is None else start + product
  if transpose_a:
    a = a.transpose((1, 0))
  if transpose_b:
    b = b.transpose((1, 0))
  if start is None:

    def zero_based(acc):
      plgpu.wgmma(acc, a, b)
      return acc[...]

    return pl.run_scoped(zero_based, plgpu.ACC((m, n), jnp.float32))
  started: Any = plgpu.ACC.init(start)
  return pl.run_state(lambda acc: plgpu.wgmma(acc, a, b))(started)


def load(ref: Any, layout: Any, interpret: Any) -> Array:
  """A block of global or shared memory in registers of a layout.

  The simulator of jax 0.11.2 asks for a fence between such a read and a TMA write that
  a barrier orders after it. On the device there is none, as in JAX's own kernels.
  """
  if interpret:
    x = ref[...]
    plgpu.commit_smem()
    return x
  return plgpu.load(ref, *NO_INDEX, layout=layout, optimized=False)


def tile(ref: Any, slot: Any, row: Any, column: int, interpret: Any) -> Any:
  """Tile number (row, column) of matrix ref[slot]: a ref of [8, width].

  Args:
    ref: [n, rows, columns] in shared memory with transforms TilingTransform((8, width))
      and SwizzleTransform, width being min(columns, 64).
    slot: which matrix.
    row, column: of tiles; column is a number.
    interpret: see above. On the device a tile is taken where it lies: contiguous.
  """
  width = min(ref.shape[2], 64)
  if interpret:
    return ref.at[slot, pl.ds(row * 8, 8), pl.ds(column * width, width)]
  (swizzle,) = (t for t in ref.transforms if isinstance(t, core.UnswizzleRef))
  raw = type(ref)(ref.ref, ()).at[slot, row, column]
  return type(ref)(ref.ref, (*raw.transforms, swizzle))


# Registers a thread of the warpgroups that multiply, and of the one that loads, by the
# number of the former: all must fit into 512 threads' worth of 128.
REGISTERS = {2: (232, 40), 3: (160, 32)}


def take_registers(compute: int, interpret: Any):
  """For a warpgroup that multiplies, of `compute` beside one that loads."""
  if compute in REGISTERS and not interpret:
    plgpu.set_max_registers(REGISTERS[compute][0], action='increase')


def give_registers(compute: int, interpret: Any):
  """For the warpgroup that loads."""
  if compute in REGISTERS and not interpret:
    plgpu.set_max_registers(REGISTERS[compute][1], action='decrease')
