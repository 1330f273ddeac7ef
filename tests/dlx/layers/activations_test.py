"""Activations: closed forms, edges, the table, torch."""

import math
import pathlib
import re

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from dlx.errors import ConfigError
from dlx.layers import activations
from dlx.layers.activations import ACTIVATIONS, activation

README = pathlib.Path(activations.__file__).with_name('README.md')
EPS = float(np.finfo(np.float32).eps)
SCALAR = tuple(name for name in ACTIVATIONS if name != 'softmax')
# Of both signs, with small and large ones.
POINTS = np.concatenate([np.linspace(-9, 9, 73), [-30, 30, -1e-6, 1e-6]])


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def density(x):
  return np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def tanh_gelu(x):
  t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
  slope = (1 - t**2) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
  return x * (1 + t) / 2, (1 + t) / 2 + x * slope / 2


def mish(x):
  t, s = np.tanh(np.log1p(np.exp(x))), sigmoid(x)
  return x * t, t + x * s * (1 - t**2)


# Value and derivative in float64, written as in the papers.
CLOSED = {
  'sigmoid': lambda x: (sigmoid(x), sigmoid(x) * (1 - sigmoid(x))),
  'tanh': lambda x: (np.tanh(x), 1 - np.tanh(x) ** 2),
  'relu': lambda x: (np.maximum(x, 0), 1.0 * (x > 0)),
  'leaky_relu': lambda x: (np.where(x >= 0, x, 0.01 * x), np.where(x >= 0, 1, 0.01)),
  'elu': lambda x: (np.where(x > 0, x, np.expm1(x)), np.where(x > 0, 1, np.exp(x))),
  'selu': lambda x: (
    1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    1.0507009873554805 * np.where(x > 0, 1, 1.6732632423543772 * np.exp(x)),
  ),
  'silu': lambda x: (x * sigmoid(x), sigmoid(x) * (1 + x * (1 - sigmoid(x)))),
  'gelu': lambda x: (x * scipy.special.ndtr(x), scipy.special.ndtr(x) + x * density(x)),
  'gelu_tanh': tanh_gelu,
  'mish': mish,
}


def value_and_slope(name, x):
  call = activation(name)
  return jax.jit(lambda x: (call(x), jax.vmap(jax.grad(call))(x)))(x)


class ActivationTest(parameterized.TestCase):
  def test_all_are_tested(self):
    self.assertEqual(set(CLOSED), set(SCALAR))

  @parameterized.parameters(*SCALAR)
  def test_value_and_derivative_are_the_closed_form(self, name):
    found = value_and_slope(name, jnp.asarray(POINTS, jnp.float32))
    rounded = np.asarray(jnp.asarray(POINTS, jnp.float32), np.float64)
    # A dozen roundings of numbers of at most |x| + 1.
    tight = 12 * EPS * (1 + np.abs(rounded))
    for ours, wanted in zip(found, CLOSED[name](rounded), strict=True):
      np.testing.assert_array_less(np.abs(np.asarray(ours, float) - wanted), tight)

  @parameterized.parameters(*SCALAR)
  def test_narrow_types_stay(self, name):
    x = jnp.linspace(-4, 4, 33).astype(jnp.bfloat16)
    found = activation(name)(x)
    self.assertEqual(found.dtype, jnp.bfloat16)
    wanted, _ = CLOSED[name](np.asarray(x, np.float64))
    # 8 bits; two or three operations are rounded to them.
    np.testing.assert_allclose(np.float64(found), wanted, atol=3 * 4 * 2**-8)

  @parameterized.parameters(*SCALAR)
  def test_edges(self, name):
    """At 0, at +-1e4 and at infinity: limits, and slopes that are finite."""
    x = jnp.array([-jnp.inf, -1e4, 0.0, 1e4, jnp.inf])
    value, slope = value_and_slope(name, x)
    a = ACTIVATIONS[name]
    wide = [-1e4, 0.0, 1e4]
    with np.errstate(over='ignore'):
      wanted = CLOSED[name](np.array(wide))
    np.testing.assert_allclose(value[1:4], wanted[0], rtol=2 * EPS, atol=2 * EPS)
    np.testing.assert_allclose(slope[1:4], wanted[1], rtol=2 * EPS, atol=2 * EPS)
    self.assertEqual(float(value[4]), a.most)
    self.assertEqual(slope[4], slope[3])
    self.assertEqual(slope[0], slope[1])
    # The least value lies at -inf, or before it and the limit is 0.
    low = 0.0 if name in ('silu', 'gelu', 'gelu_tanh', 'mish') else a.least
    np.testing.assert_allclose(value[0], low, rtol=2 * EPS)
    self.assertTrue(np.isnan(value_and_slope(name, jnp.array([jnp.nan]))[0]))

  @parameterized.parameters(*SCALAR)
  def test_the_range_is_that_of_the_table(self, name):
    x = jnp.concatenate([jnp.linspace(-40, 40, 80001), jnp.array([-jnp.inf, jnp.inf])])
    value, a = activation(name)(x), ACTIVATIONS[name]
    np.testing.assert_allclose(value.min(), a.least, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(value.max(), a.most, rtol=1e-5)

  def test_the_table_stands_in_the_readme(self):
    text = README.read_text(encoding='utf-8')
    (found,) = re.findall(r'<!-- activations -->\n(.*?)\n<!-- end -->', text, re.S)
    self.assertEqual(found, activations.table())

  def test_names(self):
    self.assertIs(activation('swish'), activation('silu'))
    with self.assertRaisesRegex(ConfigError, 'activation=rule .* one of .*swish'):
      activation('rule')

  @parameterized.parameters(*ACTIVATIONS)
  def test_torch(self, name):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    f = torch.nn.functional
    theirs = {
      'gelu_tanh': lambda x: f.gelu(x, approximate='tanh'),
      'softmax': lambda x: f.softmax(x, -1),
    }.get(name) or getattr(f, name)
    x = np.concatenate([POINTS, [0.0, -1e4, 1e4]]).astype(np.float32).reshape(8, 10)
    if name == 'leaky_relu':  # At 0 its slope is 1 here and 0.01 there.
      x[x == 0] = 1
    weight = np.random.default_rng(0).normal(size=x.shape).astype(np.float32)
    given = torch.tensor(x, requires_grad=True)
    wanted = theirs(given)
    (wanted * torch.tensor(weight)).sum().backward()
    call = activation(name)
    slope = jax.jit(jax.grad(lambda x: (call(x) * weight).sum()))(jnp.asarray(x))
    value = np.asarray(call(jnp.asarray(x)))
    np.testing.assert_allclose(
      value, wanted.detach().numpy(), rtol=16 * EPS, atol=64 * EPS
    )
    # That of gelu_tanh has 1 - tanh^2, off by an eps, times x (1 + 0.13 x^2).
    off = np.abs(slope - given.grad.numpy())
    near = np.minimum(np.abs(x), 10)
    np.testing.assert_array_less(off, 64 * EPS + 2 * EPS * near * (1 + 0.14 * near**2))


class SoftmaxTest(parameterized.TestCase):
  def test_by_hand(self):
    found = activation('softmax')(jnp.array([2, 1, 0.1]))
    np.testing.assert_allclose(found, [0.659, 0.242, 0.099], atol=5e-4)

  def test_derivative(self):
    x = jnp.asarray(np.random.default_rng(0).normal(size=5), jnp.float32)
    p = np.asarray(activation('softmax')(x))
    jacobian = jax.jit(jax.jacobian(activation('softmax')))(x)
    np.testing.assert_allclose(jacobian, np.diag(p) - np.outer(p, p), atol=4 * EPS)

  @parameterized.parameters(1e4, -1e4)
  def test_extremes(self, big):
    x = jnp.array([[big, big, big], [big, 0, -big], [big, -jnp.inf, big]])
    found = activation('softmax')(x)
    hot = [1, 0, 0] if big > 0 else [0, 0, 1]
    wanted = [[1 / 3] * 3, hot, [0.5, 0, 0.5]]
    np.testing.assert_allclose(found, wanted, rtol=2 * EPS)
    slope = jax.grad(lambda x: activation('softmax')(x)[:, 0].sum())(x[:2])
    chex.assert_tree_all_finite(slope)

  def test_stated_nan(self):
    x = jnp.array([[0, jnp.nan], [0, jnp.inf], [-jnp.inf] * 2, [0, 1]])
    found = np.isnan(activation('softmax')(x)).any(1)
    np.testing.assert_array_equal(found, [True, True, True, False])

  def test_half_precision_is_computed_in_float32(self):
    x = 4 * jax.random.normal(jax.random.key(0), (8, 50))
    narrow = x.astype(jnp.bfloat16)
    found = activation('softmax')(narrow)
    wanted = jax.nn.softmax(narrow.astype(jnp.float32))
    np.testing.assert_array_equal(found, wanted.astype(jnp.bfloat16))


if __name__ == '__main__':
  absltest.main()
