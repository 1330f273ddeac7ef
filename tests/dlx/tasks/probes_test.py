"""Probes, neighbours, principal components: by hand, then scikit-learn."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx import metrics
from dlx.data.dataset import Loaded, Source
from dlx.data.sets import images
from dlx.errors import ConfigError, DataError
from dlx.metrics import neighbours
from dlx.tasks import representation
from dlx.tasks.probes import TrainTest, knn_eval, probe_eval


def source(name, n, size=None, seed=0):
  """Images whose first pixel is the label times 20, and whose second is noise."""
  rng = np.random.default_rng(seed)
  label_N = (np.arange(n) % 4).astype(np.int32)
  image = rng.integers(0, 255, (n, 1, 2, 1)).astype(np.uint8)
  image[:, 0, 0, 0] = 20 * label_N
  shapes = {
    'image': jax.ShapeDtypeStruct((1, 2, 1), np.uint8),
    'label': jax.ShapeDtypeStruct((), np.int32),
  }
  origin = {'name': 'stripes', 'split': name, 'kind': 'generated'}
  read = lambda data_dir: Loaded({'image': image, 'label': label_N}, origin)
  return Source('stripes', name, shapes, size, read)


def digits(part):
  data = getattr(images.images('digits'), part).read(None).data
  x_NF = np.float32(data['image'].reshape(len(data['label']), -1) / 16)
  return x_NF, data['label']


class TrainTestTest(absltest.TestCase):
  def test_one_batch_of_the_first_examples(self):
    train = source('train', 12, 12)
    data = TrainTest(train, source('test', 8, None), num_train=5, num_test=6)
    loaded = data.load()
    self.assertEqual(data.num_batches(loaded.data), 1)
    batch = data.get(loaded.data, 0)
    self.assertEqual({n: x.shape for n, x in batch.items()}, {
      n: x.shape for n, x in data.shapes[0].items()
    })  # fmt: skip
    self.assertEqual(batch['train_image'].shape, (5, 1, 2, 1))
    np.testing.assert_array_equal(batch['test_label'], [0, 1, 2, 3, 0, 1])
    self.assertEqual([loaded.origin['size'], data.size], [11, 11])
    self.assertEqual(set(data.placement), set(batch))
    more = TrainTest(train, train, num_train=99)
    self.assertEqual(more.shapes[0]['train_label'].shape, (12,))

  def test_refused(self):
    train, unknown = source('train', 12, 12), source('test', 8, None)
    with self.assertRaisesRegex(ConfigError, 'num_train=0 is not allowed'):
      TrainTest(train, train, num_train=0)
    with self.assertRaisesRegex(ConfigError, 'num_test=None is not allowed'):
      TrainTest(train, unknown)
    with self.assertRaisesRegex(DataError, 'stripes/test: 8 examples, fewer than 9'):
      TrainTest(train, unknown, num_test=9).load()


class InChunksTest(parameterized.TestCase):
  @parameterized.parameters(1, 3, 5, 7, 99)
  def test_any_size_gives_the_same_rows(self, size):
    rows = {'a': jnp.arange(14.0).reshape(7, 2), 'b': jnp.arange(7)}
    fn = lambda t: (t['a'] + t['b'][:, None], 2 * t['b'])
    found = jax.jit(lambda t: metrics.in_chunks(fn, t, size))(rows)
    for a, b in zip(found, fn(rows), strict=True):
      np.testing.assert_array_equal(a, b)


class FitLinearTest(parameterized.TestCase):
  @parameterized.parameters((300, 10.0), (40, 1.0))
  def test_equals_scikit_learn(self, n, l2):
    """More rows than features, and fewer."""
    from sklearn.linear_model import LogisticRegression

    x_NF, label_N = digits('train')
    scaled = metrics.standardiser(jnp.asarray(x_NF))
    x_NF, label_N = np.asarray(scaled(x_NF))[:n], label_N[:n]
    fit = jax.jit(lambda x, y: metrics.fit_linear(x, y, num_classes=10, l2=l2))
    found = fit(x_NF, label_N)
    reference = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10000)
    reference.fit(x_NF.astype(np.float64), label_N)
    # The curvature of the mean objective is at least l2 / n: the kernel is as near as
    # the gradient over it. The gradient ends where float32 sees the objective fall no
    # more: steps of sqrt(eps * objective / curvature) = 3e-3 at curvature 0.03.
    self.assertLess(float(found.gradient), 3e-4)
    near = max(1e-4, float(found.gradient) * n / l2)
    self.assertLess(near, 1e-2)
    np.testing.assert_allclose(found.kernel_FK, reference.coef_.T, atol=near)
    bias = np.asarray(found.bias_K) - np.mean(found.bias_K)
    np.testing.assert_allclose(
      bias, reference.intercept_ - reference.intercept_.mean(), atol=10 * near
    )

  def test_weight_0_leaves_a_row_out_and_draws_map(self):
    x_NF, label_N = digits('train')
    x_NF, label_N = x_NF[:60], label_N[:60]
    weight_DN = np.ones((2, 60), np.float32)
    weight_DN[0, 50:], weight_DN[1, :10] = 0, 0
    fit = lambda x, y, w: metrics.fit_linear(x, y, w, num_classes=10, l2=1.0)
    both = jax.jit(jax.vmap(fit, (None, None, 0)))(x_NF, label_N, weight_DN)
    one = jax.jit(fit)
    ones = np.ones(50, np.float32)
    for i, part in enumerate((slice(0, 50), slice(10, 60))):
      alone = one(x_NF[part], label_N[part], ones)
      # Curvature of at least 1 / 50, gradients of at most 1e-4: 5e-3 apart.
      np.testing.assert_allclose(both.kernel_FK[i], alone.kernel_FK, atol=5e-3)

  def test_constant_columns_become_0(self):
    x = np.random.default_rng(0).normal(3, 2, (1000, 3)).astype(np.float32)
    x[:, 1], x[:, 2] = 0.1, 0.0
    scale = jax.jit(lambda x, y: metrics.standardiser(x)(y))
    found = np.asarray(scale(x, x))
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(0), [1, 0, 0], atol=1e-5)
    other = np.full((1, 3), 7, np.float32)
    np.testing.assert_array_equal(np.asarray(scale(x, other))[0, 1:], 0)

  def test_one_row_is_refused(self):
    with self.assertRaisesRegex(ConfigError, '1 row .* at least 2'):
      metrics.standardiser(jnp.ones((1, 3)))


class DrawLabelsTest(absltest.TestCase):
  def test_so_many_of_each_class_by_chance(self):
    label_N = jnp.array([0, 1, 2, 2] * 5)
    draw = jax.jit(
      lambda i: metrics.draw_labels(
        jax.random.key(i), label_N, per_class=7, num_classes=3
      )
    )
    rows, weight = map(np.asarray, draw(0))
    # Five rows of the classes 0 and 1, ten of class 2.
    np.testing.assert_array_equal(weight.reshape(3, 7).sum(1), [5, 5, 7])
    kept = rows[weight > 0]
    self.assertLen(set(kept), len(kept))
    counts = np.bincount(np.asarray(label_N)[kept])
    np.testing.assert_array_equal(counts, [5, 5, 7])
    np.testing.assert_array_equal(draw(0)[0], rows)
    self.assertFalse(np.array_equal(draw(1)[0][14:], rows[14:]))


class EvalsTest(absltest.TestCase):
  """Features that hold the label, and such that hold nothing but noise."""

  def features(self, state, image):
    x = image.astype(jnp.float32).reshape(image.shape[0], -1) / 255
    told = jnp.exp(-jnp.square(10 * (x[:, :1] - jnp.arange(4.0)[None] * 20 / 255)))
    return {'noise': x[:, 1:] * state, 'encoder': told * state}

  def run_eval(self, make, **kwargs):
    data = TrainTest(
      source('train', 60, 60), source('test', 40, 40, seed=1), num_test=32
    )
    evaluation = make(self.features, data, num_classes=4, chunk=7, **kwargs)
    step = jax.jit(lambda s, b: evaluation.summarize(evaluation.step(s, b)))
    found = step(jnp.float32(1), data.load().data)
    return {name: float(value) for name, value in found.items()}

  def test_probe(self):
    found = self.run_eval(probe_eval, per_class=3, draws=3, l2=0.01)
    self.assertEqual(
      set(found),
      {'accuracy', 'few_accuracy', 'few_sd', 'loss', 'gradient'}
      | {'noise_accuracy', 'noise_few_accuracy'},
    )
    self.assertEqual([found['accuracy'], found['few_accuracy']], [1, 1])
    self.assertLess(found['loss'], 0.1)
    self.assertEqual(found['few_sd'], 0)
    # A quarter by chance, of 32 examples.
    self.assertLess(found['noise_accuracy'], 0.6)
    self.assertLess(found['noise_few_accuracy'], 0.6)
    self.assertLess(found['gradient'], 1e-3)

  def test_knn(self):
    found = self.run_eval(knn_eval, k=5)
    self.assertEqual(set(found), {'accuracy', 'loss', 'noise_accuracy'})
    self.assertEqual([found['accuracy'], found['loss']], [1, 0])
    # One positive number has direction 1 whatever its size.
    self.assertLess(found['noise_accuracy'], 0.6)


class NeighboursTest(parameterized.TestCase):
  @parameterized.parameters(3, 100)
  def test_nearest_equals_brute_force(self, chunk):
    rng = np.random.default_rng(0)
    bank, query = rng.normal(size=(20, 4)), 5 * rng.normal(size=(7, 4))
    valid, itself = np.arange(20) % 5 != 0, np.arange(7) + 1
    cosine = query @ bank.T / np.linalg.norm(query, axis=1)[:, None]
    cosine /= np.linalg.norm(bank, axis=1)
    cosine[:, ~valid] = -np.inf
    cosine[np.arange(7), itself] = -np.inf
    found = jax.jit(
      lambda q, b: neighbours.nearest(
        q, b, k=4, valid_N=valid, itself_M=jnp.asarray(itself), chunk=chunk
      )
    )(np.float32(query), np.float32(bank))
    order = np.argsort(-cosine, 1)[:, :4]
    np.testing.assert_array_equal(found.row_Mk, order)
    wanted = np.take_along_axis(cosine, order, 1)
    np.testing.assert_allclose(found.similarity_Mk, wanted, atol=1e-6)

  def test_votes_by_hand(self):
    near = neighbours.Neighbours(
      jnp.array([[0.9, 0.8, -jnp.inf], [-jnp.inf] * 3]), jnp.array([[2, 0, 1]] * 2)
    )
    label = jnp.array([1, 0, 2])
    votes = neighbours.vote(near, label, num_classes=3, temperature=0.1)
    e = np.exp(-1)
    np.testing.assert_allclose(votes, [[0, e, 1] / (1 + e), [0, 0, 0]], atol=1e-6)

  def test_bank_smaller_than_k(self):
    with self.assertRaisesRegex(ConfigError, r'k=3 is not allowed: must be in \[1, 2'):
      neighbours.nearest(jnp.ones((1, 2)), jnp.ones((2, 2)), k=3)

  def test_equals_scikit_learn_on_digits(self):
    from sklearn.neighbors import KNeighborsClassifier

    (bank, label), (query, wanted) = digits('train'), digits('test')
    reference = KNeighborsClassifier(
      8, metric='cosine', weights=lambda d: np.exp((1 - d) / 0.07)
    )
    reference.fit(bank, label)
    near = jax.jit(lambda q, b: neighbours.nearest(q, b, k=8))(query, bank)
    votes = neighbours.vote(near, jnp.asarray(label), num_classes=10)
    np.testing.assert_allclose(votes, reference.predict_proba(query), atol=1e-4)
    self.assertGreater((votes.argmax(1) == wanted).mean(), 0.97)


class PrincipalComponentsTest(absltest.TestCase):
  def test_equals_scikit_learn(self):
    from sklearn.decomposition import PCA

    x, _ = digits('test')
    found = np.asarray(jax.jit(metrics.principal_components)(x))
    wanted = PCA(2, svd_solver='full').fit_transform(x.astype(np.float64))
    for i in range(2):
      sign = np.sign((found[:, i] * wanted[:, i]).sum())
      # Sums of 64 products of size 1.
      np.testing.assert_allclose(sign * found[:, i], wanted[:, i], atol=1e-4)


class PicturesTest(absltest.TestCase):
  def test_all_are_drawn(self):
    data = images.images('digits')
    labelled = TrainTest(data.train, data.test, num_train=50, num_test=20)
    flat = lambda state, image: image.reshape(image.shape[0], -1)
    found = representation.pictures(
      data, labelled, pooled=flat, project=flat, view=lambda key, x: x
    )
    self.assertEqual(set(found), {'views', 'similarity', 'embedding', 'neighbours'})
    batch = labelled.load().data
    for name, picture in found.items():
      tree = jax.jit(picture.compute)((), jax.random.key(0), batch)
      picture.draw(jax.tree.map(np.array, tree)).canvas.draw()
      if name == 'similarity':
        # Views that are the image itself: similarity 1, distance 0.
        np.testing.assert_allclose(tree[0], 1, atol=1e-5)
        np.testing.assert_allclose(tree[2], 0, atol=1e-5)


if __name__ == '__main__':
  absltest.main()
