"""The TPU kernels of convolutions in Pallas' interpreters against float64."""

import functools
import math
import re

import jax
from jax._src.pallas.mosaic.interpret import interpret_pallas_call as interpreter
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.conv import mosaic_tpu, reference, static_tpu
from kernels.conv import mosaic_tpu_halo as halo
from kernels.conv.case import Case, Operands
from kernels.dispatch import Refusal
from kernels.static import tpu

SAME = ((3, 3), (3, 3))


def depthwise(n, h, w, c, kernel, padding, stride=(1, 1), **options) -> Case:
  return Case(
    n, h, w, c, c, kernel, groups=c, stride=stride, padding=padding, **options
  )


def product(n, h, w, c, o, **options) -> Case:
  return Case(n, h, w, c, o, (1, 1), **options)


def arrays(case: Case) -> tuple[Operands, jax.Array]:
  """(operands, dy)."""
  rng = np.random.default_rng(sum(case.kernel) + case.width)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), case.dtype)
  wide = lambda there: normal(case.features).astype('float32') if there else None
  operands = Operands(
    normal(case.batch, case.height, case.width, case.channels),
    normal(*case.kernel, case.channels // case.groups, case.features),
    wide(case.scale),
    wide(case.shift),
    normal(*case.out_shape) if case.residual else None,
  )
  return operands, normal(*case.out_shape)


@functools.partial(jax.jit, static_argnums=(0, 1))
def all_three(case, options, operands, dy):
  """y, dx, dw by the kernels (options) or by the reference (None)."""
  if options is None:
    module, options = reference, {}
  else:
    module, options = mosaic_tpu, dict(options)
    interpret = options.pop('interpret', True)
    options = {'interpret': interpret, 'config': options}
  return (
    module.forward(case, operands, **options),
    module.input_gradient(case, dy, operands.w_HWIO, **options),
    module.filter_gradient(case, operands.x_NHWC, dy, **options),
  )


def check(case: Case, **options):
  """Compares the three with the reference in float64.

  A sum of n products, rounded to 24 bits each, is off by about sqrt(n) 2^-24 of its
  size; what is given in bfloat16 is rounded by up to 2^-8 of itself besides.
  """
  assert mosaic_tpu.refusal(case) is None
  args = arrays(case)
  found = all_three(case, tuple(options.items()), *args)
  with jax.enable_x64(True):
    wide = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), args)
    wanted = all_three(case._replace(dtype='float64'), None, *wide)
  taps = case.kernel[0] * case.kernel[1]
  y_size = math.prod(case.out_shape[:3])
  lengths = (taps * case.channels // case.groups, taps * case.features, y_size)
  for name, n, a, b in zip('y dx dw'.split(), lengths, found, wanted, strict=True):
    rounding = 2**-8 if a.dtype == jnp.bfloat16 else 0
    limit = 8 * 2**-24 * math.sqrt(n)
    np.testing.assert_allclose(
      np.asarray(a, np.float64), b, rounding, limit * np.abs(b).max(), err_msg=name
    )
  assert found[0].dtype == found[1].dtype == case.dtype
  assert found[2].dtype == jnp.float32


EPILOGUE = dict(scale=True, shift=True, residual=True)
# Images on sublanes where there are 8 or 16 of them, columns otherwise.
CASES = {
  'columns, 7x3': (depthwise(2, 5, 9, 8, (7, 3), ((3, 3), (1, 1))), dict(group=1)),
  'images, 7x7': (depthwise(8, 4, 5, 8, (7, 7), SAME), dict(group=2)),
  'ragged channels and images': (
    depthwise(3, 5, 9, 136, (3, 5), ((2, 0), (1, 4))),
    dict(images=2, group=2),
  ),
  'columns, blocks of rows': (
    depthwise(2, 14, 9, 8, (5, 3), ((2, 2), (1, 0)), activation='gelu', **EPILOGUE),
    dict(rows=6, group=2),
  ),
  'chunks of columns': (
    depthwise(1, 8, 19, 8, (3, 3), ((0, 1), (0, 0)), activation='relu6', shift=True),
    dict(rows=3, group=2, chunk=8),
  ),
  'images, blocks, chunks': (
    depthwise(16, 11, 5, 8, (5, 3), ((4, 1), (0, 2)), activation='relu', **EPILOGUE),
    dict(rows=4, group=2, chunk=3),
  ),
  'more rows of y than of x': (
    depthwise(8, 3, 2, 8, (5, 3), ((4, 4), (2, 2))),
    dict(rows=3, group=1),
  ),
  'no padding': (depthwise(8, 6, 4, 8, (3, 4), ((0, 0), (0, 0))), dict(group=1)),
  'columns, stride 2': (
    depthwise(1, 11, 9, 8, (5, 3), ((2, 1), (1, 0)), (2, 2), activation='silu'),
    dict(rows=2, group=1),
  ),
  'images, stride 2 and 1': (
    depthwise(8, 12, 4, 8, (3, 4), ((0, 1), (1, 2)), (2, 1)),
    dict(rows=4, group=2),
  ),
  'bfloat16, columns': (
    depthwise(1, 6, 11, 8, (3, 3), ((1, 1), (1, 1)), dtype='bfloat16', **EPILOGUE),
    dict(group=2),
  ),
  'bfloat16, images': (
    depthwise(8, 6, 3, 8, (3, 3), ((1, 1), (1, 1)), dtype='bfloat16'),
    dict(group=2),
  ),
  '1x1': (product(2, 5, 7, 20, 24), {}),
  '1x1, images, blocks of all': (
    product(8, 5, 3, 200, 264, activation='silu', **EPILOGUE),
    dict(channels=128, features=128, rows=16),
  ),
  '1x1, bfloat16, columns, blocks of all': (
    product(3, 5, 13, 200, 264, activation='gelu', dtype='bfloat16', **EPILOGUE),
    dict(channels=128, features=128, rows=32),
  ),
}


@pytest.mark.parametrize('case, config', CASES.values(), ids=CASES)
def test_values_and_gradients_are_the_reference_s_in_float64(case, config):
  check(case, **config)


def test_a_filter_of_ones_counts_the_pixels_it_sees():
  case = depthwise(1, 3, 4, 1, (3, 3), ((1, 1), (1, 1)))
  ones = Operands(jnp.ones((1, 3, 4, 1)), jnp.ones((3, 3, 1, 1)))
  y = mosaic_tpu.forward(case, ones, interpret=True, config={})
  np.testing.assert_array_equal(
    y[0, :, :, 0], [[4, 6, 6, 4], [6, 9, 9, 6], [4, 6, 6, 4]]
  )


@pytest.fixture
def simulator():
  """pltpu.InterpretParams that look for races; state is reset after each test."""
  yield pltpu.InterpretParams(detect_races=True)
  pltpu.reset_tpu_interpret_mode_state()


@pytest.mark.parametrize(
  'case, config',
  [
    (depthwise(8, 5, 3, 8, (3, 3), ((1, 1), (1, 1))), dict(rows=3, group=1)),
    (depthwise(2, 4, 5, 8, (3, 3), ((1, 1), (1, 1))), dict(rows=2, group=1)),
    (product(1, 3, 7, 20, 24), dict(rows=8)),
  ],
  ids=['images', 'columns', '1x1'],
)
def test_the_simulator_of_tpu_memory_agrees_and_sees_no_race(case, config, simulator):
  check(case, interpret=simulator, **config)
  assert not interpreter.races.races_found


def swapped(layout, order):
  own, above, below = in_specs(layout, order)
  return [own, below, above]


def shifted(layout, p_ref, row, column, r, tap):
  return load(layout, p_ref, row, column, r, (tap + 1) % layout.kernel[1])


def unmasked(layout, block, refs, image, p_ref):
  return fill(layout._replace(shape=(1, 99, *layout.shape[2:])), 1, refs, image, p_ref)


in_specs, load, fill = halo.in_specs, halo.load, halo.fill
BUGS = {
  'borders are not cleared': ('clear', lambda layout, p_ref: None),
  'the halo is of the wrong neighbours': ('in_specs', swapped),
  'taps are off by one': ('load', shifted),
  'rows that are not of the image are not cleared': ('fill', unmasked),
}


@pytest.mark.parametrize('name, bug', BUGS.values(), ids=BUGS)
def test_planted_bugs_are_seen(name, bug, monkeypatch):
  case = depthwise(1, 5, 6, 4, (3, 3), ((1, 1), (1, 1)))
  monkeypatch.setattr(halo, name, bug)
  all_three.clear_cache()
  with pytest.raises(AssertionError, match='Mismatched|nan'):
    check(case, rows=3, group=1)
  all_three.clear_cache()


REFUSED = {
  'dtype=float16': product(1, 4, 4, 8, 8, dtype='float16'),
  'dilation=(2, 1)': depthwise(1, 9, 9, 8, (3, 3), SAME, dilation=(2, 1)),
  'groups=1 of 8 channels': Case(1, 9, 9, 8, 8, (3, 3)),
  'groups=2 of 8 channels': Case(1, 9, 9, 8, 8, (1, 1), groups=2),
  'kernel=(8, 3)': depthwise(1, 9, 9, 8, (8, 3), ((0, 0), (0, 0))),
  'stride=(3, 1)': depthwise(1, 9, 9, 8, (3, 3), ((0, 0), (0, 0)), (3, 1)),
  'padding=(3, 3) for a kernel of 3': depthwise(1, 9, 9, 8, (3, 3), SAME),
  'stride=(2, 2) of a 1x1': product(1, 4, 4, 8, 8, stride=(2, 2)),
  'padding=((1, 0), (0, 0)) of a 1x1': product(1, 4, 4, 8, 8, padding=((1, 0), (0, 0))),
  'an empty array': product(0, 4, 4, 8, 8),
  'rows too long': depthwise(1, 9, 90_000, 8, (3, 3), ((0, 0), (0, 0))),
}


@pytest.mark.parametrize('reason, case', REFUSED.items(), ids=REFUSED)
def test_what_is_not_computed_is_refused_with_what_would_be(reason, case):
  refusal = mosaic_tpu.refusal(case)
  assert isinstance(refusal, Refusal)
  assert reason in refusal.reason and refusal.nearest


# ConvNeXt's stages (arXiv:2201.03545), a wide image, a stride, its products.
FULL = {
  '14x14': depthwise(32, 14, 14, 384, (7, 7), SAME, dtype='bfloat16'),
  '56x56': depthwise(
    32, 56, 56, 96, (7, 7), SAME, dtype='bfloat16', activation='gelu', **EPILOGUE
  ),
  '224x224': depthwise(1, 224, 224, 136, (3, 5), ((2, 0), (2, 2))),
  'stride 2': depthwise(2, 57, 28, 200, (5, 3), ((2, 1), (1, 0)), (2, 2)),
  '1x1': product(8, 14, 14, 384, 1536, dtype='bfloat16', activation='gelu', **EPILOGUE),
  '1x1, ragged': product(2, 7, 7, 2100, 300),
}


def three(case: Case):
  """(function of arrays, their shapes) of each function, to be compiled."""
  operands, dy = jax.eval_shape(lambda: arrays(case))
  x, w, *_ = operands
  bound = lambda function: functools.partial(function, case, interpret=False, config={})
  return [
    (bound(mosaic_tpu.forward), (operands,)),
    (bound(mosaic_tpu.input_gradient), (dy, w)),
    (bound(mosaic_tpu.filter_gradient), (x, dy)),
  ]


@pytest.mark.parametrize('case', FULL.values(), ids=FULL)
def test_full_sizes_are_lowered_for_tpu(case):
  for function, shapes in three(case):
    text = jax.jit(function).trace(*shapes).lower(lowering_platforms=('tpu',)).as_text()
    assert len(re.findall(r'custom_call @tpu_custom_call', text)) == 1


@pytest.mark.parametrize('topology', tpu.TOPOLOGIES)
def test_compiled_they_take_no_memory_and_nothing_is_copied_around_them(topology):
  try:
    tpu.topology(topology)
  except tpu.NoCompiler as error:
    pytest.skip(str(error))
  names = FULL if topology.startswith('v5e') else ('14x14', '1x1')
  for name in names:
    for function, shapes in three(FULL[name]):
      found = tpu.compile_for(topology, function, *shapes, free_layouts=True)
      # Scale and shift become rows of 8 sublanes: no more than a vector each.
      assert sum(move.size for move in found.moves) <= 2**15, (name, found.moves)
      assert found.temp_bytes <= 0.1 * found.output_bytes, name


LISTING = """
   0x1   :  { a }
   0x2 LB: > { %s1 = sphi %s0, %s9 /* phi */ ;; b }
   0x3   : > { c /* iteration index, stage = 2 */ }
   0x4 LB: >> { %s2 = sphi %s0, %s8 ;; d }
   0x5   : > { %s8 = sadd.s32 1, %s2 }
   0x6   : >> { %p3_p1 = scmp.ge.s32.totalorder (%p7), %s8, 5 /* loop exit test */ }
   0x7   : >> { sbr.rel (!%p3_p1) target = $region4 }
   0x8   :  {}
   0x9   :  {}
   0xa   :  {}
   0xb   : >> { e }
   0xc   : > { %p4_p2 = scmp.ge.s32.totalorder %s9, 12 /* loop exit test */ }
   0xd   : > { sbr.rel (!%p4_p2) target = $region3 }
   0xe   :  {}
   0xf   :  {}
  0x10   :  {}
  0x11   :  {}
  0x12   :  { f }
"""


def test_bundles_are_counted_as_often_as_their_loops_run():
  # 2 outside; 8 of the outer loop, 10 times; 8 of the inner one, 5 times in each.
  assert static_tpu.issued(LISTING) == 2 + 10 * (8 + 5 * 8)
  with pytest.raises(ValueError, match='trips'):
    static_tpu.issued(LISTING.replace('%s8, 5', '%s7, 5'))
