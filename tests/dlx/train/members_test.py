"""Several runs in one program: each as on its own, whatever the others do."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.experiment import Field, Figure, Function
from dlx.train.members import vectorize
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


if __name__ == '__main__':
  absltest.main()
