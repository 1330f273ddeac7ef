"""Sequences of `temporal_order` against their definition; what `gain` changes."""

import dataclasses

from absl.testing import absltest
import jax
import numpy as np

from experiments.sequences import temporal_order


class TemporalOrderTest(absltest.TestCase):
  def test_the_class_is_the_order_of_the_two_symbols(self):
    keys = jax.random.split(jax.random.key(0), 400)
    found = jax.jit(jax.vmap(lambda key: temporal_order.draw(key, 30)))(keys)
    places = set()
    for symbols, label in zip(*(np.asarray(found[k]) for k in ('symbols', 'label'))):
      at = np.flatnonzero(symbols < 2)
      self.assertLen(at, 2)
      places.update(at.tolist())
      word = ''.join('AB'[symbols[i]] for i in at)
      self.assertEqual(temporal_order.CLASSES[label], word)
    # The second and the fifth tenth, whole; noise elsewhere, of four symbols.
    self.assertEqual(places, {*range(3, 6), *range(12, 15)})
    self.assertEqual(set(np.unique(found['symbols'])), set(range(6)))
    self.assertEqual(set(np.unique(found['label'])), set(range(4)))

  def test_gain_scales_the_recurrent_kernel_alone(self):
    config = temporal_order.SMALL
    plain, doubled = (
      jax.jit(temporal_order.build(dataclasses.replace(config, gain=gain)).init)(
        jax.random.key(0)
      ).params
      for gain in (1.0, 2.0)
    )
    of = lambda params: params['encoder']['forward_0']['hidden_kernel']
    singular = np.linalg.svd(of(doubled), compute_uv=False)
    np.testing.assert_allclose(singular, 2, rtol=1e-5)
    restored = jax.tree.map_with_path(
      lambda path, x: x / 2 if path[-1].key == 'hidden_kernel' else x, doubled
    )
    jax.tree.map(np.testing.assert_array_equal, restored, plain)


if __name__ == '__main__':
  absltest.main()
