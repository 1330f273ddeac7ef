"""WaveformCNN: shapes by hand, and a shift by a whole stride changes nothing inside."""

import jax
import jax.numpy as jnp
import numpy as np

from dlx.models.waveform import WaveformCNN


def test_sizes_and_parameters_by_hand():
  model = WaveformCNN((4, 6), (9, 5), num_outputs=3)
  made = jax.eval_shape(
    lambda key: model.init(key, jnp.zeros((2, 50)), train=False), jax.random.key(0)
  )
  count = sum(x.size for x in jax.tree.leaves(made['params']))
  assert count == 9 * 4 + 2 * 4 + 5 * 4 * 6 + 2 * 6 + 6 * 3 + 3
  logits, features = jax.eval_shape(
    lambda v: model.apply(v, jnp.zeros((2, 50)), False, method='forward'), made
  )
  assert logits.shape == (2, 3) and features.shape == (2, 6)


def test_a_shift_of_whole_strides_does_not_change_the_features():
  model = WaveformCNN((4, 6), (9, 5), num_outputs=3)
  x = jnp.zeros((1, 160)).at[0, 60:80].set(jnp.sin(jnp.arange(20.0)))
  variables = model.init(jax.random.key(0), x, train=False)
  found = [
    model.apply(variables, jnp.roll(x, shift, 1), method='features')
    for shift in (0, 16, -32, 5)
  ]
  np.testing.assert_allclose(found[1], found[0], rtol=1e-5, atol=1e-7)
  np.testing.assert_allclose(found[2], found[0], rtol=1e-5, atol=1e-7)
  assert np.abs(np.asarray(found[3]) - np.asarray(found[0])).max() > 1e-5
