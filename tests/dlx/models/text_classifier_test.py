"""Text classifiers: order, dropout, pooling by hand, cells that stand apart."""

from typing import Any

from absl.testing import absltest, parameterized
import chex
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers.recurrent.cells import CELLS
from dlx.models import text_classifier as lib

SENTENCES = ([3, 4, 5], [6], [7, 8, 9, 3, 4, 5, 6], [2, 2])


def padded(sentences, length):
  rows = [s + [0] * (length - len(s)) for s in sentences]
  return jnp.asarray(rows, jnp.int32)


def model(**fields):
  defaults = dict(vocabulary_size=10, embedding=5, cell=CELLS['lstm'], hidden=(6,))
  return lib.TextClassifier(**{**defaults, **fields})


def init(net, tokens):
  return jax.jit(lambda: net.init(jax.random.key(0), tokens, train=False))()


class TextClassifierTest(parameterized.TestCase):
  def test_tokens_out_of_range_are_nan(self):
    net, tokens = model(cell=CELLS['rnn']), jnp.array([[1, 9], [1, 10], [1, -1]])
    logits = net.apply(init(net, tokens[:1]), tokens, train=False)
    np.testing.assert_array_equal(np.isnan(logits).any(1), [False, True, True])

  def test_word_order_matters(self):
    net = model()
    variables = init(net, padded(SENTENCES, 7))
    a, b = (
      np.array(net.apply(variables, padded([s], 3), train=False))
      for s in ([3, 4, 5], [5, 4, 3])
    )
    self.assertGreater(np.abs(a - b).max(), 1e-4)

  def test_dropout_in_training_alone(self):
    net = model(embedding_dropout=0.3, dropout=0.5)
    tokens = padded(SENTENCES, 7)
    variables = init(net, tokens)

    def apply(train: bool, seed: int) -> Any:
      return net.apply(
        variables, tokens, train=train, rngs={'dropout': jax.random.key(seed)}
      )

    np.testing.assert_array_equal(apply(False, 0), apply(False, 1))
    self.assertFalse((apply(True, 0) == apply(True, 1)).all())

  def test_narrow_arithmetic_gives_wide_logits(self):
    net = model(dtype=jnp.bfloat16)
    tokens = padded(SENTENCES, 7)
    out, variables = jax.eval_shape(
      lambda: net.init_with_output(jax.random.key(0), tokens, train=False)
    )
    self.assertEqual(out.dtype, jnp.float32)
    self.assertEqual(
      {x.dtype for x in jax.tree.leaves(variables)}, {jnp.dtype('float32')}
    )


class PoolTest(absltest.TestCase):
  def test_by_hand(self):
    h = jnp.array([[[1.0, -4], [3, -2], [9, 9]], [[5, 6], [7, 8], [9, 9]]])
    lengths = jnp.array([2, 0])
    np.testing.assert_array_equal(lib.pool(h, lengths, 'max'), [[3, -2], [0, 0]])
    np.testing.assert_array_equal(lib.pool(h, lengths, 'mean'), [[2, -3], [0, 0]])


class CarriedClassifiersTest(absltest.TestCase):
  def test_windows_give_what_the_whole_gives(self):
    cells = {name: CELLS[name] for name in ('lstm', 'reset')}
    net = lib.CarriedClassifiers(
      cells=cells, vocabulary_size=10, embedding=5, features=6
    )
    tokens = padded(SENTENCES, 8)
    lengths = (tokens != 0).sum(1)
    variables = jax.jit(net.init)(jax.random.key(0), tokens, lengths)
    whole, end = net.apply(variables, tokens, lengths)
    states, logits = None, None
    for start in (0, 4):
      left = jnp.clip(lengths - start, 0, 4)
      logits, states = net.apply(variables, tokens[:, start : start + 4], left, states)
    self.assertEqual(set(whole), set(cells))
    # The same sums in another grouping of the input's product.
    chex.assert_trees_all_close((logits, states), (whole, end), atol=1e-6)

  def test_cells_share_nothing(self):
    cells = {name: CELLS[name] for name in ('rnn', 'gru')}
    net = lib.CarriedClassifiers(
      cells=cells, vocabulary_size=10, embedding=5, features=6
    )
    tokens = padded(SENTENCES, 8)
    lengths = (tokens != 0).sum(1)
    variables = jax.jit(net.init)(jax.random.key(0), tokens, lengths)
    score = lambda v: net.apply(v, tokens, lengths)[0]['gru'][:, 0].sum()
    grads = jax.jit(jax.grad(score))(variables)['params']
    for name, tree in grads.items():
      moved = any(np.abs(x).max() > 0 for x in jax.tree.leaves(tree))
      self.assertEqual(moved, name.startswith('gru_'), name)


if __name__ == '__main__':
  absltest.main()
