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

  def test_contrast_descends_the_difference_of_the_products(self):
    machine, v = small(), bits(4)[:5].astype('f')
    key = jax.random.key(3)
    grads, error_B = jax.jit(rbm.contrast)(machine, v, key)
    up, down = jax.jit(rbm.up), jax.jit(rbm.down)
    h = np.asarray(up(machine, v))
    made = np.asarray(down(machine, rbm.draw(key, h)))
    then = np.asarray(up(machine, made))
    wanted = np.mean([np.outer(a, b) - np.outer(c, d) for a, b, c, d in
                      zip(made, then, v, h, strict=True)], 0)  # fmt: skip
    np.testing.assert_allclose(grads['kernel'], wanted, atol=1e-6)
    np.testing.assert_allclose(grads['hidden'], (then - h).mean(0), atol=1e-6)
    np.testing.assert_allclose(grads['visible'], (made - v).mean(0), atol=1e-6)
    np.testing.assert_allclose(error_B, ((made - v) ** 2).mean(1), atol=1e-6)

  def test_a_stack_becomes_a_net_whose_last_hidden_layer_is_its_code(self):
    stack = [small(0, 4, 3), small(1, 3, 2)]
    net = {f'hidden_{k}': rbm.as_layer(machine) for k, machine in enumerate(stack)}
    net['head'] = {'kernel': np.eye(2, dtype='f'), 'bias': np.float32([1, 2])}
    v = bits(4)[3:7].astype('f')
    code = jax.jit(rbm.up_all)(stack, v)
    call = jax.jit(rbm.net_logits, static_argnames=('dropout', 'input_dropout'))
    np.testing.assert_allclose(call(net, v), code + np.float32([[1, 2]]), atol=1e-6)
    # Half of the code is dropped and what stays is twice as large; without a key none.
    dropped = np.asarray(call(net, v, jax.random.key(0), dropout=0.5)) - [[1, 2]]
    self.assertGreater((dropped == 0).sum(), 0)
    np.testing.assert_array_equal(call(net, v, dropout=0.5), call(net, v))
    thin = np.asarray(call(net, v, jax.random.key(0), input_dropout=0.5))
    self.assertGreater(abs(thin - np.asarray(call(net, v))).max(), 1e-3)

  def test_errors_of_each_machine_and_samples_by_their_seed(self):
    stack, v = [small(0, 4, 3), small(1, 3, 2)], bits(4)[3:7].astype('f')
    first, second = jax.jit(rbm.errors)(stack, v)
    h = jax.jit(rbm.up)(stack[0], v)
    for found, machine, below in ((first, stack[0], v), (second, stack[1], h)):
      again = jax.jit(lambda m, x: rbm.down(m, rbm.up(m, x)))(machine, below)
      np.testing.assert_allclose(found, ((again - below) ** 2).mean(1), atol=1e-6)
    sample = jax.jit(rbm.sample, static_argnums=2)
    seeds = np.uint32([5, 6, 7, 8, 9, 10, 11, 12])
    drawn = np.asarray(sample(stack, seeds, 20))
    self.assertEqual(drawn.shape, (8, 4))
    np.testing.assert_allclose(sample(stack, seeds[1:4], 20), drawn[1:4], atol=1e-6)
    self.assertGreater(len({tuple(row) for row in drawn.round(4)}), 1)


if __name__ == '__main__':
  absltest.main()
