"""Attention of one query an example by the TPU kernel, simulated, and its program."""

import functools
from typing import Any

import jax
from jax._src.pallas.mosaic.interpret import interpret_pallas_call
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.attention import flash_attention, mosaic_tpu, mosaic_tpu_decode, reference
from kernels.attention.case import Case, Operands
from kernels.static import tpu


def describe(batch, kv_len, heads, kv_heads, width, **options) -> Case:
  case = Case(batch, 1, kv_len, heads, kv_heads, width, scale=width**-0.5)
  return case._replace(**options)


def arrays(case: Case, lengths: tuple[int, ...] = (), seed: int = 0) -> Operands:
  """Keys of a segment are the first `lengths`; without: scattered, of three."""
  rng = np.random.default_rng(seed)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), case.dtype)
  kv_shape = (case.batch, case.kv_len, case.kv_heads, case.head_dim)
  kv_segment = rng.integers(0, 3, (case.batch, case.kv_len))
  if lengths:
    kv_segment = np.arange(case.kv_len) >= np.asarray(lengths)[:, None]
  return Operands(
    normal(case.batch, 1, case.q_heads, case.head_dim),
    normal(*kv_shape),
    normal(*kv_shape),
    normal(*case.bias) if case.bias else None,
    jnp.zeros((case.batch, 1), jnp.int32) if case.segments else None,
    jnp.asarray(kv_segment, jnp.int32) if case.segments else None,
    jnp.asarray([seed, 7], jnp.uint32) if case.dropout_rate else None,
  )


SMALL = {'block_kv': 128}


@functools.partial(jax.jit, static_argnums=(0, 2))
def run(case, operands, interpret=True):
  """By the kernel, in blocks of 128 keys."""
  return mosaic_tpu.forward(case, operands, interpret=interpret, config=SMALL)


by_reference = jax.jit(reference.forward, static_argnums=0)


def check(case: Case, operands: Operands, interpret: Any = True):
  assert mosaic_tpu_decode.takes(case) and mosaic_tpu.refusal(case) is None
  found = run(case, operands, interpret)
  plain = by_reference(case, operands) if case.dtype == 'bfloat16' else found
  with jax.enable_x64(True):
    wide = lambda x: (
      x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x
    )
    exact = by_reference(case._replace(dtype='float64'), jax.tree.map(wide, operands))
  assert found[0].dtype == case.dtype and found[1].dtype == jnp.float32
  for name, a, b, c in zip(('o', 'lse'), found, exact, plain, strict=True):
    assert a.shape == b.shape
    a, b, c = (np.asarray(x, np.float64) for x in (a, b, c))
    none = np.isneginf(b)
    np.testing.assert_array_equal(np.isneginf(a), none)
    a, b, c = (np.where(none, 0, x) for x in (a, b, c))
    # Sums of up to 400 float32 products of about 1; of bfloat16 what the reference
    # loses by its rounding, and weights rounded before the second product.
    bound = 2e-5
    if case.dtype == 'bfloat16':
      bound = 1.5 * np.abs(c - b).max() + 1e-3 * np.abs(b).max()
    assert np.abs(a - b).max() <= bound, name
  return found


CASES = {
  'one key': describe(1, 1, 1, 1, 8),
  'heads of their own, in stripes': describe(2, 400, 16, 16, 32),
  'groups of four': describe(2, 256, 16, 4, 64),
  'groups of three, no stripes': describe(2, 300, 6, 2, 80, soft_cap=1.5, scale=2.0),
  'one head of keys': describe(3, 130, 24, 1, 32, bias=(3, 1, 1, 1)),
  'causal': describe(1, 300, 8, 2, 32, causal=True),
  'window': describe(2, 400, 8, 2, 32, window=(3, 200), bias=(1, 8, 1, 400)),
  'scattered segments': describe(9, 300, 8, 8, 32, segments=True),
  'bias of keys': describe(2, 200, 8, 2, 32, bias=(2, 1, 1, 200)),
  'dropout': describe(2, 200, 16, 4, 32, dropout_rate=0.4),
  'all': describe(
    2, 400, 16, 4, 32, window=(0, 350), segments=True, soft_cap=5.0,
    bias=(2, 16, 1, 400), dropout_rate=0.2,
  ),
  'bfloat16': describe(2, 300, 12, 4, 128, dtype='bfloat16', segments=True),
}  # fmt: skip


@pytest.mark.parametrize('name', CASES)
def test_values_are_the_reference_s_in_float64(name):
  check(CASES[name], arrays(CASES[name]))


def test_values_alone_have_the_same_bits():
  case = CASES['groups of four']
  operands = arrays(case)
  alone = functools.partial(mosaic_tpu.values, case, interpret=True, config=SMALL)
  np.testing.assert_array_equal(jax.jit(alone)(operands), run(case, operands)[0])


def test_a_cache_filled_to_a_length_costs_and_counts_that():
  """NaN in what is loaded would be NaN in the result, with a weight of 0."""
  case = describe(4, 512, 8, 2, 32, segments=True)
  lengths = (512, 0, 128, 129)
  operands = arrays(case, lengths)
  o, lse = check(case, operands)
  assert not np.any(o[1]) and np.isneginf(lse[1]).all()
  loaded = jnp.asarray([-(-n // 128) * 128 for n in lengths])
  far = jnp.arange(512)[None, :, None, None] >= loaded[:, None, None, None]
  spoiled = operands._replace(
    k_BMGK=jnp.where(far, jnp.nan, operands.k_BMGK),
    v_BMGK=jnp.where(far, jnp.nan, operands.v_BMGK),
  )
  np.testing.assert_array_equal(run(case, spoiled)[0], o)


def test_keys_after_the_visible_are_not_read_as_numbers():
  case = describe(1, 400, 8, 2, 32, window=(0, 199))
  operands = arrays(case)
  far = jnp.arange(400)[None, :, None, None] >= 200
  spoiled = operands._replace(
    k_BMGK=jnp.where(far, jnp.nan, operands.k_BMGK),
    v_BMGK=jnp.where(far, jnp.nan, operands.v_BMGK),
  )
  np.testing.assert_array_equal(run(case, spoiled)[0], run(case, operands)[0])


def test_nan_is_not_hidden():
  case = describe(2, 130, 4, 2, 32)
  operands = arrays(case)
  operands = operands._replace(q_BLHK=operands.q_BLHK.at[0, 0, 3].set(jnp.nan))
  o, lse = run(case, operands)
  assert np.isnan(o[0, 0, 3]).all() and np.isnan(o).sum() == 32
  assert np.isnan(lse[0, 3, 0]) and np.isnan(lse).sum() == 1


def test_simulated_memories_have_no_race():
  """Two cores share the work of axes that are declared parallel."""
  # One example, so that they share its two stripes of heads.
  case = CASES['all']._replace(
    batch=1, kv_len=200, window=(0, 150), bias=(1, 16, 1, 200)
  )
  pltpu.reset_tpu_interpret_mode_state()
  params = pltpu.InterpretParams(detect_races=True, num_cores_or_threads=2)
  check(case, arrays(case), interpret=params)
  assert not interpret_pallas_call.races.races_found
  pltpu.reset_tpu_interpret_mode_state()


def attend(operands, **options):
  return flash_attention(*operands[:3], implementation='mosaic_tpu', **options)


def test_slopes_are_the_reference_s():
  case = describe(1, 200, 4, 2, 32)
  operands = arrays(case)
  weight = jnp.cos(jnp.arange(128.0)).reshape(1, 1, 4, 32)
  slopes = lambda name: jax.jit(
    jax.grad(
      lambda *qkv: (weight * flash_attention(*qkv, implementation=name)).sum(),
      (0, 1, 2),
    )
  )(*operands[:3])
  for found, wanted in zip(slopes('mosaic_tpu'), slopes('reference'), strict=True):
    # Both in float32, each off by some units of sums of 200 products.
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def results(function, *args):
  """How many arrays each kernel in a program writes, by the kernel's name."""
  found = []

  def walk(jaxpr):
    for equation in jaxpr.eqns:
      if equation.primitive.name == 'pallas_call':
        found.append((equation.params['name'], len(equation.outvars)))
      for inner in jax.tree.leaves(
        list(equation.params.values()), is_leaf=lambda x: hasattr(x, 'eqns')
      ):
        inner = getattr(inner, 'jaxpr', inner)
        if hasattr(inner, 'eqns'):
          walk(inner)

  walk(jax.make_jaxpr(function)(*args).jaxpr)
  return set(found)


@pytest.mark.parametrize(
  ('q_len', 'name'), ((1, 'dlx_attention_decode'), (9, 'dlx_attention_forward'))
)
def test_log_sums_are_written_where_somebody_reads_them(q_len, name):
  operands = arrays(describe(1, 9, 2, 1, 8))
  operands = operands._replace(q_BLHK=jnp.ones((1, q_len, 2, 8)))
  assert results(attend, operands) == {(name, 1)}
  both = lambda operands: attend(operands, return_lse=True)
  assert results(both, operands) == {(name, 2)}
  slope = jax.grad(lambda q: attend(operands._replace(q_BLHK=q)).sum())
  assert (name, 2) in results(slope, operands.q_BLHK)
  assert (name, 1) not in results(slope, operands.q_BLHK)


def test_heads_that_do_not_fit_on_the_chip_are_left_to_the_general_kernel():
  case = describe(1, 8, 100, 100, 256)  # 100 heads of keys at once: 12.5 MiB a block.
  assert not mosaic_tpu_decode.takes(case)
  assert mosaic_tpu_decode.takes(case._replace(q_heads=104, kv_heads=104))
  assert mosaic_tpu_decode.takes(case._replace(kv_heads=1))
  assert not mosaic_tpu_decode.takes(describe(1, 8, 8, 8, 32)._replace(q_len=2))


def test_sizes_worth_trying():
  case = describe(1, 8192, 32, 8, 128, dtype='bfloat16')
  found = [config.get('block_kv') for config in mosaic_tpu.configs(case)]
  assert found == [None, 512, 1024, 4096]  # 2048 is its own: 2 heads in 1 MiB.


@pytest.mark.parametrize('heads', ((32, 8), (16, 16)))
@pytest.mark.parametrize('topology', ('v5e:2x2', 'v6e:2x2'))
def test_a_cache_is_copied_unless_it_is_stored_by_heads(topology, heads):
  """In the order in which a program's arguments lie: nobody chooses another."""
  try:
    tpu.topology(topology)
  except tpu.NoCompiler as error:
    pytest.skip(f'nothing is compiled for TPUs: {error}')
  q_heads, kv_heads = heads
  shape = lambda *sizes: jax.ShapeDtypeStruct(sizes, jnp.bfloat16)
  ids = lambda n: jax.ShapeDtypeStruct((4, n), jnp.int32)
  q = shape(4, 1, q_heads, 128)

  def by_heads(q, k, v, segment, kv_segment):
    k, v = (x.swapaxes(1, 2) for x in (k, v))
    return by_tokens(q, k, v, segment, kv_segment)

  def by_tokens(q, k, v, segment, kv_segment):
    more = dict(segment_ids=segment, kv_segment_ids=kv_segment, interpret=False)
    return flash_attention(q, k, v, implementation='mosaic_tpu', **more)

  kv = shape(4, kv_heads, 4096, 128)
  made = tpu.compile_for(topology, by_heads, q, kv, kv, ids(1), ids(4096))
  assert made.moves == [] and made.temp_bytes == 0
  kv = shape(4, 4096, kv_heads, 128)
  made = tpu.compile_for(topology, by_tokens, q, kv, kv, ids(1), ids(4096))
  assert made.moves == [('copy', 2 * 4 * 4096 * kv_heads * 128)] * 2
