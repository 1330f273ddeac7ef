"""Initialisers: their variance, what 50 layers keep, self-normalisation, the table."""

import functools
import math
import pathlib
import re

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.layers import initialisers
from dlx.layers.activations import ACTIVATIONS, activation
from dlx.layers.initialisers import INITIALISERS, initialiser

README = pathlib.Path(initialisers.__file__).with_name('README.md')
WIDTH = 256


@functools.lru_cache
def through(init, act, depth):
  """Mean and mean square of each row after each of `depth` layers: [depth, B].

  Rows have mean square 1. Without biases.
  """
  f = activation(act) if act else lambda x: x
  kernel = initialiser(init)

  @jax.jit
  def run(key):
    x = jax.random.normal(jax.random.fold_in(key, 1000), (4, WIDTH))
    x /= jnp.sqrt(jnp.square(x).mean(1, keepdims=True))

    def layer(x, i):
      x = f(x @ kernel(jax.random.fold_in(key, i), (WIDTH, WIDTH)))
      return x, (x.mean(1), jnp.square(x).mean(1))

    return jax.lax.scan(layer, x, jnp.arange(depth))[1]

  return [np.asarray(v, np.float64) for v in run(jax.random.key(0))]


class InitialiserTest(parameterized.TestCase):
  @parameterized.parameters(
    ('xavier_normal', 2 / 400),
    ('xavier_uniform', 2 / 400),
    ('he_normal', 2 / 300),
    ('he_uniform', 2 / 300),
    ('lecun_normal', 1 / 300),
    ('lecun_uniform', 1 / 300),
    ('normal', 1e-4),
    ('orthogonal', 1 / 300),
  )
  def test_variance_by_hand(self, name, wanted):
    w = np.asarray(initialiser(name)(jax.random.key(0), (300, 100), jnp.float32))
    # The variance of 30000 numbers: their kurtosis is at most 3, so that its relative
    # deviation is below sqrt(2 / 30000); four of these.
    np.testing.assert_allclose(w.var(), wanted, rtol=4 * math.sqrt(2 / 30000))
    np.testing.assert_allclose(w.mean(), 0, atol=4 * math.sqrt(wanted / 30000))
    if name.endswith('uniform'):
      self.assertLessEqual(np.abs(w).max(), math.sqrt(3 * wanted) * (1 + 1e-6))

  @parameterized.parameters((6, 4), (4, 6))
  def test_orthogonal(self, rows, columns):
    w = initialiser('orthogonal')(jax.random.key(0), (rows, columns), jnp.float32)
    gram = w.T @ w if rows > columns else w @ w.T
    np.testing.assert_allclose(gram, np.eye(4), atol=1e-6)

  def test_a_receptive_field_counts_as_inputs(self):
    w = initialiser('he_normal')(jax.random.key(0), (3, 3, 20, 60), jnp.float32)
    np.testing.assert_allclose(w.var(), 2 / 180, rtol=4 * math.sqrt(2 / w.size))

  @parameterized.parameters(
    # Given the layer before, units are independent normals of variance q. By one layer
    # log q moves with variance V / n and mean -V / 2n; V is that of the square of an
    # output over its mean: 2 for no activation (the square of a normal), 5 for ReLU.
    ('lecun_normal', None, 2),
    ('xavier_uniform', None, 2),
    ('he_normal', 'relu', 5),
    ('he_uniform', 'relu', 5),
  )
  def test_50_layers_keep_the_variance(self, init, act, spread):
    _, square = through(init, act, 50)
    deviation = math.sqrt(50 * spread / WIDTH)
    drift = 50 * spread / WIDTH / 2
    np.testing.assert_allclose(np.log(square[-1]), -drift, atol=4 * deviation)

  def test_50_orthogonal_layers_keep_every_length(self):
    kernel = jax.jit(lambda key: initialiser('orthogonal')(key, (32, 32)))
    x = np.random.default_rng(0).normal(size=(4, 32))
    y = x
    for i in range(50):
      y = y @ np.asarray(kernel(jax.random.key(i)), np.float64)
    # Each is orthogonal to some eps of its float32.
    length = lambda x: np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(length(y), length(x), rtol=50 * 4 * 2**-23)

  def test_xavier_halves_it_with_relu_and_small_weights_end_it(self):
    _, square = through('xavier_normal', 'relu', 50)
    wanted = 50 * math.log(0.5) - 50 * 5 / WIDTH / 2
    np.testing.assert_allclose(
      np.log(square[-1]), wanted, atol=4 * math.sqrt(50 * 5 / WIDTH)
    )
    _, square = through('normal', 'tanh', 50)
    # 256 inputs of variance 1e-4 each: less than 0.0256 is left by a layer.
    self.assertLess(square[-1].max(), 0.0256**49)

  def test_selu_with_lecun_normalises_itself(self):
    """30 layers, from inputs of mean square 1: mean 0 and variance 1 (L6)."""
    mean, square = through('lecun_normal', 'selu', 30)
    mean, square = mean.mean(1)[-10:].mean(), square.mean(1)[-10:].mean()
    self.assertLess(abs(mean), 0.1)
    self.assertLess(abs(square - mean**2 - 1), 0.1)

  def test_selu_comes_back_from_wrong_moments(self):
    f, kernel = activation('selu'), initialiser('lecun_normal')

    @jax.jit
    def run(key):
      x = 0.5 + 0.5 * jax.random.normal(key, (64, WIDTH))
      layer = lambda x, i: (
        f(x @ kernel(jax.random.fold_in(key, i), (WIDTH, WIDTH))),
        None,
      )
      return jax.lax.scan(layer, x, jnp.arange(30))[0]

    x = np.asarray(run(jax.random.key(1)))
    self.assertLess(abs(x.mean()), 0.1)
    self.assertLess(abs(x.var() - 1), 0.1)

  def test_activations_name_initialisers(self):
    for name, a in ACTIVATIONS.items():
      self.assertIn(a.initialiser, INITIALISERS)
      self.assertIs(initialisers.for_activation(name), initialiser(a.initialiser))
      belongs = INITIALISERS[a.initialiser].belongs
      self.assertIn(name.removesuffix('_tanh'), belongs)
    self.assertIs(initialisers.for_activation('swish'), initialiser('he_normal'))

  def test_the_table_stands_in_the_readme(self):
    text = README.read_text(encoding='utf-8')
    (found,) = re.findall(r'<!-- initialisers -->\n(.*?)\n<!-- end -->', text, re.S)
    self.assertEqual(found, initialisers.table())

  def test_names(self):
    self.assertIs(initialiser('glorot_normal'), initialiser('xavier_normal'))
    with self.assertRaisesRegex(ConfigError, 'initialiser=he .* he_normal.*glorot'):
      initialiser('he')
    with self.assertRaisesRegex(ConfigError, 'activation=no is not allowed'):
      initialisers.for_activation('no')

  @parameterized.parameters('xavier', 'he')
  def test_bounds_of_torch(self, name):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    init = torch.nn.init
    theirs = {'xavier': init.xavier_uniform_, 'he': init.kaiming_uniform_}[name]
    w = theirs(
      torch.empty(100, 300), **({'nonlinearity': 'relu'} if name == 'he' else {})
    )
    ours = initialiser(f'{name}_uniform')(jax.random.key(0), (300, 100), jnp.float32)
    # The largest of 30000 uniform numbers is below the bound by 1 / 30000, each.
    np.testing.assert_allclose(
      np.abs(ours).max(), w.abs().max().item(), rtol=20 / 30000
    )


if __name__ == '__main__':
  absltest.main()
