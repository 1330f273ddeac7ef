"""The dynamic loss scale of float16: when it grows, when it falls, its bounds."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.train import loss_scale as lib


class LossScaleTest(parameterized.TestCase):
  def test_default_keeps_float16_gradients_from_underflow(self):
    tiny = jnp.float16(1e-5)
    loss = lambda w: (w * tiny * tiny).astype(jnp.float32)
    w = jnp.float16(1.0)
    self.assertEqual(float(jax.grad(loss)(w)), 0)
    # Scaled from the top, 2**15 * 1e-5 * 1e-5 = 3e-6 is a float16.
    scale = lib.init_loss_scale().scale
    self.assertGreater(float(jax.grad(lambda w: loss(w) * scale)(w)), 0)

  def test_overflow_halves_and_starts_the_count_again(self):
    scale = lib.LossScale(jnp.float32(8), jnp.int32(5))
    new = lib.next_loss_scale(scale, jnp.array(False))
    self.assertEqual((float(new.scale), int(new.good_steps)), (4, 0))

  def test_doubles_after_2000_good_steps(self):
    def body(scale, _):
      return lib.next_loss_scale(scale, jnp.array(True)), scale.scale

    last, scales = jax.lax.scan(body, lib.init_loss_scale(4.0), length=4001)
    np.testing.assert_array_equal(scales, np.repeat([4.0, 8.0, 16.0], [2000, 2000, 1]))
    self.assertEqual(int(last.good_steps), 1)

  def test_stays_in_bounds(self):
    low = lib.next_loss_scale(lib.init_loss_scale(1.0), jnp.array(False))
    self.assertEqual(float(low.scale), 1)
    high = lib.next_loss_scale(
      lib.init_loss_scale(2.0**24), jnp.array(True), growth_steps=1
    )
    self.assertEqual(float(high.scale), 2.0**24)

  def test_initial_scale_must_be_a_power_of_two(self):
    # Of another one, the division after the gradient would round.
    with self.assertRaisesRegex(ConfigError, 'initial=3.0 .* power of two'):
      lib.init_loss_scale(3.0)


if __name__ == '__main__':
  absltest.main()
