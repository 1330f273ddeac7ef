"""Reports of generators: noise by number, neighbours, arcs, the history, pictures."""

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx import metrics
from dlx.data.sets import images as catalog
from dlx.figures import classification
from dlx.figures import images as images_figures
from dlx.state import create
from dlx.tasks import image_generation
from dlx.tasks.judge import Judge


def stripes(state, z_BZ, label_B):
  """Images whose rows show the noise and whose columns show the class."""
  rows = jax.nn.sigmoid(z_BZ[:, :8] * state.params)[:, :, None, None]
  columns = (jnp.arange(8)[None, :] < label_B[:, None]).astype(jnp.float32)
  return rows * (0.5 + 0.5 * columns[:, None, :, None])


def report(conditional=True):
  data = catalog.images('digits')
  judge = Judge(data, Judge.Config(num_samples=20, every_steps=5))
  return image_generation.SampleReport(data, judge, stripes, 8, conditional)


def a_state(**model_state):
  return create(jnp.ones(()), (), jax.random.key(3), model_state=model_state)


class NumberTest(parameterized.TestCase):
  def test_noise_is_of_the_number_alone(self):
    state, r = a_state(), report()
    z = r.z(state.rng, jnp.arange(40))
    np.testing.assert_array_equal(z[7:9], r.z(state.rng, jnp.array([7, 8])))
    self.assertFalse(np.array_equal(z[7], z[8]))
    # 320 normal numbers: five standard errors.
    self.assertLess(abs(z.mean()), 5 / 320**0.5)
    self.assertLess(abs(z.std() - 1), 5 / 640**0.5)
    later = state._replace(step=jnp.int32(9))
    np.testing.assert_array_equal(
      r.make(later, jnp.arange(3)), r.make(state, jnp.arange(3))
    )

  def test_scale_and_class(self):
    state, r = a_state(), report()
    zero = r.make(state, jnp.arange(12), 0.0)  # Noise 0: rows of one half.
    np.testing.assert_array_equal(zero[3, :, 0, 0], np.full(8, 0.5))
    # Number 12 asks for class 2: two columns are bright.
    np.testing.assert_array_equal(
      (r.make(state, jnp.array([12]), 0.0) == 0.5).sum(), 16
    )

  def test_a_grid_has_one_class_a_row(self):
    grid = (
      report().figures('samples')['samples'].compute(a_state(), jax.random.key(0), {})
    )
    self.assertEqual(grid.shape, (10, 10, 8, 8, 1))
    bright = (grid[..., :1, :, 0] == grid[..., :1, :1, 0]).sum((-1, -2))
    np.testing.assert_array_equal(
      bright[3:, :], np.broadcast_to(np.minimum(np.arange(3, 10), 8)[:, None], (7, 10))
    )

  def test_interpolation_has_its_ends_and_one_class_a_row(self):
    r, state = report(), a_state()
    image = r.figures('samples')['interpolation'].compute(state, jax.random.key(0), {})
    ends = r.z(state.rng, jnp.arange(20), 'interpolation')
    label = jnp.arange(10)
    # Norm and angle are rounded: a few eps of numbers near 3.
    for column, z in ((0, ends[:10]), (-1, ends[10:])):
      np.testing.assert_allclose(image[:, column], stripes(state, z, label), atol=1e-5)


class DiversityTest(parameterized.TestCase):
  def test_by_hand(self):
    rows = jnp.array([[0.0, 0], [3, 4], [3, 4], [0, 1], [0, 0]])
    got = metrics.nearest_distance(rows, 4)
    # Squares are whole numbers: exact; the root of the mean of two entries.
    np.testing.assert_allclose(got[:4] * 2**0.5, [1, 0, 0, 1], rtol=1e-6)
    self.assertTrue(np.isnan(got[4]))

  def test_nearest_rows_by_hand_and_against_the_square_of_all(self):
    bank = jnp.array([[0.0, 0], [3, 4], [6, 8], [3, 4]])
    query = jnp.array([[3.0, 4], [0, 1], [7, 7]])
    distance, row = metrics.nearest_rows(query, bank, chunk=2)
    np.testing.assert_allclose(distance * 2**0.5, [0, 1, 2**0.5], rtol=1e-6)
    np.testing.assert_array_equal(row, [1, 0, 2])
    itself = jnp.array([1, 0, 2])
    distance, row = metrics.nearest_rows(query, bank, itself)
    np.testing.assert_array_equal(row, [3, 1, 1])
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(50, 6)), jnp.float32)
    of_all, _ = metrics.nearest_rows(rows, rows, jnp.arange(50), chunk=7)
    np.testing.assert_allclose(of_all, metrics.nearest_distance(rows, 50), rtol=1e-5)

  def test_duplicates(self):
    real = jnp.asarray(np.random.default_rng(0).normal(size=(200, 6)), jnp.float32)
    same = metrics.diversity(real, real, 200)
    self.assertEqual(same['nearest'], same['nearest_real'])
    np.testing.assert_allclose(same['duplicates'], 0.01, atol=1e-7)
    # Half of them copies of ten: those are duplicates, and few others.
    collapsed = real.at[100:].set(jnp.tile(real[:10], (10, 1)))
    found = metrics.diversity(collapsed, real, 200)
    self.assertBetween(found['duplicates'], 0.55, 0.57)
    self.assertLess(found['nearest'], found['nearest_real'])

  def test_rows_are_gathered_over_batches(self):
    image = jnp.arange(1.0, 17).reshape(4, 2, 2, 1)
    first = metrics.place_rows(image, jnp.array([0, 1, 2, 3]), jnp.ones(4), 6)
    # The last batch repeats a row with weight 0; row 7 is past the end.
    last = metrics.place_rows(
      image, jnp.array([4, 5, 5, 7]), jnp.array([1.0, 1, 0, 1]), 6
    )
    wanted = np.concatenate([image, image[:2]]).reshape(6, 4)
    np.testing.assert_array_equal(first + last, wanted)

  def test_evaluation_does_not_depend_on_the_batch_size(self):
    data = catalog.images('digits')
    arrays = report().evaluation(30, 30).data.load().data
    found = []
    for size in (30, 12):
      evaluation = report().evaluation(30, size)
      judge = Judge(data).init(jax.random.key(0))
      state = a_state(judge=judge)
      step = jax.jit(lambda i, e=evaluation, s=state: e.step(s, e.data.get(arrays, i)))
      sums = [step(jnp.int32(i)) for i in range(evaluation.data.num_batches(arrays))]
      found.append(
        jax.jit(evaluation.summarize)(jax.tree.map(lambda *x: sum(x), *sums))
      )
    self.assertEqual(found[0]['classes'].sum(), 30)
    for name, value in found[0].items():
      # Distances are differences of sums near 16: 1e-5, and its root near 0.
      np.testing.assert_allclose(value, found[1][name], rtol=1e-3, atol=1e-3)


class HistoryTest(parameterized.TestCase):
  @parameterized.parameters(
    (1, 800, 0), (100, 800, 0), (101, 800, 1), (800, 800, 7), (6, 6, 7), (3, 6, 3)
  )
  def test_row(self, step, num_steps, row):
    self.assertEqual(image_generation.history_row(jnp.int32(step), num_steps), row)

  def test_remembers_the_last_of_each_part(self):
    r = report()
    state = a_state(history=r.blank_history(), other=jnp.ones(2))
    figure = r.figures('samples')['over_training']
    with self.assertRaisesRegex(ValueError, 'No evaluation'):
      figure.draw(jax.tree.map(np.array, state.model_state['history']))
    remember = jax.jit(r.remember(80))
    for step in (5, 10, 40):
      state = state._replace(step=jnp.int32(step), params=jnp.float32(step))
      state = remember(state, {})
    history = state.model_state['history']
    np.testing.assert_array_equal(history['step'], [10, -1, -1, 40, -1, -1, -1, -1])
    at_ten = state._replace(params=jnp.float32(10))
    wanted = np.round(255 * np.asarray(r.make(at_ten, jnp.arange(10))))
    # jitted and not, a number may round the other way.
    self.assertLessEqual(np.abs(history['image'][0] - wanted).max(), 1)
    drawn = figure.draw(jax.tree.map(np.array, history))
    labels = [text.get_text() for text in drawn.axes[0].get_yticklabels()]
    self.assertEqual(labels, ['step 10', 'step 40'])
    np.testing.assert_array_equal(state.model_state['other'], np.ones(2))


class FigureTest(parameterized.TestCase):
  def test_mosaic_by_hand(self):
    images = np.arange(12.0).reshape(2, 3, 1, 2, 1)
    figure = images_figures.mosaic(images, ['a', 'b'], value_range=(0, 20))
    (shown,) = figure.axes[0].images
    pixels = 20 * np.asarray(shown.get_array())
    # One white pixel between images.
    wanted = [[0, 1, 20, 2, 3, 20, 4, 5], [20] * 8, [6, 7, 20, 8, 9, 20, 10, 11]]
    np.testing.assert_allclose(pixels, wanted, rtol=1e-12)

  @parameterized.parameters(1, 3)
  def test_what_is_no_row_of_images_is_refused(self, channels):
    images_figures.mosaic(np.zeros((1, 1, 2, 2, channels)))
    with self.assertRaisesRegex(ValueError, 'shape'):
      images_figures.mosaic(np.zeros((1, 2, 2, channels)))
    with self.assertRaisesRegex(ValueError, '1 names for 2 rows'):
      images_figures.mosaic(np.zeros((2, 1, 2, 2, channels)), ['a'])

  def test_class_shares(self):
    figure = classification.class_shares([3, 1], ['no', 'yes'], 0.56)
    heights = [bar.get_height() for bar in figure.axes[0].patches]
    self.assertEqual(heights, [75, 25])
    self.assertIn('0.56 of 0.69 nats', figure.axes[0].get_title('left'))

  def test_every_figure_is_drawn(self):
    r = report(conditional=False)
    figures, state = r.figures('samples'), a_state()
    for name in ('samples', 'interpolation'):
      tree = figures[name].compute(state, jax.random.key(0), {})
      self.assertLen(figures[name].draw(np.asarray(tree)).axes, 1)
    evals = r.evaluations(batch_size=8, truncation=0.7)
    self.assertEqual([*evals], ['samples', 'truncated'])
    self.assertEqual(evals['truncated'].every, 5)
    self.assertEqual(evals['truncated'].data.size, 20)
    self.assertEqual([*r.evaluations(8)], ['samples'])


if __name__ == '__main__':
  absltest.main()
