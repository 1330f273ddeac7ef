"""What attention is: by hand, by its properties, and by finite differences.

The properties are those of the reference and of 'xla' in blocks of 8.
"""

import functools

import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest

from kernels.attention import api, flash_attention, masks, reference, xla

BOTH = pytest.mark.parametrize('implementation', ('reference', 'xla'))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
  monkeypatch.setattr(xla, 'ALL_BYTES', 0)
  monkeypatch.setattr(xla, 'LEAST', 8)
  monkeypatch.setattr(xla, 'MOST_QUERIES', 8)
  monkeypatch.setattr(xla, 'MOST_SCORES', 64)


def inputs(b=1, queries=20, keys=20, h=2, g=1, k=4, seed=0):
  rng = np.random.default_rng(seed)
  shapes = ((b, queries, h, k), (b, keys, g, k), (b, keys, g, k))
  return tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)


def attention(implementation, **options):
  """As one program: outside of jit each operation is compiled alone."""
  attend = functools.partial(flash_attention, implementation=implementation, **options)
  return jax.jit(attend, static_argnames=('causal', 'soft_cap'))


@BOTH
def test_by_hand(implementation):
  """Scores 0 and log 3: weights 1/4 and 3/4, of values 8 and 4."""
  q = jnp.ones((1, 1, 1, 1))
  k = jnp.array([0.0, np.log(3)]).reshape(1, 2, 1, 1)
  v = jnp.array([8.0, 4.0]).reshape(1, 2, 1, 1)
  attend = attention(implementation, return_lse=True, softmax_scale=1.0)
  o, lse = attend(q, k, v)
  np.testing.assert_allclose(o.item(), 5, rtol=1e-6)
  np.testing.assert_allclose(lse.item(), np.log(4), rtol=1e-6)
  # The first key alone; a bias that makes both scores log 3; a cap that halves.
  np.testing.assert_allclose(attend(q, k, v, causal=True)[0].item(), 8)
  bias = jnp.array([np.log(3), 0.0]).reshape(1, 1, 1, 2)
  np.testing.assert_allclose(attend(q, k, v, bias=bias)[0].item(), 6, rtol=1e-6)
  np.testing.assert_allclose(
    attend(q, k, v, soft_cap=0.5)[1].item(),
    np.log(1 + np.exp(0.5 * np.tanh(np.log(3) / 0.5))),
    rtol=1e-6,
  )
  # The slope of the log sum is the weight of each key, times its query.
  slope = jax.grad(lambda k: attend(q, k, v)[1].sum())(k)
  np.testing.assert_allclose(slope.ravel(), (0.25, 0.75), rtol=1e-6)


@BOTH
def test_no_gradient_reaches_what_is_not_seen(implementation):
  q, k, v = inputs()

  def seen(row, **options):
    """bool [M], whether o of a query depends on each key and on each value."""
    attend = attention(implementation, **options)
    of_row = lambda k, v: jnp.abs(attend(q, k, v)[0, row]).sum()
    dk, dv = jax.jit(jax.grad(of_row, argnums=(0, 1)))(k, v)
    by_keys, by_values = ((d != 0).any((0, 2, 3)) for d in (dk, dv))
    np.testing.assert_array_equal(by_keys, by_values)
    return np.flatnonzero(by_keys).tolist()

  assert seen(9, causal=True) == list(range(10))
  assert seen(9, window=(3, 5)) == list(range(6, 15))
  assert seen(9, window=2, causal=True) == [7, 8, 9]
  segments = jnp.repeat(jnp.array([[4, 1, 4, 2]], jnp.int32), 5, axis=1)
  assert seen(3, segment_ids=segments) == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]


@BOTH
def test_the_order_of_keys_does_not_matter(implementation):
  q, k, v = inputs(keys=27)
  order = np.random.default_rng(1).permutation(27)
  attend = attention(implementation)
  np.testing.assert_allclose(
    attend(q, k, v), attend(q, k[:, order], v[:, order]), rtol=1e-5, atol=1e-6
  )


@BOTH
def test_a_segment_is_a_sequence_of_its_own(implementation):
  q, k, v = inputs()
  ids = jnp.array([[1] * 11 + [2] * 9], jnp.int32)
  attend = attention(implementation, causal=True)
  packed = attend(q, k, v, segment_ids=ids)
  for part in (slice(0, 11), slice(11, 20)):
    alone = attention(implementation, causal=True)(q[:, part], k[:, part], v[:, part])
    np.testing.assert_allclose(packed[:, part], alone, rtol=1e-5, atol=1e-6)


@BOTH
def test_a_query_without_keys_gives_nothing_and_has_no_gradient(implementation):
  q, k, v = inputs(queries=20, keys=9, g=2)
  bias = jnp.zeros((1, 1, 20, 1)).at[0, 0, 3].set(-jnp.inf)
  # Of 20 queries of 9 keys those above 10 look back at nothing, the 3rd by its bias.
  nothing = np.isin(np.arange(20), [3, *range(11, 20)])

  def loss(q, k, v, bias):
    attend = attention(implementation, window=(2, 0), return_lse=True, soft_cap=5.0)
    o, lse = attend(q, k, v, bias=bias)
    return jnp.sin(o + 1).sum() + jnp.where(jnp.isfinite(lse), lse, 0).sum(), (o, lse)

  grad = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True))
  slopes, (o, lse) = grad(q, k, v, bias)
  assert not np.any(o[:, nothing]) and np.all(np.isneginf(lse[:, :, nothing]))
  assert np.all(np.isfinite(lse[:, :, ~nothing]))
  assert all(np.all(np.isfinite(x)) for x in slopes)
  assert not np.any(slopes[0][:, nothing]) and np.any(slopes[0][:, ~nothing])
  assert not np.any(slopes[3][:, :, nothing])


def test_dropout_drops_its_share_and_scales_the_rest():
  """Values of 1 show the sum of the weights; the mean over keys is binomial."""
  q, k, _ = inputs(b=2, queries=64, keys=128, h=4, g=4)
  rate, n = 0.3, 2 * 64 * 4 * 128
  key = jax.random.key(3)
  case, operands = api.prepare(
    q, jnp.zeros_like(k), jnp.ones_like(k), dropout_rate=rate, dropout_key=key
  )
  kept_of = jax.jit(reference.kept, static_argnums=0)
  kept = np.asarray(kept_of(case, operands))
  deviation = np.sqrt(rate * (1 - rate) / n)
  assert abs(kept.mean() - (1 - rate)) < 4 * deviation
  # Neighbours in each direction do not know of each other.
  for axis in range(4):
    left, right = (kept.take(range(s, kept.shape[axis] - 1 + s), axis) for s in (0, 1))
    assert abs(np.corrcoef(left.ravel(), right.ravel())[0, 1]) < 4 / np.sqrt(left.size)
  # Equal scores: each row's sum is its share of kept keys over 1 - rate.
  o, _ = jax.jit(reference.forward, static_argnums=0)(case, operands)
  wanted = kept.mean(-1).transpose(0, 2, 1)[..., None] / (1 - rate)
  np.testing.assert_allclose(o[..., :1], wanted, rtol=1e-5)
  other = api.prepare(q, k, k, dropout_rate=rate, dropout_key=jax.random.key(4))[1]
  agree = (kept == kept_of(case, other)).mean()
  same = rate**2 + (1 - rate) ** 2
  assert abs(agree - same) < 4 * np.sqrt(same * (1 - same) / n)


def test_dropout_is_the_same_in_blocks():
  q, k, v = inputs(b=2, queries=20, keys=27, h=4, g=2)
  outputs = [
    attention(name, dropout_rate=0.5, dropout_key=jax.random.key(0))(q, k, v)
    for name in ('reference', 'xla')
  ]
  np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)


def test_a_seed_of_a_head_makes_head_0_keep_the_same():
  seed = (jnp.uint32(123456789), jnp.uint32(987654321))
  query, key = jnp.arange(8)[:, None], jnp.arange(8)[None]
  keep = jax.jit(functools.partial(masks.keep, 0.5))
  for head in (1, 5, 4095):
    kept = keep(seed, jnp.int32(head), query, key)
    same = keep(masks.seed_of_head(seed, head), jnp.int32(0), query, key)
    np.testing.assert_array_equal(kept, same)
    assert np.any(kept != keep(seed, jnp.int32(0), query, key))


@BOTH
def test_first_and_second_derivatives_by_finite_differences(implementation):
  with jax.enable_x64(True):
    q, k, v = (x.astype(jnp.float64) for x in inputs(queries=5, keys=9, k=2))
    bias = jnp.asarray(np.random.default_rng(5).normal(size=(1, 2, 1, 9)))
    attend = attention(
      implementation, causal=True, window=(3, 0), soft_cap=2.0, return_lse=True,
      dropout_rate=0.2, dropout_key=jax.random.key(1),
    )  # fmt: skip
    both = lambda q, k, v, bias: attend(q, k, v, bias=bias)
    # Blocks of 8 keys, so that the last one overlaps.
    check_grads(both, (q, k, v, bias), order=2, modes=('rev',), atol=1e-6, rtol=1e-6)


@BOTH
def test_second_derivatives_reach_the_log_sums_that_nobody_asked_for(implementation):
  """f of one query and two keys is known: v (s(x)), s the logistic function."""
  with jax.enable_x64(True):
    k, v = jnp.array([[0.0], [1.0]])[None, None], jnp.array([[0.0], [1.0]])[None, None]
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)
    attend = attention(implementation, softmax_scale=1.0)
    f = lambda x: attend(x.reshape(1, 1, 1, 1), k, v).sum()
    x = jnp.float64(0.7)
    s = 1 / (1 + np.exp(-0.7))
    np.testing.assert_allclose(f(x), s, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(f)(x), s * (1 - s), rtol=1e-12)
    second = jax.jit(jax.grad(jax.grad(f)))(x)
    np.testing.assert_allclose(second, s * (1 - s) * (1 - 2 * s), rtol=1e-12)


@BOTH
def test_under_vmap_checkpoint_and_without_jit(implementation):
  q, k, v = inputs(b=2)
  attend = attention(implementation, causal=True)
  grad = lambda f: jax.grad(
    lambda q, k, v: jnp.sin(f(q, k, v)).sum(), argnums=(0, 1, 2)
  )

  @jax.jit
  def all_ways(q, k, v):
    # The rows of vmap are examples; then keys that all rows share.
    rows = jax.vmap(grad(attend))(*(x[:, None] for x in (q, k, v)))
    shared = jax.vmap(attend, in_axes=(0, None, None))(q[:, None], k[:1], v[:1])
    wanted, again = (grad(f)(q, k, v) for f in (attend, jax.checkpoint(attend)))
    return (
      wanted,
      again,
      [x[:, 0] for x in rows],
      shared[1],
      attend(q[1:], k[:1], v[:1]),
    )

  wanted, again, rows, *shared = all_ways(q, k, v)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
  jax.tree.map(close, tuple(wanted), tuple(again))
  jax.tree.map(close, tuple(wanted), tuple(rows))
  close(*shared)
  alone = flash_attention(q, k, v, implementation=implementation, causal=True)
  close(alone, attend(q, k, v))
