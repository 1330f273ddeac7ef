"""The net with a hand-written backward pass: its step, and scikit-learn's MLP."""

import os
import pathlib

from absl.testing import absltest
import jax
import numpy as np
import pytest

from dlx import losses
from dlx.run.loop import fit
from dlx.scratch import network
from experiments.foundations import numpy_mlp


class StepTest(absltest.TestCase):
  def test_weights_begin_with_he_s_variance(self):
    built = numpy_mlp.build(numpy_mlp.Config(features=(300, 50)))
    params = jax.jit(built.init)(jax.random.key(0)).params
    for kernel, bias in _layers(params):
      wanted = (2 / len(kernel)) ** 0.5
      # The deviation of n numbers is off by one in the root of 2 n.
      np.testing.assert_allclose(
        np.std(kernel), wanted, rtol=4 / (2 * kernel.size) ** 0.5
      )
      np.testing.assert_array_equal(bias, 0)

  def test_steps_are_those_of_numpy_and_of_jax_grad(self):
    fields = {'compute_dtype': 'float64', 'param_dtype': 'float64'}
    config = numpy_mlp.Config(features=(7, 5), num_steps=4, batch_size=32, **fields)
    built = numpy_mlp.build(config)
    data = built.train_data
    arrays = data.load().data

    with jax.enable_x64(True):
      state = built.init(jax.random.key(0))
      layers = jax.tree.map(np.array, _layers(state.params))
      velocity = jax.tree.map(np.zeros_like, layers)
      step, grad = jax.jit(built.train_step), jax.jit(jax.grad(_loss))
      for i in range(3):
        batch = data.get(arrays, np.int32(i))
        state, sums = step(state, batch)
        x = (np.asarray(batch['image'], np.float32) / 16).reshape(32, -1)
        x = ((x - 0.30538339422407795) / 0.37611916809001955).astype(np.float64)
        target = np.eye(10)[np.asarray(batch['label'])]
        logits, inputs = network.forward(layers, x)
        loss, slope = network.softmax_cross_entropy(logits, target)
        # The pixels are normalised in float32.
        found = float(sums['loss'].total / sums['loss'].count)
        np.testing.assert_allclose(found, loss, rtol=1e-6)
        rate = 0.1 * (1 + np.cos(np.pi * i / 4)) / 2
        slopes = network.backward(layers, inputs, slope)
        wanted = grad(layers, x, batch['label'])
        jax.tree.map(_close, slopes, wanted)
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, slopes)
        layers = jax.tree.map(lambda w, v, r=rate: w - r * v, layers, velocity)
    jax.tree.map(_close, _layers(state.params), layers)


def _close(a, b):
  np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def _layers(params):
  return [(params[k]['kernel'], params[k]['bias']) for k in sorted(params)]


def _loss(layers, x, label):
  for kernel, bias in layers[:-1]:
    x = jax.nn.relu(x @ kernel + bias[None])
  logits = x @ layers[-1][0] + layers[-1][1][None]
  return losses.softmax_cross_entropy(logits, label).mean()


@pytest.mark.usefixtures('optimised')  # Thousands of steps.
class AccuracyTest(absltest.TestCase):
  def train(self, **fields):
    config = numpy_mlp.Config(eval_every_steps=None, **fields)
    built = numpy_mlp.build(config)._replace(figures={})
    data_dir = os.environ.get('DLX_DATA_DIR')
    folder = self.create_tempdir().full_path
    return fit(built, config, folder, data_dir=data_dir).metrics['test/accuracy']

  def test_digits_as_scikit_learns_classifier(self):
    """The same net, batches, rate, momentum and number of epochs, over three seeds."""
    neural_network = pytest.importorskip('sklearn.neural_network')
    epochs, batch_size, lr = 40, 64, 0.05
    data = numpy_mlp.build(numpy_mlp.Config()).train_data.load().data
    test = numpy_mlp.build(numpy_mlp.Config()).evals['test'].data.load().data
    rows = lambda image: np.asarray(image, np.float64).reshape(len(image), -1) / 16
    x = rows(data['image'])
    mean, std = x.mean(), x.std()
    own, others = [], []
    for seed in range(3):
      model = neural_network.MLPClassifier(
        (100,),
        solver='sgd',
        alpha=0,
        batch_size=batch_size,
        learning_rate_init=lr,
        nesterovs_momentum=False,
        max_iter=epochs,
        tol=0,
        n_iter_no_change=epochs,
        random_state=seed,
      )
      with pytest.warns(Warning, match='Maximum iterations'):
        model.fit((x - mean) / std, data['label'])
      others.append(model.score((rows(test['image']) - mean) / std, test['label']))
      own.append(
        self.train(
          features=(100,),
          num_steps=epochs * len(x) // batch_size,
          batch_size=batch_size,
          lr=lr,
          seed=seed,
        )
      )
    self.assertLess(abs(np.mean(own) - np.mean(others)), 0.005, (own, others))
    self.assertGreater(np.mean(own), 0.97)

  @pytest.mark.slow
  def test_mnist(self):
    folder = pathlib.Path(os.environ.get('DLX_DATA_DIR', '')) / 'mnist'
    if not folder.is_dir():
      pytest.skip('MNIST is not in $DLX_DATA_DIR')
    self.assertGreater(self.train(dataset='mnist'), 0.97)


if __name__ == '__main__':
  absltest.main()
