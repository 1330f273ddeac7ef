"""Every model of texts: a padded batch gives each text the result that it has alone."""

from typing import Any, NamedTuple

from absl.testing import absltest, parameterized
import jax
import jax.numpy as jnp
import numpy as np

from dlx.layers.block_config import BlockConfig
from dlx.layers.recurrent.cells import CELLS
from dlx.layers.recurrent.noise import RecurrentNoise
from dlx.models.encoder_decoder import EncoderDecoder
from dlx.models.gpt import GPT
from dlx.models.text_classifier import CarriedClassifiers, TextClassifier
from dlx.models.text_cnn import TextCNN

SENTENCES = ([3, 4, 5], [6], [7, 8, 9, 3, 4, 5, 6], [2, 2])
SIZE, LONGEST = 10, 9
BLOCK = BlockConfig(width=8, num_heads=2)


class Model(NamedTuple):
  """How a model is called: its arguments of a batch of tokens, and its options."""

  net: Any
  inputs: Any = lambda tokens_BT: (tokens_BT,)
  options: Any = {'train': False}


def recurrent(cell: str, **fields: Any) -> Model:
  return Model(TextClassifier(SIZE, 5, CELLS[cell], (6,), **fields))


def carried(tokens_BT: jax.Array) -> tuple[jax.Array, ...]:
  return tokens_BT, (tokens_BT != 0).sum(1)


def pairs(tokens_BT: jax.Array) -> tuple[Any, ...]:
  """The text as a source, whose translation begins with 2, 3, 4."""
  start = jnp.array([[0, 2, 3, 4]])
  return ({'source': tokens_BT, 'input': jnp.tile(start, (len(tokens_BT), 1))},)


MODELS = {
  'rnn_last': recurrent('rnn'),
  'lstm_last_both': recurrent('lstm', bidirectional=True),
  'gru_max_both': recurrent('gru', pooling='max', bidirectional=True),
  'reset_mean': recurrent('reset', pooling='mean'),
  'lstm_zoneout': recurrent(
    'lstm', noise=RecurrentNoise(zoneout=0.1, cell_zoneout=0.5)
  ),
  'text_cnn': Model(TextCNN(SIZE, 5, (2, 3, 5), 4)),
  'carried': Model(
    CarriedClassifiers({'lstm': CELLS['lstm'], 'rnn': CELLS['rnn']}, SIZE, 5, 6),
    carried,
    {},
  ),
  'encoder_decoder': Model(EncoderDecoder(SIZE, 1, BLOCK), pairs),
}


def padded(sentences: Any, length: int) -> jax.Array:
  rows = [[*s, *[0] * (length - len(s))] for s in sentences]
  return jnp.asarray(rows, jnp.int32)


class PaddingTest(parameterized.TestCase):
  @parameterized.parameters(*MODELS)
  def test_each_text_gets_what_it_gets_alone(self, name):
    net, inputs, options = MODELS[name]
    batch = padded(SENTENCES, LONGEST)
    first = lambda: net.init(jax.random.key(0), *inputs(batch), **options)
    variables = jax.jit(first)()

    @jax.jit
    def run(tokens_BT):
      return net.apply(variables, *inputs(tokens_BT), **options)

    together, compared = run(batch), 0
    for row in (0, 2):  # One program a length.
      alone = run(padded([SENTENCES[row]], len(SENTENCES[row])))
      parts = zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True)
      for wide, one in parts:
        # Norms and sums of float32 in another grouping.
        scale = max(1.0, float(np.abs(one).max()))
        np.testing.assert_allclose(wide[row], one[0], rtol=0, atol=1e-6 * scale)
        compared += 1
    self.assertGreater(compared, 1)

  def test_a_decoder_sees_nothing_of_what_fills_a_row_up(self):
    net = GPT(SIZE, LONGEST, 1, BLOCK)
    batch = padded(SENTENCES, LONGEST)
    variables = jax.jit(lambda: net.init(jax.random.key(0), batch, train=False))()
    run = jax.jit(lambda tokens: net.apply(variables, tokens, train=False))
    alone = run(padded(SENTENCES[:1], 3))
    np.testing.assert_allclose(run(batch)[0, :3], alone[0], rtol=0, atol=1e-6)


if __name__ == '__main__':
  absltest.main()
