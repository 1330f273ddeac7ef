"""Group normalisation in C++ against the textbook in float64; skips where not built."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.layers.normalisation import group_norm
from kernels.onednn import norm

pytestmark = pytest.mark.usefixtures('onednn')
# Examples, positions, channels, groups: one of each, odd ones, two threads' worth.
SIZES = ((1, 1, 4, 1), (3, 7, 6, 3), (2, 9, 5, 5), (5, 1, 33, 1), (6, 50, 64, 8))


def inputs(b, p, c, own):
  rng = np.random.default_rng(b + p + c)
  x = 2 * rng.normal(size=(b, p, c)) + 3  # A mean that must be taken out.
  slope = 1 + 0.5 * rng.normal(size=(b if own else 1, c))
  bias = rng.normal(size=slope.shape)
  return tuple(v.astype(np.float32) for v in (x, slope, bias))


def textbook(form, x, slope, bias):
  b, p, c = x.shape
  parts = x.reshape(b, p, form.groups, -1)
  mean = parts.mean((1, 3), keepdims=True)
  var = ((parts - mean) ** 2).mean((1, 3), keepdims=True)
  z = ((parts - mean) / jnp.sqrt(var + form.epsilon)).reshape(b, p, c)
  z = z * slope[:, None] + bias[:, None]
  return z / (1 + jnp.exp(-z)) if form.silu else z


def derivatives(function, x, slope, bias):
  total = lambda *args: jnp.sin(function(*args)).sum()
  first = jax.grad(total, argnums=(0, 1, 2))
  square = lambda *args: sum((g**2).sum() for g in first(*args))
  args = (x, slope, bias)
  return function(*args), first(*args), jax.grad(square, argnums=(0, 1, 2))(*args)


# Every size, and every form of two of them.
CASES = [(size, False, True) for size in SIZES]
CASES += [(SIZES[1], True, True), (SIZES[4], True, True), (SIZES[4], True, False)]
CASES += [(SIZES[1], False, False)]


@pytest.mark.parametrize('size, own, silu', CASES)
def test_values_and_derivatives_are_the_textbook_s_in_float64(size, own, silu):
  *shape, groups = size
  args = inputs(*shape, own)
  form = norm.Form(groups, 1e-3, silu)
  ours = jax.jit(
    functools.partial(
      derivatives, lambda x, s, b: group_norm(x, s, b, groups, 1e-3, silu)
    )
  )(*args)
  with jax.enable_x64(True):
    wide = [jnp.asarray(v, jnp.float64) for v in args]
    plain = functools.partial(textbook, form)
    wanted = jax.jit(functools.partial(derivatives, plain))(*wide)
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * max(np.abs(b).max(), 1))


@pytest.mark.parametrize('size, own, silu', CASES)
def test_bfloat16_is_rounded_from_float32(size, own, silu):
  """Both ways, of the same numbers in float64."""
  *shape, groups = size
  form = norm.Form(groups, 1e-3, silu)
  x, slope, bias = inputs(*shape, own)
  x, dy = (jnp.asarray(v, jnp.bfloat16) for v in (x, np.sin(x)))
  found = norm.forward(form, x, slope, bias)
  slopes = norm.backward(form, x, slope, bias, *found[1:], dy)
  with jax.enable_x64(True):
    double = lambda *values: [jnp.asarray(v, jnp.float64) for v in values]
    args = double(x, slope, bias)
    wanted = jax.jit(norm.plain_forward, static_argnums=0)(form, *args)
    args += double(*found[1:], dy)
    wanted += jax.jit(norm.plain_backward, static_argnums=0)(form, *args)
  for i, (a, b) in enumerate(zip((*found, *slopes), wanted, strict=True)):
    # Half an ulp; dx is made of a slope that is rounded before it.
    rtol = 1e-4 if a.dtype == jnp.float32 else 2**-8
    atol = (2**-7 if i == 3 else 1e-4) * max(np.abs(b).max(), 1)
    np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol=rtol, atol=atol)


def test_a_large_mean_costs_no_accuracy():
  """The sum of squares less the squared mean would have no digit left here."""
  x, slope, bias = inputs(2, 40, 8, False)
  form = norm.Form(2, 1e-6, False)
  found = norm.forward(form, x + np.float32(4096), slope, bias)[0]
  # x + 4096 is rounded to 2^-11; deviations are about 2.
  np.testing.assert_allclose(found, textbook(form, x, slope, bias), atol=2e-3)


def test_under_vmap_and_in_a_loop():
  x, slope, bias = inputs(3, 5, 8, True)

  def many(function, x):
    body = lambda _, x: function(norm.Form(2, 1e-5, True), x, slope, bias)[0]
    return jax.lax.fori_loop(0, 3, body, x)

  xs = np.stack([x, x * x])
  found, wanted = (
    jax.vmap(functools.partial(many, f))(xs) for f in (norm.forward, norm.plain_forward)
  )
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_layer_calls_it_and_other_platforms_do_not():
  x, slope, bias = map(jnp.asarray, inputs(2, 6, 8, True))
  loss = lambda x, *args: group_norm(x, *args, 2, silu=True).sum()
  calls = lambda f, *args: jax.jit(f).lower(*args).as_text().count('@dlx_norm')
  assert calls(loss, x, slope, bias) == 1
  assert calls(jax.grad(loss), x, slope, bias) == 2
  half = x.astype(jnp.bfloat16)
  assert calls(jax.grad(loss), half, slope, bias) == 2
  assert calls(loss, half, slope.astype(jnp.bfloat16), bias) == 0
  assert calls(loss, x.astype(jnp.float16), slope, bias) == 0
  traced = jax.jit(jax.grad(loss)).trace(x, slope, bias)
  assert 'dlx_norm' not in traced.lower(lowering_platforms=('cuda',)).as_text()
