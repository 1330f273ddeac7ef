"""Losses and shares of targets by hand, ends, weights; greedy decoding is `exact`."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from dlx import metrics
from dlx.config import Config
from dlx.data.sets.translation import translation as pairs
from dlx.figures import text
from dlx.layers.block_config import BlockConfig
from dlx.models.encoder_decoder import EncoderDecoder, flops_per_pair, take
from dlx.optim import adam
from dlx.tasks import translation

END = 2
# Odds 3 : 1 : 1 : 1 for token 1, then 1, then 3, of four tokens.
ODDS = [[1.0, 3.0, 1.0, 1.0], [1.0, 3.0, 1.0, 1.0], [1.0, 1.0, 1.0, 3.0]]


class TargetsTest(absltest.TestCase):
  def test_what_the_decoder_reads_and_how_much_a_pair_counts(self):
    target = jnp.asarray([[3, 1, END, 0], [END, 0, 0, 0]])
    found = translation.as_pair({'source': jnp.ones((2, 2), int), 'target': target})
    self.assertEqual(found['pair']['input'].tolist(), [[0, 3, 1, END], [0, END, 0, 0]])
    self.assertEqual(found['weight'].tolist(), [3, 1])
    batch = {'source': target, 'target': target, 'weight': jnp.asarray([1.0, 0.0])}
    self.assertEqual(translation.as_pair(batch)['weight'].tolist(), [3, 0])

  def test_ends_stand_behind_the_last_token(self):
    target = jnp.asarray([[3, 1, 3], [3, 0, 0], [3, 0, 1]])
    found = translation.with_end(target, END)
    wanted = [[3, 1, 3, END], [3, END, 0, 0], [3, 0, 1, END]]
    self.assertEqual(found.tolist(), wanted)

  def test_loss_and_shares_by_hand(self):
    logits = jnp.log(jnp.asarray([ODDS, ODDS, ODDS]))
    target = jnp.asarray([[1, END, 0], [1, 0, 0], [1, 1, 3]])
    batch = translation.as_pair({'source': target, 'target': target})
    right, wrong = np.log(6 / 3), np.log(6)
    loss = translation.target_loss(logits, batch)
    np.testing.assert_allclose(loss, [(right + wrong) / 2, right, right], rtol=1e-6)
    found = translation.target_metrics(logits, batch, batch['weight'])
    np.testing.assert_allclose([*found['accuracy']], [1 + 1 + 3, 2 + 1 + 3])
    np.testing.assert_allclose([*found['exact']], [2, 3])
    # The last pair only fills a batch up.
    batch = translation.as_pair({**batch, 'weight': jnp.asarray([1.0, 1.0, 0.0])})
    found = translation.target_metrics(logits, batch, batch['weight'])
    np.testing.assert_allclose([*found['accuracy']], [2, 3])
    np.testing.assert_allclose([*found['exact']], [1, 2])
    # A tenth of the target spreads over four tokens.
    smooth = translation.target_loss(logits, batch, label_smoothing=0.1)
    spread = (right + 3 * wrong) / 4
    np.testing.assert_allclose(smooth[1], 0.9 * right + 0.1 * spread, rtol=1e-6)

  def test_a_target_out_of_range_is_nan(self):
    logits = jnp.log(jnp.asarray([ODDS]))
    batch = translation.as_pair({'source': jnp.ones((1, 1), int),
                                 'target': jnp.asarray([[1, 9, 0]])})  # fmt: skip
    self.assertTrue(np.isnan(translation.target_loss(logits, batch)).all())
    found = translation.target_metrics(logits, batch, batch['weight'])
    self.assertTrue(np.isnan(found['accuracy'].total))


def built(**fields):
  data = pairs('reverse', max_length=4)
  config = Config(batch_size=8, num_steps=2, eval_batch_size=16, **fields)
  block = BlockConfig(width=16, num_heads=2)
  model = EncoderDecoder(data.vocabulary_size, 1, block)
  architecture = translation.Architecture(model, take, flops_per_pair)
  return translation.translation(config, data, architecture, tx=adam(1e-3), bleu=(1, 3))


class TranslationTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.end = pairs('reverse').end
    cls.built = built()
    cls.state = jax.jit(cls.built.init)(jax.random.key(0))
    cls.evaluated = staticmethod(jax.jit(cls.built.evals['test'].step))

  def test_exact_is_what_greedy_decoding_writes(self):
    rng = np.random.default_rng(0)
    source = jnp.asarray(rng.integers(1, 60, (16, 4)), jnp.int32)
    translate = jax.jit(self.built.functions['translate'].call)
    written = np.array(translate(self.state, {'source': source})['target'])
    target = np.array(translation.with_end(jnp.asarray(written), self.end))
    target = target[:, :4]  # As of the data, where the number of tokens cuts the end.
    target[8:, 1] = target[8:, 1] % 60 + 1  # Half of them with a fault.
    batch = {'source': source, 'target': jnp.asarray(target), 'weight': jnp.ones(16)}
    sums = self.evaluated(self.state, batch)
    np.testing.assert_allclose([*sums['exact']], [8, 16])

  def test_bleu_is_that_of_what_is_written(self):
    rng = np.random.default_rng(0)
    source = jnp.asarray(rng.integers(1, 60, (16, 4)), jnp.int32)
    translate = self.built.functions['translate'].call
    for split, beams in (('test_greedy', 1), ('test_beam_3', 3)):
      written = jax.jit(lambda s, x, k=beams: translate(s, x, beams=k))
      rows = np.array(written(self.state, {'source': source})['target'])
      target = np.where(rng.random(rows.shape) < 0.3, 7, rows)
      ended = translation.with_end(jnp.asarray(target), self.end)
      batch = {'source': source, 'target': ended, 'weight': jnp.ones(16)}
      evaluation = self.built.evals[split]
      found = evaluation.summarize(jax.jit(evaluation.step)(self.state, batch))
      real = lambda rows: [[x for x in row.tolist() if x] for row in rows]
      counts = metrics.translation.BleuCounts()
      for a, b in zip(real(rows), real(target), strict=True):
        counts = counts.plus(metrics.bleu_counts(a, [b]))
      self.assertAlmostEqual(float(found['bleu']), metrics.bleu(counts), places=5)
      self.assertGreater(float(found['bleu']), 0.1)

  def test_align_is_the_mean_of_the_maps(self):
    source, target = jnp.asarray([[1, 2, 0], [3, 4, 5]]), jnp.asarray([[7, 8], [9, 0]])
    align = jax.jit(self.built.functions['align'].call)
    found = align(self.state, {'source': source, 'target': target})['weights']
    self.assertEqual(found.shape, (2, 2, 3))
    np.testing.assert_allclose(found.sum(2), [[1, 1], [1, 0]], rtol=1e-6)
    self.assertEqual(float(found[0, :, 2].max()), 0)

  def test_score_is_the_loss_of_the_evaluation(self):
    target = jnp.asarray([[5, 6, 7], [8, 0, 0]] * 8)
    source = jnp.asarray([[1, 2, 0, 0], [3, 0, 0, 0]] * 8)
    score = jax.jit(self.built.functions['score'].call)
    found = score(self.state, {'source': source, 'target': target})['log_likelihood']
    ended = translation.with_end(target, self.end)
    batch = {
      'source': source,
      'target': ended,
      'weight': jnp.float32(np.arange(16) < 1),
    }
    sums = self.evaluated(self.state, batch)
    self.assertEqual(float(sums['loss'].count), 4)  # Three tokens and the end.
    mean = float(sums['loss'].total / sums['loss'].count)
    self.assertAlmostEqual(-float(found[0]), mean, places=5)

  def test_micro_batches_weigh_tokens(self):
    parts = built(micro_batches=4)
    rng = np.random.default_rng(1)
    target = rng.integers(1, 60, (8, 4)) * (np.arange(4) < rng.integers(1, 5, (8, 1)))
    batch = {
      'source': jnp.asarray(rng.integers(1, 60, (8, 4)), jnp.int32),
      'target': jnp.asarray(target, jnp.int32),
    }
    whole, cut = (jax.jit(x.train_step)(self.state, batch) for x in (self.built, parts))
    for a, b in zip(jax.tree.leaves(whole[1]), jax.tree.leaves(cut[1]), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-5)
    self.assertEqual(float(whole[1]['loss'].count), (target > 0).sum())
    moments = lambda state: jax.tree.leaves(state.opt_state)
    for a, b in zip(moments(whole[0]), moments(cut[0]), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


class FiguresTest(absltest.TestCase):
  def test_what_is_wrong_is_told(self):
    figure = text.translations(['a b', '$c'], ['x', 'y'], ['x', 'z'])
    lines = [found.get_text() for found in figure.texts]
    self.assertEqual(lines, ['  a b', '\u2192 x', '', r'  \$c', '\u2192 y', '= z'])
    self.assertNotEqual(figure.texts[1].get_color(), figure.texts[4].get_color())
    with self.assertRaisesRegex(ValueError, '1 sources, 2 texts and 1 targets'):
      text.translations(['a'], ['b', 'c'], ['d'])

  def test_maps_of_two_texts(self):
    figure = text.attention_maps(np.ones((1, 2, 3, 2)) / 2, 'abc', keys='de')
    self.assertLen(figure.axes, 2)
    labels = [x.get_text() for x in figure.axes[0].get_xticklabels()]
    self.assertEqual(labels, ['d', 'e'])
    with self.assertRaisesRegex(ValueError, 'for 3 tokens that look at 3: must be'):
      text.attention_maps(np.ones((1, 1, 3, 2)), 'abc')


if __name__ == '__main__':
  absltest.main()
