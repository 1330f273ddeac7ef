"""What stood D symbols ago: whether a transformer knows distances past its training.

  python -m launch.train --exp=delayed_copy
  python -m launch.train --exp=delayed_copy --config.positions=learned

At every step of a sequence of random symbols the one `delay` steps before is asked.
Only positions tell which it is, so that the answer shows what a scheme of positions
knows of distances: within the length of training (`test`), and past it (`test_N`, where
the last answers count, as many as training has). Sequences are drawn anew at each step.

learned      a table of positions (arXiv:2005.14165); rows past the training are drawn
sinusoidal   sines and cosines (arXiv:1706.03762)
rotary       queries and keys turned (arXiv:2104.09864)
alibi        scores that fall with the distance (arXiv:2108.12409)
relative     a learned bias by distance (arXiv:1910.10683)
none         the causal order alone (arXiv:2305.19466)

The study `positions` compares them.

Measured: rotary, trained at 32 symbols: 85.96 % at 128 (1 seed).
"""

import dataclasses
import string

import jax
import jax.numpy as jnp

from dlx import experiment, losses, metrics, optim
from dlx.data.batches.generated import generated
from dlx.data.sets.characters import Characters
from dlx.experiment import Field
from dlx.layers.block_config import BlockConfig
from dlx.models.gpt import GPT, PLACEMENT, POSITIONS
from dlx.tasks.classification import of_classes
from dlx.train.supervised import make_predict, supervised

TEST_SIZE, TEST_SEED = 500, 2**32 - 1  # A seed that no run has.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 400  # Optimiser steps of the whole run.
  batch_size: int = 32  # Sequences of one global batch.
  log_every_steps: int = 100  # Steps between lines of training metrics.
  eval_every_steps: int | None = None  # Steps between evaluations; None: at the end.
  eval_batch_size: int = 50  # Sequences of one batch of an evaluation.
  clip_norm: float | None = 1.0  # Largest norm of the gradient of all parameters.
  length: int = 32  # T, symbols of a sequence.
  also: tuple[int, ...] = (64, 128)  # Longer lengths that are tested.
  delay: int = 5  # D, steps back to the symbol that is asked.
  symbols: int = 16  # Different symbols, the letters from a on.
  # learned, sinusoidal, rotary, alibi, relative or none (by the causal order alone).
  positions: str = 'rotary'
  # Symbols that each one sees, the last of which is that one; None: all so far.
  window: int | None = None
  num_layers: int = 2  # Transformer blocks.
  num_heads: int = 4  # Attention heads, a divisor of width.
  width: int = 64  # Width of the stream, a quarter of the feed-forward parts.
  lr: float = 3e-3  # Peak of the one-cycle learning rate of Adam.

  def __post_init__(self):
    super().__post_init__()
    self.choice('positions', of=POSITIONS)
    self.bounds('symbols', least=2, most=len(string.ascii_lowercase))
    self.bounds('delay', 'window', 'num_layers', 'num_heads', least=1)
    fits = self.width >= 4 and self.width % (2 * self.num_heads) == 0
    self.require('width', fits, f'4 or more, a multiple of 2 x {self.num_heads} heads')
    self.bounds('lr', above=0)
    self.bounds('length', above=self.delay)
    self.bounds('also', above=self.length)
    distinct = len(set(self.also)) == len(self.also)
    self.require('also', distinct, 'lengths that differ from each other')
    self.unused('validation', 'stream', why='sequences are drawn anew at every step')


# Fields that are used by arithmetic alone: runs that differ in them share a program.
SWEPT = ('lr',)
# The least run that still has every part.
SMALL = Config.small(
  length=6, also=(9,), delay=2, symbols=3, num_layers=1, num_heads=2, width=8
)


def draw(key: jax.Array, length: int, delay: int, symbols: int) -> dict[str, jax.Array]:
  """`symbols` int32 [T], `target` int32 [T - D]: what the last T - D steps answer."""
  row_T = jax.random.randint(key, (length,), 0, symbols, jnp.int32)
  return {'symbols': row_T, 'target': row_T[: length - delay]}


def build(config: Config) -> experiment.Experiment:
  answers = config.length - config.delay
  model = GPT(
    vocabulary_size=config.symbols,
    context=max(config.length, *config.also, 0),
    num_layers=config.num_layers,
    positions=config.positions,
    tie_embeddings=False,
    block=BlockConfig(
      width=config.width,
      num_heads=config.num_heads,
      window=config.window,
      unroll=config.num_layers,
      **config.dtypes,
    ),
  )

  def data(length, batch_size, seed, **fields):
    one = lambda key: draw(key, length, config.delay, config.symbols)
    return generated(one, batch_size, seed, name='delayed_copy', **fields)

  def test(length):
    return data(length, config.eval_batch_size, TEST_SEED, size=TEST_SIZE)

  def last(logits_BTV, batch):
    """The answers that count, of any length as many as training has."""
    return logits_BTV[:, -answers:], batch['target'][:, -answers:]

  def loss(logits_BTV, batch):
    logits_BAV, target_BA = last(logits_BTV, batch)
    flat = logits_BAV.reshape(-1, config.symbols), target_BA.reshape(-1)
    return losses.softmax_cross_entropy(*flat).reshape(target_BA.shape).mean(-1)

  def sums(logits_BTV, batch, weight_B):
    logits_BAV, target_BA = last(logits_BTV, batch)
    right_BA = logits_BAV.argmax(-1) == target_BA
    return {'accuracy': metrics.mean(right_BA.mean(-1), weight_B)}

  predict = make_predict(config, model, inputs='symbols')
  letters = Characters(string.ascii_lowercase[: config.symbols])
  of_last = lambda logits_BTV: jax.nn.softmax(logits_BTV[:, -1])
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
    declared={k: declared[k] for k in ('loss', 'accuracy')},
    headline=(
      'test/accuracy', *(f'test_{n}/accuracy' for n in config.also), 'test/loss'
    ),
    functions={
      'predict': experiment.Function(
        lambda state, inputs: {'probabilities': of_last(predict(state, inputs))},
        {'symbols': Field('tokens', ('length',), 'int32',
                          vocabulary=lambda data_dir: letters)},
        {'probabilities': Field('probabilities', (config.symbols,), 'float32',
                                names=tuple(letters.characters))},
      )
    },
    placement=PLACEMENT,
  )  # fmt: skip
