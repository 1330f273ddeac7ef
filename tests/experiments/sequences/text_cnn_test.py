"""text_cnn: learns order within a window, its bounded rows, refuses what cannot be."""

import pathlib

from absl.testing import absltest, parameterized
import jax
import numpy as np

from dlx.errors import ConfigError
from dlx.run.loop import fit
from experiments.sequences import text_cnn

SMALL = dict(embedding=16, widths=(2, 3, 7), filters=16, bucket_lengths=(18,))


class RunTest(absltest.TestCase):
  def test_learns_and_its_rows_are_bounded(self):
    config = text_cnn.Config(
      **SMALL, num_steps=250, embedding_dropout=0.0, dropout=0.0, lr=2e-2, max_norm=0.5
    )
    workdir = pathlib.Path(self.create_tempdir().full_path)
    outcome = fit(text_cnn.build(config), config, workdir)
    # A bag of words has less than 75 %, see tests/dlx/data/sets/grammar_test.py.
    self.assertGreater(outcome.metrics['test/accuracy'], 0.9)
    params = outcome.state.params
    norms = np.linalg.norm(params['head']['kernel'], axis=0)
    # The weights of both classes want to be longer.
    np.testing.assert_allclose(norms, 0.5, rtol=1e-5)
    self.assertGreater(np.linalg.norm(params['conv_2']['kernel']), 1)


class BuildTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(max_norm=None, head='sigmoid', word_dropout=0.1, micro_batches=2),
    dict(dataset='sst2', phrases=True, compute_dtype='bfloat16', widths=(1,)),
  )
  def test_choices_make_a_step(self, **fields):
    built = text_cnn.build(text_cnn.Config(**fields))
    state = jax.eval_shape(lambda: built.init(jax.random.key(0)))
    for shapes in built.train_data.shapes:
      new, sums = jax.eval_shape(built.train_step, state, shapes)
      self.assertEqual(jax.tree.structure(new), jax.tree.structure(state))
      self.assertIn('accuracy', sums)

  @parameterized.parameters(
    (dict(widths=()), 'one or more numbers, each at least 1'),
    (dict(widths=(3, 3)), 'widths of which each is once'),
    (dict(filters=0), 'at least 1'),
    (dict(max_norm=0.0), 'above 0, or None'),
    (dict(head='tanh'), 'softmax or sigmoid'),
    (dict(dropout=1.0), r'in \[0, 1\)'),
    (dict(stream=True), 'buckets lie on the devices'),
  )
  def test_refuses(self, fields, message):
    (name,) = fields
    with self.assertRaisesRegex(ConfigError, f'--config.{name}=.* {message}'):
      text_cnn.Config(**fields)


if __name__ == '__main__':
  absltest.main()
