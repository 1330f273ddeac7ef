"""Attention in C++ against the textbook in float64; skips where it is not built."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.layers.attention.multihead import MultiHeadAttention, fused_attention
from dlx.layers.block_config import BlockConfig
from kernels.onednn import attention, library

pytestmark = pytest.mark.usefixtures('onednn')
# Examples, queries, keys, heads, width: one of each; odd ones; more keys and fewer; one
# block of 65 queries; three blocks, the last one short, and work for two threads.
SIZES = (
  (1, 1, 1, 1, 1), (2, 5, 5, 3, 7), (2, 3, 9, 1, 4), (1, 9, 4, 2, 5),
  (2, 65, 65, 3, 16), (2, 170, 170, 2, 24), (1, 100, 170, 3, 8),
)  # fmt: skip


def inputs(b, queries, keys, heads, width):
  rng = np.random.default_rng(queries + keys)
  shapes = ((b, queries, heads, width), *[(b, keys, heads, width)] * 2)
  return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


def textbook(causal, q, k, v):
  scores = jnp.einsum('blhk,bmhk->bhlm', q, k) / jnp.sqrt(1.0 * q.shape[-1])
  if causal:
    later = jnp.arange(k.shape[1])[None] > jnp.arange(q.shape[1])[:, None]
    scores = jnp.where(later[None, None], -jnp.inf, scores)
  weights = jnp.exp(scores - scores.max(-1, keepdims=True))
  return jnp.einsum('bhlm,bmhk->blhk', weights / weights.sum(-1, keepdims=True), v)


def derivatives(function, *args):
  total = lambda *args: jnp.sin(function(*args)).sum()
  first = jax.grad(total, argnums=(0, 1, 2))
  square = lambda *args: sum((g**2).sum() for g in first(*args))
  return function(*args), first(*args), jax.grad(square, argnums=(0, 1, 2))(*args)


@pytest.mark.parametrize('causal', (False, True))
@pytest.mark.parametrize('size', SIZES)
def test_values_and_derivatives_are_the_textbook_s_in_float64(size, causal):
  args = inputs(*size)
  fused = functools.partial(fused_attention, causal=causal)
  ours = jax.jit(functools.partial(derivatives, fused))(*args)
  with jax.enable_x64(True):
    wide = [jnp.asarray(v, jnp.float64) for v in args]
    plain = functools.partial(textbook, causal)
    wanted = jax.jit(functools.partial(derivatives, plain))(*wide)
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * max(np.abs(b).max(), 1))


@pytest.mark.parametrize('causal', (False, True))
@pytest.mark.parametrize('size', SIZES)
def test_bfloat16_is_near_the_same_numbers_in_float64(size, causal):
  """o, lse and the three slopes; what of the weights goes into products is rounded."""
  form = attention.Form(causal, size[-1] ** -0.5)
  q, k, v = (jnp.asarray(x, jnp.bfloat16) for x in inputs(*size))
  o, lse = attention.forward(form, q, k, v)
  do = jnp.cos(q)
  slopes = attention.backward(form, q, k, v, o, lse, do)
  with jax.enable_x64(True):
    double = lambda *values: [jnp.asarray(x, jnp.float64) for x in values]
    args = double(q, k, v)
    wanted = jax.jit(attention.plain_forward, static_argnums=0)(form, *args)
    args += double(o, lse, do)
    wanted += jax.jit(attention.plain_backward, static_argnums=0)(form, *args)
  assert lse.dtype == jnp.float32 and o.dtype == jnp.bfloat16
  np.testing.assert_allclose(lse, wanted[1], rtol=1e-5, atol=1e-5)
  for a, b in zip((o, *slopes), (wanted[0], *wanted[2:]), strict=True):
    # 2^-9 each of weights and result, of which the weights' have any sign.
    np.testing.assert_allclose(
      np.asarray(a, np.float64), b, rtol=2**-8, atol=2**-8 * np.abs(b).max()
    )


@pytest.mark.parametrize('causal', (False, True))
def test_plain_forms_and_log_sums(causal):
  """What other platforms compute is what the calls compute, the second result too."""
  form = attention.Form(causal, 0.3)
  q, k, v = inputs(2, 70, 70, 2, 8)
  found, wanted = (
    attention.forward(form, q, k, v),
    attention.plain_forward(form, q, k, v),
  )
  for a, b in zip(found, wanted, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
  args = (q, k, v, *wanted, np.cos(q))
  for a, b in zip(
    attention.backward(form, *args), attention.plain_backward(form, *args)
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_large_scores_do_not_overflow_and_nan_is_not_hidden():
  q, k, v = inputs(1, 20, 20, 2, 8)
  found = fused_attention(100 * q, 100 * k, v)
  np.testing.assert_allclose(found, textbook(False, 100 * q, 100 * k, v), atol=1e-3)
  q[0, 3, 1, 2] = np.nan
  bad = np.isnan(fused_attention(q, k, v))
  assert bad[0, 3, 1].all() and bad.sum() == 8


def test_no_gradient_reaches_later_tokens():
  q, k, v = inputs(1, 130, 130, 2, 8)
  early = lambda k, v: fused_attention(q, k, v, causal=True)[:, :70].sum()
  for slope in jax.grad(early, argnums=(0, 1))(k, v):
    assert not np.any(slope[:, 70:])
    assert np.all(np.any(slope[:, :70], axis=(0, 2, 3)))


def test_under_vmap_and_in_a_loop():
  args = inputs(2, 6, 6, 2, 4)

  def many(function, x):
    body = lambda _, x: function(attention.Form(True, 0.5), x, *args[1:])[0]
    return jax.lax.fori_loop(0, 3, body, x)

  xs = np.stack([args[0], args[0] ** 2])
  found, wanted = (
    jax.vmap(functools.partial(many, f))(xs)
    for f in (attention.forward, attention.plain_forward)
  )
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
  'causal, bias, dtype',
  ((False, True, 'float32'), (True, False, 'float32'), (True, True, 'bfloat16')),
)
def test_packed_layer_is_the_layer_of_three_products(causal, bias, dtype):
  layer = MultiHeadAttention(
    BlockConfig(
      width=16, num_heads=2, causal=causal, use_bias=bias, dtype=jnp.dtype(dtype)
    )
  )
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(3, 70, 16)), jnp.float32)
  variables = layer.init(jax.random.key(0), x, train=True)
  if bias:  # Zeros at first.
    random = lambda v: v + np.float32(0.1) * rng.normal(size=v.shape).astype(np.float32)
    variables = jax.tree.map(random, variables)

  def derivatives(variables, x):
    def total(variables, x):
      y_BLD = layer.apply(variables, x, train=True).x_BLD
      return jnp.sin(y_BLD).sum(), y_BLD

    return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(variables, x)

  lowered = jax.jit(derivatives).lower(variables, x)
  assert lowered.as_text().count('@dlx_onednn_attention_packed') == 2
  found = lowered.compile()(variables, x)
  with library.unused():
    # Another function: what was traced before is kept.
    wanted = jax.jit(lambda *args: derivatives(*args))(variables, x)
  tolerance = 1e-5 if dtype == 'float32' else 2**-6
  for ours, theirs in zip(found, wanted, strict=True):
    ours, theirs = jax.tree.leaves(ours), jax.tree.leaves(theirs)
    # That of the keys' bias is 0 but for rounding: all are measured by the largest.
    atol = tolerance * max(np.abs(b).max() for b in theirs)
    for a, b in zip(ours, theirs, strict=True):
      np.testing.assert_allclose(a, b, rtol=10 * tolerance, atol=atol)


def test_packed_second_derivative_is_that_of_the_parts():
  form, parts = attention.Form(True, 0.5), inputs(2, 6, 6, 2, 4)
  whole = lambda forward, *args: jnp.sin(forward(form, *args)[0]).sum()

  def twice(forward, *args):
    first = jax.grad(functools.partial(whole, forward), argnums=range(len(args)))
    total = lambda *args: sum((g**2).sum() for g in jax.tree.leaves(first(*args)))
    return jax.grad(total, argnums=range(len(args)))(*args)

  (found,) = jax.jit(functools.partial(twice, attention.packed_forward))(
    np.stack(parts, axis=2)
  )
  wanted = jax.jit(functools.partial(twice, attention.forward))(*parts)
  np.testing.assert_allclose(found, np.stack(wanted, axis=2), rtol=1e-4, atol=1e-5)


def test_the_layer_calls_it_and_other_platforms_do_not():
  args = tuple(map(jnp.asarray, inputs(2, 6, 6, 2, 8)))
  loss = lambda *args: fused_attention(*args).sum()
  calls = lambda f, *args: jax.jit(f).lower(*args).as_text().count('@dlx_onednn_att')
  assert calls(loss, *args) == 1
  assert calls(jax.grad(loss), *args) == 2
  assert calls(jax.grad(loss), *(x.astype(jnp.bfloat16) for x in args)) == 2
  assert calls(loss, *(x.astype(jnp.float16) for x in args)) == 0
  traced = jax.jit(jax.grad(loss)).trace(*args)
  assert 'dlx_onednn' not in traced.lower(lowering_platforms=('cuda',)).as_text()
