"""The perceptron's experiment: the lesson's rule, Novikoff's bound, XOR."""

from absl.testing import absltest
import jax
import numpy as np

from dlx import figures
from dlx.errors import ConfigError
from dlx.scratch.perceptron import Perceptron
from experiments.foundations import perceptron


def trained(**fields):
  """The experiment, all of its batches, and the state after them."""
  config = perceptron.Config(**fields)
  built = perceptron.build(config)

  def step(state, _):
    batch = built.train_data.get({}, state.step)
    state, sums = built.train_step(state, batch)
    return state, (batch, sums)

  run = jax.jit(lambda state: jax.lax.scan(step, state, length=config.num_steps))
  state, (batches, sums) = run(built.init(jax.random.key(config.seed)))
  rows = {k: np.asarray(v).reshape(-1, *v.shape[2:]) for k, v in batches.items()}
  return built, rows, state, sums


class PerceptronTest(absltest.TestCase):
  def test_is_the_rule_of_the_lesson_and_stays_below_the_bound(self):
    _, rows, state, sums = trained(margin=0.1, num_steps=40, seed=3)
    x, sign = rows['x'].astype(np.float64), rows['sign']
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, rtol=1e-6)
    unknown = np.full(32, 32**-0.5)
    np.testing.assert_allclose(sign * (x @ unknown), 0.1, rtol=1e-5)
    # The lesson's neuron without a bias, on the same examples in the same order.
    neuron = Perceptron(32)
    wrong = []
    for x_F, label in zip(x, sign > 0):
      wrong.append(neuron.correct(x_F, int(label)))
      neuron.bias = 0.0
    # The weights are sums of at most 100 examples, in float32.
    weight = state.params['separable']
    np.testing.assert_allclose(weight, neuron.weight, atol=1e-5)
    mistakes = int(state.model_state['mistakes']['separable'])
    self.assertEqual(mistakes, sum(wrong))
    self.assertBetween(mistakes, 20, 100)
    self.assertEqual(float(sums['loss'].total.sum()), mistakes)
    seen = np.asarray(state.model_state['seen']['separable'])
    np.testing.assert_array_equal(seen[:mistakes], np.flatnonzero(wrong) + 1)
    np.testing.assert_array_equal(seen[mistakes:], 0)
    self.assertGreater(int(state.model_state['mistakes']['xor']), 100)

  def test_xor_is_never_right_on_all_four(self):
    built, _, state, sums = trained(margin=0.5, num_steps=60, features=4)
    self.assertGreater(float(sums['xor_loss'].total[-10:].min()), 0)
    four = built.evals['xor'].data
    found = built.evals['xor'].step(state, four.get(four.load().data, 0))
    self.assertIn(float(found['accuracy'].total), (1, 2, 3))
    self.assertEqual(float(found['accuracy'].count), 4)
    # The places of a full list are kept, the mistakes beyond it dropped.
    seen = np.asarray(state.model_state['seen']['xor'])
    self.assertLen(seen, 4)
    self.assertTrue((np.diff(seen) > 0).all())
    tree = jax.tree.map(np.asarray, {'seen': state.model_state['seen']})
    drawn = built.figures['mistakes'].draw({**tree, 'examples': 60 * 64})
    (ax,) = drawn.axes
    self.assertIn('bound: 4', [text.get_text() for text in ax.get_legend().texts])

  def test_a_bound_is_a_whole_number(self):
    for margin, bound in ((0.1, 100), (0.3, 11), (0.02, 2500)):
      built = perceptron.build(perceptron.Config(margin=margin))
      state = jax.eval_shape(lambda b=built: b.init(jax.random.key(0)))
      self.assertEqual(state.model_state['seen']['xor'].shape, (bound,))

  def test_more_examples_than_are_counted(self):
    with self.assertRaisesRegex(ConfigError, r'num_steps=.* below 2\*\*31 / batch_'):
      perceptron.Config(num_steps=2**20, batch_size=2**11)

  def test_figure_ends_at_the_last_example_and_at_the_bound(self):
    drawn = figures.mistakes(
      {'a': [2, 5], 'b': [1, 2, 3]}, examples=9, bound=3, title='Some'
    )
    a, b, line = drawn.axes[0].lines
    np.testing.assert_array_equal(a.get_xydata(), [[0, 0], [2, 1], [5, 2], [9, 2]])
    np.testing.assert_array_equal(b.get_xydata(), [[0, 0], [1, 1], [2, 2], [3, 3]])
    self.assertEqual(set(np.asarray(line.get_ydata())), {3})


if __name__ == '__main__':
  absltest.main()
