"""Tests for dlx/run/blame.py: the line that made a NaN, of a value or of a gradient."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx import losses
from dlx.run import blame

X = jnp.array([1.0, 2.0])


def logarithm(x):
  return jnp.log(x - 1.5)  # The line.


def root(x):
  return jnp.sqrt(x - 1.0)  # inf is its slope at 1.


class LineTest(absltest.TestCase):
  def check(self, found, *parts):
    assert found is not None
    for part in parts:
      self.assertIn(part, found)

  def test_of_a_value(self):
    found = blame.line(lambda x: logarithm(x * 1.0).sum(), X)
    self.check(
      found, 'log, at blame_test.py:', 'in logarithm: `return jnp.log(x - 1.5)'
    )

  def test_inside_jit_remat_and_custom_derivatives(self):
    for wrapped in (jax.jit(logarithm), jax.checkpoint(logarithm)):
      self.check(blame.line(lambda x, f=wrapped: f(x).sum(), X), 'in logarithm')
    custom = jax.custom_jvp(logarithm)
    custom.defjvp(lambda primals, tangents: (logarithm(*primals), tangents[0]))
    self.check(blame.line(custom, X), 'in logarithm')

  def test_of_a_gradient_the_line_of_the_value(self):
    self.check(blame.line(jax.grad(lambda x: (0.0 * root(x)).sum()), X), 'in root')

  def test_a_nan_before_an_inf(self):
    def both(x):
      large = jnp.exp(1000.0 * x)
      return large.sum() + logarithm(x).sum()

    self.check(blame.line(both, X), 'in logarithm')
    self.check(blame.line(lambda x: jnp.exp(1000.0 * x), X), 'exp, at blame_test.py')

  def test_what_comes_in_is_nobodys(self):
    self.assertIsNone(blame.line(lambda x: x + 1.0, jnp.array([jnp.nan])))
    self.assertIsNone(blame.line(lambda x: x + 1.0, X))

  def test_of_a_short_loop_the_line_inside(self):
    def turn(x):
      return jnp.log(x - 1.0)

    def loop(x, turns=3):
      return jax.lax.fori_loop(0, turns, lambda i, x: turn(x), x)

    self.check(blame.line(loop, X), 'in turn')
    long = lambda x: loop(x, 65)
    self.check(blame.line(long, X), 'scan, at blame_test.py', 'in loop')

  def test_a_loop_turn_by_turn_gives_what_it_gives(self):
    def loops(x):
      down, ys = jax.lax.scan(
        lambda c, y: (c * y + x[0], c), x[1], jnp.arange(1.0, 4.0), reverse=True
      )
      return down, ys, jax.lax.fori_loop(0, 2, lambda i, c: c * 2 + i, down)

    closed = jax.make_jaxpr(loops)(X)
    found = blame._evaluate(closed.jaxpr, closed.consts, [X], lambda *_: None)
    for a, b in zip(found, loops(X), strict=True):
      np.testing.assert_array_equal(a, b)

  def test_of_an_index_its_value_and_range(self):
    loss = lambda y: losses.softmax_cross_entropy(jnp.zeros((3, 4)), y)
    self.assertEqual(blame.index_out_of_range(loss, jnp.array([0, 7, 9])), (7, 4, 1))
    self.assertEqual(blame.index_out_of_range(loss, jnp.array([0, -1, 2])), (-1, 4, 1))
    self.assertIsNone(blame.index_out_of_range(loss, jnp.array([0, 3, 2])))


if __name__ == '__main__':
  absltest.main()
