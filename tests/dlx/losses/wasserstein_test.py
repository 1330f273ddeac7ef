"""WGAN: by hand, the penalty's edges, torch."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import losses

EPS = float(np.finfo(np.float32).eps)


class WassersteinTest(absltest.TestCase):
  def test_by_hand(self):
    real, fake = jnp.array([3.0, -1.0]), jnp.array([1.0, 4.0])
    np.testing.assert_array_equal(losses.wasserstein_critic(real, fake), [-2, 5])
    np.testing.assert_array_equal(losses.wasserstein_generator(fake), [-1, -4])
    narrow = losses.wasserstein_critic(*(x.astype(jnp.bfloat16) for x in (real, fake)))
    self.assertEqual(narrow.dtype, jnp.float32)

  def test_penalty_by_hand(self):
    # The slope of x . x / 2 is x: between (3, 0) and (0, 4), half-way, (1.5, 2).
    critic = lambda x: jnp.square(x).sum(1) / 2
    real, fake = jnp.array([[3.0, 0.0], [3.0, 0.0]]), jnp.array([[0.0, 4.0]] * 2)
    found = losses.wasserstein_penalty(critic, real, fake, jnp.array([0.5, 1.0]))
    np.testing.assert_allclose(found, [(2.5 - 1) ** 2, (3 - 1) ** 2], rtol=8 * EPS)

  def test_slope_1_costs_nothing_and_a_flat_critic_has_a_gradient(self):
    images = jnp.ones((2, 4, 4, 1))
    w = jnp.full((4, 4, 1), 0.25)  # Of length 1.
    penalty = lambda w: losses.wasserstein_penalty(
      lambda x: (x * w[None]).sum((1, 2, 3)), images, 0 * images, jnp.ones(2) / 3
    )
    np.testing.assert_allclose(penalty(w), 0, atol=8 * EPS)
    # The penalty of 2 w is (2 - 1)^2 each, and falls along w.
    slope = jax.grad(lambda w: penalty(w).sum())(2 * w)
    np.testing.assert_allclose(slope, 2 * 2 * w, rtol=16 * EPS)
    np.testing.assert_array_equal(penalty(0 * w), 1)
    np.testing.assert_array_equal(jax.grad(lambda w: penalty(w).sum())(0 * w), 0)

  def test_torch(self):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(2, 6, 5)).astype(np.float32)
    w, v = rng.normal(size=(5, 8)).astype(np.float32), rng.normal(size=8)
    v, mix = v.astype(np.float32), rng.uniform(size=6).astype(np.float32)
    tw = torch.tensor(w, requires_grad=True)
    m = torch.tensor(mix)[:, None]
    between = m * torch.tensor(real) + (1 - m) * torch.tensor(fake)
    between.requires_grad_()
    out = torch.tanh(between @ tw) @ torch.tensor(v)
    (slope,) = torch.autograd.grad(out.sum(), between, create_graph=True)
    wanted = (slope.norm(dim=1) - 1) ** 2
    wanted.sum().backward()
    penalty = lambda w: losses.wasserstein_penalty(
      lambda x: jnp.tanh(x @ w) @ v, jnp.asarray(real), jnp.asarray(fake), mix
    )
    found, slope = jax.jit(lambda w: (penalty(w), jax.grad(
      lambda w: penalty(w).sum())(w)))(jnp.asarray(w))  # fmt: skip
    # Sums of some 40 products of numbers of order 1, squared.
    np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(slope, tw.grad.numpy(), rtol=1e-4, atol=1e-5)


if __name__ == '__main__':
  absltest.main()
