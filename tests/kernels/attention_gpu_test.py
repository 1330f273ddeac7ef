"""Attention for Hopper GPUs, simulated on the CPU, and lowered for CUDA."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import mosaic_gpu_compat as compat
from kernels.attention import mosaic_gpu, mosaic_gpu_backward, reference
from kernels.attention.case import Case, Operands
from kernels.attention.mosaic_gpu_backward import backward
from kernels.attention.mosaic_gpu_blocks import Span

pytestmark = pytest.mark.usefixtures('simulation')

# One block of queries a program: two threads simulate faster than three.
ONE = {'compute': 1, 'keys': 64}
ONE_EACH = {'dq_compute': 1, 'dkv_compute': 1}


def case_of(q_len, kv_len, heads=1, kv_heads=1, head_dim=64, **more) -> Case:
  sizes = (1, q_len, kv_len, heads, kv_heads, head_dim)
  return Case(*sizes, **{'dtype': 'bfloat16', 'scale': head_dim**-0.5, **more})


forward = jax.jit(reference.forward, static_argnums=0)
slopes_of = jax.jit(reference.backward, static_argnums=0)


def inputs(case: Case) -> tuple[Operands, jax.Array, jax.Array]:
  """(operands, do, dlse)."""
  rng = np.random.default_rng(case.q_len + case.kv_len)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), case.dtype)
  q_shape = (1, case.q_len, case.q_heads, case.head_dim)
  kv_shape = (1, case.kv_len, case.kv_heads, case.head_dim)
  operands = Operands(draw(*q_shape), draw(*kv_shape), draw(*kv_shape))
  if case.bias:
    bias = jnp.asarray(rng.normal(size=case.bias), jnp.float32)
    operands = operands._replace(bias=bias)
  if case.segments:
    ids = lambda n: jnp.asarray(np.sort(rng.integers(0, 3, (1, n))), jnp.int32)
    more = {'q_segment_BL': ids(case.q_len), 'kv_segment_BM': ids(case.kv_len)}
    operands = operands._replace(**more)
  if case.dropout_rate:
    operands = operands._replace(seed=jnp.asarray([7, 2**31 + 5], jnp.uint32))
  dlse = jnp.asarray(rng.normal(size=(1, case.q_heads, case.q_len)), jnp.float32)
  return operands, draw(*q_shape), dlse


@functools.partial(jax.jit, static_argnums=0)
def computed(case, operands, do, dlse):
  """Results and slopes of the reference."""
  o, lse = reference.forward(case, operands)
  return (o, lse, *reference.backward(case, operands, o, lse, do, dlse))


def wide(x):
  is_float = x is not None and jnp.issubdtype(x.dtype, jnp.floating)
  return jnp.asarray(x, jnp.float64) if is_float else x


CASES = {
  'one block': (case_of(64, 64), 'nan'),
  'causal, more keys, heads share': (case_of(64, 200, 2, 1, causal=True), 'zero'),
  'window past the end, segments, ragged': (
    case_of(100, 70, head_dim=32, window=(20, 4), segments=True), 'zero',
  ),
  'cap, bias of keys, odd lengths': (
    case_of(17, 75, soft_cap=2.0, bias=(1, 1, 1, 75), dtype='float16'),
    'zero',
  ),
  'dropout, bias, wide heads': (
    case_of(64, 64, head_dim=256, dropout_rate=0.3, bias=(1, 1, 64, 64)), 'nan',
  ),
}  # fmt: skip


@pytest.mark.parametrize('name', CASES)
def test_results_and_slopes_are_the_reference_s(name):
  case, beyond = CASES[name]
  assert mosaic_gpu.refusal(case) is None
  args = inputs(case)
  interpret = compat.simulator(beyond=beyond)
  o, lse = mosaic_gpu.forward(case, args[0], interpret=interpret, config=ONE)
  slopes = backward(
    case, args[0], o, lse, *args[1:], interpret=interpret, config=ONE_EACH
  )
  plain = computed(case, *args)
  with jax.enable_x64(True):
    exact = [np.asarray(x) for x in computed(case, *jax.tree.map(wide, args))]
  some = np.isfinite(exact[1])
  assert (name.startswith('window')) == (not some.all())
  np.testing.assert_array_equal(np.isneginf(lse), ~some)
  np.testing.assert_allclose(lse[some], exact[1][some], atol=1e-5)
  assert not np.any(np.moveaxis(o, 1, 2)[~some]), 'rows without keys are 0'
  # Weights and slopes are rounded to the dtype before a product, as the reference's
  # results are after it: each adds half a unit, here of the largest number.
  unit = float(jnp.finfo(case.dtype).eps)
  found = {'o': o, 'dq': slopes[0], 'dk': slopes[1], 'dv': slopes[2]}
  for (name, x), y, z in zip(
    found.items(), [plain[0], *plain[2:]], [exact[0], *exact[2:]], strict=True
  ):
    assert x.shape == z.shape and x.dtype == y.dtype, name
    error = np.abs(np.asarray(x, np.float64) - z).max()
    rounding = np.abs(np.asarray(y, np.float64) - z).max()
    assert error <= rounding + unit * np.abs(z).max(), name


def test_blocks_that_nobody_sees_are_not_loaded_and_nothing_races():
  case = case_of(64, 320, causal=True, window=(70, 0))
  operands, _, _ = inputs(case)
  far = jnp.arange(320)[None, :, None, None] >= 64
  broken = operands._replace(
    k_BMGK=jnp.where(far, jnp.nan, operands.k_BMGK),
    v_BMGK=jnp.where(far, jnp.nan, operands.v_BMGK),
  )
  run = functools.partial(
    mosaic_gpu.forward, case, interpret=compat.simulator(detect_races=True)
  )
  few = {**ONE, 'stages': 2}
  o, lse = run(broken, config=few)
  assert np.isfinite(lse).all() and np.isfinite(np.asarray(o, np.float32)).all()
  long = case._replace(causal=False, window=None)
  o, _ = mosaic_gpu.forward(
    long, operands, interpret=compat.simulator(detect_races=True), config=few
  )
  assert not compat.races_found()
  wanted, _ = forward(long, operands)
  o, wanted = (np.asarray(x, np.float32) for x in (o, wanted))
  np.testing.assert_allclose(o, wanted, atol=0.02)


# Three blocks of keys in two buffers; two of queries in one, or, forward, all of them.
RING = {
  'forward': {**ONE, 'stages': 2},
  'dq': {'dq_compute': 1, 'dq_across': 32, 'dq_stages': 2},
  'dkv': {'dkv_compute': 1, 'dkv_across': 32, 'dkv_stages': 1},
}


def error_of(kernel, monkeypatch):
  """The largest difference to the reference, of one kernel, with a search for races."""
  case = case_of(64, 192 if kernel == 'forward' else 96, head_dim=16)
  operands, *slopes = inputs(case)
  options = {'interpret': compat.simulator(detect_races=True), 'config': RING[kernel]}
  wanted = forward(case, operands)
  if kernel == 'forward':
    found = mosaic_gpu.forward(case, operands, **options)
  else:
    other = {'dq': 'of_keys', 'dkv': 'of_queries'}[kernel]
    monkeypatch.setattr(mosaic_gpu_backward, other, lambda *args: (None, None))
    args = (case, operands, *wanted, *slopes)
    used = {'dq': slice(1), 'dkv': slice(1, 3)}[kernel]
    found, wanted = backward(*args, **options)[used], slopes_of(*args)[used]
  pairs = zip(found, wanted, strict=True)
  differences = (np.subtract(x, y, dtype=np.float32) for x, y in pairs)
  return max(np.abs(x).max() for x in differences)


@pytest.mark.parametrize('kernel', RING)
def test_buffers_that_are_used_again_do_not_race(kernel, monkeypatch):
  # Of numbers up to 3, in bfloat16.
  assert error_of(kernel, monkeypatch) < 0.05
  assert not compat.races_found()


@pytest.mark.parametrize(
  'kernel, barrier',
  (
    ('forward', 'k_full'),
    ('forward', 'v_free'),
    ('dq', 'v_full'),
    ('dq', 'k_free'),
    ('dq', 'own_full'),
    ('dkv', 'q_full'),
    ('dkv', 'do_free'),
  ),
)
def test_a_missing_wait_is_found(kernel, barrier, planted, monkeypatch):
  assert planted(barrier, lambda: error_of(kernel, monkeypatch) > 0.05)


def both_ways(case, operands, o, lse, do):
  forward = mosaic_gpu.forward(case, operands)
  return forward, backward(case, operands, o, lse, do, None)


@pytest.mark.parametrize('head_dim', mosaic_gpu.HEAD_DIMS)
def test_they_are_lowered_for_cuda_where_there_is_none(head_dim):
  more = {'causal': True} if head_dim == 64 else {'window': (9, 9), 'segments': True}
  case = case_of(129, 257, 4, 2, head_dim, **more)
  operands, do, lse = inputs(case)
  traced = jax.jit(functools.partial(both_ways, case)).trace(operands, do, lse, do)
  text = traced.lower(lowering_platforms=('cuda',)).as_text()
  # For wide heads dk and dv are two passes.
  assert text.count('custom_call @mosaic_gpu') == (4 if head_dim == 256 else 3)


@pytest.mark.parametrize(
  'changes, reason, nearest',
  (
    ({'dtype': 'float32'}, 'float32', 'bfloat16'),
    ({'head_dim': 80}, '80', 'head_dim=128'),
    ({'head_dim': 512}, '512', 'head_dim=256'),
    ({'bias': (1, 1, 64, 1)}, 'row of 64 keys', ''),
    ({'kv_len': 63, 'bias': (1, 1, 64, 63)}, 'multiple of 8', 'multiples of 8'),
    ({'q_len': 0}, 'nothing', ''),
  ),
)
def test_it_says_what_it_does_not_compute(changes, reason, nearest):
  refusal = mosaic_gpu.refusal(case_of(64, 64)._replace(**changes))
  assert refusal is not None
  assert reason in refusal.reason and nearest in refusal.nearest


def test_sizes_that_do_not_fit_are_named():
  case = case_of(64, 64)
  for config in ({'keys': 32}, {'compute': 4}, {'rows': 64}):
    with pytest.raises(ValueError, match='not allowed'):
      mosaic_gpu.blocks(case, config)
  with pytest.raises(ValueError, match='not allowed'):
    backward(case, *(None,) * 5, config={'across': 64})


def test_spans_by_hand():
  """128 queries from 256 on, of 1000 keys, in blocks of 128."""
  case = case_of(1000, 1000, causal=True)
  span = functools.partial(mosaic_gpu.span, keys=128)
  numbers = lambda found: Span(*map(int, found))
  rows = (256, 384)
  assert numbers(span(case, rows=rows, own=rows)) == (0, 0, 2, 3)
  # Rows 320 to 383 of them: the third block is still only partly theirs.
  assert numbers(span(case, rows=rows, own=(320, 384))) == (0, 0, 2, 3)
  # Keys 156 to 383: the last row begins within block 2, the first one ends there.
  near = case._replace(window=(100, 0))
  assert numbers(span(near, rows=rows, own=rows)) == (1, 3, 3, 3)
  plain = case._replace(causal=False)  # The last block has 104 keys.
  assert numbers(span(plain, rows=rows, own=rows)) == (0, 0, 7, 8)
