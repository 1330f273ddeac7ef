"""Mosaic GPU convolutions: simulated against float64, lowered, compiled for an H200.

The simulator computes wgmma by jnp and takes the TMA's zeros from padded arrays: what
the device does there is not tested here.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import mosaic_gpu_compat as compat
from kernels.conv import mosaic_gpu, mosaic_gpu_tiles, reference, static_h200
from kernels.conv.case import FILTER, FORWARD, INPUT, Case, Operands
from kernels.static import h200

pytestmark = pytest.mark.usefixtures('simulation')

SAME = {k: ((k // 2, k // 2),) * 2 for k in (1, 3, 5, 7)}
EVERYTHING = {'scale': True, 'shift': True, 'residual': True}


def depthwise(n, h, w, c, kernel, dtype, **more):
  return Case(n, h, w, c, c, kernel, dtype, groups=c, **more)


# Several blocks along each axis and ragged ends; one block; no padding; a filter of
# more columns than rows, and one of even sizes.
DEPTHWISE = {
  '7x7': (depthwise(1, 14, 14, 64, (7, 7), 'bfloat16', padding=SAME[7]), {}),
  'epilogue': (
    depthwise(2, 9, 11, 40, (3, 5), 'float32', padding=((1, 0), (4, 2)),
              activation='gelu', **EVERYTHING), {},
  ),
  'blocks': (
    depthwise(2, 5, 9, 72, (3, 3), 'float16', activation='silu'),
    {'rows': 2, 'columns': 1, 'channels': 32, 'vector': 2},
  ),
  'wide': (
    depthwise(1, 4, 9, 136, (5, 3), 'float16', padding=SAME[3], activation='relu6'),
    {'rows': 3, 'columns': 2, 'channels': 128, 'vector': 4},
  ),
}  # fmt: skip
SMALL = {'rows': 8, 'columns': 8, 'warpgroups': 1, 'blocks': 1}
DENSE = {
  # Four areas, so that the rings and the residual's memory are used again.
  'epilogue': (
    Case(2, 9, 11, 128, 64, (3, 2), 'float16', padding=((1, 0), (1, 2)),
         activation='gelu', **EVERYTHING), SMALL | {'filters': 3}, (FORWARD,),
  ),
  'two warpgroups': (
    Case(1, 14, 6, 64, 64, (3, 3), 'bfloat16', padding=SAME[3]),
    SMALL | {'warpgroups': 2}, (INPUT,),
  ),
  '1x1': (
    Case(2, 5, 7, 64, 128, (1, 1), 'bfloat16', activation='relu', **EVERYTHING),
    {'rows': 64, 'columns': 1, 'warpgroups': 1, 'blocks': 1, 'features': 128},
    (FORWARD,),
  ),
}  # fmt: skip


def arrays(case, seed=0):
  """Operands and dy; products have a variance of about one."""
  rng = np.random.default_rng(seed)

  def normal(shape, dtype=case.dtype, scale=1.0):
    return jnp.asarray(rng.normal(size=shape) * scale, dtype)

  depth = case.channels // case.groups
  fan = depth * case.kernel[0] * case.kernel[1]
  x = normal((case.batch, case.height, case.width, case.channels))
  w = normal((*case.kernel, depth, case.features), scale=fan**-0.5)
  vector = lambda asked: normal((case.features,), 'float32') if asked else None
  residual = normal(case.out_shape) if case.residual else None
  operands = Operands(x, w, vector(case.scale), vector(case.shift), residual)
  return operands, normal(case.out_shape)


def run(of, case, functions, operands, dy, **options):
  """By `of`, reference or mosaic_gpu, the functions that are named."""
  results = {}
  if FORWARD in functions:
    results[FORWARD] = of.forward(case, operands, **options)
  if INPUT in functions:
    bare = case.bare(INPUT)
    results[INPUT] = of.input_gradient(bare, dy, operands.w_HWIO, **options)
  if FILTER in functions:
    bare = case.bare(FILTER)
    results[FILTER] = of.filter_gradient(bare, operands.x_NHWC, dy, **options)
  return results


def compared(case, functions, interpret, config):
  """What was simulated, and its largest error over what rounding explains.

  That is one rounding to the result's dtype, and float32 sums of k products, whose
  errors add up like a random walk: sqrt(k) roundings of the largest value.
  """
  operands, dy = arrays(case)
  ours = functools.partial(run, mosaic_gpu, case, functions)
  found = jax.jit(functools.partial(ours, interpret=interpret, config=config))(
    operands, dy
  )
  with jax.enable_x64(True):
    wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (operands, dy))
    wanted = run(reference, case, functions, *wide)
    wanted = {name: np.asarray(value) for name, value in wanted.items()}
  worst = 0.0
  for name, value in found.items():
    assert value.shape == wanted[name].shape
    assert value.dtype == ('float32' if name == FILTER else case.dtype)
    k = case.kernel[0] * case.kernel[1] * max(case.channels // case.groups, 1)
    if name == FILTER:
      k = case.batch * case.out_shape[1] * case.out_shape[2]
    unit = jnp.finfo(value.dtype).eps / 2 + 4 * k**0.5 * jnp.finfo(jnp.float32).eps
    error = np.abs(np.asarray(value, np.float64) - wanted[name]).max()
    worst = max(worst, float(error / (unit * np.abs(wanted[name]).max())))
  return found, worst


@pytest.mark.parametrize('name', DEPTHWISE)
def test_depthwise_is_the_reference_s(name):
  case, config = DEPTHWISE[name]
  functions = (FORWARD, INPUT, FILTER)
  assert all(mosaic_gpu.refusal(case.bare(f)) is None for f in functions)
  assert compared(case, functions, True, config)[1] < 1


@pytest.mark.parametrize('name', DENSE)
def test_dense_is_the_reference_s(name):
  case, config, functions = DENSE[name]
  assert all(mosaic_gpu.refusal(case.bare(f)) is None for f in functions)
  assert compared(case, functions, True, config)[1] < 1


def test_by_hand():
  """A filter of ones counts the pixels that it sees; the gradients do too."""
  case = depthwise(1, 3, 4, 8, (3, 3), 'float32', padding=SAME[3])
  ones = jnp.ones((3, 3, 1, 8)), jnp.ones((1, 3, 4, 8))
  found = run(
    mosaic_gpu, case, (FORWARD, INPUT, FILTER), Operands(ones[1], ones[0]), ones[1],
    interpret=True, config={},
  )  # fmt: skip
  seen = np.array([[4, 6, 6, 4], [6, 9, 9, 6], [4, 6, 6, 4]])
  for name in (FORWARD, INPUT):
    np.testing.assert_array_equal(found[name][0, :, :, 5], seen)
  overlap = np.array([[6, 8, 6], [9, 12, 9], [6, 8, 6]])
  np.testing.assert_array_equal(found[FILTER][:, :, 0, 5], overlap)


SHORT = depthwise(2, 5, 6, 64, (3, 2), 'float16', padding=((1, 1), (1, 0)))
FEW = {'rows': 3, 'columns': 1, 'splits': 1}


def test_no_races_and_no_read_of_what_nobody_wrote():
  simulator = compat.simulator(detect_races=True, beyond='nan')
  assert compared(SHORT, (FORWARD, FILTER), simulator, FEW)[1] < 1
  assert not compat.races_found()
  case, config, _ = DENSE['two warpgroups']
  assert compared(case, (FORWARD,), simulator, config)[1] < 1
  assert not compat.races_found()


def test_two_runs_of_a_filter_gradient_are_equal():
  first, second = (compared(SHORT, (FILTER,), True, FEW)[0][FILTER] for _ in range(2))
  np.testing.assert_array_equal(first, second)


def test_a_wrong_halo_is_seen(monkeypatch):
  at = mosaic_gpu_tiles.Boxes.at
  later = lambda boxes, ref, n, row, *rest: at(boxes, ref, n, row + 1, *rest)
  monkeypatch.setattr(mosaic_gpu_tiles.Boxes, 'at', later)
  assert compared(SHORT, (FORWARD,), True, FEW)[1] > 100


@pytest.mark.parametrize('function', (FORWARD, FILTER))
def test_a_missing_wait_is_seen(function, planted):
  interpret = compat.simulator(detect_races=True)
  assert planted('full', lambda: compared(SHORT, (function,), interpret, FEW)[1] > 1)


# Three boxes in two slots. Of few taps the waits order the boxes too: all 9 stay.
@pytest.mark.parametrize(
  'barrier, filters', (('x_full', 2), ('x_empty', 9), ('w_full', 2), ('w_empty', 2))
)
def test_a_missing_wait_of_a_product_is_seen(barrier, filters, planted):
  case = Case(1, 8, 8, 64, 64, (3, 3), 'bfloat16', padding=SAME[3])
  interpret, config = compat.simulator(detect_races=True), SMALL | {'filters': filters}
  wrong = lambda: compared(case, (FORWARD,), interpret, config)[1] > 1
  assert planted(barrier, wrong)


@pytest.mark.parametrize('name', static_h200.CASES)
def test_lowers_for_cuda(name):
  function, *shapes = static_h200.program(static_h200.CASES[name])
  lowered = jax.jit(function).trace(*shapes).lower(lowering_platforms=('cuda',))
  assert lowered.as_text().count('@mosaic_gpu') >= 1
  assert 'stablehlo.pad' not in lowered.as_text()


# One of each kernel; the command prints them all.
COMPILED = (
  'depthwise 7x7 28x28x192 epilogue',
  'depthwise 7x7 56x56x96 filter',
  '3x3 56x56x64 epilogue',
  '1x1 56x56 64-256 epilogue',
)


@pytest.mark.parametrize('name', COMPILED)
def test_compiled_for_an_h200(name):
  """No spills; the products by wgmma; shared memory within the limit."""
  case = static_h200.CASES[name]
  try:
    report = h200.compile_for_h200(*static_h200.program(case))
  except h200.NoCompiler as error:
    pytest.skip(f'nothing is compiled for an H200: {error}')
  (kernel,) = report.kernels
  assert kernel.spill_bytes == 0
  assert kernel.hmma == 0 and (kernel.hgmma > 0) != case.depthwise
  assert kernel.shared_bytes <= h200.SHARED_MEMORY_LIMIT
  assert kernel.registers <= 168
  # Beside x and y: float32 copies of the filter, partial sums of its gradient.
  assert report.temp_bytes < 4e6


@pytest.mark.parametrize(
  'change, reason, nearest',
  (
    ({'stride': (2, 2)}, 'stride=(2, 2)', '(1, 1)'),
    ({'dilation': (1, 2)}, 'dilation=(1, 2)', '(1, 1)'),
    ({'channels': 3}, 'channels=3', 'channels=64'),
    ({'features': 100}, 'features=100', 'features=128'),
    ({'groups': 2}, 'groups=2', 'groups=1'),
    ({'dtype': 'float32'}, 'dtype=float32', 'bfloat16'),
    ({'function': FILTER}, 'gradient of a dense filter', 'forward'),
    ({'batch': 0}, 'no element', ''),
    ({'kernel': (1, 3)}, 'padding=((1, 1), (1, 1))', 'no padding'),
    ({'groups': 64, 'kernel': (9, 3)}, 'kernel=(9, 3)', '(7, 7)'),
    ({'groups': 64, 'stride': (2, 1)}, 'stride=(2, 1)', '(1, 1)'),
    ({'groups': 64, 'dtype': 'float64'}, 'dtype=float64', 'float32'),
    ({'groups': 20, 'channels': 20, 'features': 20}, 'channels=20', 'channels=24'),
  ),
)
def test_refusals_name_what_is_near(change, reason, nearest):
  case = Case(1, 9, 9, 64, 64, (3, 3), 'bfloat16', padding=SAME[3])
  assert mosaic_gpu.refusal(case) is None
  refusal = mosaic_gpu.refusal(case._replace(**change))
  assert refusal is not None
  assert reason in refusal.reason and nearest in refusal.nearest


@pytest.mark.parametrize('config', ({'rows': 7}, {'boxes': 1}, {'features': 96}))
def test_impossible_blocks_are_named(config):
  case = Case(1, 8, 8, 64, 64, (3, 3), 'bfloat16', padding=SAME[3])
  with pytest.raises(ValueError, match='config='):
    run(mosaic_gpu, case, (FORWARD,), *arrays(case), interpret=True, config=config)
