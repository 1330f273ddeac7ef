"""Tests for dlx/figures/studies.py."""

from absl.testing import absltest, parameterized

from dlx.figures import studies


class OverValuesTest(parameterized.TestCase):
  @parameterized.parameters(
    ((100, 400, 1437), True),
    ((3e-4, 1e-3, 3e-3), True),
    ((100, 101, 1000), False),  # No room for two of the numbers.
    (tuple(2.0**k for k in range(12)), False),
    ((5,), False),
  )
  def test_a_logarithmic_axis_names_its_values_where_there_is_room(self, values, named):
    lines = {'a': [[1.0, 2.0]] * len(values)}
    figure = studies.over_values(
      values, lines, xlabel='x', ylabel='y', title='t', log_x=True
    )
    labels = [x.get_text() for x in figure.axes[0].get_xticklabels()]
    self.assertEqual(labels == [f'{x:g}' for x in values], named)


if __name__ == '__main__':
  absltest.main()
