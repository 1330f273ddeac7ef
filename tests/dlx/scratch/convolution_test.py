"""Convolution by hand: against lax.conv and its vjp over 200 random configurations."""

import doctest

from absl.testing import absltest, parameterized
import jax
import numpy as np

from dlx.scratch import convolution
from dlx.scratch.convolution import conv2d, conv2d_backward

GROUP = 20  # Configurations of one program: compiling costs more than running.


def configuration(rng):
  """Random x, w, b and dy, stride and padding, of sizes at which the kernel fits."""
  draw = lambda low, high: int(rng.integers(low, high + 1))
  kernel = draw(1, 4), draw(1, 4)
  stride = draw(1, 3), draw(1, 3)
  padding = ((draw(0, 2), draw(0, 2)), (draw(0, 2), draw(0, 2)))
  size = [max(draw(1, 9), k - sum(p)) for k, p in zip(kernel, padding)]
  N, C, D = draw(1, 3), draw(1, 4), draw(1, 4)
  x, w = rng.normal(size=(N, *size, C)), rng.normal(size=(*kernel, C, D))
  b = rng.normal(size=D)
  y = conv2d(x, w, b, stride, padding)
  return (x, w, b, rng.normal(size=y.shape)), {'stride': stride, 'padding': padding}


def reference(x, w, b, stride, padding):
  numbers = ('NHWC', 'HWIO', 'NHWC')
  y = jax.lax.conv_general_dilated(x, w, stride, padding, None, None, numbers)
  return y + b[None, None, None]


class Conv2dTest(parameterized.TestCase):
  def test_doctests(self):
    found = doctest.testmod(convolution)
    self.assertGreater(found.attempted, 6)
    self.assertEqual(found.failed, 0)

  @parameterized.parameters(*range(10))
  def test_values_and_gradients_are_those_of_lax(self, group):
    rng = np.random.default_rng(group)
    drawn = [configuration(rng) for _ in range(GROUP)]

    def both(inputs):
      found = []
      for (x, w, b, dy), (_, options) in zip(inputs, drawn):
        y, vjp = jax.vjp(lambda *a, o=options: reference(*a, **o), x, w, b)
        found.append((y, *vjp(dy)))
      return found

    with jax.enable_x64(True):
      wanted = jax.jit(both)([inputs for inputs, _ in drawn])
    for ((x, w, b, dy), options), others in zip(drawn, wanted):
      found = conv2d(x, w, b, **options), *conv2d_backward(x, w, dy, **options)
      for one, other in zip(found, others):
        # Sums of at most 3 * 13 * 13 products of numbers near 1, in float64.
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)

  def test_forms_of_stride_and_padding(self):
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=(1, 5, 6, 2)), rng.normal(size=(3, 3, 2, 1)), np.ones(1)
    found = [
      conv2d(x, w, b, **options)
      for options in (
        {'stride': 2, 'padding': 1},
        {'stride': (2, 2), 'padding': (1, 1)},
        {'stride': 2, 'padding': ((1, 1), 1)},
      )
    ]
    self.assertEqual(found[0].shape, (1, 3, 3, 1))
    for other in found[1:]:
      np.testing.assert_array_equal(found[0], other)

  def test_pixels_that_no_window_reaches_have_no_gradient(self):
    x, w = np.ones((1, 4, 4, 1)), np.ones((1, 1, 1, 1))
    dx, _, _ = conv2d_backward(x, w, np.ones((1, 2, 2, 1)), stride=2)
    np.testing.assert_array_equal(dx[0, :, :, 0], np.outer([1, 0, 1, 0], [1, 0, 1, 0]))

  def test_a_kernel_that_does_not_fit(self):
    with self.assertRaisesRegex(ValueError, 'kernel of 3 does not fit into 2 padded'):
      conv2d(np.ones((1, 2, 4, 1)), np.ones((3, 3, 1, 1)), np.zeros(1))


if __name__ == '__main__':
  absltest.main()
