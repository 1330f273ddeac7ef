"""What every experiment's functions promise: declared shapes, rows that stand alone."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import experiment
from dlx.state import is_key
from launch.flags import experiments_by_name
from tests.every_experiment import tiers
from tests.every_experiment.small import load, small

NAMES = experiments_by_name.names()

GRAPH = 'graph'
# Of sizes that a declaration leaves open, and of options.
SIZES = {'length': 6, 'nodes': 7, 'edges': 9, 'entries': 8}
OPTIONS = {'num_tokens': 5, 'steps': 2}
ALLOWED = {'predict', 'encode', 'decode', 'reconstruct', 'sample', 'generate', 'score'}
BATCH = 4


def build(name):
  """The experiment, and its state as shapes."""
  built = load(name).build(small(name))
  return built, jax.eval_shape(lambda: built.init(jax.random.key(0)))


def options(function):
  return {k: OPTIONS.get(k, v) for k, v in function.options.items()}


def of_graph(function):
  return any(field.kind == GRAPH for field in function.inputs.values())


def shapes_of(fields, sizes, lead):
  return {
    name: jax.ShapeDtypeStruct(
      (*lead, *(sizes.get(n, n) if isinstance(n, str) else n for n in field.shape)),
      field.dtype,
    )
    for name, field in fields.items()
  }


def example(rng, field, sizes):
  """A row of the kind that a field declares."""
  shape = tuple(sizes[n] if isinstance(n, str) else n for n in field.shape)
  if field.kind == 'image':
    return rng.integers(0, 17, shape).astype(field.dtype)
  if field.kind == 'label':
    return rng.integers(0, 2, shape).astype(field.dtype)
  if field.kind == 'tokens':
    return rng.integers(1, 40, shape).astype(field.dtype)
  if field.kind == 'seed':
    return rng.integers(0, 2**32, shape, dtype=np.uint32)
  if field.kind == 'number':
    return rng.uniform(0.5, 1, shape).astype(field.dtype)
  return rng.normal(size=shape).astype(field.dtype)


def some_weights(rng, shape):
  """A leaf of a state as training may leave one: all places of a bank are filled."""
  if is_key(shape):
    return jax.random.split(jax.random.key(0), shape.shape or 1).reshape(shape.shape)
  if not jnp.issubdtype(shape.dtype, jnp.inexact):
    return rng.integers(0, 2, shape.shape).astype(shape.dtype) | (shape.dtype == bool)
  if len(shape.shape) < 2:  # Scales, biases and variances of batch norm.
    return rng.uniform(0.5, 1.5, shape.shape).astype(shape.dtype)
  fan_in = np.prod(shape.shape[:-1])
  return (rng.normal(size=shape.shape) / np.sqrt(fan_in)).astype(shape.dtype)


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
        lead = () if of_graph(function) else (BATCH,)
        chosen = options(function)
        sizes = SIZES | {k: v for k, v in chosen.items() if isinstance(v, int)}
        inputs = shapes_of(function.inputs, sizes, lead)
        found = jax.eval_shape(lambda s, x, f=function: f.call(s, x), state, inputs)
        self.assertEqual(set(found), set(function.outputs))
        found = jax.eval_shape(
          lambda s, x, f=function, c=chosen: f.call(s, x, **c), state, inputs
        )
        wanted = shapes_of(function.outputs, sizes, lead)
        tell = lambda tree: {k: (x.shape, np.dtype(x.dtype)) for k, x in tree.items()}
        self.assertEqual(tell(found), tell(wanted))


@pytest.mark.parametrize('name', tiers.expensive())
def test_a_row_is_the_same_in_any_batch(name):
  built, shapes = build(name)
  functions = {k: f for k, f in built.functions.items() if not of_graph(f)}
  if not functions:
    pytest.skip('a whole graph is one input')
  rng = np.random.default_rng(0)
  # Of no optimiser: no function reads one. The rest is drawn, which compiles nothing.
  state = jax.tree.map(lambda x: some_weights(rng, x), shapes._replace(opt_state=()))
  order = np.array([*reversed(range(BATCH)), *range(BATCH)])
  for what, function in functions.items():
    call = jax.jit(lambda s, x, f=function: f.call(s, x, **options(f)))
    rows = {
      k: np.stack([example(rng, field, SIZES) for _ in range(2 * BATCH)])
      for k, field in function.inputs.items()
    }
    pick = lambda index, x=rows: {k: v[index] for k, v in x.items()}
    together = call(state, rows)
    doubled = call(state, pick(order))  # Twice the first half: other neighbours.
    alone = call(state, pick(slice(1)))
    for output in function.outputs:
      bound = {'rtol': 2e-4, 'atol': 2e-5, 'err_msg': f'{what} {output}'}
      wanted = np.asarray(together[output])
      assert np.isfinite(wanted).all(), f'{what} {output}'
      assert wanted.astype(np.float64).std(0).max() > 1e-4, f'{what} {output}'
      np.testing.assert_allclose(doubled[output], wanted[order], **bound)
      np.testing.assert_allclose(alone[output], wanted[:1], **bound)


if __name__ == '__main__':
  absltest.main()
