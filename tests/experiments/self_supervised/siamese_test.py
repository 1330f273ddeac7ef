"""siamese: the loss is that of all pairs, written out; nearest by distance."""

import dataclasses

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.metrics import nearest
from experiments.self_supervised import siamese

SMALL = dataclasses.replace(siamese.SMALL, batch_size=12, dropout=0.0)


class SiameseTest(absltest.TestCase):
  def test_the_loss_is_that_of_all_pairs(self):
    made = siamese.build(SMALL)
    data = made.train_data
    arrays = {name: jnp.asarray(x) for name, x in data.load().data.items()}
    # One alike image, two, three, none.
    label = jnp.array([0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 4, 5])
    batch = {**data.get(arrays, jnp.int32(0)), 'label': label}
    state = made.init(jax.random.key(0))
    _, sums = jax.jit(made.train_step)(state, batch)
    # The places are those of training, by statistics of the batch: read them off a net
    # of the same variables.
    model = siamese.CNN(SMALL.features, SMALL.dense, SMALL.outputs, 0.0)
    image = siamese.normalised(siamese.images.images('digits'))(batch)['image']
    variables = {'params': state.params, **state.model_state}
    place, _ = model.apply(variables, image, train=True, mutable=['batch_stats'])
    place, label = np.asarray(place, np.float64), np.asarray(batch['label'])
    values, distances = [], {True: [], False: []}
    for i in range(12):
      terms = {True: [], False: []}
      for j in set(range(12)) - {i}:
        d, same = np.linalg.norm(place[i] - place[j]), bool(label[i] == label[j])
        terms[same].append(d**2 / 2 if same else max(0, 1 - d) ** 2 / 2)
        distances[same].append(d)
      values.append(sum(np.mean(t) / 2 for t in terms.values() if t))
    mean = lambda name: float(sums[name].total / sums[name].count)
    # float32: sums of 12 terms, of places that went through three layers.
    np.testing.assert_allclose(mean('loss'), np.mean(values), rtol=1e-4)
    np.testing.assert_allclose(mean('alike'), np.mean(distances[True]), rtol=1e-4)
    np.testing.assert_allclose(mean('apart'), np.mean(distances[False]), rtol=1e-4)

  def test_refusals(self):
    for fields, told in (
      ({'micro_batches': 2}, 'micro_batches=2 .* whole batch'),
      ({'margin': 0.0}, 'margin=0.0'),
      ({'neighbours': 201}, r'neighbours=201 .* \[1, 200\]'),
    ):
      with self.assertRaisesRegex(ConfigError, told):
        dataclasses.replace(siamese.SMALL, **fields)


class NearestByDistanceTest(absltest.TestCase):
  def test_by_hand(self):
    # By the angle the second row is the nearest, by the distance the first.
    bank = jnp.array([[1.0, 1.0], [9.0, 0.0], [0.0, 3.0]])
    query = jnp.array([[1.0, 0.0]])
    found = nearest(query, bank, k=3, euclidean=True)
    np.testing.assert_array_equal(found.row_Mk, [[0, 2, 1]])
    np.testing.assert_allclose(found.similarity_Mk, [[-1, -10, -64]], rtol=1e-5)
    self.assertEqual(int(nearest(query, bank, k=1).row_Mk[0, 0]), 1)

  def test_against_numpy_far_from_zero(self):
    rng = np.random.default_rng(0)
    bank, query = 1000 + rng.normal(size=(50, 3)), 1000 + rng.normal(size=(7, 3))
    bank, query = bank.astype(np.float32), query.astype(np.float32)
    found = jax.jit(lambda *x: nearest(*x, k=4, euclidean=True))(query, bank)
    wide = lambda x: x.astype(np.float64)
    square = ((wide(query)[:, None] - wide(bank)[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(found.row_Mk, square.argsort(1)[:, :4])
    wanted = -np.sort(square, 1)[:, :4]
    # The mean of the bank is rounded at 1000.
    np.testing.assert_allclose(found.similarity_Mk, wanted, atol=64 * 2.0**-23 * 10)


if __name__ == '__main__':
  absltest.main()
