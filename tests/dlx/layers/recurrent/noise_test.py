"""Variational dropout and zoneout: loops, masks that stay, rates, expectations."""

from typing import Any

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers.recurrent import cells, unroll
from dlx.layers.recurrent import noise as lib
from dlx.layers.recurrent.noise import Noise, RecurrentNoise
from dlx.layers.recurrent.stack import Recurrent, RecurrentStack

B, T, D, H = 3, 5, 2, 4
LENGTHS = jnp.array([3, 5, 1])
ALL = RecurrentNoise(input_dropout=0.3, dropout=0.4, zoneout=0.2, cell_zoneout=0.5)


def operands(cell, seed=0) -> list[Any]:
  """x_TBG, kernel, bias and a first state, float64."""
  rng, width = np.random.default_rng(seed), H * len(cell.gates)
  shapes = ((T, B, width), (H, width), (width,))
  state = tuple(jnp.asarray(rng.normal(size=(B, H))) for _ in cell.state)
  return [*(jnp.asarray(rng.normal(size=shape)) for shape in shapes), state]


def drawn(cell) -> Noise:
  """Factors of h, and what stays of each part."""
  rng = np.random.default_rng(1)
  hidden_BH = jnp.asarray(rng.integers(0, 2, (B, H)) * 2.0)
  stays = tuple(jnp.asarray(rng.integers(0, 2, (T, B, H)) * 1.0) for _ in cell.state)
  return Noise(hidden_BH, stays)


def loop(cell, x_TBG, kernel, bias, state, own, noise, reverse):
  """The definition, step by step; JAX differentiates it."""
  own = [jnp.broadcast_to(x[None], (B, H)) for x in own]
  out = [jnp.zeros((B, H))] * T
  for t in reversed(range(T)) if reverse else range(T):
    h = state[0] if noise.hidden_BH is None else state[0] * noise.hidden_BH
    new = cell.step(state, x_TBG[t], h @ kernel + bias[None], *own)
    if noise.old is not None:
      pairs = zip(noise.old, state, new, strict=True)
      new = tuple(jnp.where(o[t] > 0, a, b) for o, a, b in pairs)
    inside = (t < LENGTHS)[:, None]
    state = tuple(jnp.where(inside, a, b) for a, b in zip(new, state, strict=True))
    out[t] = jnp.where(inside, state[0], 0)
  return jnp.stack(out), state


class UnrollTest(parameterized.TestCase):
  @parameterized.parameters(('lstm', True), ('gru', False), ('peephole', True))
  def test_equals_the_loop_with_its_gradients(self, name, reverse):
    cell = cells.CELLS[name]
    with jax.enable_x64(True):
      args, noise = operands(cell), drawn(cell)
      rng = np.random.default_rng(2)
      args.append(tuple(jnp.asarray(rng.normal(size=H)) for _ in cell.own))

      def ours(*args):
        *args, own = args
        return unroll.unroll(
          cell, *args, LENGTHS, own=own, reverse=reverse, noise=noise
        )

      def score(call):
        def value(*args):
          h_TBH, state = call(*args)
          return jnp.sin(h_TBH).sum() + sum(jnp.cos(part).sum() for part in state)

        return jax.jit(lambda *a: (call(*a), jax.grad(value, (0, 1, 2, 3, 4))(*a)))

      found = score(ours)(*args)
      wanted = score(lambda *a: loop(cell, *a, noise, reverse))(*args)
      # Five steps of sums of eight terms near 1.
      chex.assert_trees_all_close(found, wanted, rtol=1e-12, atol=1e-13)

  def test_the_state_stays_exactly_where_the_mask_says_so(self):
    cell = cells.LSTM
    with jax.enable_x64(True):
      args, noise = operands(cell), drawn(cell)
      assert noise.old is not None
      stays = tuple(jnp.broadcast_to(o[:1], o.shape) for o in noise.old)
      noise = Noise(None, stays)
      h_TBH, state = unroll.unroll(cell, *args, noise=noise)
    for part, first, stay in zip(state, args[-1], stays, strict=True):
      kept = np.asarray(stay[0]) == 1
      np.testing.assert_array_equal(np.asarray(part)[kept], np.asarray(first)[kept])
      self.assertTrue((np.asarray(part)[~kept] != np.asarray(first)[~kept]).all())
    self.assertEqual(h_TBH.shape, (T, B, H))

  def test_nothing_dropped_is_the_plain_layer(self):
    cell = cells.GRU
    args = jax.tree.map(lambda x: x.astype(jnp.float32), operands(cell))
    noise = Noise(jnp.ones((B, H)), (jnp.zeros((T, 1, 1)),))
    chex.assert_trees_all_equal(
      unroll.unroll(cell, *args, noise=noise), unroll.unroll(cell, *args)
    )
    of_steps = RecurrentNoise().of_steps
    self.assertIsNone(of_steps(jax.random.key(0), cell, (T, B, H), jnp.float32))
    self.assertIsNone(of_steps(None, cell, (T, B, H), jnp.float32))


class NoiseTest(absltest.TestCase):
  def test_rates_and_masks_that_are_the_same_at_all_steps(self):
    key, shape = jax.random.key(0), (6, 50, 80)
    x_BTD = ALL.of_inputs(key, jnp.ones((50, 6, 80)))
    np.testing.assert_array_equal(x_BTD, np.broadcast_to(x_BTD[:, :1], x_BTD.shape))
    noise = ALL.of_steps(key, cells.LSTM, shape, jnp.float32)
    assert noise is not None and noise.hidden_BH is not None and noise.old is not None
    # Shares of 4000 and 24000 draws: five standard deviations.
    for x, rate in ((x_BTD[:, 0], 0.3), (noise.hidden_BH, 0.4)):
      self.assertEqual(x.shape, shape[1:])
      np.testing.assert_allclose(np.unique(x), [0, 1 / (1 - rate)], rtol=1e-6)
      self.assertAlmostEqual(float((x == 0).mean()), rate, delta=5 * 0.5 / 4000**0.5)
      self.assertGreater(float(x.std(0).min()), 0)  # Each row has its own.
    for stays, rate in zip(noise.old, (0.2, 0.5), strict=True):
      self.assertEqual(stays.shape, shape)
      self.assertAlmostEqual(float(stays.mean()), rate, delta=5 * 0.5 / 24000**0.5)
      self.assertTrue((stays[0] != stays[1]).any())  # Each step has its own.
    self.assertEqual(set(np.unique(noise.old[1]).tolist()), {0.0, 1.0})

  def test_evaluation_takes_the_expectation_of_zoneout(self):
    cell, shape = cells.LSTM, (T, B, H)
    noise = ALL.of_steps(None, cell, shape, jnp.float32)
    assert noise is not None and noise.old is not None
    self.assertIsNone(noise.hidden_BH)
    np.testing.assert_allclose([x[0, 0, 0] for x in noise.old], [0.2, 0.5])
    args = jax.tree.map(lambda x: x.astype(jnp.float32), operands(cell))
    args[0] = args[0][:1]
    one = Noise(None, tuple(x[:1] for x in noise.old))
    plain = unroll.unroll(cell, *args)[1]
    found = unroll.unroll(cell, *args, noise=one)[1]
    for rate, first, new, mixed in zip((0.2, 0.5), args[-1], plain, found, strict=True):
      np.testing.assert_allclose(mixed, rate * first + (1 - rate) * new, rtol=1e-5)


class LayersTest(absltest.TestCase):
  def test_training_draws_and_evaluation_does_not(self):
    net = RecurrentStack(cells.LSTM, (H, H), bidirectional=True, noise=ALL)
    x_BTD = jax.random.normal(jax.random.key(1), (B, T, D))
    params = jax.jit(lambda: net.init(jax.random.key(0), x_BTD, LENGTHS, train=False))()

    @jax.jit
    def outputs(key):
      rngs = {'dropout': key}
      call = lambda train: net.apply(params, x_BTD, LENGTHS, train=train, rngs=rngs)[0]
      return call(True), call(False)

    (a, c), (b, d) = outputs(jax.random.key(2)), outputs(jax.random.key(3))
    self.assertTrue((a != b).any())
    np.testing.assert_array_equal(c, d)
    # Past the end of a row outputs are 0, whatever is drawn.
    np.testing.assert_array_equal(a[0, 3:], 0)
    plain = RecurrentStack(cells.LSTM, (H, H), bidirectional=True)
    same = jax.eval_shape(lambda: plain.init(jax.random.key(0), x_BTD, train=False))
    chex.assert_trees_all_equal_shapes(params, same)

  def test_an_input_is_dropped_at_all_steps_or_none(self):
    layer = Recurrent(cells.RNN, H, noise=RecurrentNoise(input_dropout=0.5))
    x_BTD = jax.random.normal(jax.random.key(1), (B, T, D))
    params = jax.jit(lambda: layer.init(jax.random.key(0), x_BTD))()
    rngs = {'dropout': jax.random.key(5)}
    score = lambda x: layer.apply(params, x, train=True, rngs=rngs)[0].sum()
    slope_BTD = np.asarray(jax.jit(jax.grad(score))(x_BTD))
    dropped = (slope_BTD == 0).all(1)
    self.assertTrue(dropped.any() and not dropped.all())
    np.testing.assert_array_equal((slope_BTD == 0).any(1), dropped)


def test_kept_keeps_the_mean():
  x = lib.kept(jax.random.key(0), 0.25, (20000,), jnp.float32)
  np.testing.assert_allclose(x.mean(), 1, atol=5 * (1 / 3 / 20000) ** 0.5)


if __name__ == '__main__':
  absltest.main()
