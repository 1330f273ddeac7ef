"""Linear recurrences: loops over steps, pieces, padding, gradients, first values."""

from typing import Any

from absl.testing import absltest, parameterized
import chex
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from dlx.layers.recurrent import linear, selective

B, T, D, N = 3, 9, 4, 5
LENGTHS = np.array([4, 9, 1])
RNG = np.random.default_rng(0)
X_BTD = RNG.normal(size=(B, T, D))
# Sums of at most 2 D N terms of order 1 in float64, whose errors T steps carry on with
# factors below 1.
TOLERANCE = 2 * D * N * T * 2.2e-16


def factors(dtype, extra=()):
  """(a, b, h_0), |a| below 1."""
  shape = (B, T, D, *extra)
  a, b = RNG.uniform(0.2, 0.99, shape), RNG.normal(size=shape)
  h = RNG.normal(size=(B, D, *extra))
  if dtype == np.complex128:
    a = a * np.exp(1j * RNG.uniform(0, 6, shape))
    b, h = b + 1j * RNG.normal(size=shape), h + 1j * RNG.normal(size=h.shape)
  return jnp.asarray(a), jnp.asarray(b), jnp.asarray(h)


def by_steps(a, b, h, reverse):
  """The recurrence as a loop."""

  def step(h, inputs):
    h = inputs[0] * h + inputs[1]
    return h, h

  first = lambda x: jnp.moveaxis(x, 1, 0)
  return jnp.moveaxis(lax.scan(step, h, (first(a), first(b)), reverse=reverse)[1], 0, 1)


class ScanTest(parameterized.TestCase):
  @parameterized.product(
    dtype=(np.float64, np.complex128), reverse=(False, True), extra=((), (2,))
  )
  def test_equals_the_loop_and_its_gradients(self, dtype, reverse, extra):
    with jax.enable_x64(True):
      a, b, h = factors(dtype, extra)
      weight = jnp.asarray(RNG.normal(size=b.shape))

      def score(scan):
        def call(a, b, h):
          y = scan(a, b, h)
          return (weight * jnp.sin(y.real) + y.imag**2).sum()

        return jax.jit(jax.value_and_grad(call, (0, 1, 2)))

      fast = score(lambda *x: linear.linear_scan(*x, reverse=reverse))(a, b, h)
      slow = score(lambda *x: by_steps(*x, reverse))(a, b, h)
    chex.assert_trees_all_close(fast, slow, rtol=1e-11, atol=1e-11)

  def test_by_hand(self):
    a, b = jnp.array([[[0.5], [0.5], [2.0]]]), jnp.array([[[1.0], [3.0], [-1.0]]])
    h = linear.linear_scan(a, b)
    np.testing.assert_allclose(h[0, :, 0], [1, 3.5, 6])
    h = linear.linear_scan(a, b, jnp.array([[4.0]]), reverse=True)
    np.testing.assert_allclose(h[0, :, 0], [1 + 0.5 * 6.5, 3 + 0.5 * 7, 7])

  def test_products_that_underflow_do_no_harm(self):
    a, b = jnp.full((1, 400, 1), 1e-3), jnp.ones((1, 400, 1))
    call = lambda a: linear.linear_scan(a, b)[0, -1, 0]
    value, slope = jax.value_and_grad(call)(a)
    # 1 / (1 - a); of the last factor h_398, of the one before it a h_397.
    np.testing.assert_allclose(value, 1 / (1 - 1e-3), rtol=1e-6)
    np.testing.assert_allclose(slope[0, -2:, 0], [1e-3 * 1.001, 1.001], rtol=1e-4)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def min_gru(p, x_TD):
  h, rows = 0.0, []
  for x in x_TD:
    z = sigmoid(x @ p['update']['kernel'] + p['update']['bias'])
    h = (1 - z) * h + z * (x @ p['candidate']['kernel'] + p['candidate']['bias'])
    rows.append(h)
  return np.array(rows), h


def lru(p, x_TD):
  factor = np.exp(-np.exp(p['nu']) + 1j * np.exp(p['theta']))
  enter = p['input_real'] + 1j * p['input_imaginary']
  leave = p['output_real'] + 1j * p['output_imaginary']
  h, rows = 0.0, []
  for x in x_TD:
    h = factor * h + np.exp(p['log_gamma']) * (x @ enter)
    rows.append((h @ leave).real + p['skip'] * x)
  return np.array(rows), h


def mamba(p, x_TD):
  """Equations 2a and 2b of the paper, one channel and one number of state at a time."""
  inner, gate = np.split(x_TD @ p['input']['kernel'], 2, axis=1)
  channels, window = inner.shape[1], len(p['conv_kernel'])
  rank, states = p['delta']['kernel'].shape[0], p['log_decay'].shape[1]
  silu = lambda x: x * sigmoid(x)
  h, rows = np.zeros((channels, states)), []
  for t in range(len(x_TD)):
    seen = [inner[t - k] if t >= k else np.zeros(channels) for k in range(window)]
    x = silu(sum(w * s for w, s in zip(p['conv_kernel'][::-1], seen)) + p['conv_bias'])
    read = x @ p['parameters']['kernel']
    delta = np.log1p(np.exp(read[:rank] @ p['delta']['kernel'] + p['delta']['bias']))
    b, c = read[rank : rank + states], read[rank + states :]
    y = np.zeros(channels)
    for d in range(channels):
      for n in range(states):
        decay = np.exp(-delta[d] * np.exp(p['log_decay'][d, n]))
        h[d, n] = decay * h[d, n] + delta[d] * b[n] * x[d]
        y[d] += c[n] * h[d, n]
    y += p['skip'] * x
    rows.append((y * silu(gate[t])) @ p['output']['kernel'])
  return np.array(rows), h


WIDE: Any = {'dtype': jnp.float64, 'param_dtype': jnp.float64}
LAYERS = {
  'min_gru': (linear.MinGRU, dict(features=D), min_gru),
  'lru': (linear.LRU, dict(features=D, states=N), lru),
  'mamba': (selective.MambaBlock, dict(features=D, states=N, rank=2), mamba),
}


def made(name, wide=True):
  """(layer, variables of random numbers)."""
  kind, fields, _ = LAYERS[name]
  layer = kind(**fields, **(WIDE if wide else {}))
  shapes = jax.eval_shape(layer.init, jax.random.key(0), jnp.asarray(X_BTD))
  rng = np.random.default_rng(1)
  return layer, jax.tree.map(lambda x: 0.5 * rng.normal(size=x.shape), shapes)


def h_of(state):
  return state.h_BDN if isinstance(state, selective.BlockState) else state


class LayersTest(parameterized.TestCase):
  @parameterized.parameters(*LAYERS)
  def test_equals_a_loop_over_each_row_alone(self, name):
    with jax.enable_x64(True):
      layer, variables = made(name)
      y, state = layer.apply(variables, X_BTD, LENGTHS)
    for i, n in enumerate(LENGTHS):
      rows, h = LAYERS[name][2](variables['params'], X_BTD[i, :n])
      scale = np.abs(rows).max()
      np.testing.assert_allclose(y[i, :n], rows, atol=TOLERANCE * scale)
      np.testing.assert_array_equal(y[i, n:], 0)
      np.testing.assert_allclose(h_of(state)[i], h, atol=TOLERANCE * np.abs(h).max())

  @parameterized.parameters(*LAYERS)
  def test_pieces_equal_the_whole(self, name):
    with jax.enable_x64(True):
      layer, variables = made(name)
      call = jax.jit(layer.apply)
      whole, last = call(variables, X_BTD)
      state, parts = None, []
      for start, end in ((0, 2), (2, 3), (3, T)):  # Shorter than the window, too.
        y, state = call(variables, X_BTD[:, start:end], None, state)
        parts.append(y)
      ended = layer.apply(variables, X_BTD, LENGTHS)[1]
      alone = [layer.apply(variables, X_BTD[i : i + 1, :n])[1]
               for i, n in enumerate(LENGTHS)]  # fmt: skip
    scale = float(np.abs(whole).max())
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=TOLERANCE * scale)
    joined = jax.tree.map(lambda *x: np.concatenate(x), *alone)
    chex.assert_trees_all_close(state, last, atol=10 * TOLERANCE)
    chex.assert_trees_all_close(ended, joined, atol=10 * TOLERANCE)

  @parameterized.parameters(*LAYERS)
  def test_an_output_depends_on_its_past_within_the_row(self, name):
    layer, variables = made(name, wide=False)
    x = jnp.asarray(X_BTD, jnp.float32)
    variables = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), variables)
    row = lambda i, t: jax.grad(
      lambda x: layer.apply(variables, x, LENGTHS)[0][i, t].sum()
    )(x)
    moved = np.abs(row(1, 5)).sum(-1) > 0
    np.testing.assert_array_equal(moved[1], np.arange(T) <= 5)
    self.assertFalse(moved[[0, 2]].any())

    def score(x):
      y, state = layer.apply(variables, x, LENGTHS)
      return y.sum() + h_of(state).real.sum()

    total = jax.grad(score)(x)
    within = np.arange(T) < LENGTHS[:, None]
    np.testing.assert_array_equal(np.abs(total).sum(-1) > 0, within)

  @parameterized.parameters(*LAYERS)
  def test_bfloat16_keeps_the_recurrence_in_float32(self, name):
    kind, fields, _ = LAYERS[name]
    layer = kind(**fields, dtype=jnp.bfloat16)
    x = jnp.asarray(X_BTD, jnp.bfloat16)
    out, state = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)[0]
    self.assertEqual(out.dtype, jnp.bfloat16)
    wide = jnp.complex64 if name == 'lru' else jnp.float32
    self.assertEqual(h_of(state).dtype, wide)


class FirstValuesTest(parameterized.TestCase):
  def test_lru_lies_in_its_ring_and_keeps_the_size(self):
    layer = linear.LRU(features=D, states=400, least=0.5, most=0.9, most_phase=0.3)
    x = jax.random.normal(jax.random.key(1), (1, 3000, D))
    (_, h), variables = jax.jit(layer.init_with_output)(jax.random.key(0), x)
    p = variables['params']
    magnitude, phase = np.exp(-np.exp(p['nu'])), np.exp(p['theta'])
    self.assertTrue(((magnitude >= 0.5) & (magnitude <= 0.9)).all())
    self.assertTrue(((phase > 0) & (phase <= 0.3)).all())
    # Uniform in area: the mean of the squares is that of the bounds; the standard
    # error of 400 numbers is 0.16 / 20.
    self.assertAlmostEqual((magnitude**2).mean(), (0.25 + 0.81) / 2, delta=0.04)
    np.testing.assert_allclose(np.exp(2 * p['log_gamma']), 1 - magnitude**2, rtol=1e-4)
    # White noise of variance 1: each |h|^2 has a mean near sum_d |B_d|^2 = 1.
    self.assertAlmostEqual((np.abs(h) ** 2).mean(), 1, delta=0.3)

  def test_mamba_begins_with_the_declared_steps(self):
    block = selective.MambaBlock(8, states=3, least_delta=0.01, most_delta=0.02)
    p = jax.jit(block.init)(jax.random.key(0), jnp.zeros((1, 2, 8)))['params']
    delta = np.log1p(np.exp(p['delta']['bias']))
    self.assertTrue(((delta >= 0.00999) & (delta <= 0.02001)).all())
    np.testing.assert_allclose(-np.exp(p['log_decay'][0]), [-1, -2, -3], rtol=1e-6)
    # 8 -> 2 x 16, taps 4 x 16 + 16, 16 -> 1 + 2 x 3, 1 -> 16 + 16, 16 x 3, 16, 16 -> 8.
    count = sum(x.size for x in jax.tree.leaves(p))
    self.assertEqual(count, 256 + 80 + 112 + 32 + 48 + 16 + 128)

  def test_a_step_of_no_length_sees_nothing(self):
    shape = (1, 2, 1)
    y, h = selective.selective_scan(
      jnp.full(shape, 7.0), jnp.zeros(shape), -jnp.ones((1, 1)), jnp.ones(shape),
      jnp.ones(shape), jnp.zeros(1), None, jnp.full((1, 1, 1), 3.0),
    )  # fmt: skip
    np.testing.assert_array_equal(y, 3)
    np.testing.assert_array_equal(h, 3)


if __name__ == '__main__':
  absltest.main()
