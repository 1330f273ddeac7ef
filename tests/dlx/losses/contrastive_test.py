"""InfoNCE, the queue, the momentum encoder and views: by hand, then torch."""

import collections
import json
import pathlib
import subprocess
import sys

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlx import losses, metrics
from dlx.data.images import geometry
from dlx.data.images.views import drawing_view, two_views, view_of
from dlx.data.sets import images
from dlx.data.sources import unlabelled
from dlx.errors import ConfigError
from dlx.losses import contrastive as lib
from dlx.precision import unit
from dlx.train import queue as queue_train
from dlx.train.queue import init_queue, momentum_update
from tests import simulated

ROOT = pathlib.Path(__file__).parents[3]


def rows(seed, *shape):
  x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
  return x / np.linalg.norm(x, axis=-1, keepdims=True)


class InfoNCETest(absltest.TestCase):
  def test_by_hand(self):
    query = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    key = jnp.array([[1.0, 0.0], [0.0, -1.0]])
    negatives = jnp.array([[0.0, 1.0], [-1.0, 0.0]])
    found = jax.jit(lib.info_nce)(query, key, negatives, 0.5)
    # Similarities (1; 0, -1) and (-1; 1, 0), each over 0.5.
    wanted = [
      np.log(np.exp(2) + 1 + np.exp(-2)) - 2,
      np.log(np.exp(-2) + np.exp(2) + 1) + 2,
    ]
    np.testing.assert_allclose(found.loss_B, wanted, rtol=1e-6)
    np.testing.assert_array_equal(found.hit_B, [True, False])
    np.testing.assert_array_equal(found.positive_B, [1, -1])

  def test_equal_keys_cost_the_log_of_their_number(self):
    query = jnp.ones((3, 1))
    found = jax.jit(lib.info_nce)(query, query, jnp.ones((6, 1)), 0.2)
    np.testing.assert_allclose(found.loss_B, np.log(7), rtol=1e-6)
    # Where nothing is told apart nothing is found.
    np.testing.assert_array_equal(found.hit_B, [False] * 3)
    found = lib.in_batch_info_nce(query, query, 0.2)
    np.testing.assert_array_equal(found.hit_B, [False] * 3)

  def test_parts_of_a_batch_give_the_loss_of_the_whole(self):
    query, key, negatives = rows(0, 6, 4), rows(1, 6, 4), rows(2, 9, 4)
    info_nce = jax.jit(lib.info_nce)
    whole = info_nce(query, key, negatives, 0.1).loss_B
    parts = [
      info_nce(query[i : i + 2], key[i : i + 2], negatives, 0.1).loss_B
      for i in (0, 2, 4)
    ]
    # Similarities over 0.1 are up to 10, and off by a few eps of that.
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)

  def test_in_the_batch_the_other_rows_are_the_negatives(self):
    query, key = rows(0, 5, 4), rows(1, 5, 4)
    found = jax.jit(lib.in_batch_info_nce)(query, key, 0.3)
    info_nce = jax.jit(lib.info_nce)
    for i in range(5):
      others = np.delete(key, i, 0)
      one = info_nce(query[i : i + 1], key[i : i + 1], others, 0.3)
      np.testing.assert_allclose(found.loss_B[i], one.loss_B[0], atol=1e-6)
      self.assertEqual(bool(found.hit_B[i]), bool(one.hit_B[0]))
      np.testing.assert_allclose(found.positive_B[i], one.positive_B[0], atol=1e-6)

  def test_nt_xent_by_hand(self):
    one = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    two = jnp.array([[0.6, 0.8], [0.0, -1.0]])
    found = jax.jit(lib.nt_xent)(one, two, 0.5)
    # Similarities of each view: to its pair; to the two views of the other image.
    rows = [(0.6, 0, 0), (-1, 0, 0.8), (0.6, 0.8, -0.8), (-1, 0, -0.8)]
    wanted = [np.log(np.exp(2 * np.array(row)).sum()) - 2 * row[0] for row in rows]
    np.testing.assert_allclose(found.loss_B, wanted, rtol=1e-6)
    np.testing.assert_array_equal(found.hit_B, [True, False, False, False])
    np.testing.assert_allclose(found.positive_B, [0.6, -1, 0.6, -1], rtol=1e-6)

  def test_nt_xent_is_info_nce_of_every_view_among_all_others(self):
    one, two = rows(0, 5, 4), rows(1, 5, 4)
    views = np.concatenate([one, two])
    found = jax.jit(lib.nt_xent)(one, two, 0.3)
    for i in range(10):
      own = (i + 5) % 10
      others = np.delete(views, [i, own], 0)
      single = lib.info_nce(views[i : i + 1], views[own : own + 1], others, 0.3)
      np.testing.assert_allclose(found.loss_B[i], single.loss_B[0], atol=1e-6)
      self.assertEqual(bool(found.hit_B[i]), bool(single.hit_B[0]))
    same = lib.nt_xent(jnp.ones((3, 1)), jnp.ones((3, 1)), 0.2)
    np.testing.assert_allclose(same.loss_B, np.log(5), rtol=1e-6)
    np.testing.assert_array_equal(same.hit_B, [False] * 6)
    slope = jax.jit(jax.grad(lambda x: lib.nt_xent(x, two, 0.3).loss_B.mean()))(one)
    self.assertTrue(np.isfinite(slope).all())

  def test_nt_xent_is_the_formula(self):
    """Both views together, similarities over t, itself masked, cross-entropy (L13)."""
    one, two = rows(0, 6, 4), rows(1, 6, 4)
    z = jnp.concatenate([one, two])
    similarity = jnp.dot(z, z.T, precision='highest') / 0.5
    masked = jnp.where(jnp.eye(12, dtype=bool), -jnp.inf, similarity)
    positive = jnp.concatenate([jnp.arange(6) + 6, jnp.arange(6)])
    wanted = losses.softmax_cross_entropy(masked, positive)
    found = jax.jit(lib.nt_xent)(one, two, 0.5).loss_B
    # A sum of twelve exponentials, whose order alone may differ.
    np.testing.assert_allclose(found, wanted, rtol=4 * 2**-23)
    np.testing.assert_allclose(found.mean(), wanted.mean(), rtol=4 * 2**-23)

  def test_nt_xent_does_not_depend_on_the_order(self):
    one, two, order = rows(0, 6, 4), rows(1, 6, 4), np.array([3, 0, 5, 1, 4, 2])
    nt_xent = jax.jit(lambda *views: lib.nt_xent(*views, 0.5).loss_B.reshape(2, -1))
    found = nt_xent(one, two)
    for views, wanted in (
      ((one[order], two[order]), found[:, order]),
      ((two, one), found[::-1]),
    ):
      np.testing.assert_allclose(nt_xent(*views), wanted, rtol=8 * 2**-23)

  def test_both_directions_by_hand(self):
    one = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    two = jnp.array([[0.6, 0.8], [0.0, 1.0]])
    found = jax.jit(lib.symmetric_info_nce)(one, two, 1.0)
    # Similarities (0.6, 0) and (0.8, 1): along rows, and along columns.
    log = lambda *row: np.log(np.exp(row).sum())
    there = [log(0.6, 0) - 0.6, log(0.8, 1) - 1]
    back = [log(0.6, 0.8) - 0.6, log(0, 1) - 1]
    np.testing.assert_allclose(found.loss_B, np.add(there, back) / 2, rtol=1e-6)
    np.testing.assert_array_equal(found.hit_B, [False, True])
    swapped = jax.jit(lib.symmetric_info_nce)(two, one, 1.0)
    np.testing.assert_allclose(swapped.loss_B, found.loss_B, rtol=1e-6)

  def test_narrow_vectors_are_widened(self):
    one, two = (jnp.asarray(rows(i, 3, 4), jnp.bfloat16) for i in range(2))
    for loss in (lib.nt_xent, lib.in_batch_info_nce, lib.symmetric_info_nce):
      self.assertEqual(loss(one, two, 0.5).loss_B.dtype, jnp.float32)
    self.assertEqual(lib.info_nce(one, two, two, 0.5).loss_B.dtype, jnp.float32)

  def test_both_directions_and_nt_xent_equal_torch(self):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    one, two, f = rows(0, 6, 8), rows(1, 6, 8), torch.nn.functional
    for loss in (lib.nt_xent, lib.symmetric_info_nce):
      a, b = (torch.tensor(x, requires_grad=True) for x in (one, two))
      if loss is lib.nt_xent:
        z = torch.cat([a, b])
        logits = (z @ z.T / 0.5).masked_fill(torch.eye(12, dtype=bool), -torch.inf)
        wanted = f.cross_entropy(logits, (torch.arange(12) + 6) % 12)
      else:
        logits = a @ b.T / 0.5
        own = torch.arange(6)
        wanted = (f.cross_entropy(logits, own) + f.cross_entropy(logits.T, own)) / 2
      wanted.backward()
      mean = lambda a, b, loss=loss: loss(a, b, 0.5).loss_B.mean()
      value, slopes = jax.jit(jax.value_and_grad(mean, (0, 1)))(one, two)
      np.testing.assert_allclose(value, wanted.item(), rtol=1e-6)
      for slope, x in zip(slopes, (a, b), strict=True):
        np.testing.assert_allclose(slope, x.grad.numpy(), atol=1e-6)

  def test_equals_torch(self):
    torch = pytest.importorskip(
      'torch', reason='torch is not installed: pip install .[reference]'
    )
    query, key, negatives = rows(0, 4, 8), rows(1, 4, 8), rows(2, 16, 8)
    q, k, n = (torch.tensor(np.asarray(x)) for x in (query, key, negatives))
    q.requires_grad_()
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ n.T], 1) / 0.2
    loss = torch.nn.functional.cross_entropy(logits, torch.zeros(4, dtype=torch.long))
    loss.backward()
    mean = lambda q: lib.info_nce(q, key, negatives, 0.2).loss_B.mean()
    value, grad = jax.jit(jax.value_and_grad(mean))(query)
    # Logits up to 5, sums of 16: 16 * 5 eps = 1e-5.
    np.testing.assert_allclose(value, loss.item(), atol=1e-5)
    np.testing.assert_allclose(grad, q.grad.numpy(), atol=1e-5)

  def test_unit(self):
    x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(unit(x), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    grad = jax.jit(jax.grad(lambda x: unit(x).sum()))(x)
    self.assertTrue(np.isfinite(grad).all())
    self.assertEqual(unit(x.astype(jnp.bfloat16)).dtype, jnp.float32)


class QueueTest(parameterized.TestCase):
  @parameterized.product(count=(1, 2, 3, 7, 10), jit=(True, False))
  def test_first_in_first_out(self, count, jit):
    """Against a deque: 7 rows, pushes that wrap around, fill it or exceed it."""
    push = jax.jit(queue_train.push) if jit else queue_train.push
    queue = init_queue(jax.random.key(0), 7, 2)
    model = collections.deque(map(tuple, np.asarray(queue.keys_ND)), maxlen=7)
    for i in range(9):
      new = rows(i + 1, count, 2)
      queue = push(queue, new)
      model.extend(map(tuple, np.asarray(new)))
      oldest_first = np.roll(queue.keys_ND, -int(queue.start), 0)
      np.testing.assert_array_equal(oldest_first, np.array(model))
    self.assertEqual(queue.start.dtype, jnp.int32)

  def test_first_keys_have_length_1(self):
    queue = init_queue(jax.random.key(0), 50, 8)
    norms = np.linalg.norm(queue.keys_ND, axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-6)

  def test_first_in_first_out_over_eight_devices(self):
    """The keys of a batch lie on eight devices, the queue on each of them."""
    program = '\n'.join(
      (
        'import json, jax, jax.numpy as jnp, numpy as np',
        'from jax.sharding import PartitionSpec as P',
        'from dlx.train import queue as lib',
        'from dlx.run import sharding',
        'mesh = sharding.make_mesh()',
        'whole = sharding.replicated(mesh)',
        'push = jax.jit(lib.push, out_shardings=whole)',
        'queue = one = lib.init_queue(jax.random.key(0), 20, 4)',
        'queue = jax.device_put(queue, whole)',
        'same = []',
        'for i in range(5):',
        '  new = jax.random.normal(jax.random.key(i), (16, 4))',
        '  one = lib.push(one, new)',
        "  rows = sharding.on_mesh(mesh, P('data'))",
        '  queue = push(queue, jax.device_put(new, rows))',
        '  same.append(all(bool((np.asarray(s.data) == np.asarray(one.keys_ND)).all())',
        '                  for s in queue.keys_ND.addressable_shards))',
        'print(json.dumps([jax.device_count(), same]))',
      )
    )
    env = {**simulated.environment(8), 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
      [sys.executable, '-c', program],
      env=env,
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=False,
    )
    self.assertEqual(done.returncode, 0, done.stderr[-3000:])
    self.assertEqual(json.loads(done.stdout.splitlines()[-1]), [8, [True] * 5])


class MomentumTest(absltest.TestCase):
  def test_by_hand_in_the_dtype_of_the_average(self):
    slow = {'a': jnp.array([1.0, 2.0]), 'b': jnp.ones((), jnp.float32)}
    fast = {'a': jnp.array([3.0, 0.0]), 'b': jnp.zeros((), jnp.bfloat16)}
    new = momentum_update(slow, fast, 0.75)
    np.testing.assert_allclose(new['a'], [1.5, 1.5])
    self.assertEqual(new['b'].dtype, jnp.float32)
    self.assertEqual(float(new['b']), 0.75)
    with self.assertRaisesRegex(ConfigError, 'b of bfloat16 is not allowed'):
      momentum_update(fast, slow, 0.75)


class ViewTest(parameterized.TestCase):
  @parameterized.parameters(1, 3)
  def test_two_draws_keyed_by_the_row(self, channels):
    image = jax.random.uniform(jax.random.key(3), (4, 8, 8, channels))
    views = jax.jit(lambda x: two_views(view_of(x.shape), jax.random.key(0), x))
    a, b = views(image)
    self.assertEqual([a.shape, b.shape], [image.shape] * 2)
    for x in (a, b):
      # Rounding of an interpolation may leave [0, 1] by an eps.
      self.assertBetween(float(x.min()), -1e-6, 0.999)
      self.assertBetween(float(x.max()), 0.001, 1 + 1e-6)
    self.assertFalse(np.array_equal(a, b))
    same = jnp.broadcast_to(image[:1], image.shape)
    self.assertFalse(np.array_equal(*views(same)[0][:2]))
    # A row has its own key, whatever the size of the batch; the program differs.
    np.testing.assert_allclose(views(image[:2])[0], a[:2], atol=1e-6)

  def test_a_drawing_that_nothing_happens_to(self):
    view = drawing_view(scale=(1, 1), degrees=0, shear=0, shift=0, erase=0)
    image = jax.random.uniform(jax.random.key(0), (9, 9, 1))
    same = jax.jit(view)(jax.random.key(1), image)
    np.testing.assert_allclose(same, image, atol=1e-6)

  def test_scale_magnifies_and_the_square_is_black(self):
    image = jax.random.uniform(jax.random.key(0), (9, 9, 1))
    only = dict(degrees=0, shear=0, shift=0)
    larger = drawing_view(scale=(2, 2), erase=0, **only)
    wanted = geometry.zoom(image, 2.0, fill='constant')
    found = jax.jit(larger)(jax.random.key(1), image)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    erased = jax.jit(drawing_view(scale=(1, 1), erase=0.34, **only))
    black = [
      (np.asarray(erased(jax.random.key(i), jnp.ones((9, 9, 1)))) < 1e-3).sum()
      for i in range(20)
    ]
    # A side of 3 of 9 pixels, cut by the border at times.
    self.assertEqual(max(black), 9)
    self.assertGreaterEqual(min(black), 4)

  def test_shear_moves_columns_by_the_row(self):
    image = jnp.zeros((9, 9, 1)).at[:, 4].set(1.0)
    view = drawing_view(scale=(1, 1), degrees=0, shear=1.0, shift=0, erase=0)
    sheared = np.asarray(jax.jit(view)(jax.random.key(2), image))[..., 0]
    steps = np.diff((sheared * np.arange(9.0)).sum(1)[2:7])
    np.testing.assert_allclose(steps, steps[0], atol=1e-4)
    self.assertGreater(abs(steps[0]), 0.01)

  def test_scale_is_checked(self):
    with self.assertRaisesRegex(ConfigError, r'scale=\(0, 1\) is not allowed'):
      drawing_view(scale=(0, 1))

  def test_unlabelled(self):
    source = images.images('digits').train
    without = unlabelled(source)
    self.assertEqual(set(without.shapes), {'image'})
    read = without.read(None)
    self.assertEqual(set(read.data), {'image'})
    np.testing.assert_array_equal(read.data['image'], source.read(None).data['image'])


class MeasuresTest(absltest.TestCase):
  def test_by_hand(self):
    x = jnp.array([[1.0, 0.0], [-1.0, 0.0]])
    # Squared distance 4 between the two: log exp(-8).
    np.testing.assert_allclose(metrics.uniformity(x), -8, rtol=1e-6)
    np.testing.assert_allclose(metrics.uniformity(jnp.ones((3, 1))), 0, atol=1e-6)
    y = jnp.array([[0.0, 1.0], [-1.0, 0.0]])
    np.testing.assert_allclose(metrics.alignment(x, y), 1.0)


if __name__ == '__main__':
  absltest.main()
