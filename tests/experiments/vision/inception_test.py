"""inception: how the auxiliary heads count, and the rules for small images."""

import dataclasses

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.models.inception import Outputs
from dlx.train.objective import add_up
from experiments.vision import inception


def params(**fields):
  """Shapes of the parameters of a SMALL run with these fields."""
  built = inception.build(dataclasses.replace(inception.SMALL, **fields))
  return jax.eval_shape(lambda: built.init(jax.random.key(0))).params


class LossTest(absltest.TestCase):
  def test_each_head_counts_with_its_weight(self):
    config = dataclasses.replace(inception.SMALL, auxiliary_weight=0.25)
    label, even = jnp.array([0, 1]), jnp.zeros((2, 4))
    sure = 50.0 * jnp.eye(4)[:2]  # Of the right classes: no loss.
    found = inception.terms(Outputs(sure, {'4a': even, '4d': even}), label, config)
    total, losses = add_up(found, (2,), 'loss')
    np.testing.assert_allclose(total, [0.5 * np.log(4)] * 2, rtol=1e-6)
    self.assertEqual([*losses], ['final', 'auxiliary_4a', 'auxiliary_4d'])
    np.testing.assert_allclose(losses['auxiliary_4a'], [np.log(4)] * 2, rtol=1e-6)
    np.testing.assert_allclose(losses['final'], 0, atol=1e-6)

  def test_evaluations_report_the_head_alone(self):
    built = inception.build(inception.SMALL)
    state = jax.eval_shape(lambda: built.init(jax.random.key(0)))
    evaluation = built.evals['test']
    sums = jax.eval_shape(evaluation.step, state, evaluation.data.shapes[0])
    self.assertIn('loss', sums)
    self.assertFalse({'final', 'auxiliary_4a'} & set(sums))

  def test_without_a_weight_there_are_no_heads(self):
    self.assertIn('auxiliary_4a', params())
    self.assertNotIn('auxiliary_4a', params(auxiliary_weight=0.0))


class SmallImagesTest(parameterized.TestCase):
  @parameterized.parameters('cifar', 'googlenet', 'bn_inception')
  def test_the_stem_is_one_3x3(self, form):
    found = params(form=form)
    self.assertNotIn('conv2', found)
    self.assertEqual(found['conv1']['conv']['kernel'].shape, (3, 3, 1, 6))

  @parameterized.parameters(
    # Of maps of 4 x 4 the whole, 1 place; of 14 x 14 windows of 5 each 3, 4 x 4 places.
    ('digits', 4),
    ('mnist', 4 * 4 * 4),
  )
  def test_what_auxiliary_heads_read(self, dataset, units):
    found = params(dataset=dataset)['auxiliary_4a']  # 128 / 32 channels.
    self.assertEqual(found['hidden']['kernel'].shape, (units, 32))

  def test_refuses_blocks_that_are_not_there(self):
    for fields in ({'blocks': (3, 5, 2)}, {'blocks': (2, 5)}, {'blocks': (0, 1, 1)}):
      with self.assertRaisesRegex(ConfigError, 'blocks=.* is not allowed'):
        inception.Config(**fields)
    inception.Config(form='bn_inception', blocks=(3, 5, 2))


class PublishedTest(absltest.TestCase):
  def test_4_percent_less_every_8_epochs(self):
    rate = inception.rate(inception.Config(schedule='published', lr=0.1))
    found = [float(rate(step)) for step in (0, 3124, 3125, 6250)]
    np.testing.assert_allclose(found, [0.1, 0.1, 0.096, 0.09216], rtol=1e-6)


if __name__ == '__main__':
  absltest.main()
