"""Truncated BPTT: equal to the full form at k = T, memory by k alone."""

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlx import losses
from dlx.data.sets.sentences import from_texts
from dlx.errors import ConfigError
from dlx.layers.recurrent.cells import CELLS
from dlx.models.text_classifier import CarriedClassifiers
from dlx.train.early_stopping import with_early_stopping
from experiments.sequences import sst2_tbptt

WORDS = 'a b c d e f g h'.split()
PARTS = ('train', 'validation', 'test')
DOUBLE = dict(compute_dtype='float64', param_dtype='float64')


def sentences(lengths):
  """Random words with random labels, in every split."""
  rng = np.random.default_rng(0)
  texts = [' '.join(rng.choice(WORDS, n)) for n in lengths]
  labels = rng.integers(0, 2, len(texts))
  return from_texts('random', dict.fromkeys(PARTS, texts), dict.fromkeys(PARTS, labels))


def config(**fields):
  defaults = dict(cells=('reset',), batch_size=8, embedding=5, features=6)
  return sst2_tbptt.Config(**{**defaults, **fields})


def batches(built, n):
  data = built.train_data
  arrays = jax.tree.map(jnp.asarray, data.load().data)
  get = jax.jit(data.get)
  return [get(arrays, jnp.int32(step)) for step in range(n)]


def first_gradient(opt_state):
  """0.1 g: Adam's first moment after one step from 0."""
  adam = lambda x: isinstance(x, optax.ScaleByAdamState)
  (found,) = [x for x in jax.tree.leaves(opt_state, is_leaf=adam) if adam(x)]
  return jax.tree.map(np.array, found.mu)


class GradientTest(parameterized.TestCase):
  def wanted(self, data, cell, params, windows, cut):
    """Gradient of the mean loss of sentences that are read window by window.

    Args:
      windows: batches; the last has the loss.
      cut: whether gradients end where a window begins.
    """
    model = CarriedClassifiers(
      cells={cell: CELLS[cell]},
      vocabulary_size=data.vocabulary_size,
      embedding=5,
      features=6,
      dtype=jnp.float64,
      param_dtype=jnp.float64,
    )

    def loss(params):
      states, logits = None, {}
      for batch in windows:
        if cut:
          states = jax.lax.stop_gradient(states)
        length_B = (batch['tokens'] != 0).sum(1)
        variables = {'params': params}
        logits, states = model.apply(variables, batch['tokens'], length_B, states)
      last = windows[-1]
      losses_B = losses.softmax_cross_entropy(logits[cell], last['label'])
      return (losses_B * last['weight']).sum()

    count = windows[-1]['weight'].sum()
    return jax.jit(lambda p: jax.tree.map(lambda g: g / count, jax.grad(loss)(p)))(
      params
    )

  @parameterized.parameters('lstm', 'reset')
  def test_a_window_of_all_tokens_is_full_bptt_bit_for_bit(self, cell):
    with jax.enable_x64(True):
      data = sentences([7, 3, 5, 7, 1, 2, 6, 4, 7, 7, 3, 5])
      c = config(cells=(cell,), window=7, clip_norm=None, **DOUBLE)
      built = sst2_tbptt.of_data(c, data)
      state = jax.jit(built.init)(jax.random.key(0))
      step = jax.jit(built.train_step)
      # The carry of a step before must not matter: every row begins anew.
      old = jax.tree.map(jnp.ones_like, state.model_state)
      for batch in batches(built, 2):
        self.assertTrue(bool(batch['reset'].all()))
        found, _ = step(state._replace(model_state=old), batch)
        full = self.wanted(data, cell, state.params, [batch], cut=False)
        # The same product in NumPy: optax scales by 1 - 0.9.
        full = jax.tree.map(lambda g: (1 - 0.9) * np.array(g), full)
        chex.assert_trees_all_equal(first_gradient(found.opt_state), full)
        self.assertGreater(min(np.abs(g).max() for g in jax.tree.leaves(full)), 0)

  def test_shorter_windows_carry_the_state_and_cut_the_gradient(self):
    with jax.enable_x64(True):
      data = sentences([6] * 8)
      c = config(window=3, clip_norm=None, **DOUBLE)
      built = sst2_tbptt.of_data(c, data)
      state = jax.jit(built.init)(jax.random.key(0))
      step = jax.jit(built.train_step)
      one, two = batches(built, 2)
      self.assertEqual(float(one['weight'].sum()), 0)
      self.assertEqual(float(two['weight'].sum()), 8)
      self.assertFalse(bool(two['reset'].any()))
      after, sums = step(state, one)
      # No sentence ends: no gradient, nothing counted, but a state to go on from.
      self.assertEqual(float(sums['loss'].count), 0)
      chex.assert_trees_all_equal(
        first_gradient(after.opt_state), jax.tree.map(jnp.zeros_like, state.params)
      )
      # Weight decay moved the parameters a little: the old ones, for the comparison.
      carried = state._replace(model_state=after.model_state)
      found, _ = step(carried, two)
      found = first_gradient(found.opt_state)
      windows = (one, two)
      cut = self.wanted(data, 'reset', state.params, windows, cut=True)
      full = self.wanted(data, 'reset', state.params, windows, cut=False)
      scaled = lambda tree: jax.tree.map(lambda g: (1 - 0.9) * np.array(g), tree)
      # Sums of 8 * 3 terms below 1, in another grouping.
      tolerance = 24 * 2.2e-16
      chex.assert_trees_all_close(found, scaled(cut), atol=tolerance)
      gap = jax.tree.map(lambda a, b: np.abs(a - b).max(), found, scaled(full))
      self.assertGreater(gap['reset_encoder']['hidden_kernel'], 1e-5)


class MemoryTest(absltest.TestCase):
  def temp_bytes(self, window, length):
    """Of the compiled step, its batch included, on sentences of that length."""
    data = sentences([length] * 40)
    c = config(window=window, batch_size=32, embedding=16, features=32)
    built = sst2_tbptt.of_data(c, data)
    state = jax.eval_shape(lambda: built.init(jax.random.key(0)))
    arrays = built.train_data.array_shapes()

    def step(state, arrays):
      return built.train_step(state, built.train_data.get(arrays, state.step))

    compiled = jax.jit(step).lower(state, arrays).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  def test_grows_with_the_window_and_not_with_the_sentence(self):
    short = {k: self.temp_bytes(k, 64) for k in (8, 16, 64)}
    long = self.temp_bytes(16, 512)
    # Eight times longer sentences, the same window: no byte that depends on them.
    # (Full BPTT, a window of all 64 tokens, shows what that would be.)
    self.assertLess(abs(long - short[16]), 0.02 * short[16])
    # What is kept for one token, from two windows, predicts the third.
    token = (short[16] - short[8]) / 8
    self.assertGreater(token, 32 * 32 * 4)  # At least h of every row.
    predicted = short[16] + 48 * token
    self.assertLess(abs(short[64] - predicted), 0.15 * predicted)


class RunTest(parameterized.TestCase):
  def test_carry_lies_along_the_batch_and_early_stopping_keeps_it(self):
    for metric in (None, 'validation/loss'):
      asked = config(early_stop_metric=metric)
      built = with_early_stopping(sst2_tbptt.build(asked), asked)
      state = jax.eval_shape(lambda built=built: built.init(jax.random.key(0)))
      batch = built.train_data.shapes[0]
      new, _ = jax.eval_shape(built.train_step, state, batch)
      chex.assert_trees_all_equal_shapes_and_dtypes(new, state)
      self.assertEqual(state.model_state['carry']['reset'][0].shape, (8, 6))
      self.assertEqual(state.best == (), metric is None)

  @parameterized.parameters(
    (dict(cells=('reset', 'reset')), 'one or more, each once, of rnn, lstm'),
    (dict(cells=('elman',)), 'one or more, each once, of rnn, lstm'),
    (dict(window=0), 'at least 1'),
    (dict(micro_batches=2), '1: rows on the devices carry a state'),
    (dict(ema_decay=0.9), 'None: not averaged here'),
    (dict(compute_dtype='float16'), 'one of float32, bfloat16, float64'),
    (dict(stream=True), 'False: rows on the devices carry a state'),
  )
  def test_refuses(self, fields, message):
    (name,) = fields
    with self.assertRaisesRegex(ConfigError, f'--config.{name}=.* {message}'):
      sst2_tbptt.Config(**fields)


if __name__ == '__main__':
  absltest.main()
