"""Truncated backpropagation through time (Williams and Peng 1990), a cell of our own.

  python -m launch.train --exp=sst2_tbptt
  python -m launch.train --exp=sst2_tbptt --config.dataset=sst2 --data_dir=DATA

Sentences lie in continuing rows: a step reads the next `window` tokens of each row, and
the state after them is carried, in the TrainState, to the next step. Gradients end at
the window's first token. The label is asked for where a sentence ends. Evaluation reads
whole sentences, without a carry.

The first of `cells` is the experiment's; the others learn beside it, apart but from the
same batches. `reset` is a cell with one reset gate, which `reset_gate_cell` looks into.

Measured: SST-2 71.0 % (1 seed).
"""

import dataclasses

import jax
import jax.numpy as jnp

from dlx import experiment, optim
from dlx.data.batches.contiguous import Continuing
from dlx.data.batches.resident import InOrder
from dlx.data.dataset import ROWS
from dlx.data.sets.sentences import SentenceData, sentences
from dlx.layers.recurrent.cells import zero_state
from dlx.state import create
from dlx.tasks import compared_cells
from dlx.train import curves, steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 1600  # Optimiser steps of the whole run.
  batch_size: int = 32  # Rows, each with a state that is carried on.
  eval_every_steps: int | None = 200  # Steps between evaluations; None: at the end.
  # Metric whose best checkpoint is kept.
  best_metric: str | None = 'validation/accuracy'
  clip_norm: float | None = 1.0  # Largest global norm of the gradient of a cell.
  dataset: str = 'grammar'  # grammar (generated), sst2, or a set of your own.
  min_count: int = 1  # Occurrences below which a training word is unknown.
  window: int = 8  # Tokens of a step, and of the gradient's way back.
  cells: tuple[str, ...] = (
    'reset',
    'gru',
    'rnn',
  )  # The first cell and others to compare.
  embedding: int = 64  # Width of the word vectors.
  features: int = 64  # Width of the recurrent state.
  lr: float = 3e-3  # Peak of the cosine learning rate.
  weight_decay: float = 1e-4  # Decoupled decay of kernels and word vectors.

  def __post_init__(self):
    super().__post_init__()
    self.require('cells', *compared_cells.known(self.cells))
    self.bounds('window', 'embedding', 'features', 'min_count', least=1)
    self.bounds('lr', above=0)
    self.bounds('weight_decay', least=0)
    self.choice('compute_dtype', of=experiment.UNSCALED_DTYPES)
    self.unused('stream', 'micro_batches', why='rows on the devices carry a state')
    self.unused('ema_decay', why='not averaged here')


# The least run that still has every part.
SMALL = Config.small(embedding=8, features=8)


def build(config: Config) -> experiment.Experiment:
  return of_data(config, sentences(config.dataset, min_count=config.min_count))


def of_data(config: Config, data: SentenceData) -> experiment.Experiment:
  """The experiment on any set of sentences; reads nothing."""
  model = compared_cells.model_of(
    config.cells,
    data,
    embedding=config.embedding,
    features=config.features,
    **config.dtypes,
  )
  each = optim.clip(
    optim.adamw(
      optim.cosine(config.lr, config.num_steps), weight_decay=config.weight_decay
    ),
    **config.clipping,
  )
  tx = compared_cells.each_alone(config.cells, each)
  wide = jnp.promote_types(config.compute_dtype, jnp.float32)

  def init(key):
    tokens, length = jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)
    params = model.init(jax.random.fold_in(key, 0), tokens, length)['params']
    shape = (config.batch_size, config.features, wide)
    carry = {name: zero_state(cell, *shape) for name, cell in model.cells.items()}
    rng = jax.random.fold_in(key, 1)
    return create(params, tx.init(params), rng, model_state={'carry': carry})

  def loss_fn(params, carry, batch, rng):
    del rng
    logits, carry = model.apply(
      {'params': params}, batch['tokens'], batch['length'], carry
    )
    found = compared_cells.sums(logits, batch)
    return compared_cells.total_loss(found), (carry, found)

  def train_step(state, batch):
    fresh = lambda x: jnp.where(batch['reset'][:, None], 0, x)
    # The carry is an argument that is not differentiated: gradients end here.
    carry = jax.tree.map(fresh, state.model_state['carry'])
    grads, carry, found = steps.gradients(
      loss_fn, state.params, carry, batch, state.rng
    )
    new = steps.apply(tx, state, grads, model_state={'carry': carry})
    return new, {**found, **curves.of(config, each, state, new, grads)}

  whole = compared_cells.whole(model)

  def eval_step(state, batch):
    return compared_cells.sums(whole(state.params, batch['tokens']), batch)

  return experiment.Experiment(
    init=init,
    train_step=train_step,
    train_data=Continuing(
      data.train,
      data.length_counts,
      batch_size=config.batch_size,
      window=config.window,
      seed=config.seed,
    ),
    evals={
      'validation': experiment.Eval(
        eval_step, InOrder(data.validation, config.eval_batch_size)
      ),
      'test': experiment.Eval(eval_step, InOrder(data.test, config.eval_batch_size)),
    },
    placement=(('model_state/carry/', ROWS),),
    functions={'predict': compared_cells.predict(whole, config.cells[0], data)},
    metrics=compared_cells.declared(config.cells, len(data.class_names)),
    headline=('validation/accuracy', 'test/accuracy'),
  )
