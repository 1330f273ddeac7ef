"""focal_imbalance: who is rare, what the losses are, what is reported."""

import dataclasses

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.sets import images
from dlx.errors import ConfigError
from experiments.foundations import focal_imbalance
from experiments.foundations.focal_imbalance import one_against_all

DIGITS = images.images('digits')


def labels(source):
  return np.asarray(source.read(None).data['label'])


class DataTest(absltest.TestCase):
  def test_one_in_a_hundred_is_rare(self):
    before = labels(DIGITS.train)
    found = one_against_all(DIGITS.train, 8, 100).read(None)
    label, others = found.data['label'], (before != 8).sum()
    self.assertEqual((label == 0).sum(), others)
    self.assertEqual((label == 1).sum(), round(others / 100))
    self.assertEqual(found.origin['rare_size'], round(others / 100))
    # Images go with their labels.
    image = np.asarray(DIGITS.train.read(None).data['image'])
    np.testing.assert_array_equal(found.data['image'][label == 0], image[before != 8])

  def test_fewer_are_some_of_more_and_a_seed_chooses_others(self):
    def rows(ratio, seed):
      found = one_against_all(DIGITS.train, 8, ratio, seed).read(None).data
      rare = np.asarray(found['image'])[found['label'] == 1]
      return {row.tobytes() for row in rare}

    self.assertLess(rows(200, 0), rows(50, 0))
    self.assertNotEqual(rows(100, 0), rows(100, 1))

  def test_the_test_split_keeps_all(self):
    found = labels(one_against_all(DIGITS.test, 3))
    np.testing.assert_array_equal(found, labels(DIGITS.test) == 3)


class LossTest(parameterized.TestCase):
  def first_loss(self, **fields):
    config = dataclasses.replace(focal_imbalance.SMALL, dropout=0.0, **fields)
    made = focal_imbalance.build(config)
    data = made.train_data
    arrays = {name: jnp.asarray(x) for name, x in data.load().data.items()}
    run = lambda key: made.train_step(made.init(key), data.get(arrays, jnp.int32(0)))[1]
    loss = jax.jit(run)(jax.random.key(0))['loss']
    return float(loss.total / loss.count)

  def test_gamma_0_and_weight_1_are_cross_entropy(self):
    plain = self.first_loss(loss='cross_entropy')
    same = self.first_loss(loss='weighted', rare_weight=1.0)
    np.testing.assert_allclose(same, plain, rtol=1e-5)
    same = self.first_loss(loss='focal', gamma=0.0, rare_weight=1.0)
    np.testing.assert_allclose(same, plain, rtol=1e-5)
    self.assertLess(self.first_loss(loss='focal', rare_weight=1.0), 0.9 * plain)

  def test_the_rare_class_is_the_one_that_weighs_more(self):
    """A batch without it has the plain loss; one of it alone that, times the weight."""
    for loss in ('weighted', 'focal'):
      config = dataclasses.replace(
        focal_imbalance.SMALL, dropout=0.0, loss=loss, gamma=0.0, rare_weight=7.0
      )
      made = focal_imbalance.build(config)
      plain = focal_imbalance.build(dataclasses.replace(config, loss='cross_entropy'))
      image = jax.random.randint(jax.random.key(1), (16, 8, 8, 1), 0, 17, jnp.uint8)

      def first(of, label, image=image):
        batch = {'image': image, 'label': jnp.full(16, label)}
        found = of.train_step(of.init(jax.random.key(0)), batch)[1]['loss']
        return found.total / found.count

      ratios = [jax.jit(lambda k, a=made, b=plain: first(a, k) / first(b, k))(k)
                for k in (0, 1)]  # fmt: skip
      np.testing.assert_allclose(ratios, [1, 7], rtol=1e-5)

  def test_score_is_the_probability_of_the_rare_class(self):
    made = focal_imbalance.build(focal_imbalance.SMALL)
    state = made.init(jax.random.key(0))
    # Logits 0 and log 3, whatever the image is.
    head = jax.tree.map(jnp.zeros_like, state.params['head'])
    head['bias'] = head['bias'].at[1].set(jnp.log(3.0))
    state = state._replace(params={**state.params, 'head': head})
    inputs = {'image': np.zeros((2, 8, 8, 1), np.uint8)}
    rare = jax.jit(made.functions['score'].call)(state, inputs)['rare']
    np.testing.assert_allclose(rare, [0.75, 0.75], rtol=1e-6)

  def test_a_class_that_is_none_is_refused(self):
    config = dataclasses.replace(focal_imbalance.SMALL, rare=10)
    with self.assertRaisesRegex(ConfigError, 'rare=10 .* below 10'):
      focal_imbalance.build(config)

  def test_what_is_reported_of_the_rare_class(self):
    made = focal_imbalance.build(focal_imbalance.SMALL)
    # Of 10 rare ones 6 are found, beside 2 others.
    sums = {'confusion': jnp.array([[88.0, 2.0], [4.0, 6.0]])}
    found = made.evals['test'].summarize(sums)
    self.assertAlmostEqual(float(found['rare_recall']), 0.6)
    self.assertAlmostEqual(float(found['rare_precision']), 0.75)
    self.assertEqual(made.headline, ('test/rare_recall', 'test/rare_precision'))


if __name__ == '__main__':
  absltest.main()
