"""The TPU kernels of attention in Pallas' interpreters against the reference."""

import functools
from typing import NamedTuple

import jax
from jax._src.pallas.mosaic.interpret import interpret_pallas_call
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp
from jax.sharding import AbstractDevice, AbstractMesh, AxisType
import numpy as np
import pytest

from kernels import dispatch
from kernels.attention import blocks, masks, mosaic_tpu, mosaic_tpu_backward, reference
from kernels.attention.case import Case, Operands

SMALL = dict(block_q=128, block_kv=128)


def describe(shape, **options) -> Case:
  """Case of (B, L, M, H, G, K)."""
  case = Case(*shape, scale=shape[-1] ** -0.5, return_lse=True)
  return case._replace(**options)


def arrays(case: Case, seed: int = 0) -> tuple[Operands, jax.Array, jax.Array]:
  """(operands, do, dlse); segments are of uneven lengths."""
  rng = np.random.default_rng(seed)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), case.dtype)
  q_shape = (case.batch, case.q_len, case.q_heads, case.head_dim)
  kv_shape = (case.batch, case.kv_len, case.kv_heads, case.head_dim)
  segments = lambda n: jnp.asarray(
    np.sort(rng.integers(0, 3, (case.batch, n)), axis=1), jnp.int32
  )
  operands = Operands(
    normal(*q_shape),
    normal(*kv_shape),
    normal(*kv_shape),
    normal(*case.bias) if case.bias else None,
    segments(case.q_len) if case.segments else None,
    segments(case.kv_len) if case.segments else None,
    jnp.asarray([seed, 7], jnp.uint32) if case.dropout_rate else None,
  )
  lse = jnp.asarray(rng.normal(size=(case.batch, case.q_heads, case.q_len)), np.float32)
  return operands, normal(*q_shape), lse


class Both(NamedTuple):
  o: jax.Array
  lse: jax.Array
  dq: jax.Array
  dk: jax.Array
  dv: jax.Array


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def both(case, module, options, operands, do, dlse) -> Both:
  """Values and gradients by the kernels (options) or the reference (None)."""
  if module == 'reference':
    forward, backward = reference.forward, reference.backward
  else:
    options = dict(options)
    interpret = options.pop('interpret', True)
    more = dict(interpret=interpret, config=options)
    forward = functools.partial(mosaic_tpu.forward, **more)
    backward = functools.partial(mosaic_tpu_backward.backward, **more)
  o, lse = forward(case, operands)
  return Both(o, lse, *backward(case, operands, o, lse, do, dlse))


def found(case, args, **options):
  return both(case, 'tpu', tuple((SMALL | options).items()), *args)


def wanted(case, args):
  """The reference in float64, of the same numbers."""
  with jax.enable_x64(True):
    wide = lambda x: (
      x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x
    )
    return both(
      case._replace(dtype='float64'), 'reference', None, *jax.tree.map(wide, args)
    )


def check(case, args, **options):
  result = found(case, args, **options)
  exact = wanted(case, args)
  assert result.o.dtype == case.dtype and result.lse.dtype == jnp.float32
  plain = both(case, 'reference', None, *args) if case.dtype != 'float32' else None
  for name, a, b in zip(Both._fields, result, exact):
    a, b = np.asarray(a, np.float64), np.asarray(b)
    none = np.isneginf(b)
    np.testing.assert_array_equal(np.isneginf(a), none, err_msg=name)
    error = np.abs(np.where(none, 0, a) - np.where(none, 0, b)).max()
    scale = np.abs(np.where(none, 0, b)).max()
    # Sums of up to 300 float32 products of about 1, whose sizes gradients have.
    bound = 2e-5 if name in ('o', 'lse') else 1e-4 * scale
    if plain is not None:
      other = np.asarray(getattr(plain, name), np.float64)
      other = np.abs(np.where(none, 0, other) - np.where(none, 0, b)).max()
      bound = 1.5 * other + 1e-3 * scale
    assert error <= bound, (name, error, bound)


CASES = {
  'one': describe((2, 1, 1, 1, 1, 32), causal=True),
  'plain': describe((1, 128, 200, 2, 1, 128)),
  'short': describe((1, 17, 300, 2, 2, 80), causal=True),
  'tall': describe((1, 200, 64, 10, 5, 32), causal=True),
  'window': describe((1, 300, 300, 1, 1, 64), window=(20, 9), soft_cap=1.5, scale=2.0),
  'window_out': describe((1, 300, 17, 1, 1, 32), window=(5, 0), bias=(1, 1, 300, 1)),
  'segments': describe((9, 17, 200, 1, 1, 32), segments=True, bias=(9, 1, 1, 200)),
  'bias': describe((2, 200, 130, 2, 2, 32), bias=(2, 2, 200, 130)),
  'bias_heads': describe((1, 17, 64, 2, 1, 32), bias=(1, 2, 1, 1), soft_cap=1.5),
  'dropout': describe((2, 200, 17, 2, 2, 32), dropout_rate=0.4),
  'everything': describe(
    (1, 200, 200, 2, 1, 64), causal=True, window=(60, 0), segments=True, soft_cap=5.0,
    bias=(1, 2, 200, 200), dropout_rate=0.2,
  ),
  'bf16': describe((1, 200, 200, 2, 1, 64), causal=True, dtype='bfloat16'),
}  # fmt: skip


@pytest.mark.parametrize('name', CASES)
def test_values_and_gradients_are_the_reference_s_in_float64(name):
  case = CASES[name]
  check(case, arrays(case))


def test_a_hidden_block_is_not_computed():
  """NaN there would be NaN in all that is summed up with a weight of 0."""
  case = describe((1, 256, 256, 1, 1, 32), causal=True)
  operands, *slopes = arrays(case)
  later = jnp.arange(256)[None, :, None, None] >= 128
  hide = lambda x: jnp.where(later, jnp.nan, x)
  spoiled = operands._replace(
    k_BMGK=hide(operands.k_BMGK), v_BMGK=hide(operands.v_BMGK)
  )
  result = found(case, (spoiled, *slopes))
  assert np.isfinite(result.o[:, :128]).all() and np.isnan(result.o[:, 128:]).any()
  assert np.isfinite(result.dq[:, :128]).all()

  case = case._replace(causal=False, segments=True)
  segment = jnp.asarray(later[..., 0, 0], jnp.int32)
  spoiled = spoiled._replace(q_segment_BL=segment, kv_segment_BM=segment)
  result = found(case, (spoiled, *slopes))
  assert np.isfinite(result.o[:, :128]).all() and np.isfinite(result.dq[:, :128]).all()


@pytest.mark.parametrize(
  'options',
  (dict(), dict(causal=True), dict(window=(100, 40)), dict(window=(5, 0)),
    dict(window=(130, 0), causal=True)),
)  # fmt: skip
@pytest.mark.parametrize('lengths', ((640, 640), (200, 700), (700, 200)))
def test_blocks_are_those_with_a_visible_pair(lengths, options):
  case = describe((1, *lengths, 1, 1, 32), **options)
  table = blocks.make(case, 128, 256)
  query = np.arange(case.q_len)[:, None]
  key = np.arange(case.kv_len)[None]
  seen = masks.visible(case, query, key)
  seen = np.ones((case.q_len, case.kv_len), bool) if seen is None else np.asarray(seen)
  pairs = np.zeros((table.q_blocks, table.kv_blocks), bool)
  for i, j in np.ndindex(pairs.shape):
    pairs[i, j] = seen[i * 128 : (i + 1) * 128, j * 256 : (j + 1) * 256].any()
  for of, needed in ((blocks.of_keys, pairs), (blocks.of_queries, pairs.T)):
    count = blocks.most(of, case, table, len(needed))
    assert count == max(1, needed.sum(1).max())
    for i in range(len(needed)):
      visited = [blocks.nth(of, case, table, i, n) for n in range(count)]
      there = [int(block) for block, here in visited if here]
      assert there == np.flatnonzero(needed[i]).tolist()
      # What is not there repeats the block before: nothing is loaded.
      rest = [int(block) for block, here in visited if not here]
      assert rest == [there[-1] if there else rest[0]] * len(rest)
      assert all(0 <= block < needed.shape[1] for block in rest)


def test_a_tile_of_many_parts():
  case = describe((1, 300, 400, 1, 1, 32), causal=True)
  sizes = dict(block_q=512, block_kv=512, part_q=128, part_kv=256)
  check(case, arrays(case), **sizes)


@pytest.mark.parametrize('kind', ('TPU v4', 'TPU7x'))
def test_a_tile_as_a_chip_cuts_it(kind):
  device = AbstractDevice(device_kind=kind, num_cores=1, platform='tpu')
  mesh = AbstractMesh((1,), ('device',), (AxisType.Auto,), abstract_device=device)
  case = describe((1, 300, 400, 1, 1, 32), causal=True)
  args = arrays(case)
  assert dispatch.target().device_kind != kind
  with jax.sharding.use_abstract_mesh(mesh):
    assert dispatch.target().device_kind == kind
    check(case, args, block_q=512, block_kv=512)


def test_nan_is_not_hidden():
  case = describe((1, 17, 17, 1, 1, 32))
  operands, *slopes = arrays(case)
  operands = operands._replace(q_BLHK=operands.q_BLHK.at[0, 3].set(jnp.nan))
  result = found(case, (operands, *slopes))
  bad = np.isnan(result.o)
  assert bad[0, 3].all() and bad.sum() == 32 and np.isnan(result.lse[0, 0, 3])


@pytest.fixture
def simulator():
  pltpu.reset_tpu_interpret_mode_state()
  yield
  pltpu.reset_tpu_interpret_mode_state()


def test_simulated_memories_have_no_race(simulator):
  """Two cores share the work of axes that are declared parallel."""
  case = describe(
    (1, 17, 130, 2, 1, 32), causal=True, segments=True, bias=(1, 2, 1, 130),
    dropout_rate=0.2,
  )  # fmt: skip
  params = pltpu.InterpretParams(detect_races=True, num_cores_or_threads=2)
  check(case, arrays(case), interpret=params)
  assert not interpret_pallas_call.races.races_found


@pytest.mark.parametrize('name', ('bf16', 'everything'))
def test_lowers_for_tpu_without_a_tpu(name):
  case = CASES[name]
  options = (('interpret', False),)
  args = jax.eval_shape(lambda: arrays(case))
  traced = both.trace(case, 'tpu', options, *args)
  text = traced.lower(lowering_platforms=('tpu',)).as_text()
  assert text.count('stablehlo.custom_call @tpu_custom_call') == 3
  assert 'stablehlo.pad' not in text


def test_refusals_name_the_nearest():
  case = describe((1, 8, 8, 1, 1, 32))
  assert mosaic_tpu.refusal(case) is None
  for change, words in (
    (dict(head_dim=20), 'head_dim=24'),
    (dict(head_dim=264), 'head_dim=256'),
    (dict(dtype='float64'), 'float32'),
    (dict(dtype='float16'), 'bfloat16'),
    (dict(kv_len=0), 'one of each'),
  ):
    refusal = mosaic_tpu.refusal(case._replace(**change))
    assert refusal is not None and words in str(refusal)
  for config in (dict(block_q=100), dict(block=128)):
    with pytest.raises(ValueError, match='multiples of 128 for block_q'):
      mosaic_tpu.forward(case, arrays(case)[0], config=config)
