"""What a sequence layer can look up: induction heads and selective copying.

  python -m launch.train --exp=selective_scan
  python -m launch.train --exp=selective_scan --config.task=copying
  python -m launch.train --exp=selective_scan --config.mixer=lstm

induction  one symbol is a mark; what followed it is asked when it comes again, at the
           end: the layer must have kept one symbol out of many (arXiv:2209.11895)
copying    some symbols stand among blanks at places of their own; they are asked in
           their order at the end (arXiv:2312.00752, section 4.1.1)

Blocks of one kind of layer: Mamba's selective scan, whose factors depend on the input;
LRU, whose factors do not; minGRU, LSTM, GRU or RNN. Sequences are drawn anew at every
step. Beside the length of training others are tested: `also`.

Measured: trained at 32, asked at 256: mamba 98.00 %, minGRU 100, LSTM 42.10 (3 seeds).
"""

import dataclasses

import jax
import jax.numpy as jnp

from dlx import experiment, losses, metrics, optim
from dlx.data.batches.generated import generated
from dlx.experiment import Field
from dlx.models.sequence_mixer import MIXERS, SequenceMixer
from dlx.state import Metric
from dlx.tasks.classification import of_classes
from dlx.train.supervised import make_predict, supervised

TASKS = ('induction', 'copying')
TEST_SIZE, TEST_SEED = 1000, 2**32 - 1  # A seed that no run has.
SOLVED = Metric(
  'Solved', 'higher', 'Share of the sequences of which all answers are right.', '%',
  'share',
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 1000  # Optimiser steps of the whole run.
  batch_size: int = 32  # Sequences of one global batch.
  log_every_steps: int = 100  # Steps between lines of training metrics.
  eval_every_steps: int | None = 500  # Steps between evaluations; None: at the end.
  eval_batch_size: int = 125  # Sequences of one batch of an evaluation.
  clip_norm: float | None = 1.0  # Largest norm of the gradient of all parameters.
  task: str = 'induction'  # induction or copying.
  length: int = 32  # T, symbols of a sequence.
  also: tuple[int, ...] = (64, 256)  # Other lengths that are tested.
  symbols: int = 16  # Different symbols, besides the mark or the blank.
  items: int = 4  # Symbols that copying asks for.
  mixer: str = 'mamba'  # mamba, min_gru, lru, lstm, gru or rnn.
  depth: int = 2  # Blocks.
  features: int = 32  # Width of the blocks.
  lr: float = 3e-3  # Peak of the one-cycle learning rate of Adam.

  def __post_init__(self):
    super().__post_init__()
    self.choice('task', of=TASKS)
    self.choice('mixer', of=MIXERS)
    self.bounds('symbols', least=2)
    self.bounds('items', 'depth', 'features', least=1)
    self.bounds('lr', above=0)
    least = 4 if self.task == 'induction' else 2 * self.items
    self.bounds('length', 'also', least=least)
    distinct = len({self.length, *self.also}) == 1 + len(self.also)
    self.require(
      'also', distinct, 'lengths that differ from each other and from length'
    )
    self.unused('validation', 'stream', why='sequences are drawn anew at every step')


# The least run that still has every part.
SMALL = Config.small(length=6, also=(8,), symbols=3, items=2, depth=1, features=8)


def induction(key: jax.Array, length: int, symbols: int) -> dict[str, jax.Array]:
  """`symbols` int32 [T], the mark twice, and `target` int32 [1]: what followed it."""
  others, place = jax.random.split(key)
  row_T = jax.random.randint(others, (length,), 0, symbols, jnp.int32)
  where = jax.random.randint(place, (), 0, length - 2, jnp.int32)
  row_T = row_T.at[where].set(symbols).at[-1].set(symbols)
  return {'symbols': row_T, 'target': row_T[where + 1][None]}


def copying(
  key: jax.Array, length: int, symbols: int, items: int
) -> dict[str, jax.Array]:
  """`symbols` int32 [T]: items among blanks, then as many marks; `target` int32 [K]."""
  which, place = jax.random.split(key)
  target_K = jax.random.randint(which, (items,), 0, symbols, jnp.int32)
  order = jax.random.permutation(place, length - items)
  row_T = jnp.full(length, symbols, jnp.int32)  # The blank.
  row_T = row_T.at[jnp.sort(order[:items])].set(target_K)
  return {'symbols': row_T.at[-items:].set(symbols + 1), 'target': target_K}


def build(config: Config) -> experiment.Experiment:
  one = config.task == 'induction'
  asked, extra = (1, 1) if one else (config.items, 2)
  model = SequenceMixer(
    config.symbols + extra,
    config.symbols,
    config.mixer,
    config.depth,
    config.features,
    asked,
    **config.dtypes,
  )

  def draw(length):
    if one:
      return lambda key: induction(key, length, config.symbols)
    return lambda key: copying(key, length, config.symbols, config.items)

  def data(length, batch_size, seed, **fields):
    return generated(draw(length), batch_size, seed, name=config.task, **fields)

  def test(length):
    return data(length, config.eval_batch_size, TEST_SEED, size=TEST_SIZE)

  def loss(logits_BKS, batch):
    target_BK = batch['target']
    logits_NS = logits_BKS.reshape(target_BK.size, config.symbols)
    losses_N = losses.softmax_cross_entropy(logits_NS, target_BK.reshape(-1))
    return losses_N.reshape(target_BK.shape).mean(-1)

  def sums(logits_BKS, batch, weight_B):
    right_BK = logits_BKS.argmax(-1) == batch['target']
    return {
      'accuracy': metrics.mean(right_BK.mean(-1), weight_B),
      'solved': metrics.mean(right_BK.all(-1), weight_B),
    }

  predict = make_predict(config, model, inputs='symbols')
  names = tuple(map(str, range(config.symbols)))
  declared = of_classes(config.symbols)
  return supervised(
    config,
    model=model,
    inputs='symbols',
    loss=loss,
    tx=optim.adam(optim.one_cycle(config.lr, config.num_steps)),
    train_data=data(config.length, config.batch_size, config.seed),
    eval_data={
      'test': test(config.length),
      **{f'test_{length}': test(length) for length in config.also},
    },
    metrics=sums,
    declared={**{k: declared[k] for k in ('loss', 'accuracy')}, 'solved': SOLVED},
    overfit=experiment.Overfit(steps=100),  # A step takes long.
    headline=('test/solved', *(f'test_{n}/solved' for n in config.also), 'test/loss'),
    functions={
      'predict': experiment.Function(
        lambda state, inputs: {'probabilities': jax.nn.softmax(predict(state, inputs))},
        {'symbols': Field('tokens', ('length',), 'int32')},
        {'probabilities': Field('probabilities', (asked, config.symbols), 'float32',
                                names=names)},
      )
    },
  )  # fmt: skip
