"""Parts of a trunk, their masks, and an optimiser in which each begins in its turn."""

import functools

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx import optim
from dlx.errors import ConfigError
from dlx.train import steps, unfreezing
from tests.same_bytes import same_bytes

# Dots and brackets are names, not expressions.
PARAMS = {
  'a': {'kernel': jnp.ones(2)},
  'b.c': {'conv(1)': {'kernel': jnp.ones(2), 'bias': jnp.array([-0.0])}},
  'bxc': {'kernel': jnp.ones(2)},
  'head': {'kernel': jnp.ones(2)},
}
TRUNK = ('a', 'b.c/conv(1)', 'bxc')


class UnfreezingTest(absltest.TestCase):
  def test_parts_of_a_trunk(self):
    parts = functools.partial(unfreezing.parts, 'abcde')
    text = lambda found: ' '.join(''.join(part) or '-' for part in found)
    self.assertEqual(text(parts(0)), '- - abcde')
    self.assertEqual(text(parts(2)), 'de - abc')
    self.assertEqual(text(parts(None)), 'abcde - -')
    self.assertEqual(text(parts(0, 2)), '- de abc')
    self.assertEqual(text(parts(1, None)), 'e abcd -')
    self.assertEqual(text(parts(2, 1)), 'de - abc')
    self.assertEqual(text(parts(9, 9)), 'abcde - -')

  def test_mask_and_gradients(self):
    found = unfreezing.mask(TRUNK[:2])(PARAMS)
    self.assertEqual(jax.tree.leaves(found), [True, True, True, False, False])
    self.assertFalse(any(jax.tree.leaves(unfreezing.mask(())(PARAMS))))
    left = unfreezing.without(TRUNK[:2], PARAMS)
    self.assertEqual([float(x[0]) for x in jax.tree.leaves(left)], [0, 0, 0, 1, 1])
    with self.assertRaisesRegex(ConfigError, 'must match the whole path'):
      unfreezing.mask(('stem',))(PARAMS)

  def test_each_part_begins_in_its_turn(self):
    parts = unfreezing.parts(TRUNK, last=1, later=2)
    rates = {0: 0.25, 2: 0.5}
    tx = unfreezing.optimizer(
      parts, 2, optim.sgd(1.0), lambda begins: optim.sgd(rates[begins])
    )
    found = [(PARAMS, tx.init(PARAMS))]
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    for _ in range(3):
      old, state = found[-1]
      found.append(steps.update(tx, ones, state, old))
    kernels = np.array([jax.tree.leaves(params) for params, _ in found], object)
    first = [[float(x[0]) for x in row] for row in kernels]
    # a; bias and kernel of b.c/conv(1); bxc; head.
    self.assertEqual(first[2], [1, -0.0, 1, 0.5, -1])
    self.assertEqual(first[3], [1, -0.5, 0.5, 0.25, -2])
    for part, n in ((lambda p: p['a'], 3), (lambda p: p['b.c'], 2)):
      self.assertTrue(same_bytes(part(found[n][0]), part(PARAMS)))

  def test_a_clip_does_not_see_what_never_learns(self):
    tx = unfreezing.optimizer(
      unfreezing.parts(TRUNK, 0),
      0,
      optim.sgd(1.0),
      lambda _: optim.sgd(1.0),
      {'norm': 1.0, 'value': None},
    )
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    moved, _ = steps.update(tx, ones, tx.init(PARAMS), PARAMS)
    # Of the two gradients of the head alone the norm is sqrt(2).
    np.testing.assert_allclose(
      moved['head']['kernel'], 1 - 1 / np.sqrt(2) * np.ones(2), rtol=1e-6
    )


if __name__ == '__main__':
  absltest.main()
