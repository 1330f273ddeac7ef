"""sst2: learns the grammar, reloads to the same logits, refuses what cannot be."""

import pathlib

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.data.sets.sentences import texts_of
from dlx.errors import ConfigError
from dlx.layers.recurrent.noise import RecurrentNoise
from dlx.run.loop import fit
from dlx.run.reopen import evaluate
from experiments.sequences import sst2

NOISE = RecurrentNoise(input_dropout=0.2, dropout=0.2, zoneout=0.1, cell_zoneout=0.5)
SMALL = dict(embedding=16, features=(16,), bucket_lengths=(18,), batch_size=32)


class RunTest(absltest.TestCase):
  def test_learns_saves_and_is_reloaded(self):
    config = sst2.Config(
      **SMALL,
      cell='gru',
      num_steps=300,
      eval_every_steps=100,
      dropout=0.0,
      embedding_dropout=0.0,
      lr=2e-2,
    )
    workdir = pathlib.Path(self.create_tempdir().full_path)
    built = sst2.build(config)
    outcome = fit(built, config, workdir)
    # A bag of words has less than 75 %, see tests/dlx/data/sets/grammar_test.py.
    self.assertGreater(outcome.metrics['test/accuracy'], 0.95)
    # The same figures from the reloaded checkpoint, bit for bit.
    again = evaluate(built, config, workdir)
    for name, value in again.items():
      self.assertEqual(value, outcome.metrics[name], name)
    best = evaluate(built, config, workdir, step='best')
    self.assertGreaterEqual(
      best['validation/accuracy'], outcome.metrics['validation/accuracy']
    )
    for name in ('confusion', 'sentences'):
      self.assertTrue((workdir / 'figures' / f'{name}.png').exists(), name)


class BuildTest(parameterized.TestCase):
  def test_figure_of_sentences_shows_them(self):
    config = sst2.Config(**SMALL)
    built = sst2.build(config)
    figure = built.figures['sentences']
    data = figure.data
    batch = jax.tree.map(jnp.asarray, data.get(data.load().data, jnp.int32(0)))
    state = jax.jit(built.init)(jax.random.key(0))
    tree = jax.jit(figure.compute)(state, jax.random.key(1), batch)
    np.testing.assert_allclose(np.sum(tree['probs'], 1), 1, rtol=1e-6)
    self.assertStartsWith(texts_of(np.array(tree['text']))[0], 'the acting')
    drawn = figure.draw(jax.tree.map(np.array, tree))
    shown = [text.get_text() for text in drawn.axes[0].texts]
    self.assertIn(texts_of(np.array(tree['text']))[0], shown)
    self.assertTrue(any('wrong predictions' in line for line in shown))

  @parameterized.parameters(
    dict(cell='lstm', bidirectional=True, features=(8, 4), pooling='max'),
    dict(cell='rnn', pooling='mean', word_dropout=0.1, micro_batches=2),
    dict(recurrent=NOISE, bidirectional=True, head='sigmoid'),
    dict(cell='reset', dataset='sst2', phrases=True, compute_dtype='bfloat16'),
    dict(dataset='sst2', min_count=2, ema_decay=0.9, compute_dtype='float16'),
  )
  def test_choices_make_a_step(self, **fields):
    built = sst2.build(sst2.Config(**fields))
    state = jax.eval_shape(lambda: built.init(jax.random.key(0)))
    for shapes in built.train_data.shapes:
      new, sums = jax.eval_shape(built.train_step, state, shapes)
      self.assertEqual(jax.tree.structure(new), jax.tree.structure(state))
      self.assertIn('accuracy', sums)

  @parameterized.parameters(
    (dict(cell='elman'), 'one of rnn, lstm, gru, reset'),
    (dict(pooling='min'), 'one of last, max, mean'),
    (dict(head='tanh'), 'softmax or sigmoid'),
    (dict(features=()), 'one or more numbers, each at least 1'),
    (dict(dropout=1.0), r'in \[0, 1\)'),
    (dict(word_dropout=-0.1), r'in \[0, 1\)'),
    (dict(min_count=0), 'at least 1'),
    (dict(stream=True), 'buckets lie on the devices'),
  )
  def test_refuses(self, fields, message):
    (name,) = fields
    with self.assertRaisesRegex(ConfigError, f'--config.{name}=.* {message}'):
      sst2.Config(**fields)

  def test_refuses_what_a_cell_lacks(self):
    with self.assertRaisesRegex(
      ConfigError, 'recurrent.cell_zoneout=0.5 .* gru has no'
    ):
      sst2.Config(cell='gru', recurrent=RecurrentNoise(cell_zoneout=0.5))
    with self.assertRaisesRegex(ConfigError, r'zoneout=1.0 .* must be in \[0, 1\)'):
      RecurrentNoise(zoneout=1.0)

  @parameterized.parameters(
    (dict(dataset='imdb'), "dataset='imdb' is not known. For labelled sentences"),
    (dict(phrases=True), 'phrases=True is not allowed: grammar has none'),
    (dict(bucket_lengths=(9, 4)), 'must be one or more rising numbers'),
    (dict(bucket_lengths=(1, 18)), 'no sentence belongs to the bucket of 1 tokens'),
  )
  def test_build_refuses(self, fields, message):
    with self.assertRaisesRegex(ConfigError, message):
      sst2.build(sst2.Config(**fields))


if __name__ == '__main__':
  absltest.main()
