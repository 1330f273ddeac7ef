"""Restricted Boltzmann machines, against the joint distribution of a small one."""

from absl.testing import absltest
import jax
import numpy as np

from dlx.models import rbm


def small(seed=0, visible=4, hidden=3):
  rng = np.random.default_rng(seed)
  normal = lambda *shape: rng.normal(size=shape).astype(np.float32)
  return {
    'kernel': normal(visible, hidden),
    'visible': normal(visible),
    'hidden': normal(hidden),
  }


def bits(n):
  """All states of n units, [2**n, n]."""
  return (np.arange(2**n)[:, None] >> np.arange(n)) & 1


def joint(machine):
  """P(v, h) of all states, [2**V, 2**H], from the energy."""
  v, h = bits(4), bits(3)
  energy = v @ machine['kernel'] @ h.T + (v @ machine['visible'])[:, None]
  p = np.exp(energy + (h @ machine['hidden'])[None])
  return p / p.sum()


class RbmTest(absltest.TestCase):
  def test_conditionals_are_those_of_the_joint(self):
    machine, v, h = small(), bits(4), bits(3)
    p = joint(machine)
    given_v = (p[:, :, None] * h[None]).sum(1) / p.sum(1)[:, None]
    given_h = (p[:, :, None] * v[:, None]).sum(0) / p.sum(0)[:, None]
    up, down = jax.jit(rbm.up), jax.jit(rbm.down)
    np.testing.assert_allclose(up(machine, v.astype('f')), given_v, atol=1e-6)
    np.testing.assert_allclose(down(machine, h.astype('f')), given_h, atol=1e-6)

  def test_gibbs_draws_from_the_joint(self):
    machine, n = small(), 20000
    start = np.zeros((n, 3), np.float32)
    gibbs = jax.jit(rbm.gibbs, static_argnums=3)
    found = np.asarray(gibbs(machine, jax.random.key(0), start, 40))
    self.assertEqual(set(np.unique(found)), {0, 1})
    counts = np.bincount((found @ [1, 2, 4]).astype(int), minlength=8) / n
    # Five deviations of a share of 20000 draws.
    np.testing.assert_allclose(counts, joint(machine).sum(0), atol=5 * 0.5 / n**0.5)
    np.testing.assert_array_equal(gibbs(machine, jax.random.key(0), start[:2], 0), 0)

  def test_a_stack_goes_up_and_down_by_its_machines(self):
    first, then = small(1, 4, 3), small(2, 3, 5)
    v = np.random.default_rng(0).uniform(size=(2, 4)).astype(np.float32)
    one = rbm.up(then, rbm.up(first, v))
    np.testing.assert_array_equal(rbm.up_all([first, then], v), one)
    back = rbm.down(first, rbm.down(then, one))
    np.testing.assert_array_equal(rbm.down_all([first, then], one), back)
    self.assertEqual(back.shape, (2, 4))
    np.testing.assert_array_equal(rbm.up_all([], v), v)

  def test_a_new_machine(self):
    machine = rbm.init(jax.random.key(0), 300, 200)
    self.assertEqual(machine['kernel'].shape, (300, 200))
    self.assertAlmostEqual(float(machine['kernel'].std()), 0.01, delta=2e-4)
    self.assertEqual(float(abs(machine['visible']).max()), 0)
    half = rbm.up(machine, np.zeros((1, 300), np.float32))
    np.testing.assert_array_equal(half, np.full((1, 200), 0.5))


if __name__ == '__main__':
  absltest.main()
