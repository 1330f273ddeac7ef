"""Batch normalisation in C++ against the textbook in float64; skips where not built."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.layers import normalisation
from dlx.layers.normalisation import BatchNorm, batch_norm_activation
from kernels.onednn import batch_norm

pytestmark = pytest.mark.usefixtures('onednn')
# Rows, channels: one of each, a last block of rows that is not whole, several blocks on
# two threads.
SIZES = ((1, 4), (2, 3), (67, 5), (130, 17), (700, 33))


def inputs(n, c, added):
  rng = np.random.default_rng(n + c)
  x = 2 * rng.normal(size=(n, c)) + 3  # A mean that must be taken out.
  values = [x, 1 + 0.5 * rng.normal(size=c), rng.normal(size=c)]
  values += [rng.normal(size=(n, c))] if added else []
  return tuple(v.astype(np.float32) for v in values)


def textbook(form, x, scale, bias, added=None):
  mean, var = x.mean(0), x.var(0)
  z = (x - mean[None]) / jnp.sqrt(var + form.epsilon)[None] * scale[None] + bias[None]
  z = z if added is None else z + added
  return jnp.where(z > 0, z, form.leak * z), mean, var


def derivatives(function, *args):
  # The statistics have slopes too.
  def total(*args):
    y, mean, var = function(*args)
    return jnp.sin(y).sum() + jnp.cos(mean).sum() + jnp.sin(2 * var).sum()

  which = tuple(range(len(args)))
  first = jax.grad(total, argnums=which)
  square = lambda *args: sum((g**2).sum() for g in first(*args))
  return function(*args), first(*args), jax.grad(square, argnums=which)(*args)


CASES = [(size, 0.0, False) for size in SIZES]
CASES += [(SIZES[3], 0.2, False), (SIZES[3], 1.0, False)]
CASES += [(SIZES[2], 0.0, True), (SIZES[4], 0.2, True), (SIZES[4], 1.0, True)]


@pytest.mark.parametrize('size, leak, added', CASES)
def test_values_and_derivatives_are_the_textbook_s_in_float64(size, leak, added):
  args = inputs(*size, added)
  form = batch_norm.Form(1e-2, leak)
  given = lambda x, s, b, a=None: batch_norm_activation(x, s, b, *form, a)
  ours = jax.jit(functools.partial(derivatives, given))(*args)
  with jax.enable_x64(True):
    wide = [jnp.asarray(v, jnp.float64) for v in args]
    plain = functools.partial(textbook, form)
    wanted = jax.jit(functools.partial(derivatives, plain))(*wide)
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * max(np.abs(b).max(), 1))


@pytest.mark.parametrize('size, leak, added', CASES)
def test_bfloat16_is_rounded_from_float32(size, leak, added):
  """Both ways, of the same numbers in float64."""
  form, half = batch_norm.Form(1e-2, leak), lambda v: jnp.asarray(v, jnp.bfloat16)
  x, scale, bias, *rest = inputs(*size, added)
  x, dy = half(x), half(np.sin(x))
  args = (x, half(rest[0]) if added else x[:0], scale, bias)
  y, *_ = found = batch_norm.forward(form, *args)
  kept = y[: args[1].shape[0]]
  # The sign of y decides: it is the same one in both.
  more = (*found[1::2], dy, *found[1:3])
  slopes = batch_norm.backward(form, x, kept, scale, bias, *more)
  with jax.enable_x64(True):
    double = lambda *values: [jnp.asarray(v, jnp.float64) for v in values]
    wanted = jax.jit(batch_norm.plain_forward, static_argnums=0)(form, *double(*args))
    back = (form, *double(x, kept, scale, bias, *more))
    wanted += jax.jit(batch_norm.plain_backward, static_argnums=0)(*back)
  for a, b in zip((*found, *slopes), wanted, strict=True):
    # Half an ulp; dx where something is added, of a slope that is rounded before it.
    rtol = 1e-4 if a.dtype == jnp.float32 else 2**-8
    atol = (2**-8 if added and a.dtype != jnp.float32 else 1e-4) * max(
      np.abs(b).max(initial=0), 1
    )
    np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol=rtol, atol=atol)


def test_a_large_mean_costs_no_accuracy():
  """The mean of squares less the squared mean would have no digit left here."""
  x, scale, bias = inputs(300, 8, False)
  form = batch_norm.Form(1e-6, 1.0)
  far = x + np.float32(4096)  # Rounded to 2^-11; deviations are about 2.
  y, mean, var, _ = batch_norm.forward(form, far, far[:0], scale, bias)
  wanted = textbook(form, *(v.astype(np.float64) for v in (x, scale, bias)))
  np.testing.assert_allclose(y, wanted[0], atol=2e-3)
  np.testing.assert_allclose(var, wanted[2], rtol=1e-3)
  np.testing.assert_allclose(mean, wanted[1] + 4096, rtol=1e-6)


def test_nan_and_inf_are_not_hidden():
  x, scale, bias = inputs(130, 4, False)
  x[3, 1], x[5, 2] = np.nan, np.inf
  y = batch_norm_activation(jnp.asarray(x), scale, bias, 1e-5, 0.0)[0]
  assert np.isnan(y[:, 1:3]).any(0).all()
  assert np.isfinite(y[:, [0, 3]]).all()


def test_under_vmap_and_in_a_loop():
  x, scale, bias = inputs(9, 8, False)

  def many(function, x):
    form = batch_norm.Form(1e-5, 0.1)
    body = lambda _, x: function(form, x, x[:0], scale, bias)[0]
    return jax.lax.fori_loop(0, 3, body, x)

  xs = np.stack([x, x * x])
  both = (batch_norm.forward, batch_norm.plain_forward)
  found, wanted = (jax.vmap(functools.partial(many, f))(xs) for f in both)
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('added', [False, True])
def test_the_plain_form_is_that_of_other_platforms(added):
  form = batch_norm.Form(1e-3, 0.2)
  x, scale, bias, *rest = map(jnp.asarray, inputs(67, 5, added))
  rest_NC = rest[0] if added else x[:0]
  args = (x, rest_NC, scale, bias)
  found = batch_norm.forward(form, *args)
  for a, b in zip(found, batch_norm.plain_forward(form, *args), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
  y_NC, mean, _, root = found
  slopes = (jnp.cos(x), mean, root)
  args = (x, y_NC[: rest_NC.shape[0]], scale, bias, mean, root, *slopes)
  both = batch_norm.backward(form, *args), batch_norm.plain_backward(form, *args)
  for a, b in zip(*both, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_the_layer_calls_it_and_other_platforms_do_not():
  x = jnp.asarray(inputs(12, 8, False)[0]).reshape(2, 2, 3, 8)
  calls = lambda f, *args: jax.jit(f).lower(*args).as_text().count('@dlx_batch_norm')
  layer = BatchNorm(False, leak=0.0)
  variables = layer.init(jax.random.key(0), x)

  def loss(x, added):
    return layer.apply(variables, x, added, mutable='batch_stats')[0].sum()

  assert calls(loss, x, x) == 1
  assert calls(jax.grad(loss), x, x) == 2
  half = x.astype(jnp.bfloat16)
  assert calls(jax.grad(loss), half, half) == 2
  assert calls(loss, half, x) == 0
  assert calls(loss, *[x.astype(jnp.float16)] * 2) == 0
  second = jax.grad(lambda x: (jax.grad(loss)(x, x) ** 2).sum())(half)
  assert second.dtype == jnp.bfloat16 and np.isfinite(second).all()
  evaluated = BatchNorm(True, leak=0.0)
  assert calls(lambda x: evaluated.apply(variables, x), x) == 0
  traced = jax.jit(jax.grad(loss)).trace(x, x)
  assert 'dlx_batch' not in traced.lower(lowering_platforms=('cuda',)).as_text()


@pytest.mark.parametrize('leak', [0.0, 0.2, 1.0])
def test_without_the_library_the_layer_gives_the_same(monkeypatch, leak):
  x = jnp.asarray(inputs(12, 8, False)[0]).reshape(2, 2, 3, 8)
  layer = BatchNorm(False, leak=leak)
  variables = layer.init(jax.random.key(0), x)
  run = lambda: layer.apply(variables, x, x - 3, mutable='batch_stats')
  found = run()
  monkeypatch.setattr(normalisation, '_calls', lambda *args: False)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), found, run())
