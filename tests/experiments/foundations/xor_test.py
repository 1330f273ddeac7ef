"""XOR: a net by hand, a hundred seeds, and the figure of what they learnt."""

import dataclasses

from absl.testing import absltest
import jax
import numpy as np
import pytest

from dlx import figures
from dlx.figures.plane import grid
from experiments.foundations import xor


def trained(**fields):
  """The experiment, its state after all steps, and what the evaluation reports."""
  config = xor.Config(**fields)
  built = xor.build(config)
  four = built.train_data.load().data

  @jax.jit
  def run(key):
    step = lambda _, state: built.train_step(state, four)[0]
    state = jax.lax.fori_loop(0, config.num_steps, step, built.init(key))
    test = built.evals['test']
    return state, test.summarize(test.step(state, four))

  return built, *run(jax.random.key(config.seed))


@pytest.mark.usefixtures('optimised')  # Thousands of steps.
class XorTest(absltest.TestCase):
  def test_ninety_five_of_a_hundred_seeds_are_solved(self):
    for seed in (0, 1):
      built, state, found = trained(seed=seed)
      self.assertEqual(found['accuracy'].shape, (100,))
      self.assertGreaterEqual(float(found['solved']), 0.95)
      self.assertEqual(float(found['solved']), np.mean(found['accuracy'] == 1))
    # The seeds are different nets.
    kernel = np.asarray(state.params['hidden']['kernel'])
    self.assertLen(np.unique(kernel.reshape(100, -1)[:, 0]), 100)
    compute = built.figures['boundaries'].compute
    four = built.train_data.load().data
    tree = jax.jit(compute)(state, jax.random.key(0), four)
    tree = jax.tree.map(np.asarray, tree)
    self.assertEqual(tree['value'].shape, (12, 61, 61))
    solved = round(100 * float(found['solved']))
    self.assertEqual((tree['right'] == 4).sum(), solved)
    order = tree['right'][tree['number']]
    self.assertEqual(list(order), sorted(order))
    # The grid goes from -2 to 2: the points of XOR lie at 15 and 45 of 61.
    signs = np.sign(tree['value'][-1][[15, 15, 45, 45], [15, 45, 15, 45]])
    np.testing.assert_array_equal(signs, [-1, 1, 1, -1])
    drawn = built.figures['boundaries'].draw(tree)
    self.assertStartsWith(drawn.get_suptitle(), f'{solved} of 100 nets learnt XOR')
    self.assertLen(drawn.axes, 12)

  def test_larger_weights_and_cross_entropy_solve_fewer(self):
    _, _, found = trained(loss='cross_entropy', init_scale=0.5)
    self.assertLess(float(found['solved']), 0.9)


class NetTest(absltest.TestCase):
  def test_two_hidden_units_by_hand(self):
    config = dataclasses.replace(xor.SMALL, members=1)
    built = xor.build(config)
    state = built.init(jax.random.key(0))
    # One unit says that an input is 1, the other that both are; 1 - 2 of their tanhs.
    params = {
      'hidden': {'kernel': [[[9.0, 9], [9, 9]]], 'bias': [[9.0, -9]]},
      'head': {'kernel': [[1.0, -1]], 'bias': [-1.0]},
    }
    state = state._replace(params=jax.tree.map(np.float32, params, is_leaf=_is_list))
    output = built.functions['predict'].call(state, {'x': xor.SQUARE})['output']
    np.testing.assert_allclose(output, xor.XOR, atol=1e-6)
    four = built.train_data.load().data
    found = built.evals['test'].step(state, four)
    self.assertEqual(float(found['accuracy'].total[0]), 4)
    self.assertLess(float(found['loss'].total[0]), 1e-10)
    # Outputs 1 and -1 are logits of what is true and of what is not.
    built = xor.build(dataclasses.replace(xor.SMALL, members=1, loss='cross_entropy'))
    found = built.evals['test'].step(state, four)['loss']
    np.testing.assert_allclose(found.total[0] / 4, np.log1p(np.exp(-1)), rtol=1e-5)

  def test_the_title_speaks_of_failures_where_there_are_some(self):
    draw = xor.build(dataclasses.replace(xor.SMALL, members=2)).figures['boundaries']
    tree = {'value': np.zeros((2, 61, 61)), 'number': np.arange(2)}
    for right, said in (
      ([4, 4], '2 of 2 nets learnt XOR'),
      ([2, 4], '1 of 2 nets learnt XOR; failures first'),
    ):
      drawn = draw.draw({**tree, 'right': np.array(right)})
      self.assertEqual(drawn.get_suptitle(), said)

  def test_figure_names_each_net_and_wants_one_caption_each(self):
    value = grid(-1, 1, 5)[..., 0]
    self.assertEqual(value[0, 0], -1)
    self.assertEqual(value[0, 4], 1)
    points, label = [[-1, 0], [1, 0]], [0, 1]
    args = (points, label, ['a', 'b'])
    drawn = figures.decision_boundaries([value, -value], (-1, 1), *args, title='Two')
    self.assertEqual([ax.get_xlabel() for ax in drawn.axes], ['a', 'b'])
    with self.assertRaisesRegex(ValueError, '2 captions for 1 models'):
      figures.decision_boundaries([value], (-1, 1), *args, title='One')


def _is_list(x):
  return isinstance(x, list)


if __name__ == '__main__':
  absltest.main()
