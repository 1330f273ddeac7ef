"""An LSTM by oneDNN against the plain scan in float64; skipped where not installed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.layers.recurrent import cells, unroll
from dlx.layers.recurrent.stack import RecurrentStack
from kernels.onednn import lstm

pytestmark = pytest.mark.usefixtures('onednn')
# Rows, steps, features: fewer rows than a thread takes, odd sizes, many rows.
SIZES = ((1, 1, 1), (5, 7, 6), (37, 4, 19), (3, 2, 64))


def arguments(b, t, h, scale=1.0):
  """(x, kernel, bias, h, c), and lengths from 0 to t."""
  rng = np.random.default_rng(b * t * h)
  normal = lambda *shape: (scale * rng.normal(size=shape)).astype(np.float32)
  floats = (normal(t, b, 4 * h), normal(h, 4 * h), normal(4 * h), normal(b, h))
  lengths = rng.permutation(np.arange(b) % (t + 1)).astype(np.int32)
  return (*floats, normal(b, h)), lengths


def run(x, kernel, bias, h, c, length, reverse):
  return unroll.unroll(cells.LSTM, x, kernel, bias, (h, c), length, reverse=reverse)


def plain(x, kernel, bias, h, c, length, reverse):
  """Autodiff of a loop over the cell, nothing of the module's own derivative."""
  state, rows = (h, c), []
  steps = range(len(x))
  for t in reversed(steps) if reverse else steps:
    new = cells.LSTM.step(state, x[t], state[0] @ kernel + bias[None])
    inside = (t < length)[:, None]
    state = tuple(jnp.where(inside, a, b) for a, b in zip(new, state, strict=True))
    rows.append(jnp.where(inside, new[0], 0))
  return jnp.stack(rows[::-1] if reverse else rows), state


def products(function, floats, length, reverse, weights):
  """Values, the gradient of a weighted sum of them, and that of its square."""
  args = lambda floats: function(*floats, length, reverse)
  total = lambda floats: sum(
    (a * w).sum() for a, w in zip(jax.tree.leaves(args(floats)), weights, strict=True)
  )
  square = lambda f: sum((g**2).sum() for g in jax.tree.leaves(jax.grad(total)(f)))
  return args(floats), jax.grad(total)(floats), jax.grad(square)(floats)


def calls(function, *args) -> int:
  return jax.jit(function).lower(*args).as_text().count('@dlx_onednn_lstm')


@pytest.mark.parametrize('reverse', (False, True))
@pytest.mark.parametrize('size', SIZES)
def test_values_and_derivatives_are_those_of_a_loop_in_float64(size, reverse):
  b, t, h = size
  floats, length = arguments(*size)
  rng = np.random.default_rng(1)
  weights = [rng.normal(size=s) for s in ((t, b, h), (b, h), (b, h))]
  ours = jax.jit(functools.partial(products, run, reverse=reverse))(
    floats, length, weights=[w.astype(np.float32) for w in weights]
  )
  with jax.enable_x64(True):
    wide = tuple(jnp.asarray(x, jnp.float64) for x in floats)
    wanted = jax.jit(functools.partial(products, plain, reverse=reverse))(
      wide, length, weights=[jnp.asarray(w) for w in weights]
    )
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(wanted), strict=True):
    # Rounding of sums of about 4 h terms, passed on through t steps.
    np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5 * np.abs(b).max())


def test_small_and_large_values():
  """Gates at both ends and tanh near 0, relative to float64."""
  x = np.array(
    [1e-30, 1e-6, 1e-3, 0.1, 0.34, 0.36, 1, 5, 20, 90, 1e4, 3e38], np.float32
  )
  x = np.concatenate([-x, x])[None]
  zeros = np.zeros((1, 1), np.float32)
  # Of one feature: the candidate alone, gates open.
  rows = np.stack([np.full_like(x, 50), np.full_like(x, -50), x, np.full_like(x, 50)])
  found = jax.vmap(
    lambda row: run(
      row[None, None], np.zeros((1, 4), np.float32), np.zeros(4, np.float32), zeros,
      zeros, np.array([1]), False,
    )[1][1][0, 0]
  )(rows[:, 0].T)  # fmt: skip
  np.testing.assert_allclose(found, np.tanh(x[0].astype(np.float64)), rtol=5e-7)
  gates = np.stack([x, x, np.full_like(x, 50), x])
  found = jax.vmap(
    lambda row: run(
      row[None, None], np.zeros((1, 4), np.float32), np.zeros(4, np.float32), zeros,
      zeros, np.array([1]), False,
    )[1][1][0, 0]
  )(gates[:, 0].T)  # fmt: skip
  wanted = 1 / (1 + np.exp(np.minimum(-x[0].astype(np.float64), 700)))
  np.testing.assert_allclose(found, wanted, rtol=5e-7, atol=1e-37)


def test_what_is_not_finite_is_seen():
  floats, _ = arguments(2, 3, 4)
  x = floats[0].copy()
  x[1, 0, 2] = np.nan
  h, _ = run(x, *floats[1:], np.array([3, 3]), False)
  assert np.isnan(h[1:, 0]).any() and np.isfinite(h[:, 1]).all()
  # Past the end of a row it does not matter.
  h, state = run(x, *floats[1:], np.array([1, 3]), False)
  assert all(np.isfinite(v).all() for v in (h, *state))


def test_a_row_does_not_depend_on_the_others():
  floats, length = arguments(37, 4, 8)
  x, kernel, bias, h, c = floats
  alone = [
    run(
      x[:, i : i + 1],
      kernel,
      bias,
      h[i : i + 1],
      c[i : i + 1],
      length[i : i + 1],
      False,
    )
    for i in (0, 20, 36)
  ]
  both = run(*floats, length, False)[0][:, [0, 20, 36]]
  np.testing.assert_allclose(
    both, np.concatenate([a[0] for a in alone], 1), rtol=1e-6, atol=1e-7
  )


@pytest.mark.parametrize('reverse', (False, True))
@pytest.mark.parametrize('size', SIZES)
def test_products_of_bfloat16_are_near_the_loop_in_float64(size, reverse):
  b, t, h = size
  floats, length = arguments(*size, scale=0.5)
  x, kernel = (jnp.asarray(v, jnp.bfloat16) for v in floats[:2])
  floats = (x, kernel, *floats[2:])
  rng = np.random.default_rng(1)
  weights = [rng.normal(size=s) for s in ((t, b, h), (b, h), (b, h))]
  ours = jax.jit(functools.partial(products, run, reverse=reverse))(
    floats, length, weights=[w.astype(np.float32) for w in weights]
  )
  with jax.enable_x64(True):
    wide = tuple(jnp.asarray(v, jnp.float64) for v in floats)
    wanted = jax.jit(functools.partial(products, plain, reverse=reverse))(
      wide, length, weights=[jnp.asarray(w) for w in weights]
    )
  assert [g.dtype for g in ours[1]] == [v.dtype for v in floats]
  for i in range(2):  # Values, slopes.
    for a, b in zip(jax.tree.leaves(ours[i]), jax.tree.leaves(wanted[i]), strict=True):
      # Half an ulp, 2^-9, of h, of its slope and of results, passed on through t steps.
      a, atol = np.asarray(a, np.float64), 2**-6 * np.abs(b).max(initial=0)
      np.testing.assert_allclose(a, b, rtol=2**-6, atol=atol)


def test_it_is_called_where_it_fits_and_only_there():
  floats, length = arguments(2, 3, 4)
  loss = lambda x, *args: run(x, *args, length, False)[0].sum()
  assert calls(loss, *floats) == 1
  assert calls(jax.grad(loss), *floats) == 2
  assert calls(lambda *args: run(*args, None, False)[0], *floats) == 1
  half = [jnp.asarray(x, jnp.bfloat16) for x in floats]
  assert calls(jax.grad(loss), *half[:2], *floats[2:]) == 2
  assert calls(loss, floats[0], *half[1:3], *floats[3:]) == 1
  assert calls(loss, *floats[:3], *half[3:]) == 0
  assert calls(loss, *[x.astype(jnp.float16) for x in half[:2]], *floats[2:]) == 0
  other = lambda x, k, b, h, c: unroll.unroll(cells.GRU, x, k, b, (h,))[0]
  x, kernel, bias, *state = floats
  assert calls(other, x[..., :12], kernel[:, :12], bias[:12], *state) == 0
  empty = lambda *args: run(*args, None, False)[0]
  assert calls(empty, x[:0], kernel, bias, *state) == 0


def test_the_layer_calls_it_in_each_direction():
  layer = RecurrentStack(cells.LSTM, (4, 3), bidirectional=True)
  x = jnp.ones((2, 3, 5))
  params = layer.init(jax.random.key(0), x, train=False)
  loss = lambda params, x: layer.apply(params, x, train=False)[0].sum()
  assert calls(loss, params, x) == 4
  assert calls(jax.grad(loss), params, x) == 8


def test_other_platforms_do_not_see_it():
  floats, length = arguments(2, 3, 4)
  grad = jax.jit(jax.grad(lambda x, *args: run(x, *args, length, False)[0].sum()))
  text = grad.trace(*floats).lower(lowering_platforms=('cuda',)).as_text()
  assert 'dlx_onednn' not in text


def test_the_plain_forms_are_those_of_the_calls():
  """They are what other platforms compute where a program is made for several."""
  floats, length = arguments(5, 7, 6)
  found = lstm.forward(True, *floats, length)
  wanted = jax.jit(functools.partial(lstm.plain_forward, True))(*floats, length)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-6), found, wanted)
  slopes = (floats[0][..., :6], floats[3], floats[4])
  args = (*slopes, found.gates_TBG, found.old_c_TBH, floats[1], length)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, atol=2e-5),
    lstm.backward(True, *args),
    jax.jit(functools.partial(lstm.plain_backward, True))(*args),
  )
