"""frozen_until: what waits keeps every byte, and begins as if it were new."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx import optim
from dlx.errors import ConfigError
from dlx.train import steps
from tests.same_bytes import same_bytes

PARAMS = {'body': {'kernel': jnp.array([1.0, -0.0, 3.0])}, 'head': jnp.ones((2,))}


def run(tx, params, num_steps, first=0):
  """Parameters and states before the first update and after each."""
  found = [(params, tx.init(params))]
  grads = lambda i: jax.tree.map(lambda x: (x + i + 1).astype(x.dtype), PARAMS)
  for i in range(first, first + num_steps):
    old, state = found[-1]
    found.append(jax.jit(steps.update, static_argnums=0)(tx, grads(i), state, old))
  return found


class FrozenUntilTest(parameterized.TestCase):
  def test_what_waits_keeps_every_byte(self):
    found = run(optim.frozen_until(optim.adamw(0.1, 0.1), 2), PARAMS, 3)
    for params, state in found[1:3]:
      self.assertTrue(same_bytes(params, PARAMS))
      self.assertTrue(same_bytes(state.inner, found[0][1].inner))
    self.assertFalse(same_bytes(found[3][0], PARAMS))

  def test_it_begins_as_if_it_were_new(self):
    """By moments, count and schedule: equal to the optimiser on those updates alone."""
    tx = lambda: optim.adam(optim.cosine(0.1, 4))
    late = run(optim.frozen_until(tx(), 2), PARAMS, 5)
    alone = run(tx(), PARAMS, 3, first=2)
    self.assertTrue(same_bytes(late[-1][0], alone[-1][0]))
    self.assertTrue(same_bytes(late[-1][1].inner, alone[-1][1]))

  def test_the_rate_that_is_told(self):
    tx = optim.frozen_until(optim.sgd(optim.cosine(0.1, 4)), 2)
    told = [
      float(optim.learning_rate(tx, before, after, jnp.int32(99)))
      for (_, before), (_, after) in zip(*[run(tx, PARAMS, 4)[i:] for i in (0, 1)])
    ]
    # 0.1 (1 + cos(pi / 4)) / 2 is 0.0853553.
    np.testing.assert_allclose(told, [0, 0, 0.1, 0.0853553], rtol=1e-5)

  def test_of_a_group_the_others_learn(self):
    waits = optim.frozen_until(optim.adam(0.1), 1)
    tx = optim.grouped({'body/.*': waits}, optim.adam(optim.cosine(0.2, 4)))
    found = run(tx, PARAMS, 2)
    moved = [
      (
        not same_bytes(p['body'], PARAMS['body']),
        not same_bytes(p['head'], old['head']),
      )
      for (old, _), (p, _) in zip(found, found[1:])
    ]
    self.assertEqual(moved, [(False, True), (True, True)])
    # The rate is that of the rest, at its own count.
    rate = optim.learning_rate(tx, found[1][1], found[2][1], jnp.int32(99))
    np.testing.assert_allclose(rate, 0.2 * 0.853553, rtol=1e-5)

  def test_narrow_parameters(self):
    narrow = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    found = run(optim.frozen_until(optim.adam(0.1), 1), narrow, 2)
    self.assertTrue(same_bytes(found[1][0], narrow))
    self.assertFalse(same_bytes(found[2][0], narrow))

  def test_no_wait_is_the_optimiser(self):
    found = run(optim.frozen_until(optim.adam(0.1), 0), PARAMS, 1)
    self.assertTrue(same_bytes(found[1][0], run(optim.adam(0.1), PARAMS, 1)[1][0]))

  def test_refuses_less_than_none(self):
    with self.assertRaisesRegex(ConfigError, 'num_updates=-1 is not allowed'):
      optim.frozen_until(optim.adam(0.1), -1)


if __name__ == '__main__':
  absltest.main()
