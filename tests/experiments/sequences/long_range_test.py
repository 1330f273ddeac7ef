"""Sentences of `long_range` by their definition; the share of a gradient by hand."""

import dataclasses

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from experiments.sequences import long_range


class LongRangeTest(absltest.TestCase):
  def test_the_country_stands_so_many_words_before_the_end_and_decides(self):
    lag = 9
    keys = jax.random.split(jax.random.key(0), 64)
    found = jax.jit(jax.vmap(lambda key: long_range.draw(key, lag)))(keys)
    seen = set()
    for tokens, label in zip(np.asarray(found['tokens']), np.asarray(found['label'])):
      text = long_range.VOCABULARY.decode(tokens)
      words = text.split()
      self.assertEqual(len(words), lag + 5)
      self.assertTrue(text.startswith('i grew up in '))
      self.assertTrue(text.endswith(' i speak fluent'))
      self.assertEqual(words.index(words[-1 - lag]), 4)
      language = list(long_range.LANGUAGES.values())[label]
      self.assertEqual(long_range.LANGUAGES[words[4]], language)
      self.assertFalse(set(words[5:]) & set(long_range.LANGUAGES))
      np.testing.assert_array_equal(long_range.VOCABULARY.encode(text), tokens)
      seen.add(int(label))
    self.assertEqual(seen, set(range(len(long_range.LANGUAGES))))

  def test_share_of_the_gradient(self):
    # The score is the sum of 3, 0 and 2 times the inputs of three steps, D = 4 wide.
    factor_T = jnp.array([3.0, 0.0, 2.0])
    score = lambda x_BTD: (x_BTD * factor_T[None, :, None]).sum((1, 2))
    found = long_range.share_of_gradient(score, jnp.ones((2, 3, 4)))
    np.testing.assert_allclose(found, [[1.5, 0, 1]] * 2, rtol=1e-6)

  def test_what_is_reported_of_a_memoryless_net(self):
    """Its answer depends on the last word alone: no gradient reaches the country."""
    built = long_range.build(dataclasses.replace(long_range.SMALL, cell='rnn'))
    state = jax.jit(built.init)(jax.random.key(0))
    forgets = lambda path, x: jnp.zeros_like(x) if 'hidden' in path[-1].key else x
    state = state._replace(params=jax.tree.map_with_path(forgets, state.params))
    of = built.evals['gradients']
    batch = of.data.get(of.data.load().data, jnp.int32(0))
    told = of.summarize(jax.jit(of.step)(state, batch))
    np.testing.assert_allclose(told['by_distance'][0], 1, rtol=1e-6)
    np.testing.assert_array_less(told['by_distance'][1:], 1e-30)
    np.testing.assert_array_less([told['country'], told['back_1']], 1e-30)


if __name__ == '__main__':
  absltest.main()
