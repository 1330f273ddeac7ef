"""GraphSAGE by drawn neighbours: what a step sees, and what it learns."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.run.loop import fit
from experiments.graphs import sage
from tests import turns


class SageTest(absltest.TestCase):
  def test_a_step_reads_labels_of_training_nodes_alone(self):
    made = sage.build(sage.Config(batch_size=8, features=4, fan_out=(2, 2)))
    arrays = jax.tree.map(jnp.asarray, made.train_data.load().data)
    graph = made.train_data.get(arrays, jnp.int32(0))
    step, state = jax.jit(made.train_step), jax.jit(made.init)(jax.random.key(0))
    label = jnp.where(graph['train'], graph['label'], -1)
    one, two = step(state, graph)[0], step(state, {**graph, 'label': label})[0]
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)
    again = step(state, graph)[0]
    jax.tree.map(np.testing.assert_array_equal, one.params, again.params)

  @turns.seldom(1, 2)
  def test_the_factions_are_found(self):
    config = sage.Config(num_steps=60, batch_size=16, fan_out=(4, 4))
    folder = self.create_tempdir().full_path
    found = fit(sage.build(config), config, folder).metrics
    self.assertGreater(found['test/accuracy'], 0.75)

  def test_refuses_no_layers(self):
    with pytest.raises(ConfigError, match=r'fan_out=\(\) is not allowed'):
      sage.Config(fan_out=())


if __name__ == '__main__':
  absltest.main()
