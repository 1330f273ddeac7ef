"""The temporal order problem: which of two symbols came first, and which second?

  python -m launch.train --exp=temporal_order
  python -m launch.train --exp=temporal_order --config.gain=2 --config.clip_norm=None

A or B stands at one place in the second tenth of a sequence and again at one in the
fifth tenth, all else is noise of four other symbols; asked is the class AA, AB, BA or
BB at the end (Hochreiter and Schmidhuber 1997, experiment 6a; arXiv:1211.5063, section
4.1). The net is a plain recurrent one that learns by gradient descent without anything
else. Its recurrent kernel is orthogonal times `gain` before the first step: above 1 the
gradient can grow by that factor at every symbol it goes back, and one step along it
throws the weights far away, unless its norm is clipped. `exploding_gradients` shows it.

Measured: all test sequences right, loss 0.00064 nats (3 seeds).
"""

import dataclasses

import jax
import jax.numpy as jnp

from dlx import experiment, losses, metrics, optim
from dlx.data.batches.generated import generated
from dlx.layers.recurrent.cells import CELLS, cell_by_name
from dlx.models.sequence_regressor import SequenceRegressor
from dlx.tasks.classification import class_probabilities, of_classes
from dlx.train.supervised import make_predict, supervised

A, B, NUM_SYMBOLS = 0, 1, 6  # The others, 2 to 5, are noise.
CLASSES = ('AA', 'AB', 'BA', 'BB')
TEST_SIZE, TEST_SEED = 2000, 2**32 - 1  # A seed that no run has.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 2000  # Optimiser steps of the whole run.
  batch_size: int = 32  # Sequences of one global batch.
  log_every_steps: int = 500  # Steps between lines of training metrics.
  clip_norm: float | None = 1.0  # Largest norm of the gradient of all parameters.
  length: int = 20  # T, symbols of a sequence.
  cell: str = 'rnn'  # rnn, lstm, gru, reset, relu, peephole or mgu.
  features: int = 50  # Units of the recurrent layer.
  gain: float = 1.0  # Factor of the orthogonal recurrent kernel before the first step.
  lr: float = 0.1  # Learning rate, constant.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('length', least=10)
    self.choice('cell', of=CELLS)
    self.bounds('features', least=1)
    self.bounds('gain', 'lr', above=0)
    self.unused('validation', 'stream', why='sequences are drawn anew at every step')


# Fields that are used by arithmetic alone: runs that differ in them share a program.
SWEPT = ('lr', 'gain')
# The least run that still has every part.
SMALL = Config.small(features=8)


def draw(key: jax.Array, length: int) -> dict[str, jax.Array]:
  """`symbols` int32 [T] and `label` int32 [] of one sequence."""
  noise, places, which = jax.random.split(key, 3)
  symbols_T = jax.random.randint(noise, (length,), 2, NUM_SYMBOLS, jnp.int32)
  low = jnp.array([length // 10, 4 * length // 10])
  high = jnp.array([2 * length // 10, 5 * length // 10])
  place_2 = jax.random.randint(places, (2,), low, high)
  symbol_2 = jax.random.randint(which, (2,), A, B + 1, jnp.int32)
  return {
    'symbols': symbols_T.at[place_2].set(symbol_2),
    'label': 2 * symbol_2[0] + symbol_2[1],
  }


def build(config: Config) -> experiment.Experiment:
  model = SequenceRegressor(
    cell_by_name(config.cell), (config.features,), len(CLASSES), **config.dtypes
  )
  one = lambda key: draw(key, config.length)
  prepare = lambda batch: {**batch, 'x': jax.nn.one_hot(batch['symbols'], NUM_SYMBOLS)}
  test = generated(
    one, config.eval_batch_size, TEST_SEED, size=TEST_SIZE, name='temporal_order'
  )

  def sums(logits, batch, weight):
    return {'accuracy': metrics.accuracy(logits, batch['label'], weight)}

  built = supervised(
    config,
    model=model,
    inputs='x',
    prepare=prepare,
    loss=lambda logits, batch: losses.softmax_cross_entropy(logits, batch['label']),
    tx=optim.sgd(config.lr),
    train_data=generated(one, config.batch_size, config.seed, name='temporal_order'),
    eval_data={'test': test},
    metrics=sums,
    declared={k: of_classes(len(CLASSES))[k] for k in ('loss', 'accuracy')},
    headline=('test/accuracy', 'test/loss'),
    functions={
      'predict': class_probabilities(
        make_predict(config, model, inputs='x', prepare=prepare),
        {'symbols': experiment.Field('tokens', ('length',), 'int32')},
        CLASSES,
      )
    },
  )

  def init(key):
    state = built.init(key)
    scaled = lambda path, x: x * config.gain if path[-1].key == 'hidden_kernel' else x
    return state._replace(params=jax.tree.map_with_path(scaled, state.params))

  return built._replace(init=init)
