"""Hinge, pairs, triplets: by hand, the edges, optax, torch."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dlx import losses
from dlx.losses import margins

EPS = float(np.finfo(np.float32).eps)


def normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


class HingeTest(parameterized.TestCase):
  def test_by_hand(self):
    x = jnp.array([2.0, 0.5, 1.0, -3.0, 0.0])
    target = jnp.array([1, 1, 1, 1, 0])
    np.testing.assert_array_equal(losses.hinge(x, target), [0, 0.5, 0, 4, 1])
    np.testing.assert_array_equal(losses.hinge(x, target, 2), [0, 0.25, 0, 16, 1])
    slope = jax.grad(lambda x: losses.hinge(x, target).sum())(x)
    np.testing.assert_array_equal(slope, [0, -1, 0, -1, 1])

  def test_optax(self):
    x, target = normal(0, 40), normal(1, 40) > 0
    pair = (
      lambda x: losses.hinge(x, target),
      lambda x: optax.hinge_loss(x, 2.0 * target - 1),
    )
    np.testing.assert_array_equal(*(f(x) for f in pair))
    np.testing.assert_array_equal(
      *(jax.grad(lambda x, f=f: f(x).sum())(x) for f in pair)
    )

  def test_classes_by_hand(self):
    logits = jnp.array([[3.0, 1.0, 2.5], [0.0, 5.0, -1.0], [1.0, 1.0, 1.0]])
    found = losses.multiclass_hinge(logits, jnp.array([0, 2, 1]))
    np.testing.assert_array_equal(found, [0.5, 7, 1])
    found = losses.multiclass_hinge(logits, jnp.array([0, 1, 3]), margin=0.25)
    np.testing.assert_array_equal(found, [0, 0, np.nan])
    below = jnp.array([[-3.0, -1.0, -2.5], [-3.0, -1.0, -2.5]])
    found = losses.multiclass_hinge(below, jnp.array([1, 2]))
    np.testing.assert_array_equal(found, [0, 2.5])

  def test_classes_are_optax_s(self):
    logits, label = normal(0, 12, 5), jnp.arange(12) % 5
    pair = (
      lambda x: losses.multiclass_hinge(x, label),
      lambda x: optax.losses.multiclass_hinge_loss(x, label),
    )
    np.testing.assert_allclose(*(f(logits) for f in pair), rtol=8 * EPS, atol=8 * EPS)
    slopes = [jax.grad(lambda x, f=f: f(x).sum())(logits) for f in pair]
    np.testing.assert_allclose(*slopes, atol=EPS)


class PairTest(parameterized.TestCase):
  def test_narrow_embeddings_are_subtracted_in_float32(self):
    one, two = jnp.array([[256.0]], jnp.bfloat16), jnp.array([[0.5]], jnp.bfloat16)
    np.testing.assert_array_equal(margins.distance(one, two), 255.5)

  def test_by_hand(self):
    one = jnp.array([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    two = jnp.array([[3.0, 4.0], [0.3, 0.4], [4.0, 5.0]])
    loss = lambda one, same: losses.pair_contrastive(one, two, jnp.array(same), 2.0)
    # Distances 5, 0.5, 5.
    np.testing.assert_allclose(
      loss(one, [True, True, False]), [12.5, 0.125, 0], rtol=8 * EPS
    )
    np.testing.assert_allclose(loss(one, [0, 0, 1]), [0, 1.125, 12.5], rtol=8 * EPS)
    slope = jax.grad(lambda one: loss(one, [1, 0, 0]).sum())(one)
    # Towards the other; away from it with (2 - 0.5) along (0.6, 0.8); none.
    np.testing.assert_allclose(slope, [[-3, -4], [0.9, 1.2], [0, 0]], rtol=16 * EPS)

  @parameterized.parameters(True, False)
  def test_at_one_place_the_gradient_is_0(self, same):
    x = jnp.ones((2, 3))
    loss = lambda one: losses.pair_contrastive(one, x, jnp.full(2, same)).sum()
    value, slope = jax.value_and_grad(loss)(x)
    self.assertEqual(float(value), 0 if same else 1)
    np.testing.assert_array_equal(slope, 0)

  def test_sizes(self):
    # Squares of 1e25 overflow float32, distances do not.
    far = losses.pair_contrastive(
      jnp.full((1, 2), 1e25), jnp.zeros((1, 2)), jnp.array([False])
    )
    self.assertEqual(float(far[0]), 0)
    empty = jnp.zeros((0, 2))
    self.assertEqual(losses.pair_contrastive(empty, empty, jnp.zeros(0)).shape, (0,))
    narrow = jnp.ones((1, 2), jnp.bfloat16)
    found = losses.pair_contrastive(narrow, narrow, jnp.ones(1))
    self.assertEqual(found.dtype, jnp.float32)
    for bad in (jnp.nan, jnp.inf):
      row = jnp.full((1, 2), bad)
      found = losses.pair_contrastive(row, jnp.zeros((1, 2)), jnp.ones(1))
      np.testing.assert_array_equal(found, jnp.abs(row[:, 0]))

  def test_torch(self):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    one, two, same = normal(0, 16, 3), normal(1, 16, 3), jnp.arange(16) % 2
    given = torch.tensor(np.array(one), requires_grad=True)
    d = (given - torch.tensor(np.array(two))).norm(dim=1)
    y = torch.tensor(np.array(same))
    wanted = y * d**2 / 2 + (1 - y) * (1.5 - d).clamp(min=0) ** 2 / 2
    wanted.sum().backward()
    loss = lambda one: losses.pair_contrastive(one, two, same, 1.5)
    tight = {'rtol': 32 * EPS, 'atol': 16 * EPS}
    np.testing.assert_allclose(loss(one), wanted.detach().numpy(), **tight)
    slope = jax.grad(lambda one: loss(one).sum())(one)
    np.testing.assert_allclose(slope, given.grad.numpy(), **tight)


class TripletTest(parameterized.TestCase):
  def test_by_hand(self):
    anchor, zero = jnp.zeros((2, 2)), jnp.zeros((2, 2))
    near, far = jnp.array([[3.0, 4.0], [0.0, 1.0]]), jnp.array([[0.0, 2.0], [6.0, 8.0]])
    found = losses.triplet(anchor, near, far, 0.5)
    np.testing.assert_allclose(found, [3.5, 0], rtol=8 * EPS)
    found = losses.triplet(anchor, near, far, 0.5, squared=True)
    np.testing.assert_allclose(found, [25 - 4 + 0.5, 0], rtol=8 * EPS)
    value, slope = jax.value_and_grad(lambda a: losses.triplet(a, zero, zero).sum())(
      zero
    )
    self.assertEqual(float(value), 2)
    np.testing.assert_array_equal(slope, 0)

  @parameterized.parameters(False, True)
  def test_torch(self, squared):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    rows = [normal(i, 16, 3) for i in range(3)]
    given = [torch.tensor(np.array(x), requires_grad=True) for x in rows]
    power = 2 if squared else 1
    wanted = torch.nn.functional.triplet_margin_with_distance_loss(
      *given,
      distance_function=lambda a, b: (a - b).norm(dim=1) ** power,
      margin=0.7,
      reduction='none',
    )
    wanted.sum().backward()
    loss = lambda *rows: losses.triplet(*rows, 0.7, squared=squared)
    tight = {'rtol': 32 * EPS, 'atol': 64 * EPS}
    np.testing.assert_allclose(loss(*rows), wanted.detach().numpy(), **tight)
    slopes = jax.grad(lambda *rows: loss(*rows).sum(), (0, 1, 2))(*rows)
    for slope, x in zip(slopes, given, strict=True):
      np.testing.assert_allclose(slope, x.grad.numpy(), **tight)

  def test_distance_is_that_of_numpy(self):
    one, two = normal(0, 8, 5), normal(1, 8, 5).at[3].set(normal(0, 8, 5)[3])
    wanted = np.linalg.norm(np.asarray(one, np.float64) - np.asarray(two), axis=1)
    np.testing.assert_allclose(margins.distance(one, two), wanted, rtol=8 * EPS)


if __name__ == '__main__':
  absltest.main()
