"""Losses of windows, by hand."""

from absl.testing import absltest
import jax.numpy as jnp
import numpy as np

from dlx.figures import text
from dlx.state import Mean
from dlx.tasks import language_modelling


class LanguageModelTest(absltest.TestCase):
  def test_targets_follow_inputs(self):
    batch = language_modelling.split_window({'token': jnp.asarray([[3, 1, 2]])})
    self.assertEqual(batch['input'].tolist(), [[3, 1]])
    self.assertEqual(batch['target'].tolist(), [[1, 2]])

  def test_only_targets_that_count(self):
    # Odds 3 : 1 for token 1. Losses log(4/3) and log 4; hits and misses.
    logits = jnp.log(jnp.asarray([[[1.0, 3.0], [1.0, 3.0]]] * 2))
    batch = {
      'target': jnp.asarray([[1, 0], [1, 0]]),
      'counts': jnp.asarray([[1.0, 1.0], [0.0, 1.0]]),
    }
    both, last = (np.log(4 / 3) + np.log(4)) / 2, np.log(4)
    found = language_modelling.next_token_loss(logits, batch)
    np.testing.assert_allclose(found, [both, last], rtol=1e-6)
    weight = jnp.asarray([1.0, 0.5])
    found = language_modelling.next_token_accuracy(logits, batch, weight)['accuracy']
    np.testing.assert_allclose([found.total, found.count], [0.5, 1.5])

  def test_summary_by_hand(self):
    loss = Mean(jnp.float32(3 * np.log(2)), jnp.float32(1))
    found = language_modelling.summarize({'loss': loss})
    np.testing.assert_allclose(found['perplexity'], 8, rtol=1e-6)
    np.testing.assert_allclose(found['bits_per_character'], 3, rtol=1e-6)


class TextFiguresTest(absltest.TestCase):
  def test_samples_are_wrapped_and_no_mathematics(self):
    figure = text.text_samples(['ab'], ['$cdefgh\n\nz$'], columns=5)
    self.assertEqual(figure.texts[0].get_text(), 'ab\u2503\\$c\ndefgh\n\nz\\$')

  def test_refuses(self):
    with self.assertRaisesRegex(ValueError, '1 prompts for 2 samples'):
      text.text_samples(['a'], ['b', 'c'])
    with self.assertRaisesRegex(ValueError, 'for 2 tokens that look at 2: must be'):
      text.attention_maps(np.ones((1, 1, 3, 3)), 'ab')


if __name__ == '__main__':
  absltest.main()
