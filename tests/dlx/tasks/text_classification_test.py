"""Heads of one and of two outputs report the same; one program a bucket."""

from typing import Any

from absl.testing import absltest, parameterized
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dlx import optim
from dlx.data.sets.sentences import SentenceData, from_texts
from dlx.errors import ConfigError
from dlx.experiment import Config
from dlx.tasks import text_classification as lib

WORDS = 'a b c d e f g h'.split()
SIZES = {'train': 24, 'validation': 6, 'test': 6}


def sentences(classes: int = 2) -> SentenceData:
  """Random words with random labels, in buckets of 3 and 6 words."""
  rng = np.random.default_rng(0)
  texts = {
    split: [' '.join(rng.choice(WORDS, rng.integers(1, 7))) for _ in range(n)]
    for split, n in SIZES.items()
  }
  labels = {
    split: np.arange(n).astype(np.int64) % classes for split, n in SIZES.items()
  }
  names = tuple(f'class {k}' for k in range(classes))
  return from_texts('random', texts, labels, lengths=(3, 6), class_names=names)


class Bag(nn.Module):
  """The sum of word vectors, Dense."""

  size: int
  num_outputs: int

  @nn.compact
  def __call__(self, tokens_BT: jax.Array, *, train: bool) -> jax.Array:
    del train
    x_BTD = nn.Embed(self.size, 4, name='embedding')(tokens_BT)
    sums_BD = jnp.where((tokens_BT != 0)[..., None], x_BTD, 0).sum(1)
    return nn.Dense(self.num_outputs, name='head')(sums_BD)


def built(data: SentenceData, head: str, **fields: Any):
  config = Config(batch_size=6, eval_batch_size=4, **fields)
  model = Bag(data.vocabulary_size, lib.num_outputs(data, head))
  tx = optim.sgd(0.5)
  return lib.sentence_classifier(config, data, model=model, tx=tx)


class HeadsTest(parameterized.TestCase):
  def test_one_output_reports_and_learns_what_two_do(self):
    data = sentences()
    two, one = built(data, 'softmax'), built(data, 'sigmoid')
    state = jax.jit(two.init)(jax.random.key(0))
    head = state.params['head']
    # The output of the second class over that of the first.
    params = {
      **state.params,
      'head': {
        'kernel': head['kernel'][:, 1:] - head['kernel'][:, :1],
        'bias': head['bias'][1:] - head['bias'][:1],
      },
    }
    narrow = jax.jit(one.init)(jax.random.key(0))._replace(params=params)
    arrays = jax.tree.map(jnp.asarray, two.train_data.load().data)
    step = data_step(two, arrays), data_step(one, arrays)
    (wide_after, wide_sums), (after, sums) = step[0](state), step[1](narrow)
    # Sums of a few terms near 1; both are the same formula.
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, sums, wide_sums)
    jax.tree.map(close, reported(one, narrow), reported(two, state))
    # What the word vectors get of the gradient is the same, too.
    close(after.params['embedding']['embedding'],
          wide_after.params['embedding']['embedding'])  # fmt: skip
    tokens = {'tokens': jnp.array([[2, 3, 0], [4, 0, 0]])}
    calls = [
      experiment.functions['predict'].call(of, tokens)['probabilities']
      for experiment, of in ((one, narrow), (two, state))
    ]
    close(*calls)
    self.assertEqual(calls[0].shape, (2, 2))

  def test_loss_of_one_output_is_the_binary_cross_entropy(self):
    outputs = jnp.array([[0.0], [2.0], [-3.0], [1e4]])
    logits = lib.class_logits(outputs)
    found = jax.nn.softmax(logits)[:, 1]
    np.testing.assert_allclose(found, jax.nn.sigmoid(outputs[:, 0]), rtol=1e-6)

  def test_refuses_one_output_for_three_classes(self):
    with self.assertRaisesRegex(ConfigError, 'random has 3 classes.*head=softmax'):
      lib.num_outputs(sentences(3), 'sigmoid')
    self.assertEqual(lib.num_outputs(sentences(3), 'softmax'), 3)
    with self.assertRaisesRegex(ConfigError, 'head=tanh is not allowed'):
      lib.num_outputs(sentences(), 'tanh')


def data_step(experiment, arrays):
  """state -> what one train step of the first batch gives."""
  data = experiment.train_data
  shape_id = data.shape_id(0)
  batch = data.get(arrays, jnp.int32(0), shape_id=shape_id)
  return jax.jit(lambda state: experiment.train_step(state, batch))


def reported(experiment, state) -> dict[str, Any]:
  """Of the first batch of the test split."""
  evaluation = experiment.evals['test']
  arrays = jax.tree.map(jnp.asarray, evaluation.data.load().data)
  batch = evaluation.data.get(arrays, jnp.int32(0))
  return dict(evaluation.summarize(jax.jit(evaluation.step)(state, batch)))


if __name__ == '__main__':
  absltest.main()
