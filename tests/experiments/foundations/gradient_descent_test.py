"""`gradient_descent`: its noise by hand and of batches drawn anew; its orders."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from experiments.foundations import gradient_descent


class GradientDescentTest(absltest.TestCase):
  def test_variance_of_two_vectors(self):
    # (1, 0) and (3, 4): mean (2, 2), squared distances 5 and 5, over n - 1 = 1.
    found = {
      'count': jnp.array(2.0),
      'vectors': jnp.array([4.0, 4.0]),
      'squares': jnp.array(1.0 + 25.0),
    }
    self.assertAlmostEqual(float(gradient_descent.variance(found)), 10.0, delta=1e-5)

  def test_noise_is_the_variance_of_gradients_of_batches(self):
    config = gradient_descent.SMALL
    built = gradient_descent.build(config)
    state = jax.jit(built.init)(jax.random.key(0))
    whole = built.evals['whole']
    arrays = whole.data.load().data
    num_batches = whole.data.num_batches(arrays)
    step = jax.jit(lambda i: whole.step(state, whole.data.get(arrays, i)))
    total = step(0)
    for i in range(1, num_batches):
      total = jax.tree.map(jnp.add, total, step(i))
    found = whole.summarize(total)
    # 1437 = 5 * 256 + 157: what fills up the last batch counts nowhere.
    counts = {size: int(total[f'noise_{size}']['count']) for size in (1, 64, 256)}
    self.assertEqual(counts, {1: 1437, 64: 22, 256: 5})

    # The train step at rate 1 moves by the gradient of its batch.
    plain = gradient_descent.build(gradient_descent.Config(
      features=config.features, batch_size=64, lr=1.0
    ))  # fmt: skip
    images = {k: np.asarray(x)[: 22 * 64] for k, x in arrays.items()}
    move = jax.jit(lambda batch: plain.train_step(state, batch)[0].params)
    vectors = []
    for g in range(22):
      new = move({k: x[64 * g : 64 * (g + 1)] for k, x in images.items()})
      moved = jax.tree.map(jnp.subtract, state.params, new)
      vectors.append(
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(moved)]).astype(np.float64)
      )
    wanted = np.var(vectors, axis=0, ddof=1).sum()
    # Differences of parameters of size 1 in float32, of moves of size 0.1.
    np.testing.assert_allclose(float(found['noise_64']), wanted, rtol=1e-4)

  def test_without_shuffling_examples_come_by_class(self):
    fields = {'batch_size': 100, 'features': (2,), 'shuffle': False}
    for stream in (False, True):
      config = gradient_descent.Config(**fields, stream=stream)
      data = gradient_descent.build(config).train_data
      held = data.load().data
      rows = (slice(None),) if stream else ()
      labels = [np.asarray(data.get(held, i, *rows)['label']) for i in range(29)]
      labels = np.concatenate(labels)
      first = labels[:1437]
      np.testing.assert_array_equal(first, np.sort(first))
      self.assertEqual(set(first), set(range(10)))
      np.testing.assert_array_equal(labels[1437:2874], first)


if __name__ == '__main__':
  absltest.main()
