"""Receptive fields of the middle unit: by theory, by gradients, effective, by hand."""

import types

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.figures.fields import gradient_map
from dlx.inspect.fields import receptive_fields
from dlx.state import create

SIDE = 9
DATA = types.SimpleNamespace(
  shapes=(
    {
      'image': jax.ShapeDtypeStruct((2, SIDE, SIDE, 1), 'float32'),
      'weight': jax.ShapeDtypeStruct((2,), 'float32'),
    },
  )
)


def init(key):
  return create({'kernel': jnp.ones((3, 3, 1, 1))}, (), key)


def layer(state, x_BHWC):
  """Two filters, the second reads every second row alone: 3 + 2 * 2 = 7 rows."""
  kernel, numbers = state.params['kernel'], ('NHWC', 'HWIO', 'NHWC')
  x = lax.conv_general_dilated(x_BHWC, kernel, (1, 1), 'SAME', None, None, numbers)
  return lax.conv_general_dilated(x, kernel, (1, 1), 'SAME', None, (2, 1), numbers)


def found(kernel, layer=layer, weights=(1.0, 1.0)):
  evaluation, figure = receptive_fields(layer, lambda b: b['image'], init, DATA)  # pyright: ignore
  state = init(jax.random.key(0))._replace(params={'kernel': kernel})
  image = jax.random.normal(jax.random.key(1), (2, SIDE, SIDE, 1))
  batch = {'image': image, 'weight': jnp.array(weights)}
  step = lambda state, batch: evaluation.summarize(evaluation.step(state, batch))
  values = jax.jit(step)(state, batch)
  return {name: np.asarray(x) for name, x in values.items()}, figure


def test_uniform_filters_by_hand():
  values, figure = found(jnp.ones((3, 3, 1, 1)))
  assert (values['theory'], values['measured']) == (7, 7)
  # By rows 1 1 1 convolved with 1 0 1 0 1, by columns 1 1 1 with itself.
  rows, columns = np.array([0, 1, 1, 2, 1, 2, 1, 1, 0]), [0, 0, 1, 2, 3, 2, 1, 0, 0]
  np.testing.assert_allclose(values['map'], np.outer(rows, columns) / 6, atol=1e-6)
  # All 7 x 5 of them are above 4.55 % of the largest: 1 / 6 is the least.
  np.testing.assert_allclose(values['effective'], np.sqrt(35), rtol=1e-6)
  drawn = figure.draw(values)
  assert [t.get_text() for t in drawn.axes[0].get_legend().get_texts()] == [
    'theory: 7 pixels',
    'effective: 5.92 pixels',
  ]


def test_small_weights_are_seen_and_not_effective():
  kernel = jnp.full((3, 3, 1, 1), 1e-3).at[1, 1].set(1.0)
  values, _ = found(kernel)
  assert (values['theory'], values['measured'], values['effective']) == (7, 7, 1)


def test_theory_counts_what_can_be_seen_and_gradients_what_is():
  values, _ = found(jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0))
  assert (values['theory'], values['measured']) == (7, 1)
  values, _ = found(jnp.zeros((3, 3, 1, 1)))
  assert (values['theory'], values['measured'], values['effective']) == (7, 0, 0)


def test_padding_rows_do_not_count():
  kernel = jnp.ones((3, 3, 1, 1))
  # Rows that differ: the second image's gradient is 0 where its values are below 0.
  masked = lambda state, x: jnp.maximum(layer(state, x), 0)
  both, _ = found(kernel, masked)
  one, _ = found(kernel, masked, weights=(0.0, 0.0))
  assert both['measured'] in (0, 7) and one['measured'] == 0


def test_the_map_is_drawn_around_its_middle():
  figure = gradient_map(np.eye(5), theory=5, effective=3)
  theory, effective = figure.axes[0].patches
  # Pixel 2 is the middle, and its square reaches from 1.5 to 2.5.
  assert theory.get_xy() == (-0.5, -0.5) and theory.get_width() == 5
  assert effective.get_xy() == (0.5, 0.5) and effective.get_width() == 3


if __name__ == '__main__':
  pytest.main([__file__])
