"""Which language, many words later? "I grew up in France ... I speak fluent".

  python -m launch.train --exp=long_range
  python -m launch.train --exp=long_range --config.cell=rnn --config.lag=60

A sentence names a country, goes on with words that say nothing of it, and ends where a
language is asked for: one word, `lag` words before the end, decides (Bengio, Simard and
Frasconi 1994, doi:10.1109/72.279181). Sentences are drawn anew at every step. The
evaluation `gradients` tells how much the answer depends on a word so many words back,
over how much it depends on the last one: near 0 where the gradient has vanished on its
way through time. `vanishing_in_time` compares cells.

Measured: LSTM, 30 words back, 93.3 % (sd 9.2, 2 seeds).
"""

import dataclasses
from typing import Callable

import jax
import jax.numpy as jnp

from dlx import experiment, figures, labels, losses, metrics, optim
from dlx.data.batches.generated import generated
from dlx.data.text.vocabulary import SPECIAL, Vocab
from dlx.layers.recurrent.cells import CELLS, cell_by_name
from dlx.models.sequence_regressor import SequenceRegressor
from dlx.precision import euclidean_norm
from dlx.state import Metric, mean, ratios
from dlx.tasks.classification import class_probabilities, of_classes
from dlx.train.supervised import make_predict, supervised

LANGUAGES = {
  'france': 'french',
  'italy': 'italian',
  'spain': 'spanish',
  'poland': 'polish',
  'greece': 'greek',
  'turkey': 'turkish',
  'japan': 'japanese',
  'china': 'chinese',
}
BEGIN, END = 'i grew up in'.split(), 'i speak fluent'.split()
FILLER = (
  'the old house was near a river and we had many good friends there in summer '
  'they came to play with dog until school began again but that is long ago'
).split()
VOCABULARY = Vocab((*SPECIAL, *dict.fromkeys((*LANGUAGES, *BEGIN, *END, *FILLER))))
TEST_SIZE, TEST_SEED = 1024, 2**32 - 1  # A seed that no run has.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 600  # Optimiser steps of the whole run.
  batch_size: int = 32  # Sentences of one global batch.
  log_every_steps: int = 100  # Steps between lines of training metrics.
  eval_every_steps: int | None = 300  # Steps between evaluations; None: at the end.
  clip_norm: float | None = 1.0  # Largest norm of the gradient of all parameters.
  lag: int = 30  # Words from the country to the end of the sentence.
  # Words before the end at which the gradient is reported, besides that of the country.
  distances: tuple[int, ...] = (1, 10)
  cell: str = 'lstm'  # rnn, lstm, gru, reset, relu, peephole or mgu.
  features: int = 32  # Units of the recurrent layer.
  lr: float = 1e-2  # Peak of the one-cycle learning rate of Adam.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('lag', least=len(END) + 1)
    self.bounds('distances', least=1, below=self.lag)
    self.choice('cell', of=CELLS)
    self.bounds('features', least=1)
    self.bounds('lr', above=0)
    self.unused('validation', 'stream', why='sentences are drawn anew at every step')


# The least run that still has every part.
SMALL = Config.small(lag=6, distances=(1, 3), features=8)


def draw(key: jax.Array, lag: int) -> dict[str, jax.Array]:
  """`tokens` int32 [T] of a sentence and `label` int32 [], which language it is."""
  which, others = jax.random.split(key)
  label = jax.random.randint(which, (), 0, len(LANGUAGES), jnp.int32)
  known = lambda words: jnp.asarray(VOCABULARY.encode(' '.join(words)), jnp.int32)
  filler = jax.random.choice(others, known(FILLER), (lag - len(END),))
  country = known(LANGUAGES)[label]
  tokens_T = jnp.concatenate([known(BEGIN), country[None], filler, known(END)])
  return {'tokens': tokens_T, 'label': label}


def share_of_gradient(
  score: Callable[[jax.Array], jax.Array], x_BTD: jax.Array
) -> jax.Array:
  """How much a score depends on each input, over how much on the last: [B, T].

  Args:
    score: inputs [B, T, D] -> [B].
    x_BTD: the inputs.
  """
  norm_BT = euclidean_norm(jax.grad(lambda x: score(x).sum())(x_BTD))
  return norm_BT / jnp.maximum(norm_BT[:, -1:], jnp.finfo(norm_BT.dtype).tiny)


def build(config: Config) -> experiment.Experiment:
  model = SequenceRegressor(
    cell_by_name(config.cell), (config.features,), len(LANGUAGES), **config.dtypes
  )
  one = lambda key: draw(key, config.lag)
  inputs = lambda batch: labels.one_hot(batch['tokens'], len(VOCABULARY.words))
  prepare = lambda batch: {**batch, 'x': inputs(batch)}
  test = generated(
    one, config.eval_batch_size, TEST_SEED, size=TEST_SIZE, name='long_range'
  )

  def sums(logits, batch, weight):
    return {'accuracy': metrics.accuracy(logits, batch['label'], weight)}

  def flow(state, batch):
    """Logarithms of `share_of_gradient`, the last word first."""

    def score(x_BTD):
      logits_BK = jnp.asarray(
        model.apply({'params': state.averaged}, x_BTD, train=False)
      )
      right_BK = labels.one_hot(batch['label'], len(LANGUAGES))
      return ((right_BK - 1 / len(LANGUAGES)) * logits_BK).sum(1)

    share_BT = share_of_gradient(score, inputs(batch))[:, ::-1]
    least = jnp.finfo(share_BT.dtype).tiny
    log_BT = jnp.log10(jnp.maximum(share_BT, least))
    return {str(n): mean(log_BT[:, n], batch['weight']) for n in range(log_BT.shape[1])}

  def told(found):
    log_by_distance = ratios(found)
    by_distance = [10 ** log_by_distance[str(n)] for n in range(len(found))]
    return {
      **{f'back_{n}': by_distance[n] for n in config.distances},
      'country': by_distance[config.lag],
      'by_distance': jnp.stack(by_distance),
    }

  share = Metric(
    'Gradient {} words back',
    None,
    'Size of the gradient of the answer for the word {} words before the last, over '
    'the size of that for the last word; geometric mean.',
    '',
    'ratio',
  )
  named = lambda n: share._replace(
    title=share.title.format(n), meaning=share.meaning.format(n)
  )
  built = supervised(
    config,
    model=model,
    inputs='x',
    prepare=prepare,
    loss=lambda logits, batch: losses.softmax_cross_entropy(logits, batch['label']),
    tx=optim.adam(optim.one_cycle(config.lr, config.num_steps)),
    train_data=generated(one, config.batch_size, config.seed, name='long_range'),
    eval_data={'test': test},
    metrics=sums,
    declared={
      **{k: of_classes(len(LANGUAGES))[k] for k in ('loss', 'accuracy')},
      **{f'gradients/back_{n}': named(n) for n in config.distances},
      'gradients/country': named(config.lag)._replace(title='Gradient of the country'),
    },
    headline=('test/accuracy', 'test/loss', 'gradients/country'),
    functions={
      'predict': class_probabilities(
        make_predict(config, model, inputs='x', prepare=prepare),
        {
          'tokens': experiment.Field(
            'tokens', ('length',), 'int32', vocabulary=lambda data_dir: VOCABULARY
          )
        },
        tuple(LANGUAGES.values()),
      )
    },
    figures={
      'gradient_flow': experiment.Figure(
        lambda summary: figures.gradient_flow({config.cell: summary['by_distance']}),
        eval='gradients',
      )
    },
  )
  gradients = experiment.Eval(flow, test, summarize=told)
  return built._replace(evals={**built.evals, 'gradients': gradients})
