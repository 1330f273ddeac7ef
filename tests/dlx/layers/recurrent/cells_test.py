"""Peepholes, minimal gated and ReLU units: loops by hand, values and gradients."""

from typing import Any
from unittest import mock

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.layers.recurrent import cells, stack, unroll

B, T, D, H = 3, 5, 2, 4
LENGTHS = np.array([2, 5, 4])
NAMES = 'relu', 'mgu', 'peephole'
RNG = np.random.default_rng(0)
X_BTD = RNG.normal(size=(B, T, D))
# float64; each of T steps at most doubles an error of sums of 2 (D + H + 2) terms. A
# gradient adds up B T of them.
TOLERANCE = 2**T * 2 * (D + H + 2) * B * T * 2.2e-16


def weights(cell):
  width = H * len(cell.gates)
  shapes = {
    'input_kernel': (D, width),
    'hidden_kernel': (H, width),
    'input_bias': (width,),
    'hidden_bias': (width,),
    **dict.fromkeys(cell.own, (H,)),
  }
  rng = np.random.default_rng(1)
  return {name: 0.5 * rng.normal(size=shape) for name, shape in shapes.items()}


def by_hand(name, p, x_TD, xp):
  """One row, gate by gate, from the equations of the papers; (h of every step, c)."""
  sigmoid = lambda x: 1 / (1 + xp.exp(-x))
  part = lambda x, k: x[k * H : (k + 1) * H]
  h, c, rows = xp.zeros(H), xp.zeros(H), []
  for x in x_TD:
    a = x @ p['input_kernel'] + p['input_bias']
    u = h @ p['hidden_kernel'] + p['hidden_bias']
    if name == 'relu':
      h = xp.where(a + u > 0, a + u, 0)
    elif name == 'mgu':
      f = sigmoid(part(a, 0) + part(u, 0))
      new = xp.tanh(part(a, 1) + f * part(u, 1))
      h = h + f * (new - h)
    else:
      both = a + u
      i = sigmoid(part(both, 0) + p['input_peephole'] * c)
      f = sigmoid(part(both, 1) + p['forget_peephole'] * c)
      c = f * c + i * xp.tanh(part(both, 2))
      h = sigmoid(part(both, 3) + p['output_peephole'] * c) * xp.tanh(c)
    rows.append(h)
  return xp.stack(rows), c


def layer(name, **fields):
  wide: Any = {'dtype': jnp.float64, 'param_dtype': jnp.float64}
  return stack.Recurrent(cells.CELLS[name], H, **wide, **fields)


class HandLoopTest(parameterized.TestCase):
  @parameterized.product(name=NAMES, reverse=(False, True))
  def test_values(self, name, reverse):
    p, turn = weights(cells.CELLS[name]), -1 if reverse else 1
    with jax.enable_x64(True):
      run = jax.jit(lambda p: layer(name, reverse=reverse).apply(p, X_BTD, LENGTHS))
      h_BTH, state = run({'params': p})
    for i, n in enumerate(LENGTHS):
      rows, c = by_hand(name, p, X_BTD[i, :n][::turn], np)
      np.testing.assert_allclose(h_BTH[i, :n], rows[::turn], atol=TOLERANCE)
      np.testing.assert_array_equal(h_BTH[i, n:], 0)
      np.testing.assert_allclose(state[0][i], rows[-1], atol=TOLERANCE)
      if name == 'peephole':
        np.testing.assert_allclose(state[1][i], c, atol=TOLERANCE)

  @parameterized.parameters(*NAMES)
  def test_gradients(self, name):
    """Those of all parameters and inputs, through rows of their own lengths."""
    p = weights(cells.CELLS[name])
    factor_BTH = RNG.normal(size=(B, T, H))

    def ours(p, x_BTD):
      h_BTH, state = layer(name).apply({'params': p}, x_BTD, LENGTHS)
      return (h_BTH * factor_BTH).sum() + state[-1].sum()

    def hand(p, x_BTD):
      total = 0.0
      for i, n in enumerate(LENGTHS):
        rows, c = by_hand(name, p, x_BTD[i, :n], jnp)
        total += (rows * factor_BTH[i, :n]).sum()
        total += (c if name == 'peephole' else rows[-1]).sum()
      return total

    with jax.enable_x64(True):
      found, wanted = (jax.jit(jax.grad(f, (0, 1)))(p, X_BTD) for f in (ours, hand))
    chex.assert_trees_all_close(found, wanted, atol=TOLERANCE)
    self.assertTrue(all(np.any(x) for x in jax.tree.leaves(found)))


class CellTest(parameterized.TestCase):
  def test_one_step_of_each_by_hand(self):
    # All projections 0: gates are 1/2 and candidates 0.
    h, c, none = jnp.full((1, 1), 0.8), jnp.full((1, 1), 0.6), jnp.zeros((1, 2))
    self.assertAlmostEqual(
      float(cells.MGU.step((h,), none, none)[0][0, 0]), 0.4, places=6
    )
    both = jnp.array([[-3.0], [2.0]])
    np.testing.assert_array_equal(cells.RELU.step((h,), both, both)[0], [[0.0], [4.0]])
    # Peepholes of ln 3 / 0.6 make sigmoid(ln 3) = 3/4 of the forget gate, and of the
    # output gate sigmoid(0.45 / 0.6 ln 3).
    one, zero, four = jnp.full((1, 1), np.log(3) / 0.6), jnp.zeros((1, 1)), jnp.zeros(4)
    out, cell = cells.PEEPHOLE.step((h, c), four[None], four[None], zero, one, one)
    self.assertAlmostEqual(float(cell[0, 0]), 0.45, places=6)
    gate = 1 / (1 + 3**-0.75)
    self.assertAlmostEqual(float(out[0, 0]), gate * np.tanh(0.45), places=6)

  def test_the_minimal_unit_holds_or_forgets_all_but_its_candidate(self):
    x, u = (jnp.asarray(RNG.normal(size=(B, 2 * H)), jnp.float32) for _ in range(2))
    h = jnp.asarray(RNG.normal(size=(B, H)), jnp.float32)
    # sigmoid(100) is 1 and sigmoid(-200) is 1.4e-87, 0 in float32.
    step = lambda gate: cells.MGU.step((h,), x.at[:, :H].set(gate), u)[0]
    np.testing.assert_array_equal(step(-200.0), h)
    np.testing.assert_allclose(step(100.0), jnp.tanh(x[:, H:] + u[:, H:]), rtol=1e-6)

  def test_peepholes_of_zero_are_an_lstm(self):
    own = jnp.zeros((B, H))
    state = tuple(jnp.asarray(RNG.normal(size=(B, H)), jnp.float32) for _ in range(2))
    x, u = (jnp.asarray(RNG.normal(size=(B, 4 * H)), jnp.float32) for _ in range(2))
    wanted = cells.LSTM.step(state, x, u)
    chex.assert_trees_all_equal(cells.PEEPHOLE.step(state, x, u, own, own, own), wanted)

  def test_peepholes_never_go_the_way_of_an_lstm_without(self):
    """oneDNN's LSTM knows none: it would leave them out without a word."""
    x, kernel, bias = jnp.zeros((T, B, 4 * H)), jnp.zeros((H, 4 * H)), jnp.zeros(4 * H)
    state = cells.zero_state(cells.PEEPHOLE, B, H, jnp.float32)
    own = (jnp.zeros(H),) * 3
    taken = mock.Mock(side_effect=ZeroDivisionError)
    usable = mock.patch.object(unroll.library, 'usable', lambda: True)
    with usable, mock.patch.object(unroll, '_lstm', taken):
      with self.assertRaises(ZeroDivisionError):
        unroll.unroll(cells.LSTM, x, kernel, bias, state)
      unroll.unroll(cells.PEEPHOLE, x, kernel, bias, state, own=own)


class InitialValuesTest(absltest.TestCase):
  def init(self, cell, **fields) -> Any:
    model = stack.Recurrent(cells.CELLS[cell], H, **fields)
    return jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 2, D)))['params']

  def test_the_identity(self):
    found = self.init('relu', hidden_init='identity')['hidden_kernel']
    np.testing.assert_array_equal(found, np.eye(H))
    found = self.init('gru', hidden_init='identity')['hidden_kernel']
    np.testing.assert_array_equal(found, np.tile(np.eye(H), 3))

  def test_a_relu_net_from_the_identity_adds_its_inputs_up(self):
    # With biases of 0 and inputs above 0 through a kernel of ones: running sums.
    p = self.init('relu', hidden_init='identity')
    p = {**p, 'input_kernel': jnp.ones((D, H))}
    x_BTD = jnp.abs(jnp.asarray(X_BTD, jnp.float32))
    h_BTH, _ = stack.Recurrent(cells.RELU, H).apply({'params': p}, x_BTD)
    wanted = np.cumsum(np.abs(X_BTD).sum(-1), 1)[..., None] * np.ones(H)
    np.testing.assert_allclose(h_BTH, wanted, rtol=T * D * 1.2e-7)

  def test_peepholes_start_at_zero(self):
    p = self.init('peephole')
    for name in cells.PEEPHOLE.own:
      np.testing.assert_array_equal(p[name], np.zeros(H))
    wanted = np.concatenate([np.zeros(H), np.ones(H), np.zeros(2 * H)])
    np.testing.assert_array_equal(p['input_bias'], wanted)

  def test_another_name(self):
    with self.assertRaisesRegex(ConfigError, 'hidden_init=zeros .* orthogonal, iden'):
      self.init('rnn', hidden_init='zeros')


class StackTest(absltest.TestCase):
  def test_a_stack_goes_on_where_it_was_left(self):
    model = stack.RecurrentStack(cells.PEEPHOLE, (H, 3))
    x = jnp.asarray(X_BTD, jnp.float32)
    run = jax.jit(lambda x, states: model.apply(p, x, None, states, train=False))
    p = jax.jit(lambda: model.init(jax.random.key(0), x, train=False))()
    whole, last = run(x, None)
    first, carried = run(x[:, :2], None)
    second, carried = run(x[:, 2:], carried)
    found = jnp.concatenate([first, second], 1)
    # Sums of at most H + D terms in other orders, values below 1.
    np.testing.assert_allclose(found, whole, atol=10 * (H + D) * 1.2e-7)
    chex.assert_trees_all_close(carried, last, atol=10 * (H + D) * 1.2e-7)


if __name__ == '__main__':
  absltest.main()
