"""Recurrent layers: hand loops, packed semantics, gates at their ends, then torch."""

from typing import Any

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.layers.recurrent import cells, unroll
from dlx.layers.recurrent import stack as lib

B, T, D, H = 5, 7, 4, 6
LENGTHS = np.array([3, 7, 1, 5, 6])  # Neither sorted nor all full.
RNG = np.random.default_rng(0)
X_BTD = RNG.normal(size=(B, T, D))


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def weights(cell, seed=0, scale=1.0):
  """Parameters of `Recurrent`, all of them random."""
  rng, width = np.random.default_rng(seed), H * len(cell.gates)
  shapes = {
    'input_kernel': (D, width),
    'hidden_kernel': (H, width),
    'input_bias': (width,),
    'hidden_bias': (width,),
  }
  return {name: scale * rng.normal(size=shape) for name, shape in shapes.items()}


def by_hand(name, p, x_TD, h, c):
  """One row, step by step in NumPy, from the equations of the papers."""
  rows = []
  for x in x_TD:
    a = x @ p['input_kernel'] + p['input_bias']
    u = h @ p['hidden_kernel'] + p['hidden_bias']
    if name == 'rnn':
      h = np.tanh(a + u)
    elif name == 'lstm':
      i, f, g, o = np.split(a + u, 4)
      c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
      h = sigmoid(o) * np.tanh(c)
    elif name == 'gru':
      (ar, az, an), (ur, uz, un) = np.split(a, 3), np.split(u, 3)
      z = sigmoid(az + uz)
      h = (1 - z) * np.tanh(an + sigmoid(ar + ur) * un) + z * h
    else:
      (ar, an), (ur, un) = np.split(a, 2), np.split(u, 2)
      r = sigmoid(ar + ur)
      h = r * h + (1 - r) * np.tanh(an + r * un)
    rows.append(h)
  return np.array(rows), h, c


def layer(name, **fields):
  return lib.Recurrent(cells.CELLS[name], H, **fields)


def apply(name, p, *args, **fields) -> Any:
  wide = {'dtype': jnp.float64, 'param_dtype': jnp.float64}
  return layer(name, **wide, **fields).apply({'params': p}, *args)


# All comparisons run in float64. Values are of order 1, sums have at most 2 (D + H + 2)
# terms and T steps feed on each other, each at most doubling an error: 2**7 * 24 * eps.
TOLERANCE = 2**T * 24 * 2.2e-16


class CellTest(parameterized.TestCase):
  @parameterized.parameters(
    ('rnn', True), ('lstm', False), ('gru', False), ('reset', False), ('reset', True)
  )
  def test_equals_a_loop_over_each_row_alone(self, name, reverse):
    p = weights(cells.CELLS[name])
    with jax.enable_x64(True):
      start = tuple(
        jnp.asarray(0.1 * RNG.normal(size=(B, H))) for _ in cells.CELLS[name].state
      )
      h_BTH, state = apply(name, p, X_BTD, LENGTHS, start, reverse=reverse)
    for i, n in enumerate(LENGTHS):
      x = X_BTD[i, :n][:: -1 if reverse else 1]
      rows, h, c = by_hand(name, p, x, np.array(start[0][i]), np.array(start[-1][i]))
      rows = rows[:: -1 if reverse else 1]
      np.testing.assert_allclose(h_BTH[i, :n], rows, atol=TOLERANCE)
      np.testing.assert_array_equal(h_BTH[i, n:], 0)
      np.testing.assert_allclose(state[0][i], h, atol=TOLERANCE)
      if name == 'lstm':
        np.testing.assert_allclose(state[1][i], c, atol=TOLERANCE)

  def test_the_reset_gate_holds_or_begins_anew(self):
    cell, x = cells.RESET, jnp.asarray(RNG.normal(size=(B, 2 * H)), jnp.float32)
    u = jnp.asarray(RNG.normal(size=(B, 2 * H)), jnp.float32)
    h = jnp.asarray(RNG.normal(size=(B, H)), jnp.float32)
    gate = lambda value: x.at[:, :H].set(value)
    # sigmoid(100) is 1 and sigmoid(-200) is 1.4e-87, 0 in float32.
    np.testing.assert_array_equal(cell.step((h,), gate(100.0), u)[0], h)
    (new,) = cell.step((h,), gate(-200.0), u)
    np.testing.assert_array_equal(new, jnp.tanh(x[:, H:]))

  def test_one_step_of_each_gate_by_hand(self):
    # All projections 0: gates are 1/2 and candidates 0.
    h, c = jnp.full((1, 1), 0.8), jnp.full((1, 1), 0.6)
    zeros = lambda cell: jnp.zeros((1, len(cell.gates)))
    step = lambda cell, state: [
      float(s[0, 0]) for s in cell.step(state, zeros(cell), zeros(cell))
    ]
    self.assertEqual(step(cells.RNN, (h,)), [0.0])
    self.assertAlmostEqual(step(cells.GRU, (h,))[0], 0.4, places=6)
    self.assertAlmostEqual(step(cells.RESET, (h,))[0], 0.4, places=6)
    out, cell = step(cells.LSTM, (h, c))
    self.assertAlmostEqual(cell, 0.3, places=6)
    self.assertAlmostEqual(out, 0.5 * np.tanh(0.3), places=6)

  def test_unknown_cell(self):
    with self.assertRaisesRegex(ConfigError, 'cell=elman is not allowed: .* rnn, lstm'):
      cells.cell_by_name('elman')
    self.assertIs(cells.cell_by_name('gru'), cells.GRU)


class ParametersTest(parameterized.TestCase):
  def init(self, name) -> Any:
    x = jnp.zeros((1, 2, D))
    return jax.jit(layer(name).init)(jax.random.key(0), x)['params']

  def test_counts_in_the_ratio_of_the_gates(self):
    params = lambda name: jax.eval_shape(lambda: self.init(name))
    size = lambda name: sum(x.size for x in jax.tree.leaves(params(name)))
    one = D * H + H * H + 2 * H
    found = {name: size(name) for name in cells.CELLS}
    gates = {'rnn': 1, 'relu': 1, 'mgu': 2, 'reset': 2, 'gru': 3, 'lstm': 4}
    wanted = {name: n * one for name, n in gates.items()}
    self.assertEqual(found, {**wanted, 'peephole': 4 * one + 3 * H})
    self.assertEqual(4 * found['gru'], 3 * found['lstm'])

  def test_initial_values(self):
    p = self.init('lstm')
    for block in np.split(np.array(p['hidden_kernel']), 4, axis=1):
      # eps of float32 times H terms, and some for the QR decomposition.
      np.testing.assert_allclose(block.T @ block, np.eye(H), atol=20 * H * 1.2e-7)
    wanted = np.concatenate([np.zeros(H), np.ones(H), np.zeros(2 * H)])
    np.testing.assert_array_equal(p['input_bias'], wanted)
    np.testing.assert_array_equal(p['hidden_bias'], 0)
    np.testing.assert_array_equal(self.init('reset')['input_bias'], [1] * H + [0] * H)


class PaddingTest(parameterized.TestCase):
  @parameterized.parameters('lstm', 'reset')
  def test_nothing_past_the_end_has_an_effect_or_a_gradient(self, name):
    stack = lib.RecurrentStack(cells.CELLS[name], (3, 2), bidirectional=True)
    x = jnp.asarray(X_BTD, jnp.float32)
    init = jax.jit(lambda: stack.init(jax.random.key(0), x, LENGTHS, train=False))
    variables = init()
    run = jax.jit(lambda x: stack.apply(variables, x, LENGTHS, train=False))
    inside = (np.arange(T) < LENGTHS[:, None])[..., None]
    chex.assert_trees_all_equal(run(x), run(jnp.where(inside, x, 1e6)))

    def score(x):
      h, finals = stack.apply(variables, x, LENGTHS, train=False)
      return h.sum() + sum(s.sum() for s in jax.tree.leaves(finals))

    grad = np.array(jax.jit(jax.grad(score))(x))
    np.testing.assert_array_equal(np.where(inside, 0, grad), 0)
    self.assertTrue((np.abs(grad).sum(-1) > 0)[inside[..., 0]].all())

  @parameterized.parameters(False, True)
  def test_an_output_depends_on_its_own_side_alone(self, reverse):
    model = layer('gru', reverse=reverse)
    x = jnp.asarray(X_BTD[:1], jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    at = lambda x: model.apply(variables, x)[0][0, 3].sum()
    moved = np.abs(jax.grad(at)(x)[0]).sum(-1) > 0
    wanted = np.arange(T) >= 3 if reverse else np.arange(T) <= 3
    np.testing.assert_array_equal(moved, wanted)

  def test_an_empty_row_keeps_its_state(self):
    model, start = layer('rnn'), jnp.full((B, H), 0.3)
    x = jnp.asarray(X_BTD, jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    h, (state,) = model.apply(variables, x, jnp.zeros(B, jnp.int32), (start,))
    np.testing.assert_array_equal(state, start)
    np.testing.assert_array_equal(h, 0)

  def test_state_goes_on_where_it_was_left(self):
    p = weights(cells.LSTM)
    with jax.enable_x64(True):
      whole, last = apply('lstm', p, X_BTD)
      first, state = apply('lstm', p, X_BTD[:, :3])
      second, state = apply('lstm', p, X_BTD[:, 3:], None, state)
    np.testing.assert_array_equal(np.concatenate([first, second], 1), whole)
    chex.assert_trees_all_equal(state, last)


class StackTest(parameterized.TestCase):
  def test_dropout_between_layers_in_training_alone(self):
    x = jnp.asarray(X_BTD, jnp.float32)

    def outputs(features, train, seed):
      stack = lib.RecurrentStack(cells.RNN, features, dropout=0.5)
      variables = jax.jit(lambda: stack.init(jax.random.key(0), x, train=False))()
      rngs = {'dropout': jax.random.key(seed)}
      return np.array(stack.apply(variables, x, train=train, rngs=rngs)[0])

    np.testing.assert_array_equal(outputs((H, H), False, 0), outputs((H, H), False, 1))
    self.assertFalse((outputs((H, H), True, 0) == outputs((H, H), True, 1)).all())
    # Not before the first layer and not after the last.
    np.testing.assert_array_equal(outputs((H,), True, 0), outputs((H,), False, 0))

  def test_widths_and_states(self):
    stack = lib.RecurrentStack(cells.LSTM, (8, 5), bidirectional=True)
    x = jnp.zeros((B, T, D))
    out: Any
    out, variables = jax.eval_shape(
      lambda: stack.init_with_output(jax.random.key(0), x, LENGTHS, train=False)
    )
    h, finals = out
    self.assertEqual(h.shape, (B, T, 10))
    self.assertEqual([[len(d) for d in f] for f in finals], [[2, 2], [2, 2]])
    self.assertEqual(finals[1][1][0].shape, (B, 5))
    kernel = variables['params']['backward_1']['input_kernel']
    self.assertEqual(kernel.shape, (16, 20))

  def test_narrow_dtype_keeps_a_wide_state(self):
    model = layer('lstm', dtype=jnp.bfloat16)
    x = jnp.asarray(X_BTD, jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0), x)
    h, state = model.apply(variables, x)
    self.assertEqual(h.dtype, jnp.bfloat16)
    self.assertEqual({s.dtype for s in state}, {jnp.dtype('float32')})
    wide, _ = layer('lstm').apply(variables, x)
    # Products in bfloat16 (eps 2**-8) of about D + H terms of order 1.
    np.testing.assert_allclose(h.astype(jnp.float32), wide, atol=(D + H) * 2**-8)

  @parameterized.product(cell=('rnn', 'lstm'), reverse=(True, False))
  def test_anything_may_fill_a_row_up(self, cell, reverse):
    """nan past the end of a row reaches neither outputs nor gradients."""
    model = layer(cell, reverse=reverse)
    inside_BT1 = (np.arange(T)[None] < LENGTHS[:, None])[..., None]
    zeros = jnp.asarray(np.where(inside_BT1, X_BTD, 0), jnp.float32)
    filled = jnp.where(inside_BT1, zeros, jnp.nan)
    variables = jax.jit(model.init)(jax.random.key(0), zeros)

    @jax.jit
    def value_and_slopes(x):
      loss = lambda v: (model.apply(v, x, jnp.asarray(LENGTHS))[0] ** 2).sum()
      return jax.value_and_grad(loss)(variables)

    chex.assert_trees_all_equal(value_and_slopes(filled), value_and_slopes(zeros))


class GradientByDistanceTest(absltest.TestCase):
  def share(self, cell, hidden_kernel, x_TBG):
    bias = jnp.zeros(hidden_kernel.shape[1])

    def score(nudge_TBH):
      state = (jnp.full((B, H), 0.1),)
      lengths = jnp.asarray(LENGTHS)
      _, state = unroll.unroll(
        cell, x_TBG, hidden_kernel, bias, state, lengths, nudge_TBH=nudge_TBH
      )
      return state[0].sum(-1)

    zeros = jnp.zeros((T, B, H))
    lengths = jnp.asarray(LENGTHS)
    share_TB = unroll.shares_of_gradient(score, zeros, lengths)
    return np.array(unroll.mean_by_distance(share_TB, lengths))

  def test_a_held_state_passes_all_and_a_forgotten_one_nothing(self):
    kernel = jnp.asarray(RNG.normal(size=(H, 2 * H)), jnp.float32)
    x = jnp.zeros((T, B, 2 * H))
    held, left = x.at[..., :H].set(100.0), x.at[..., :H].set(-200.0)
    np.testing.assert_array_equal(self.share(cells.RESET, kernel, held), 1)
    found = self.share(cells.RESET, kernel, left)
    np.testing.assert_array_equal(found, [1] + [0] * (T - 1))

  def test_a_linear_recurrence_decays_by_its_factor(self):
    # tanh is linear to 1e-12 for states of 1e-6: h_t = h_{t-1} / 2.
    half = cells.Cell(('h',), ('h',), lambda state, x, u: (u,))
    found = self.share(half, 0.5 * jnp.eye(H), jnp.zeros((T, B, H)))
    np.testing.assert_allclose(found, 0.5 ** np.arange(T), rtol=1e-6)

  def test_a_gradient_whose_square_is_no_float32_is_counted(self):
    shrink = cells.Cell(('h',), ('h',), lambda state, x, u: (u,))
    found = self.share(shrink, 1e-7 * jnp.eye(H), jnp.zeros((T, B, H)))
    np.testing.assert_allclose(found[:5], 1e-7 ** np.arange(5), rtol=1e-5)

  def test_no_row_so_long_is_nan(self):
    score = lambda nudge: nudge[0].sum(-1)
    lengths = jnp.array([1])
    share_TB = unroll.shares_of_gradient(score, jnp.zeros((3, 1, 2)), lengths)
    found = unroll.mean_by_distance(share_TB, lengths)
    np.testing.assert_allclose(found, [1, np.nan, np.nan], rtol=1e-6)

  def test_a_row_without_steps_counts_nowhere(self):
    share_TB = jnp.asarray([[0.5, 7.0], [1.0, 7.0]])
    found = unroll.mean_by_distance(share_TB, jnp.array([2, 0]))
    np.testing.assert_array_equal(found, [1.0, 0.5])


TORCH = {'rnn': 'RNN', 'lstm': 'LSTM', 'gru': 'GRU'}


class TorchTest(parameterized.TestCase):
  """torch.nn's packed layers, in values and in gradients."""

  @parameterized.parameters(
    ('rnn', 1, False),
    ('rnn', 2, True),
    ('lstm', 1, False),
    ('lstm', 2, True),
    ('gru', 1, True),
    ('gru', 2, False),
    ('gru', 2, True),
  )
  def test_equal(self, name, layers, bidirectional):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    torch.manual_seed(0)
    theirs = getattr(torch.nn, TORCH[name])(
      D, H, layers, batch_first=True, bidirectional=bidirectional, dtype=torch.float64
    )
    directions = ('forward', 'backward')[: 1 + bidirectional]
    names = {
      f'{direction}_{i}': f'l{i}{"_reverse" if direction == "backward" else ""}'
      for i in range(layers)
      for direction in directions
    }

    def mapped(get):
      """Parameters (or their gradients) in our form."""
      return {
        ours: {
          'input_kernel': get(f'weight_ih_{end}').T,
          'hidden_kernel': get(f'weight_hh_{end}').T,
          'input_bias': get(f'bias_ih_{end}'),
          'hidden_bias': get(f'bias_hh_{end}'),
        }
        for ours, end in names.items()
      }

    width = H * len(directions)
    a_BTH = RNG.normal(size=(B, T, width))
    b_NBH = RNG.normal(size=(layers * len(directions), B, H))
    x = torch.tensor(X_BTD, requires_grad=True)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
      x, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False
    )
    packed, states = theirs(packed)
    out, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True)
    states = states if name == 'lstm' else (states,)
    loss = (out * torch.tensor(a_BTH)).sum()
    loss = loss + sum((s * torch.tensor(b_NBH)).sum() for s in states)
    loss.backward()
    with jax.enable_x64(True):
      stack = lib.RecurrentStack(
        cells.CELLS[name],
        (H,) * layers,
        bidirectional=bidirectional,
        dtype=jnp.float64,
        param_dtype=jnp.float64,
      )

      def ours(params, x_BTD):
        h, finals = stack.apply({'params': params}, x_BTD, LENGTHS, train=False)
        ends = [state for layer in finals for state in layer]  # Torch's order.
        total = (h * a_BTH).sum()
        for state, b in zip(ends, b_NBH, strict=True):
          total += sum((s * b).sum() for s in state)
        return total, (h, ends)

      params = mapped(lambda key: getattr(theirs, key).detach().numpy())
      (value, (h, ends)), grads = jax.jit(
        jax.value_and_grad(ours, argnums=(0, 1), has_aux=True)
      )(params, X_BTD)
      # Weights are below 1/sqrt(H): no error grows; the gradients are sums of up to
      # B T (D + 2 H) terms of order 1.
      tolerance = B * T * (D + 2 * H) * 2.2e-16 * 10
      np.testing.assert_allclose(value, loss.item(), rtol=tolerance)
      np.testing.assert_allclose(h, out.detach().numpy(), atol=tolerance)
      for k, state in enumerate(states):
        found = np.stack([np.array(end[k]) for end in ends])
        np.testing.assert_allclose(found, state.detach().numpy(), atol=tolerance)
      wanted = mapped(lambda key: getattr(theirs, key).grad.numpy())
      chex.assert_trees_all_close(grads[0], wanted, atol=tolerance)
      np.testing.assert_allclose(grads[1], x.grad.numpy(), atol=tolerance)


if __name__ == '__main__':
  absltest.main()
