"""Mean and variance by layer: by hand, over batches with padding, drawn."""

import jax.numpy as jnp
import numpy as np

from dlx.data.batches.resident import InOrder
from dlx.data.sources import of_arrays
from dlx.figures.layers import signal_by_layer
from dlx.tasks.signal import SIGNAL, signal

ROWS = {'x': np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]], np.float32)}


def made():
  """Two layers: the rows, and -2 times the rows."""
  hidden = lambda state, batch: [batch['x'], -2 * batch['x'].reshape(-1, 2, 1)]
  return signal(hidden, InOrder(of_arrays(ROWS), 2), ['one', 'two'])


def report():
  evaluation, _ = made()
  arrays = evaluation.data.load().data
  first, second = (evaluation.data.get(arrays, i) for i in range(2))
  # The second batch is filled up with a row that counts nothing.
  assert second['weight'].tolist() == [1, 0]
  sums = [evaluation.step(None, batch) for batch in (first, second)]
  total = {name: sums[0][name] + sums[1][name] for name in sums[0]}
  return evaluation.summarize(total)


def test_by_hand():
  found = report()
  # 1, 2, 3, 4, 5, 9: mean 4, mean square 136 / 6, variance 20 / 3.
  np.testing.assert_allclose(found['layers']['mean'], [4, -8], rtol=1e-6)
  np.testing.assert_allclose(found['layers']['variance'], [20 / 3, 80 / 3], rtol=1e-6)
  wanted = {
    'mean': -8,
    'variance': 80 / 3,
    'largest_mean': 8,
    'least_variance': 20 / 3,
    'largest_variance': 80 / 3,
  }
  for name, value in wanted.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-6)
  assert {f'signal/{name}' for name in wanted} == set(SIGNAL)


def test_sums_are_at_least_float32():
  evaluation, _ = signal(
    lambda state, batch: [batch['x']], InOrder(of_arrays(ROWS), 2), ['one']
  )
  batch = {'x': jnp.full((64, 64), 3.1, jnp.bfloat16), 'weight': jnp.ones(64)}
  found = evaluation.summarize(evaluation.step(None, batch))
  value = float(jnp.bfloat16(3.1))
  # The mean is exact to float32; of equal values no variance is left but rounding.
  np.testing.assert_allclose(found['mean'], value, rtol=1e-6)
  assert found['mean'].dtype == jnp.float32 and found['variance'] <= 1e-5


def test_the_figure():
  _, figure = made()
  assert figure.compute is None and figure.eval == 'signal'
  drawn = figure.draw(report())
  above, below = drawn.axes
  assert [ax.get_ylabel() for ax in (above, below)] == ['Mean', 'Variance']
  titles = above.get_title(loc='left'), above.get_title()
  assert 'After the last: mean -8, variance 27' in titles
  # A layer that is constant has no place on a logarithmic axis.
  signal_by_layer([0.0, 1.0], [0.0, 1.0], ['one', 'two'])
