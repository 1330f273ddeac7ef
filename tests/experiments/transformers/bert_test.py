"""bert_mlm and bert_classify: what is hidden, and what a run hands over to another."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.tasks import masked_language
from experiments.transformers import bert_classify, bert_mlm


class SummaryTest(absltest.TestCase):
  def test_unigram_entropy_and_gain_by_hand(self):
    # Four tokens, two of one kind and one each of two others: 1.5 bits.
    sums = {
      'masked': masked_language.Mean(jnp.float32(2.0), jnp.float32(4.0)),
      'targets': jnp.asarray([0.0, 2.0, 1.0, 1.0]),
    }
    found = masked_language.summarize(sums)
    self.assertEqual(set(found), {'masked', 'unigram', 'gain'})
    self.assertAlmostEqual(float(found['unigram']), 1.5 * np.log(2), places=6)
    self.assertAlmostEqual(float(found['gain']), 1.5 * np.log(2) - 0.5, places=6)


class HandedOverTest(absltest.TestCase):
  def test_another_corpus_is_refused(self):
    built = bert_classify.build(bert_classify.SMALL)
    shapes = jax.eval_shape(lambda: built.init(jax.random.key(0)))
    rows = shapes.model_state['bert']['merges'].shape[0]
    state = lambda merges: jax.tree.map(lambda x: x, shapes)._replace(
      model_state={'bert': {'merges': merges}}
    )
    self.assertIsNotNone(built.warm_start)
    fresh, origin = built.warm_start(state(jnp.full((rows, 2), -1)))
    held = fresh.model_state['bert']['merges']
    self.assertEqual(origin['merges'], rows)
    again, _ = built.warm_start(state(held))
    np.testing.assert_array_equal(again.model_state['bert']['merges'], held)
    with self.assertRaisesRegex(ConfigError, 'reads other tokens'):
      built.warm_start(state(held.at[3, 0].set(1)))

  def test_the_encoder_has_the_same_parameters(self):
    trees = []
    for module in (bert_mlm, bert_classify):
      config = module.SMALL
      encoder = bert_classify.SMALL.encoder
      built = module.build(type(config).small(encoder=encoder))
      state = jax.eval_shape(lambda built=built: built.init(jax.random.key(0)))
      trees.append((state.params['bert'], state.model_state['bert']))
    self.assertEqual(*map(jax.tree.structure, trees))
    self.assertEqual(*(jax.tree.leaves(tree) for tree in trees))

  def test_pairs_need_documents(self):
    config = bert_mlm.Config(next_sentence=True)
    with self.assertRaisesRegex(ConfigError, 'next_sentence=True is not allowed'):
      bert_mlm.build(config)
    built = bert_mlm.build(bert_mlm.Config())
    self.assertNotIn('next', built.metrics)
    self.assertIn('next', bert_mlm.build(bert_mlm.SMALL).metrics)


if __name__ == '__main__':
  absltest.main()
