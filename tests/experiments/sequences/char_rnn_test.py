"""Windows that go on are the text read at once; figures and samples by plain loops."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlx.data.dataset import Loaded, Source
from dlx.data.sets.characters import CharacterData, Characters
from dlx.layers.recurrent.cells import CELLS
from dlx.models.recurrent_language_model import RecurrentLanguageModel
from experiments.sequences import char_rnn

LETTERS = 'abcde'
RNG = np.random.default_rng(0)
TEXT = {
  split: RNG.integers(0, 5, n).astype(np.uint8)
  for split, n in (('train', 25), ('validation', 14))
}
DOUBLE = dict(compute_dtype='float64', param_dtype='float64')
SINGLE = dict.fromkeys(DOUBLE, 'float32')
# float64, logits of order 1, sums of fewer than 100 terms.
TOLERANCE = 100 * 2.2e-16


def text():
  def source(split):
    held = Loaded({'token': TEXT[split]}, {'name': 'toy'})
    shapes = {'token': jax.ShapeDtypeStruct((), np.uint8)}
    return Source('toy', split, shapes, len(TEXT[split]), lambda data_dir: held)

  return CharacterData(
    'toy', source('train'), source('validation'), Characters(LETTERS)
  )


def config(**fields):
  return char_rnn.Config(
    **{
      **dict(batch_size=2, window=4, features=(5, 3), embedding=4, eval_rows=2),
      **dict(clip_norm=None, cell='gru'),
      **DOUBLE,
      **fields,
    }
  )


def model(cell='gru'):
  wide = {'dtype': jnp.float64, 'param_dtype': jnp.float64}
  return RecurrentLanguageModel(5, 4, CELLS[cell], (5, 3), **wide)


def nats(logits_BTV, target_BT):
  log_p = jax.nn.log_softmax(logits_BTV)
  return -jnp.take_along_axis(log_p, target_BT[..., None], 2)[..., 0]


def moments(opt_state):
  """Adam's first moments."""
  adam = lambda x: isinstance(x, optax.ScaleByAdamState)
  (found,) = [x.mu for x in jax.tree.leaves(opt_state, is_leaf=adam) if adam(x)]
  return found


def windows(built):
  arrays = built.train_data.load().data
  return lambda i: built.train_data.get(arrays, jnp.int32(i))


class CarriedTest(parameterized.TestCase):
  @parameterized.parameters('gru', 'peephole')
  def test_windows_are_the_text_read_at_once_but_for_the_gradient(self, cell):
    # 24 targets: two rows of 12, three windows of 4 each.
    rows = TEXT['train'].astype(np.int32)
    rows = np.stack([rows[:13], rows[12:25]])
    with jax.enable_x64(True):
      built = char_rnn.of_data(config(cell=cell), text())
      state = jax.jit(built.init)(jax.random.key(0))
      params, batch_of, step = state.params, windows(built), jax.jit(built.train_step)
      of = lambda p, x, before: model(cell).apply({'params': p}, x, before)
      logits, after = jax.jit(of)(params, rows[:, :-1], None)
      wanted = nats(jnp.asarray(logits), jnp.asarray(rows[:, 1:]))
      _, middle = of(params, rows[:, :4], None)
      for i in range(3):
        before, optimiser = state.model_state['carry'], state.opt_state
        new, found = step(state, batch_of(i))
        total, count = found['loss']
        part = wanted[:, 4 * i : 4 * i + 4].mean()
        np.testing.assert_allclose(total / count, part, rtol=TOLERANCE)
        if i == 1:

          def cut(p):
            logits, _ = of(p, rows[:, 4:8], middle)
            return nats(logits, jnp.asarray(rows[:, 5:9])).mean()

          slope = jax.jit(jax.grad(cut))(params)
          moved = jax.tree.map(
            lambda a, b: (a - 0.9 * b) / (1 - 0.9), moments(new.opt_state),
            moments(optimiser),
          )  # fmt: skip
          jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=TOLERANCE), moved, slope
          )
        state = new._replace(params=params)
        self.assertTrue(i == 0 or any(np.any(x) for x in jax.tree.leaves(before)))
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=TOLERANCE),
        state.model_state['carry'],
        after,
      )
      # The next epoch begins from nothing, whatever was carried.
      self.assertTrue(bool(batch_of(3)['reset'].all()))
      _, again = step(state, batch_of(3))
      np.testing.assert_allclose(
        again['loss'].total / again['loss'].count, wanted[:, :4].mean(), rtol=TOLERANCE
      )

  def test_an_evaluation_reads_each_part_from_begin_to_end(self):
    # 13 targets in two rows: 7, and 6 of which the window of 7 counts the last six.
    with jax.enable_x64(True):
      built = char_rnn.of_data(config(), text())
      state = jax.jit(built.init)(jax.random.key(1))
      evaluation = built.evals['validation']
      arrays = evaluation.data.load().data
      self.assertEqual(evaluation.data.num_batches(arrays), 1)
      found = jax.jit(evaluation.step)(state, evaluation.data.get(arrays, jnp.int32(0)))
      token = TEXT['validation'].astype(np.int32)
      rows = jnp.asarray(np.stack([token[:8], token[6:]]))
      logits, _ = model().apply({'params': state.params}, rows[:, :-1])
      each = np.array(nats(jnp.asarray(logits), rows[:, 1:]))
      wanted = np.concatenate([each[0], each[1, 1:]]).mean()
      reported = evaluation.summarize(found)
    np.testing.assert_allclose(reported['loss'], wanted, rtol=1e-6)  # float32 weights.
    np.testing.assert_allclose(
      reported['bits_per_character'], wanted / np.log(2), rtol=1e-6
    )


class FunctionsTest(absltest.TestCase):
  def test_samples_without_chance_are_the_likeliest_after_all_that_was_read(self):
    built = char_rnn.of_data(config(**SINGLE), text())
    state = jax.jit(built.init)(jax.random.key(2))
    prompt = jnp.asarray([[0, 1, 2], [4, 4, 3]])
    seeds, cold = jnp.zeros(2, jnp.uint32), jnp.zeros(2)
    inputs = {'prompt': prompt, 'seed': seeds, 'temperature': cold}
    call = jax.jit(lambda x: built.functions['generate'].call(state, x, num_tokens=9))
    new = np.array(call(inputs)['tokens'])
    text_BT = np.concatenate([prompt, new], 1)
    wide = RecurrentLanguageModel(5, 4, CELLS['gru'], (5, 3))
    logits, _ = jax.jit(wide.apply)({'params': state.params}, text_BT[:, :-1])
    np.testing.assert_array_equal(new, jnp.asarray(logits)[:, 2:].argmax(-1))

  def test_a_character_that_there_is_not_gives_no_number(self):
    built = char_rnn.of_data(config(**SINGLE), text())
    state = jax.jit(built.init)(jax.random.key(2))
    rows = jnp.asarray([[0, 1, 2], [0, 5, 1], [-1, 1, 2]])
    score = jax.jit(lambda x: built.functions['score'].call(state, {'tokens': x}))
    found = score(rows)['log_likelihood']
    np.testing.assert_array_equal(np.isnan(found), [False, True, True])


if __name__ == '__main__':
  absltest.main()
