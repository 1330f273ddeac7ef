"""Convolutions by oneDNN against XLA in float64; skipped where it is not installed."""

import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.layers import convolution, upsampling
from kernels.onednn import conv, library

pytestmark = pytest.mark.usefixtures('onednn')
DIMENSIONS = ('NHWC', 'HWIO', 'NHWC')
# x, w, strides, padding, dilation; channels of x over those of w are the groups.
CASES = (
  ((2, 7, 9, 3), (3, 3, 3, 5), (1, 1), 'SAME', (1, 1)),
  ((2, 8, 8, 3), (4, 4, 3, 5), (2, 2), ((1, 1), (1, 1)), (1, 1)),
  ((2, 9, 7, 2), (3, 2, 2, 4), (2, 3), 'VALID', (1, 1)),
  ((2, 8, 8, 2), (3, 3, 2, 4), (2, 2), ((1, 0), (2, 1)), (1, 1)),
  ((1, 11, 11, 2), (3, 3, 2, 3), (1, 2), 'SAME', (2, 3)),
  ((3, 6, 6, 2), (1, 1, 2, 4), (2, 2), 'SAME', (1, 1)),
  ((3, 5, 5, 2), (5, 5, 2, 4), (1, 1), ((4, 4), (4, 4)), (1, 1)),
  ((4, 14, 14, 32), (3, 3, 32, 64), (1, 1), 'SAME', (1, 1)),
  ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), 'VALID', (1, 1)),
  ((2, 9, 8, 6), (3, 3, 1, 6), (2, 2), 'SAME', (1, 1)),
  ((2, 8, 7, 4), (7, 7, 1, 4), (1, 1), ((3, 3), (3, 3)), (1, 1)),
  ((1, 9, 9, 3), (3, 3, 1, 6), (1, 1), 'VALID', (2, 1)),
  ((2, 7, 7, 6), (3, 3, 2, 9), (1, 2), 'SAME', (1, 1)),
  ((3, 6, 6, 4), (1, 1, 2, 6), (2, 2), 'SAME', (1, 1)),
  # oneDNN's own filter gradients of these write behind their workspace.
  *(((32, 32, 32, c), (1, 1, c, 8), (2, 2), 'VALID', (1, 1)) for c in (1, 4, 12)),
)

# Of bfloat16: examples that threads cannot share alike, too.
HALVES = (*CASES[:-2], ((3, 14, 14, 32), (3, 3, 32, 64), (2, 2), 'SAME', (1, 1)))


def arrays(x_shape, w_shape):
  rng = np.random.default_rng(0)
  return (
    rng.normal(size=x_shape).astype(np.float32),
    rng.normal(size=w_shape).astype(np.float32),
  )


def run(function, geometry):
  strides, pad, dilation = geometry
  return lambda x, w: function(
    x,
    w,
    strides,
    pad,
    rhs_dilation=dilation,
    dimension_numbers=DIMENSIONS,
    feature_group_count=x.shape[-1] // w.shape[2],
  )


def products(function, geometry, x, w, dy):
  """(y, dx, dw), and the derivatives of |dx|^2 and |dw|^2 by everything."""
  apply = run(function, geometry)

  def first(x, w, dy):
    y, back = jax.vjp(apply, x, w)
    return y, *back(dy)

  squares = lambda *args: sum((g**2).sum() for g in first(*args)[1:])
  return *first(x, w, dy), *jax.grad(squares, argnums=(0, 1, 2))(x, w, dy)


def calls(function, *args) -> int:
  """How often the compiled program calls oneDNN."""
  return jax.jit(function).lower(*args).as_text().count('dlx_onednn_conv')


class TestOneDnn:
  @pytest.mark.parametrize('case', HALVES)
  def test_bfloat16_is_rounded_once_from_sums_in_float32(self, case):
    x_shape, w_shape, *geometry = case
    half = lambda v: jnp.asarray(v, jnp.bfloat16)
    x, w = map(half, arrays(x_shape, w_shape))
    shape = jax.eval_shape(run(jax.lax.conv_general_dilated, geometry), x, w).shape
    dy = half(np.random.default_rng(1).normal(size=shape))
    assert calls(run(convolution.conv_general_dilated, geometry), x, w) == 1
    ours = jax.jit(
      lambda *args: products(convolution.conv_general_dilated, geometry, *args)
    )(x, w, dy)
    with jax.enable_x64(True):
      wide = [np.asarray(v, np.float64) for v in (x, w, dy)]
      wanted = jax.jit(
        lambda *args: products(jax.lax.conv_general_dilated, geometry, *args)
      )(*wide)
    for i, (a, b) in enumerate(zip(ours, wanted, strict=True)):
      assert a.dtype == jnp.bfloat16
      # Half an ulp is 2^-9 of a number. What has two roundings before it is off by as
      # much of the largest.
      rtol, atol = (2**-8, 2e-5) if i < 3 else (2**-6, 2**-6)
      b = np.asarray(b)
      np.testing.assert_allclose(
        np.asarray(a, np.float64), b, rtol=rtol, atol=atol * np.abs(b).max()
      )

  def test_a_filter_gradient_of_bfloat16_is_float32(self):
    x, w = arrays((3, 14, 14, 16), (3, 3, 16, 32))
    x, dy = (jnp.asarray(v, jnp.bfloat16) for v in (x, np.tile(x, 2)))
    args = (w.shape[:2], (1, 1), ((1, 1), (1, 1)), (1, 1))
    found = conv.filter_gradient(x, dy, *args)
    wanted = conv.filter_gradient(x.astype(jnp.float32), dy.astype(jnp.float32), *args)
    assert found.dtype == jnp.float32
    # 588 products of numbers that float32 holds: the order of the sums alone.
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)

  @pytest.mark.parametrize('case', CASES)
  def test_values_and_derivatives_are_those_of_xla_in_float64(self, case):
    x_shape, w_shape, *geometry = case
    x, w = arrays(x_shape, w_shape)
    shape = jax.eval_shape(run(jax.lax.conv_general_dilated, geometry), x, w).shape
    dy = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    ours = jax.jit(
      lambda *args: products(convolution.conv_general_dilated, geometry, *args)
    )(x, w, dy)
    with jax.enable_x64(True):
      wide = [np.asarray(v, np.float64) for v in (x, w, dy)]
      wanted = jax.jit(
        lambda *args: products(jax.lax.conv_general_dilated, geometry, *args)
      )(*wide)
    for a, b in zip(ours, wanted, strict=True):
      # Sums of n products: rounding of about sqrt(n) half ulps of the largest of them.
      np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * np.abs(b).max())

  def test_a_strided_window_of_one_pixel_is_called_without_strides(self):
    x, w = arrays((2, 8, 8, 4), (1, 1, 4, 8))
    apply = lambda *args: products(
      convolution.conv_general_dilated, ((2, 2), 'VALID', (1, 1)), *args
    )
    dy = np.ones((2, 4, 4, 8), np.float32)
    text = jax.jit(apply).lower(x, w, dy).as_text()
    found = re.findall(r'geometry = (?:array|dense)<([^>]*)>', text)
    assert found
    for geometry in found:
      assert re.findall(r'\b\d+\b', geometry)[9:11] == ['1', '1'], geometry

  @pytest.mark.parametrize('inputs', [4, 2, 1])
  def test_all_three_products_are_calls(self, inputs):
    x, w = arrays((2, 6, 6, 4), (3, 3, inputs, 8))
    apply = run(convolution.conv_general_dilated, ((1, 1), 'SAME', (1, 1)))
    loss = lambda x, w: jnp.tanh(apply(x, w)).sum()
    assert calls(apply, x, w) == 1
    assert calls(jax.grad(loss, argnums=(0, 1)), x, w) == 3

  def test_in_a_loop_and_under_vmap(self):
    x, w = arrays((2, 6, 6, 2), (3, 3, 2, 2))
    apply = run(convolution.conv_general_dilated, ((1, 1), 'SAME', (1, 1)))
    plain = run(jax.lax.conv_general_dilated, ((1, 1), 'SAME', (1, 1)))

    def many(apply, w):
      step = lambda x, _: (jnp.tanh(apply(x, w)), None)
      return jax.lax.scan(step, x, None, length=3)[0].sum()

    ws = np.stack([w, 2 * w])
    found, wanted = (
      jax.vmap(jax.grad(lambda w, f=f: many(f, w)))(ws) for f in (apply, plain)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)

  def test_others_stay_with_xla(self):
    x, w = arrays((2, 6, 6, 4), (3, 3, 4, 4))
    half = lambda v: v.astype(jnp.float16)
    apply = run(convolution.conv_general_dilated, ((1, 1), 'SAME', (1, 1)))
    assert calls(apply, half(x), half(w)) == 0
    cropped = run(convolution.conv_general_dilated, ((1, 1), ((-1, 0), (0, 0)), (1, 1)))
    assert calls(cropped, x, w) == 0

  def test_other_platforms_do_not_see_it(self):
    x, w = arrays((2, 6, 6, 4), (3, 3, 4, 4))
    apply = run(convolution.conv_general_dilated, ((1, 1), 'SAME', (1, 1)))
    grad = jax.jit(jax.grad(lambda w, x: apply(x, w).sum()))
    text = grad.trace(w, x).lower(lowering_platforms=('cuda',)).as_text()
    assert 'dlx_onednn_conv' not in text

  def test_a_wrong_geometry_is_an_error(self):
    x, w = arrays((1, 4, 4, 1), (3, 3, 1, 1))
    with pytest.raises(jax.errors.JaxRuntimeError):
      wrong = jax.ffi.ffi_call(
        'dlx_onednn_conv', jax.ShapeDtypeStruct((1, 2, 2, 1), jnp.float32)
      )
      jax.block_until_ready(
        wrong(x, w, geometry=np.arange(3, dtype=np.int64), kind=np.int64(0))
      )


class TestLibrary:
  def test_switched_off(self, monkeypatch):
    monkeypatch.setenv(library.SWITCH, 'off')
    library.load.cache_clear()
    library.reason.cache_clear()
    assert library.reason() == 'DLX_ONEDNN=off'
    x, w = arrays((2, 6, 6, 2), (3, 3, 2, 3))
    apply = run(convolution.conv_general_dilated, ((1, 1), 'SAME', (1, 1)))
    assert calls(apply, x, w) == 0

  def test_not_built(self, monkeypatch, tmp_path):
    monkeypatch.setenv('DLX_CACHE_DIR', str(tmp_path))
    library.load.cache_clear()
    library.reason.cache_clear()
    assert library.reason() == 'not built: python -m kernels.onednn'

  def test_a_failing_compiler_is_one_line_and_leaves_nothing(
    self, monkeypatch, tmp_path
  ):
    monkeypatch.setenv('DLX_CACHE_DIR', str(tmp_path))
    source = tmp_path / 'conv.cc'
    source.write_text('this is not C++')
    monkeypatch.setattr(library, 'SOURCES', (source,))
    with pytest.raises(library.NotUsable, match='failed: .*error'):
      library.build()
    assert os.listdir(tmp_path / 'onednn') == []


@pytest.mark.parametrize('shape', ((3, 4, 4, 5), (1, 3, 5, 1)))
def test_a_transposed_convolution_is_one_too(shape, monkeypatch):
  x, kernel = arrays(shape, (4, 4, shape[3], 3))

  def derivatives(x, kernel):
    total = lambda *args: jnp.tanh(upsampling.conv_transpose_2x(*args)).sum()
    square = lambda *args: sum(
      (g**2).sum() for g in jax.grad(total, argnums=(0, 1))(*args)
    )
    grads = [jax.grad(f, argnums=(0, 1))(x, kernel) for f in (total, square)]
    return upsampling.conv_transpose_2x(x, kernel), grads

  assert calls(upsampling.conv_transpose_2x, x, kernel) == 1
  found = jax.jit(derivatives)(x, kernel)
  monkeypatch.setattr(library, 'usable', lambda: False)
  wanted = jax.jit(lambda *args: derivatives(*args))(x, kernel)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * np.abs(b).max())
