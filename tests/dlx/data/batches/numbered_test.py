"""Numbers and epochs of a stream, and the flip in turn that goes by them."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.batches.choose import in_order, shuffled
from dlx.data.batches.numbered import numbered
from dlx.data.dataset import Loaded, Source
from dlx.data.images import policies
from dlx.errors import ConfigError

N, B = 11, 4


def source():
  # Row i holds i on its left and -i on its right.
  x = np.stack([np.arange(N), -np.arange(N)], 1).astype(np.float32) + [[0.5, -0.5]]
  image = x.reshape(N, 1, 2, 1).astype(np.float32)
  origin = {'name': 's', 'split': 'train', 'kind': 'generated', 'size': N}
  shapes = {'image': jax.ShapeDtypeStruct((1, 2, 1), np.float32)}
  return Source('s', 'train', shapes, N, lambda _: Loaded({'image': image}, origin))


def batches(count, seed=3):
  data = numbered(shuffled(source(), batch_size=B, seed=seed))
  arrays = data.load().data
  get = jax.jit(data.get)
  return data, [get(arrays, jnp.int32(step)) for step in range(count)]


class NumberedTest(parameterized.TestCase):
  def test_every_epoch_has_every_number_once_and_batches_straddle(self):
    data, found = batches(3 * N)
    stack = {k: np.concatenate([b[k] for b in found]) for k in found[0]}
    np.testing.assert_array_equal(stack['epoch'], np.arange(3 * N * B) // N)
    for epoch in range(3 * B):
      seen = stack['index'][stack['epoch'] == epoch]
      self.assertEqual(sorted(seen), list(range(N)))
    np.testing.assert_array_equal(stack['image'][:, 0, 0, 0] - 0.5, stack['index'])
    self.assertEqual({k: v.shape for k, v in found[0].items()},
                     {k: v.shape for k, v in data.shapes[0].items()})  # fmt: skip

  def test_the_streamed_form_has_the_same_batches(self):
    _, found = batches(6)
    data = numbered(shuffled(source(), batch_size=B, seed=3, stream=True, workers=0))
    loaded = data.load().data
    for step, batch in enumerate(found):
      parts = [data.get(loaded, step, rows) for rows in (slice(0, 1), slice(1, None))]
      for name, wanted in batch.items():
        own = np.concatenate([p[name] for p in parts])
        np.testing.assert_array_equal(own, wanted)
        self.assertEqual(own.dtype, wanted.dtype)

  def test_a_flip_in_turn_shows_each_side_in_every_other_epoch(self):
    _, found = batches(3 * N)
    policy = jax.jit(policies.alternating_flip(5))
    seen = np.zeros((3 * B, N), bool)
    for batch in found:
      out = policy(jax.random.key(len(batch)), batch)
      left = np.asarray(out['image'])[:, 0, 0, 0]
      for flipped, epoch, index in zip(left < 0, batch['epoch'], batch['index']):
        seen[epoch, index] = flipped
    np.testing.assert_array_equal(seen[1:], ~seen[:-1])
    self.assertBetween(int(seen[0].sum()), 1, N - 1)  # Not all in one epoch.
    many = {
      'image': jnp.ones((4000, 1, 2, 1)) * jnp.array([1.0, -1.0])[None, None, :, None],
      'index': jnp.arange(4000),
      'epoch': jnp.zeros(4000, jnp.int32),
    }
    share = float((policy(jax.random.key(0), many)['image'][:, 0, 0, 0] < 0).mean())
    self.assertBetween(share, 0.46, 0.54)  # Five deviations of a fair coin.

  def test_refuses_what_has_no_epochs(self):
    with self.assertRaisesRegex(ConfigError, 'InOrder are not known'):
      numbered(in_order(source(), B))


if __name__ == '__main__':
  absltest.main()
