"""AlexNet's changes of light reach the train step, and are refused of grey images."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from experiments.vision import alexnet


class AlexNetTest(absltest.TestCase):
  def test_light_changes_what_is_learnt_from(self):
    image = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    batch = {'image': jnp.asarray(image), 'label': jnp.arange(4, dtype=jnp.int32)}
    losses = []
    for light in (0.0, 0.1, 3.0):
      config = alexnet.Config(
        dataset='cifar10', width=0.05, pad=0, batch_size=4, light=light
      )
      built = alexnet.build(config)
      state = built.init(jax.random.key(0))
      # Before the first update the weights are equal, so that images alone differ.
      _, sums = jax.jit(built.train_step)(state, batch)
      losses.append(float(sums['loss'].total))
    self.assertLen(set(losses), 3)
    self.assertLess(abs(losses[1] - losses[0]), abs(losses[2] - losses[0]))

  def test_grey_images_have_no_principal_colours(self):
    with self.assertRaisesRegex(ConfigError, 'light=0.1 .* 0: images are grey'):
      alexnet.build(alexnet.Config(light=0.1))


if __name__ == '__main__':
  absltest.main()
