"""What is kept for the way back, by hand and as a window grows."""

from absl.testing import absltest
import jax
import jax.numpy as jnp

from dlx.layers.recurrent import cells, stack
from dlx.train.residuals import kept_bytes


class KeptBytesTest(absltest.TestCase):
  def test_by_hand(self):
    x = jax.ShapeDtypeStruct((10,), jnp.float32)
    self.assertEqual(kept_bytes(lambda x: jnp.sin(x).sum(), x), 40)  # cos(x).
    self.assertEqual(kept_bytes(lambda x: x.sum(), x), 0)

  def test_a_recurrent_layer_keeps_as_much_of_every_step(self):
    layer = stack.Recurrent(cells.GRU, 4)

    def kept(steps):
      x = jax.ShapeDtypeStruct((2, steps, 3), jnp.float32)
      params = jax.eval_shape(layer.init, jax.random.key(0), x)
      run = lambda params, x: layer.apply(params, x)[0].sum()  # pyright: ignore
      return kept_bytes(run, params, x)

    found = [kept(steps) for steps in (4, 8, 16)]
    self.assertGreater(found[1], found[0])
    self.assertEqual(found[2] - found[1], 2 * (found[1] - found[0]))


if __name__ == '__main__':
  absltest.main()
