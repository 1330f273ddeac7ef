"""Losses of two players: numbers by hand, gradients where one wins, torch, R1."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx.errors import ConfigError
from dlx.losses import adversarial
from dlx.losses.adversarial import KINDS, discriminator_loss, generator_loss

EPS = 2.0**-23


def logit(p):
  return float(np.log(p / (1 - p)))


class LossTest(parameterized.TestCase):
  def test_by_hand(self):
    # D(x) = 3/4 and D(G(z)) = 1/5.
    real, fake = jnp.array([logit(0.75)]), jnp.array([logit(0.2)])
    both = -np.log(0.75) - np.log(0.8)
    for kind, d, g in (
      ('minimax', both, np.log(0.8)),
      ('non_saturating', both, -np.log(0.2)),
    ):
      # A few roundings of numbers near 1.
      np.testing.assert_allclose(
        discriminator_loss(kind, real, fake), [d], rtol=4 * EPS
      )
      np.testing.assert_allclose(generator_loss(kind, fake), [g], rtol=4 * EPS)
    # Of the logits 0.5 and 2, and of -3 and 0.5: exact in float32.
    real, fake = jnp.array([0.5, 2.0]), jnp.array([-3.0, 0.5])
    found = discriminator_loss('hinge', real, fake)
    np.testing.assert_array_equal(found, [0.5 + 0.0, 0.0 + 1.5])
    np.testing.assert_array_equal(generator_loss('hinge', fake), [3.0, -0.5])
    found = discriminator_loss('least_squares', real, fake)
    np.testing.assert_array_equal(found, [(0.25 + 9) / 2, (1 + 0.25) / 2])
    np.testing.assert_array_equal(generator_loss('least_squares', fake), [8.0, 0.125])

  def test_gradient_where_the_discriminator_wins(self):
    # D(G(z)) = 1/1001: minimax moves a sample by a thousandth, the other by nearly 1.
    lost = jnp.array([-np.log(1000.0)], jnp.float32)
    slope = lambda kind: jax.grad(lambda x: generator_loss(kind, x).sum())(lost)[0]
    # The logit is rounded by 7 * EPS / 2, and its exponential by as much.
    np.testing.assert_allclose(slope('minimax'), -1 / 1001, rtol=8 * EPS)
    np.testing.assert_allclose(slope('non_saturating'), -1000 / 1001, rtol=8 * EPS)
    self.assertEqual(slope('hinge'), -1)
    # At D(G(z)) = 0 itself.
    gone = jnp.array([-200.0])
    slope = lambda kind: jax.grad(lambda x: generator_loss(kind, x).sum())(gone)[0]
    self.assertEqual(slope('minimax'), 0)
    self.assertEqual(slope('non_saturating'), -1)

  def test_minimax_generator_undoes_the_fake_part_of_the_discriminator(self):
    fake = jnp.linspace(-20, 20, 9)
    real = jnp.full(9, jnp.inf)  # Its part of the loss is 0.
    np.testing.assert_array_equal(
      generator_loss('minimax', fake), -discriminator_loss('minimax', real, fake)
    )

  @parameterized.parameters(*KINDS)
  def test_signs_and_extreme_logits(self, kind):
    x = jnp.array([-1e4, -30.0, 0.25, 30.0, 1e4])
    d = lambda real, fake: discriminator_loss(kind, real, fake).sum()
    by_real, by_fake = jax.grad(d, (0, 1))(x, x)
    by_generator = jax.grad(lambda fake: generator_loss(kind, fake).sum())(x)
    for found in (d(x, x), by_real, by_fake, by_generator):
      self.assertTrue(np.isfinite(found).all())
    # At 0.25 every player still pulls: real up, samples down and up.
    self.assertLess(by_real[2], 0)
    self.assertGreater(by_fake[2], 0)
    self.assertLess(by_generator[2], 0)

  @parameterized.parameters('minimax', 'non_saturating', 'least_squares')
  def test_smoothed_label_is_where_real_images_rest(self, kind):
    best = logit(0.9) if kind != 'least_squares' else 0.9
    slope = jax.grad(
      lambda x: discriminator_loss(kind, x, jnp.zeros(1), real_label=0.9).sum()
    )
    # The difference of two numbers of at most 1.
    np.testing.assert_allclose(slope(jnp.array([best], jnp.float32)), 0, atol=4 * EPS)
    whole = discriminator_loss(kind, jnp.ones(1), jnp.ones(1))
    traced = jax.jit(lambda t: discriminator_loss(kind, jnp.ones(1), jnp.ones(1), t))
    np.testing.assert_allclose(traced(1.0), whole, rtol=2 * EPS)

  @parameterized.parameters(
    ('non_saturating', 1.0, 0.0), ('least_squares', 1.0, 0.5), ('hinge', 1.0, 0.0)
  )
  def test_threshold_by_hand(self, kind, label, wanted):
    self.assertEqual(adversarial.threshold(kind, label), wanted)
    self.assertEqual(adversarial.threshold(kind), wanted)  # No smoothing.

  @parameterized.parameters('non_saturating', 'least_squares')
  def test_threshold_is_the_best_logit_of_equal_players(self, kind):
    best = adversarial.threshold(kind, 0.9)
    slope = jax.grad(lambda x: discriminator_loss(kind, x, x, 0.9).sum())
    np.testing.assert_allclose(slope(jnp.array([best], jnp.float32)), 0, atol=4 * EPS)

  def test_torch(self):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    real, fake = np.random.default_rng(0).normal(size=(2, 50)).astype(np.float32)
    bce = torch.nn.BCEWithLogitsLoss(reduction='none')
    r, f = torch.tensor(real), torch.tensor(fake)
    wanted = bce(r, 0.9 * torch.ones(50)) + bce(f, torch.zeros(50))
    found = discriminator_loss('non_saturating', jnp.array(real), jnp.array(fake), 0.9)
    # Sums of four terms below 4.
    np.testing.assert_allclose(found, wanted.numpy(), atol=16 * EPS)
    found = generator_loss('non_saturating', jnp.array(fake))
    np.testing.assert_allclose(found, bce(f, torch.ones(50)).numpy(), atol=16 * EPS)

  def test_narrow_logits_are_widened(self):
    x = jnp.ones(3, jnp.bfloat16)
    for kind in KINDS:
      self.assertEqual(discriminator_loss(kind, x, x).dtype, jnp.float32)
      self.assertEqual(generator_loss(kind, x).dtype, jnp.float32)

  def test_bad_input(self):
    x = jnp.ones(2)
    for call in (
      lambda: discriminator_loss('wgan', x, x),
      lambda: generator_loss('wgan', x),
      lambda: adversarial.threshold('wgan'),
    ):
      with self.assertRaisesRegex(ConfigError, 'loss=wgan .* non_saturating'):
        call()
    with self.assertRaisesRegex(ConfigError, 'real_label=0.9 .* hinge'):
      discriminator_loss('hinge', x, x, 0.9)
    with self.assertRaises(AssertionError):
      discriminator_loss('hinge', x, x[:, None])


class GradientPenaltyTest(absltest.TestCase):
  def test_by_hand(self):
    # Logit (w . x)^2 / 2 has gradient (w . x) w.
    w = jnp.arange(1.0, 5).reshape(2, 2, 1)
    x = jnp.stack([jnp.ones((2, 2, 1)), 2 * jnp.ones((2, 2, 1))])
    logits = lambda x: jnp.square((x * w[None]).sum((1, 2, 3))) / 2
    found = adversarial.gradient_penalty(logits, x)
    np.testing.assert_allclose(found, [100 * 30, 400 * 30], rtol=4 * EPS)

  def test_has_a_gradient_in_the_weights(self):
    x = jnp.ones((3, 1, 2, 1))
    loss = lambda w: adversarial.gradient_penalty(
      lambda x: (x * w.reshape(1, 1, 2, 1)).sum((1, 2, 3)), x
    ).mean()
    # |w|^2 of a linear discriminator.
    np.testing.assert_allclose(jax.grad(loss)(jnp.array([3.0, -1.0])), [6, -2])


if __name__ == '__main__':
  absltest.main()
