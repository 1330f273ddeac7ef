"""Several runs in one program: each as on its own, whatever the others do."""

import dataclasses

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.batches.resident import InOrder
from dlx.errors import ConfigError
from dlx.experiment import Field, Figure, Function
from dlx.run import sharding
from dlx.train.members import differing, joined, member, run_of, together, vectorize
from experiments.foundations import mlp, softmax_regression
from tests.dlx.run import kinds


class VectorizeTest(absltest.TestCase):
  def test_figures_are_those_of_the_first_member_and_say_so(self):
    config = kinds.Small()
    one = kinds.classifier(config)
    look = lambda state, key, batch: state.params['Dense_0']['bias'] + state.step
    figures = {
      'computed': Figure(lambda tree: f'{tree.shape}', look),
      'of_eval': Figure(lambda found: f'{found["loss"].shape}', eval='val'),
    }
    many = vectorize(one._replace(figures=figures), 3)
    state = many.init(jax.random.key(5))
    tree = many.figures['computed'].compute(state, jax.random.key(0), {})
    np.testing.assert_array_equal(tree, state.params['Dense_0']['bias'][0])
    shape = state.params['Dense_0']['bias'].shape[1:]
    self.assertEqual(
      many.figures['computed'].draw(np.asarray(tree)), f'(member 0 of 3)\n{shape}'
    )
    drawn = many.figures['of_eval'].draw({'loss': np.zeros(3)})
    self.assertEqual(drawn, '(member 0 of 3)\n()')

  def test_functions_are_those_of_the_first_member(self):
    one = kinds.classifier(kinds.Small())
    call = lambda state, inputs, add=0: {'y': inputs['x'] + state.params['w'] + add}
    number = {'x': Field('number', (), 'float32')}
    of_one = one._replace(functions={'predict': Function(call, number, number)})
    state = one.init(jax.random.key(0))._replace(
      params={'w': jnp.array([1.0, 2.0])}, opt_state=(), stop=jnp.zeros(2, bool)
    )
    state = state._replace(rng=jax.random.split(jax.random.key(0), 2))
    found = (
      vectorize(of_one, 2)
      .functions['predict']
      .call(state, {'x': jnp.array([10.0])}, add=5)
    )
    np.testing.assert_array_equal(found['y'], [16.0])

  def test_members_start_from_keys_of_their_own(self):
    config = kinds.Small()
    many = vectorize(kinds.classifier(config), 3).init(jax.random.key(5))
    for i in range(3):
      alone = kinds.classifier(config).init(jax.random.fold_in(jax.random.key(5), i))
      kernel = alone.params['Dense_0']['kernel']
      np.testing.assert_allclose(many.params['Dense_0']['kernel'][i], kernel, rtol=1e-6)
    self.assertEqual(many.step.shape, ())
    self.assertEqual(many.stop.shape, (3,))

  def test_a_stopped_member_changes_no_more(self):
    config = kinds.Small()
    experiment = vectorize(kinds.classifier(config), 2)
    state = experiment.init(jax.random.key(0))
    state = state._replace(stop=jnp.array([True, False]))
    new, sums = experiment.train_step(state, experiment.train_data.get(kinds.IMAGES, 0))
    moved = jax.tree.map(
      lambda a, b: jnp.abs(a - b).reshape(2, -1).max(1), new.params, state.params
    )
    for change in jax.tree.leaves(moved):
      self.assertEqual(float(change[0]), 0.0)
    self.assertGreater(max(float(c[1]) for c in jax.tree.leaves(moved)), 0.0)
    self.assertEqual(int(new.step), 1)
    self.assertEqual(sums['loss'].total.shape, (2,))

  def test_refuses(self):
    experiment = kinds.teacher_then_unfreeze(kinds.Small())
    with self.assertRaisesRegex(ConfigError, 'n=0 is not allowed'):
      vectorize(experiment, 0)
    with self.assertRaisesRegex(ConfigError, 'warm_start is not allowed'):
      vectorize(experiment, 2)


CONFIG = mlp.Config(
  num_steps=4, batch_size=16, features=(8,), batch_norm=False, input_dropout=0.0
)
# Two seeds, two rates; the last rate is far too high.
CONFIGS = [
  dataclasses.replace(CONFIG, seed=3),
  dataclasses.replace(CONFIG, seed=4, lr=5e-2),
  dataclasses.replace(CONFIG, seed=3, lr=5e-2, weight_decay=0.1),
  dataclasses.replace(CONFIG, seed=4, lr=1e38),
]


def trained(experiment, steps=4):
  """(state, metrics of each step), with the arrays of its own data."""
  arrays = experiment.train_data.load().data
  state = jax.jit(experiment.init)(jax.random.key(9))
  step = jax.jit(
    lambda s: experiment.train_step(s, experiment.train_data.get(arrays, s.step))
  )
  found = []
  for _ in range(steps):
    state, metrics = step(state)
    found.append(jax.device_get(metrics))
  return state, found


class TogetherTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.joint = together(mlp.build, CONFIGS)
    cls.state, cls.metrics = trained(cls.joint)

  def test_each_run_is_that_of_its_config_alone(self):
    for i, config in enumerate(CONFIGS[:3]):
      one = mlp.build(config)
      one = one._replace(init=lambda _, e=one, c=config: e.init(jax.random.key(c.seed)))
      state, metrics = trained(one)
      own = run_of(self.state, i)
      # Roundings of four steps of Adam, which divides by the size of the gradient.
      close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6)
      jax.tree.map(close, own.params, state.params)
      for a, b in zip(self.metrics, metrics, strict=True):
        close(
          a['loss'].total[i] / a['loss'].count[i], b['loss'].total / b['loss'].count
        )

  def test_seeds_decide_initial_weights_and_batches(self):
    first = jax.tree.leaves(self.joint.init(jax.random.key(0)).params)[-1]
    np.testing.assert_array_equal(first[0], first[2])
    self.assertGreater(float(jnp.abs(first[0] - first[1]).max()), 0.01)
    data = self.joint.train_data
    arrays = data.load().data
    for i, config in enumerate(CONFIGS):
      alone = mlp.build(config).train_data.get(arrays, jnp.int32(7))
      batch = data.get(arrays, jnp.int32(7))
      jax.tree.map(
        lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), batch, alone
      )
    self.assertEqual(data.rows, 4 * 16)

  def test_one_that_diverges_stands_still_and_the_others_go_on(self):
    self.assertEqual(self.state.stop.tolist(), [False, False, False, True])
    shares = [m['diverged'].total.tolist() for m in self.metrics]
    self.assertEqual([s[:3] for s in shares], [[0, 0, 0]] * 4)
    self.assertEqual(shares[-1][3], 1)
    for leaf in jax.tree.leaves((self.state.params, self.metrics)):
      self.assertTrue(np.isfinite(leaf).all())
    lost = [i for i, s in enumerate(shares) if s[3]][0]
    # What it reports ends with its last finite step.
    self.assertEqual(self.metrics[lost]['loss'].count[3], 0)
    self.assertGreater(self.metrics[lost]['loss'].count[0], 0)

  def test_evaluations_and_functions(self):
    test = self.joint.evals['test']
    self.assertIsInstance(test.data, InOrder)
    batch = test.data.get(test.data.load().data, jnp.int32(0))
    sums = test.step(self.state, batch)
    own = member(self.state, 1)
    one = mlp.build(CONFIGS[1]).evals['test']
    alone = one.step(own._replace(model_state=own.model_state[0]), batch)
    np.testing.assert_allclose(sums['loss'].total[1], alone['loss'].total, rtol=1e-5)
    self.assertEqual(test.summarize(sums)['loss'].shape, (4,))
    inputs = {'image': np.zeros((1, 8, 8, 1), np.uint8)}
    found = self.joint.functions['predict'].call(self.state, inputs)
    self.assertEqual(found['probabilities'].shape, (1, 10))

  def test_the_shapes_follow_from_those_of_one_run(self):
    one = jax.eval_shape(lambda: mlp.build(CONFIG).init(jax.random.key(0)))
    wanted = jax.eval_shape(lambda: self.joint.init(jax.random.key(0)))
    self.assertEqual(joined(one, 4), wanted)

  def test_what_differs(self):
    self.assertEqual(
      differing(CONFIGS),
      {
        'seed': [3, 4, 3, 4],
        'lr': [2e-3, 5e-2, 5e-2, 1e38],
        'weight_decay': [0, 0, 0.1, 0],
      },
    )

  def test_members_lie_apart_on_a_mesh(self):
    mesh = jax.sharding.AbstractMesh((2, 1), ('data', 'fsdp'))
    shapes = jax.eval_shape(lambda: self.joint.init(jax.random.key(0)))
    found = sharding.state_shardings(mesh, shapes, self.joint.placement)
    kernel = found.params['hidden_0']['kernel']
    self.assertEqual(kernel.shard_shape((4, 64, 8)), (2, 64, 8))
    self.assertTrue(found.step.is_fully_replicated)

  @parameterized.parameters(
    ([], 'one or more configs of one class'),
    ([CONFIG, softmax_regression.Config()], 'of one class'),
    (
      [CONFIG, dataclasses.replace(CONFIG, features=(9,))],
      'config.features is not all',
    ),
    (
      [CONFIG, dataclasses.replace(CONFIG, batch_norm=True)],
      r'config.batch_norm is not allowed to differ: must be a number',
    ),
    (
      [dataclasses.replace(CONFIG, stream=True, seed=s) for s in (0, 1)],
      'several seeds need resident data',
    ),
  )
  def test_refuses(self, configs, told):
    with self.assertRaisesRegex(ConfigError, told):
      together(mlp.build, configs)


if __name__ == '__main__':
  absltest.main()
