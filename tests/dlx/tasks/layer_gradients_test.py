"""Gradients by layer: by hand on a linear net, tiny ones, none; mlp's fields."""

import dataclasses

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.batches.resident import InOrder
from dlx.data.sources import of_arrays
from dlx.errors import ConfigError
from dlx.experiment import Eval, Experiment
from dlx.figures.layers import gradient_by_layer
from dlx.state import create, mean
from dlx.tasks.layer_gradients import layer_gradients
from experiments.foundations import mlp

ROWS = {'x': np.array([[1.0], [3.0]], np.float32)}


def state(a, b, **more):
  params = {
    'one': {'kernel': jnp.full((1, 1), a), 'bias': jnp.zeros(1)},
    'two': {'kernel': jnp.full((1, 1), b)},
  }
  return create(params, (), jax.random.key(0), **more)


def made():
  """The loss of x is a b x + bias: its slopes are b x and a x."""

  def step(state, batch):
    one, two = state.averaged['one'], state.averaged['two']
    loss_B = (batch['x'] @ one['kernel'] @ two['kernel'] + one['bias'][None])[:, 0]
    return {'loss': mean(loss_B, batch['weight'])}

  data = InOrder(of_arrays(ROWS), 2)
  experiment = Experiment(
    lambda key: state(1.0, 1.0), lambda s, b: (s, {}), data, {'test': Eval(step, data)}
  )
  built = layer_gradients(experiment, ['one', 'two'])
  return built.evals['gradients'], built.figures['gradients']


class LayerGradientsTest(absltest.TestCase):
  def report(self, a, b, weight=(1.0, 1.0)):
    found, _ = made()
    batch = {'x': jnp.asarray(ROWS['x']), 'weight': jnp.asarray(weight)}
    return {
      k: float(v) for k, v in found.summarize(found.step(state(a, b), batch)).items()
    }

  def test_by_hand(self):
    # The mean of x is 2.
    found = self.report(5.0, 0.5)
    self.assertEqual(found, {'first': 1.0, 'last': 10.0, 'ratio': np.float32(0.1)})
    # What only fills a batch up counts nothing.
    self.assertEqual(self.report(5.0, 0.5, (1.0, 0.0))['first'], 0.5)

  def test_of_averaged_parameters_where_they_are_kept(self):
    found, _ = made()
    batch = {'x': jnp.asarray(ROWS['x']), 'weight': jnp.ones(2)}
    sums = found.step(state(5.0, 0.5, ema=state(3.0, 0.25).params), batch)
    self.assertEqual((sums['first'].total, sums['last'].total), (0.5, 6.0))

  def test_tiny_and_none(self):
    # The square of 1e-30 is no float32.
    found = self.report(1e-30, 1e-33)
    np.testing.assert_allclose(found['ratio'], 1e-3, rtol=1e-5)
    self.assertEqual(self.report(0.0, 0.0)['ratio'], 0)

  def test_the_figure(self):
    _, figure = made()
    batch = {'x': jnp.asarray(ROWS['x']), 'weight': jnp.ones(2)}
    norm = figure.compute(state(5.0, 0.5), None, batch)
    np.testing.assert_allclose(norm, [1, 10], rtol=1e-6)
    drawn = gradient_by_layer(np.asarray(norm), ['one', 'two'])
    self.assertEqual(drawn.axes[0].get_title(loc='left') or
                     drawn.axes[0].get_title(), 'First over last: 0.1')  # fmt: skip


class MlpTest(absltest.TestCase):
  def params(self, **fields):
    config = dataclasses.replace(mlp.SMALL, features=(64, 64), **fields)
    return jax.jit(mlp.build(config).init)(jax.random.key(0)).params

  def test_initialiser(self):
    variance = lambda **fields: float(self.params(**fields)['hidden_1']['kernel'].var())
    # Of 4096 numbers: a relative deviation of sqrt(2 / 4096); four of these.
    np.testing.assert_allclose(variance(), 1 / 64, rtol=0.09)
    np.testing.assert_allclose(variance(initialiser='he_normal'), 2 / 64, rtol=0.09)
    np.testing.assert_allclose(variance(initialiser='normal'), 1e-4, rtol=0.09)

  def test_activation_and_gradients(self):
    config = dataclasses.replace(
      mlp.SMALL, features=(8,) * 6, batch_norm=False, dropout=0.0, layer_gradients=True
    )
    for activation, low, high in (('sigmoid', 0.0, 0.02), ('relu', 0.05, 20.0)):
      fields = {'activation': activation, 'initialiser': 'he_normal'}
      built = mlp.build(dataclasses.replace(config, **fields))
      data = built.evals['gradients'].data
      arrays = {name: jnp.asarray(x) for name, x in data.load().data.items()}
      evaluate = jax.jit(
        lambda key, arrays, built=built, data=data: built.evals['gradients'].summarize(
          built.evals['gradients'].step(built.init(key), data.get(arrays, jnp.int32(0)))
        )
      )
      self.assertBetween(evaluate(jax.random.key(0), arrays)['ratio'], low, high)

  def test_refusals(self):
    for fields, told in (
      ({'activation': 'softmax'}, 'activation=softmax .* one of sigmoid'),
      ({'initialiser': 'he'}, 'initialiser=he .* he_normal'),
      ({'layer_gradients': True, 'features': (8,)}, 'layer_gradients=True'),
    ):
      with self.assertRaisesRegex(ConfigError, told):
        dataclasses.replace(mlp.SMALL, **fields)


if __name__ == '__main__':
  absltest.main()
