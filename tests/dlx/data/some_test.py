"""A number, a share or all of the examples: counts by hand."""

from absl.testing import absltest, parameterized
import numpy as np

from dlx.data.some import some
from dlx.data.sources import of_arrays
from dlx.errors import ConfigError

LABEL = np.repeat([0, 1, 2], [40, 40, 20]).astype(np.int32)
SOURCE = of_arrays({'x': np.arange(100, dtype=np.int32), 'label': LABEL})


def chosen(amount, seed=0):
  return some(SOURCE, amount, seed, by_class='label').read(None).data


class SomeTest(parameterized.TestCase):
  @parameterized.parameters(
    (6, [2, 2, 2]),
    (0.1, [4, 4, 2]),  # A share of each class, a number alike of each.
    (None, [40, 40, 20]),
    (1.0, [40, 40, 20]),
    (1, [1, 0, 0]),  # One example, not all of them.
  )
  def test_counts(self, amount, counts):
    found = np.bincount(chosen(amount)['label'], minlength=3)
    np.testing.assert_array_equal(found, counts)

  def test_few_are_a_part_of_many_of_the_same_seed(self):
    few, many, other = (set(chosen(*a)['x']) for a in ((0.1,), (0.3,), (0.3, 1)))
    self.assertLess(few, many)
    self.assertNotEqual(many, other)

  @parameterized.parameters(0.0, 1.5, 0, 101)
  def test_refuses(self, amount):
    with self.assertRaisesRegex(ConfigError, f'{amount} .*is not allowed'):
      chosen(amount)


if __name__ == '__main__':
  absltest.main()
