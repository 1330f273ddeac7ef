"""CenterNet: its heads by hand, its parameters, what one cell may see."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx.models.center_net import RARE, CenterNet
from dlx.models.segmentation_unet import UNetBody
from tests.dlx.models import by_shape


class CenterNetTest(absltest.TestCase):
  def test_maps_at_each_level_and_their_parameters(self):
    channels, width = (4, 6, 8), 5
    for last in range(3):
      model = CenterNet(3, channels, last, width)
      body = by_shape.parameters(UNetBody(channels, True, last=last), (8, 16, 2))
      found = by_shape.layers(model, (8, 16, 2))
      self.assertEqual(found['heat'].output, (8 >> last, 16 >> last, 3))
      self.assertEqual(found['shape'].output, (8 >> last, 16 >> last, 4))
      self.assertEqual(model.stride, 2**last)
      hidden = 9 * channels[last] * width + width
      heads = 2 * hidden + (width + 1) * (3 + 4)
      self.assertEqual(found[''].params, body + heads)
    # Without the way back from the coarsest level there are its convolutions alone.
    down = sum(9 * i * o + 9 * o * o + 4 * o for i, o in ((2, 4), (4, 6), (6, 8)))
    self.assertEqual(body, down)

  def test_heads_by_hand_and_the_probability_at_the_beginning(self):
    model = CenterNet(3, (4, 6), 1, 5)
    x = jax.random.normal(jax.random.key(0), (2, 6, 8, 2))

    @jax.jit
    def run(key):
      variables = model.init(key, x, train=False)
      maps = model.apply(variables, x, train=False)
      return variables, maps, model.apply(variables, x, method='features')

    variables, maps, features = run(jax.random.key(1))
    params = jax.tree.map(np.asarray, variables['params'])
    padded = np.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for name, found in (('heat', maps.heat_BHWK), ('shape', maps.shape_BHW4)):
      kernel = params[f'{name}_hidden']['kernel']
      y = sum(
        padded[:, i : i + 3, j : j + 4] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
      )
      y = np.maximum(y + params[f'{name}_hidden']['bias'], 0)
      wanted = y @ params[name]['kernel'] + params[name]['bias']
      # Sums of 54 products, then of 5.
      np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    p = jax.nn.sigmoid(params['heat']['bias'])
    np.testing.assert_allclose(p, RARE, rtol=1e-5)

  def test_bfloat16_gives_float32(self):
    model = CenterNet(3, (4, 6), 1, 5, dtype=jnp.bfloat16)
    x = jnp.zeros((1, 4, 4, 1))
    maps, _ = jax.eval_shape(
      lambda: model.init_with_output(jax.random.key(0), x, train=False)
    )
    self.assertEqual({m.dtype for m in maps}, {jnp.dtype(jnp.float32)})


if __name__ == '__main__':
  absltest.main()
