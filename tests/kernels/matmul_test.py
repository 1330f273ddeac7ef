"""Products of matrices by oneDNN against float64; skipped where it is not installed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.run import flops
from kernels import dispatch
from kernels.matmul import (
  UnsupportedKernel,
  api,
  bench,
  cpu,
  explain,
  product,
  saveable,
)
from kernels.onednn import library
from kernels.processor import processor

pytestmark = pytest.mark.usefixtures('onednn')
FORMS = ('NN', 'NT', 'TN', 'TT')
EPS = {'float32': 2.0**-24, 'bfloat16': 2.0**-8}  # Half a unit in the last place.
# Shapes of a and b, neither transposed.
SHAPES = (
  ((3, 5), (5, 7)),
  ((1, 1), (1, 1)),
  ((5, 1), (1, 4)),
  ((1, 9), (9, 1)),
  ((4, 0), (0, 3)),
  ((0, 4), (4, 3)),
  ((4, 3), (3, 0)),
  ((2, 3, 5), (2, 5, 7)),
  ((2, 3, 5), (1, 5, 7)),
  ((1, 3, 5), (4, 5, 7)),
  ((2, 1, 3, 5), (1, 4, 5, 7)),
  ((3, 2, 3, 5), (3, 1, 5, 2)),
  ((0, 3, 5), (0, 5, 7)),
  ((300, 129), (129, 257)),  # Several blocks.
  ((40, 33, 65), (40, 65, 127)),
)


def arrays(shapes, form='NN', dtype='float32', seed=0):
  rng = np.random.default_rng(seed)
  turn = lambda x, f: np.swapaxes(x, -1, -2) if f == 'T' else x
  return [
    jnp.asarray(np.ascontiguousarray(turn(rng.normal(size=shape), f)), dtype)
    for shape, f in zip(shapes, form, strict=True)
  ]


def by_onednn(form, **options):
  return functools.partial(
    product,
    transpose_a=form[0] == 'T',
    transpose_b=form[1] == 'T',
    implementation=options.pop('implementation', 'onednn'),
    **options,
  )


def plain(x, form):
  """As it is multiplied, in float64."""
  x = np.asarray(x, np.float64)
  return np.swapaxes(x, -1, -2) if form == 'T' else x


def like(x, shape):
  """Summed over the axes that `shape` has 1 of."""
  axes = tuple(i for i, n in enumerate(shape) if n == 1 and x.shape[i] != 1)
  return x.sum(axes, keepdims=True) if axes else x


def within(found, left, right, form='N', summed=None, roundings=1):
  """found is left right to rounding: (K + 2) eps |left| |right| of each element.

  `form` is how found lies, `summed` its shape where axes were repeated; `roundings`
  counts those of the result in its own type.
  """
  wanted, size = left @ right, np.abs(left) @ np.abs(right)
  depth = left.shape[-1]
  if summed is not None:
    depth *= max(1, wanted.size // max(1, np.prod(summed, dtype=int)))
    wanted, size = like(wanted, summed), like(size, summed)
  turn = lambda x: np.swapaxes(x, -1, -2) if form == 'T' else x
  wanted, size = turn(wanted), turn(size)
  limit = (depth + 2) * EPS['float32'] * size
  limit += roundings * EPS[jnp.dtype(found.dtype).name] * np.abs(wanted) * 1.01
  error = np.abs(np.asarray(found, np.float64) - wanted)
  assert found.shape == wanted.shape
  assert (error <= limit).all(), float((error - limit).max())


@pytest.mark.parametrize('dtype', EPS)
@pytest.mark.parametrize('shapes', SHAPES, ids=str)
def test_values_and_gradients_are_those_of_float64(shapes, dtype):
  def all_forms(pairs, dy):
    found = {}
    for form, (a, b) in pairs.items():
      y, pull = jax.vjp(by_onednn(form), a, b)
      found[form] = (y, *pull(dy))
    return found

  pairs = {form: arrays(shapes, form, dtype) for form in FORMS}
  out = np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2])
  out = (*out, shapes[0][-2], shapes[1][-1])
  dy = jnp.asarray(np.random.default_rng(1).normal(size=out), dtype)
  for form, (y, da, db) in jax.jit(all_forms)(pairs, dy).items():
    a, b = (plain(x, f) for x, f in zip(pairs[form], form, strict=True))
    wide = np.asarray(dy, np.float64)
    across = lambda x: np.swapaxes(x, -1, -2)
    within(y, a, b)
    # Of repeated matrices the sum is rounded as well.
    within(da, wide, across(b), form[0], shapes[0], roundings=2)
    within(db, across(a), wide, form[1], shapes[1], roundings=2)


@pytest.mark.parametrize('dtype', EPS)
def test_two_hundred_random_shapes(dtype):
  rng = np.random.default_rng(7)
  side = lambda: int(np.exp(rng.uniform(0, np.log(160))))
  cases = []
  for seed in range(200):
    m, k, n = side(), side(), side()
    lead = ((), (2,), (3, 2))[int(rng.integers(3))]
    form = FORMS[int(rng.integers(4))]
    cases.append((form, arrays(((*lead, m, k), (*lead, k, n)), form, dtype, seed)))

  def every(pairs):
    return [by_onednn(f)(*x) for f, x in zip(forms, pairs, strict=True)]

  forms = [form for form, _ in cases]
  found = jax.jit(every)([pair for _, pair in cases])
  for y, (form, pair) in zip(found, cases, strict=True):
    within(y, *(plain(x, f) for x, f in zip(pair, form, strict=True)))


def test_narrow_operands_have_a_wide_result():
  a, b = arrays(((17, 300), (300, 9)), dtype='bfloat16')
  y = by_onednn('NN', preferred_element_type=jnp.float32)(a, b)
  assert y.dtype == jnp.float32
  within(y, plain(a, 'N'), plain(b, 'N'))
  da, db = jax.grad(
    lambda *x: by_onednn('NN', preferred_element_type=jnp.float32)(*x).sum(), (0, 1)
  )(a, b)
  assert da.dtype == db.dtype == jnp.bfloat16


def test_forward_mode_and_second_derivatives_are_those_of_xla():
  a, b = arrays(((4, 6), (6, 5)))
  da, db = arrays(((4, 6), (6, 5)), seed=1)

  def all_of(implementation, a, b, da, db):
    f = lambda a, b: jnp.sin(by_onednn('NN', implementation=implementation)(a, b)).sum()
    gradient = jax.grad(f, (0, 1))
    turned = lambda a, b: sum((g**2).sum() for g in gradient(a, b))
    return jax.jvp(gradient, (a, b), (da, db)), jax.grad(turned, (0, 1))(a, b)

  ours, theirs = (
    jax.jit(functools.partial(all_of, name))(a, b, da, db) for name in ('onednn', 'xla')
  )
  for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('axes', [(0, None), (None, 0), (0, 0), (2, 1)], ids=str)
@pytest.mark.parametrize('form', FORMS)
def test_vmap_of_vmap_is_a_product_of_each(axes, form):
  shapes = [[3, 4], [4, 5]]
  shapes = [s[::-1] if f == 'T' else s for s, f in zip(shapes, form, strict=True)]
  for axis, shape in zip(axes, shapes, strict=True):
    if axis is not None:
      shape.insert(axis, 6)
  a, b = arrays(((2, *shapes[0]), tuple(shapes[1])))
  inner = jax.vmap(by_onednn(form), axes)
  found = jax.jit(jax.vmap(inner, (0, None)))(a, b)
  for i in range(2):
    for j in range(6):
      one = (
        x if d is None else jnp.take(x, j, d)
        for x, d in ((a[i], axes[0]), (b, axes[1]))
      )
      within(found[i, j], *(plain(x, f) for x, f in zip(one, form, strict=True)))


def test_scan_and_remat():
  a, b = arrays(((8, 8), (8, 8)))

  def loss(implementation, a, b):
    layer = lambda a, b: jnp.tanh(by_onednn('NN', implementation=implementation)(a, b))
    body = lambda a, _: (jax.checkpoint(layer, policy=saveable)(a, b), None)
    return jax.lax.scan(body, a, None, length=3)[0].sum()

  ours, theirs = (
    jax.jit(jax.grad(functools.partial(loss, name), (0, 1)))(a, b)
    for name in ('onednn', 'xla')
  )
  for x, y in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('lead, products', [((), 3), ((2,), 4)], ids=('plain', 'batch'))
def test_a_policy_saves_products_without_a_batch(lead, products):
  a, b = arrays(((*lead, 8, 8), (*lead, 8, 8)))
  f = lambda a, b: jnp.sin(by_onednn('NN')(a, b))
  kept = jax.checkpoint(f, policy=saveable)
  both = jax.value_and_grad(lambda *x: kept(*x).sum(), (0, 1))
  text = jax.jit(both).lower(a, b).as_text()
  assert text.count('@dlx_onednn_product') == products


def test_the_same_bits_each_time():
  a, b = arrays(((700, 300), (300, 260)))
  run = jax.jit(by_onednn('NN'))
  first = np.asarray(run(a, b))
  assert all((np.asarray(run(a, b)) == first).all() for _ in range(20))


def test_auto_takes_it_where_a_row_says_so(monkeypatch):
  a, b = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((512, 512), (512, 256)))
  loss = lambda a, b: jnp.sin(product(a, b)).sum()
  count = lambda: (
    jax.jit(jax.grad(lambda *x: loss(*x), (0, 1))).lower(a, b).as_text()
  ).count('@dlx_onednn_product')
  here = processor()
  of = lambda vendor: lambda: here._replace(vendor=vendor)
  monkeypatch.setattr('kernels.matmul.case.processor', of('amd'))
  monkeypatch.setattr(library, 'isa', lambda: 'avx512_core_bf16')
  assert count() == 3
  assert explain(a, b).startswith('onednn: measured: ')
  monkeypatch.setattr('kernels.matmul.case.processor', of('of another kind'))
  assert count() == 0
  assert explain(a, b) == 'xla: the library of cpu; no measured row'


def test_a_small_product_is_left_to_xla():
  a, b = (jax.ShapeDtypeStruct((8, 8), jnp.float32) for _ in range(2))
  assert '@dlx_onednn_product' not in jax.jit(product).lower(a, b).as_text()


def test_a_named_implementation_obeys_or_raises(monkeypatch):
  a, b = arrays(((2, 3), (3, 2)))
  assert '@dlx_onednn_product' in jax.jit(by_onednn('NN')).lower(a, b).as_text()
  with pytest.raises(UnsupportedKernel, match='dtype=int32'):
    by_onednn('NN')(a.astype(jnp.int32), b.astype(jnp.int32))
  with pytest.raises(UnsupportedKernel, match='a result of bfloat16 from float32'):
    by_onednn('NN', preferred_element_type=jnp.bfloat16)(a, b)
  with pytest.raises(UnsupportedKernel, match='it is not for cuda|dtype'):
    jax.jit(by_onednn('NN')).trace(a, b).lower(lowering_platforms=('cuda',))
  monkeypatch.setattr(library, 'has_bfloat16', lambda: False)
  narrow = [x.astype(jnp.bfloat16) for x in (a, b)]
  with pytest.raises(UnsupportedKernel, match='no instructions for bfloat16'):
    by_onednn('NN')(*narrow)
  monkeypatch.setattr(jax, 'local_device_count', lambda: 8)
  with pytest.raises(UnsupportedKernel, match='8 CPU devices'):
    by_onednn('NN')(a, b)
  own = lambda a, b: product(a, b)  # None that was traced before.
  assert 'dot_general' in str(jax.make_jaxpr(own)(a, b))  # XLA shards it.


def test_another_platform_gets_the_product_of_xla():
  a, b = arrays(((512, 512), (512, 512)))
  lowered = jax.jit(product).trace(a, b).lower(lowering_platforms=('cuda',))
  assert 'dlx_onednn' not in lowered.as_text()


def test_switched_off_it_is_lax(monkeypatch):
  monkeypatch.setenv(library.SWITCH, 'off')
  library.load.cache_clear()
  library.reason.cache_clear()
  a, b = arrays(((512, 512), (512, 512)))
  own = lambda a, b: product(a, b)  # None that was traced before.
  assert 'dot_general' in str(jax.make_jaxpr(own)(a, b))
  assert 'not onednn: oneDNN is not used: DLX_ONEDNN=off' in explain(a, b)


@pytest.mark.parametrize(
  'a, b, said',
  [
    ((2, 3), (2, 3), 'inner sizes 3 and 2 must be equal'),
    ((2, 3), (1, 3, 2), 'must be of one rank'),
    ((3,), (3,), 'must be of one rank, 2 or more'),
    ((2, 2, 3), (3, 3, 2), 'all axes before the last two'),
  ],
)
def test_shapes_that_do_not_fit_are_one_line(a, b, said):
  with pytest.raises(ValueError, match=said) as error:
    product(jnp.ones(a), jnp.ones(b))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'a, b, out, dtype',
  [
    ((2, 3), (4, 5), (2, 5), 'float32'),
    ((2, 3), (3, 5), (2, 4), 'float32'),
    ((2, 2, 3), (3, 3, 5), (3, 2, 5), 'float32'),
    ((2, 3), (3, 5), (2, 5), 'float16'),
  ],
)
def test_a_wrong_call_of_the_library_is_an_error(a, b, out, dtype):
  with pytest.raises(jax.errors.JaxRuntimeError, match='product of arrays of other'):
    call = jax.ffi.ffi_call('dlx_onednn_product', jax.ShapeDtypeStruct(out, dtype))
    flags = {'transpose_a': False, 'transpose_b': False}
    jax.block_until_ready(call(jnp.ones(a, dtype), jnp.ones(b, dtype), **flags))


def test_operations_are_counted_as_those_of_a_dot():
  a, b = arrays(((4, 6), (6, 5)))
  f = lambda name: lambda a, b: by_onednn('NN', implementation=name)(a, b).sum()
  ours, theirs = (
    flops.count(jax.jit(jax.grad(f(name), (0, 1))).trace(a, b).jaxpr)
    for name in ('onednn', 'xla')
  )
  assert ours.total == theirs.total > 0


def test_rows_are_of_cases():
  rows = dispatch.table(api.OPERATION.tuned, 'cpu')
  case = api.describe(*arrays(((2, 3), (3, 2))), False, False, jnp.float32)
  assert rows
  for row in rows:
    assert not dispatch.matches(row, case)  # Raises where a field is unknown.
    assert row.evidence['ratio'] < 1
    assert row.implementation == 'onednn' and cpu.refusal(case) is None


def test_the_bench_times_both_in_turns():
  timed = bench.measure((1, 8, 8, 8), 'TN', 'bfloat16', rounds=1)
  assert set(timed.seconds) == {'xla', 'onednn'}
  assert timed.ratio > 0 and timed.cores > 0
  assert timed.line.startswith('bfloat16 TN 1 x 8,8,8: xla ')
