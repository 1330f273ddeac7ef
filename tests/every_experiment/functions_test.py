"""What every experiment's functions promise: declared shapes, rows that stand alone."""

from absl.testing import absltest, parameterized
import jax
import numpy as np
import pytest

from dlx import experiment
from dlx.run import experiments_by_name
from launch import checks
from tests.every_experiment import tiers
from tests.every_experiment.small import load, small

NAMES = experiments_by_name.names()

ALLOWED = {
  *('predict', 'encode', 'decode', 'reconstruct', 'sample', 'generate', 'score'),
  *('detect', 'mark', 'segment'),
  'translate',
  'align',
  'forecast',
}
BATCH = 4


def build(name):
  """The experiment, and its state as shapes."""
  built = load(name).build(small(name))
  return built, jax.eval_shape(lambda: built.init(jax.random.key(0)))


class FunctionsTest(parameterized.TestCase):
  @parameterized.parameters(*NAMES)
  def test_outputs_are_as_declared_and_inputs_enough(self, name):
    built, state = build(name)
    self.assertTrue(built.functions, f'{name} states nothing that its model can do')
    self.assertLessEqual(set(built.functions), ALLOWED)
    for what, function in built.functions.items():
      with self.subTest(what):
        for field in (*function.inputs.values(), *function.outputs.values()):
          self.assertIn(field.kind, experiment.KINDS)
        lead = () if function.of_graph else (BATCH,)
        chosen = checks.options(function)
        sizes = checks.SIZES | {k: v for k, v in chosen.items() if isinstance(v, int)}
        inputs = experiment.example_shapes(function.inputs, lead, sizes)
        found = jax.eval_shape(lambda s, x, f=function: f.call(s, x), state, inputs)
        self.assertEqual(set(found), set(function.outputs))
        found = jax.eval_shape(
          lambda s, x, f=function, c=chosen: f.call(s, x, **c), state, inputs
        )
        wanted = experiment.example_shapes(function.outputs, lead, sizes)
        tell = lambda tree: {k: (x.shape, np.dtype(x.dtype)) for k, x in tree.items()}
        self.assertEqual(tell(found), tell(wanted))


@pytest.mark.parametrize('name', tiers.every(expensive=True, newest=True))
def test_a_row_is_the_same_in_any_batch(name):
  if not checks.rows(load(name).build(small(name))):
    pytest.skip('a whole graph is one input')


if __name__ == '__main__':
  absltest.main()
