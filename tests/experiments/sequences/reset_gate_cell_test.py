"""A cell of one reset gate: by heart, alone or beside others, and its gradients."""

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.sets.sentences import from_texts
from dlx.errors import ConfigError
from experiments.sequences import reset_gate_cell

WORDS = 'a b c d e f g h'.split()
PARTS = ('train', 'validation', 'test')


def sentences(lengths):
  """Random words with random labels, the same in every split."""
  rng = np.random.default_rng(0)
  texts = [' '.join(rng.choice(WORDS, n)) for n in lengths]
  labels = np.arange(len(texts)) % 2
  return from_texts('random', dict.fromkeys(PARTS, texts), dict.fromkeys(PARTS, labels))


def config(**fields):
  small = dict(cells=('reset',), num_sentences=6, batch_size=6, eval_batch_size=8)
  return reset_gate_cell.Config(**{**small, 'embedding': 5, 'features': 6, **fields})


def batch_of(evaluation):
  arrays = jax.tree.map(jnp.asarray, evaluation.data.load().data)
  return evaluation.data.get(arrays, jnp.int32(0))


class LearnsTest(absltest.TestCase):
  def test_32_sentences_by_heart(self):
    c = reset_gate_cell.Config(cells=('reset',), num_steps=150)
    built = reset_gate_cell.build(c)
    arrays = jax.tree.map(jnp.asarray, built.train_data.load().data)

    @jax.jit
    def train(state):
      def body(_, state):
        return built.train_step(state, built.train_data.get(arrays, state.step))[0]

      return jax.lax.fori_loop(0, c.num_steps, body, state)

    state = train(jax.jit(built.init)(jax.random.key(0)))
    batch = batch_of(built.evals['seen'])
    self.assertEqual(float(batch['weight'].sum()), 32)
    self.assertEqual(float((batch['weight'] * batch['label']).sum()), 16)
    told = built.evals['seen'].summarize(
      jax.jit(built.evals['seen'].step)(state, batch)
    )
    self.assertLess(float(told['loss']), 1e-2)
    self.assertEqual(float(told['accuracy']), 1)

  def test_a_cell_learns_beside_others_what_it_does_alone(self):
    data = sentences([6, 3, 5, 2, 4, 6])
    after = {}
    for cells in (('reset',), ('gru', 'reset')):
      built = reset_gate_cell.of_data(config(cells=cells), data)
      state = jax.jit(built.init)(jax.random.key(0))
      arrays = jax.tree.map(jnp.asarray, built.train_data.load().data)
      batch = built.train_data.get(arrays, jnp.int32(0))
      state, _ = jax.jit(built.train_step)(state, batch)
      after[cells] = {k: x for k, x in state.params.items() if k.startswith('reset')}
    # Names, not places, are the streams of the first parameters.
    chex.assert_trees_all_close(*after.values(), atol=1e-6)


class GradientsTest(absltest.TestCase):
  def test_of_the_first_word_and_by_distance(self):
    data = sentences([4] * 6)
    built = reset_gate_cell.of_data(config(cells=('reset', 'rnn')), data)
    state = jax.jit(built.init)(jax.random.key(0))
    evaluation, figure = built.evals['gradients'], built.figures['gradient_flow']
    batch = batch_of(evaluation)
    told = evaluation.summarize(jax.jit(evaluation.step)(state, batch))
    flows = jax.jit(figure.compute)(state, jax.random.key(1), batch)
    for name, flow_T in zip(('first', 'first_rnn'), flows):
      self.assertEqual(flow_T.shape, (4,))
      self.assertAlmostEqual(float(flow_T[0]), 1, places=5)
      # All have 4 words: a mean of logarithms is at most the logarithm of the mean.
      self.assertLessEqual(float(told[name]), float(flow_T[3]) * (1 + 1e-5))
      self.assertGreater(float(told[name]), 0.1 * float(flow_T[3]))
    # Two rows that fill the batch up change nothing.
    whole = {k: x[:6] for k, x in batch.items()}
    self.assertEqual(float(batch['weight'].sum()), 6)
    fewer = jax.jit(figure.compute)(state, jax.random.key(1), whole)
    chex.assert_trees_all_close(flows, fewer, rtol=1e-5)
    lines = figure.draw(jax.tree.map(np.array, flows)).axes[0].get_lines()
    self.assertEqual([line.get_label() for line in lines], ['reset', 'rnn'])

  def test_an_open_gate_lets_all_of_it_through(self):
    built = reset_gate_cell.of_data(config(), sentences([4] * 6))
    state = jax.jit(built.init)(jax.random.key(0))
    encoder = dict(state.params['reset_encoder'])
    encoder['input_bias'] = encoder['input_bias'].at[:6].set(100.0)
    held = state._replace(params={**state.params, 'reset_encoder': encoder})
    evaluation = built.evals['gradients']
    step = jax.jit(evaluation.step)
    batch = batch_of(evaluation)
    first = lambda state: float(evaluation.summarize(step(state, batch))['first'])
    self.assertAlmostEqual(first(held), 1, places=5)
    self.assertLess(first(state), 1)


class RefusesTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(cells=()), 'one or more, each once, of rnn, lstm'),
    (dict(cells=('elman',)), 'one or more, each once, of rnn, lstm'),
    (dict(num_sentences=0), 'at least 1'),
    (dict(ema_decay=0.9), 'None: not averaged here'),
    (dict(stream=True), 'False: a few sentences are learnt by heart'),
  )
  def test_refuses(self, fields, message):
    (name,) = fields
    with self.assertRaisesRegex(ConfigError, f'--config.{name}=.* {message}'):
      reset_gate_cell.Config(**fields)

  def test_more_sentences_than_there_are(self):
    with self.assertRaisesRegex(ConfigError, 'subset of 7 .* has 6'):
      reset_gate_cell.of_data(config(num_sentences=7), sentences([3] * 6))


if __name__ == '__main__':
  absltest.main()
