"""Diffusion end to end in two dimensions: a small network learns a swiss roll."""

from absl.testing import absltest
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from dlx import diffusion, sampling
from dlx.layers.embeddings import sinusoidal


class SwissRollTest(absltest.TestCase):
  def test_a_small_network_learns_a_spiral(self):
    """After 2000 steps of an MLP, samples lie on the roll; noise does not."""
    schedule, found = diffusion.cosine_schedule(100), diffusion.PREDICTIONS['v']

    def roll(u):  # 1.5 turns within the unit square.
      angle = 3 * jnp.pi * jnp.sqrt(u * 0.95 + 0.05)
      radius = angle / (3 * jnp.pi)
      return jnp.stack([radius * jnp.cos(angle), radius * jnp.sin(angle)], -1)

    class Net(nn.Module):
      @nn.compact
      def __call__(self, x_t, t_B):
        h = jnp.concatenate([2 * x_t, sinusoidal(10 * t_B, 16)], -1)
        for _ in range(3):
          h = nn.silu(nn.Dense(64)(h))
        return nn.Dense(2)(h)

    net = Net()
    tx = optax.adam(optax.cosine_decay_schedule(5e-3, 2000))

    def step(carry, key):
      params, opt_state = carry
      u, t, eps = (
        jax.random.uniform(jax.random.fold_in(key, 0), (256,)),
        diffusion.stratified_times(jax.random.fold_in(key, 1), 256, 100),
        jax.random.normal(jax.random.fold_in(key, 2), (256, 2)),
      )
      x_0 = roll(u)
      x_t, target = (
        diffusion.q_sample(schedule, x_0, eps, t),
        found.target(schedule, x_0, eps, t),
      )

      def loss(p):
        return jnp.square(jnp.asarray(net.apply({'params': p}, x_t, t)) - target).mean()

      updates, opt_state = tx.update(jax.grad(loss)(params), opt_state)
      return (optax.apply_updates(params, updates), opt_state), None

    @jax.jit
    def run(key):
      params = net.init(key, jnp.zeros((1, 2)), jnp.zeros((1,)))['params']
      (params, _), _ = jax.lax.scan(
        step, (params, tx.init(params)), jax.random.split(jax.random.key(3), 2000)
      )
      output = lambda x_t, t_B: jnp.asarray(net.apply({'params': params}, x_t, t_B))
      denoise = sampling.denoiser(schedule, found, output)
      rows = jax.random.split(jax.random.key(4), 500)
      return sampling.sample(
        denoise, sampling.ddim(schedule, 50), sampling.row_noise(rows, 0, (2,)), rows
      )

    def distance(a, b):  # Mean distance of a point of a to the nearest of b.
      return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)).min(1).mean()

    x = np.asarray(run(jax.random.key(0)))
    true = np.asarray(roll(jnp.linspace(0, 1, 500)))
    noise = np.random.default_rng(5).normal(size=(500, 2)) * true.std(0) + true.mean(0)
    # Both ways: samples lie on the roll, and all of the roll is reached.
    self.assertLess(distance(x, true), 0.25 * distance(noise, true))
    self.assertLess(distance(true, x), 0.06)


if __name__ == '__main__':
  absltest.main()
