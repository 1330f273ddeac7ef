"""A recurrent net that writes text by characters (arXiv:1308.0850, arXiv:1506.02078).

  python -m launch.train --exp=char_rnn
  python -m launch.train --exp=char_rnn --config.dataset=tiny_shakespeare \
      --config.num_steps=2000 --data_dir=DATA

Stacked cells learn by truncated backpropagation through time (Williams and Peng 1990):
each row of a batch reads its own part of the text, `window` characters a step; the
state after them is carried to the next step, the gradient ends at the window's first
character. Evaluation carries the state, too, from the begin to the end of each of
`eval_rows` parts of the validation text. pydoc (Python's own manual, the default) needs
no file; its text differs between versions of Python. `char_gpt` is a transformer on the
same texts, which sees 64 characters.

Loss is in nats a character.

Measured: tiny Shakespeare 1.542 nats (1 seed).
"""

import dataclasses

import jax
import jax.numpy as jnp

from dlx import experiment, optim
from dlx.data.batches.windows import AllWindows, ContinuingWindows
from dlx.data.dataset import ROWS
from dlx.data.sets import characters
from dlx.layers.recurrent.cells import CELLS
from dlx.models.recurrent_language_model import RecurrentLanguageModel
from dlx.state import Mean, Metric, create
from dlx.tasks import language_modelling as task
from dlx.train import curves, steps
from dlx.train.residuals import kept_bytes

KEPT = Metric(
  'Kept for the way back',
  'lower',
  'Memory that a step keeps from the way forward for its gradient, for a row of the '
  'batch, with its share of the parameters.',
  'bytes',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 1000  # Optimiser steps of the whole run.
  batch_size: int = 32  # Parts of the text, each a row with a state that is carried on.
  eval_every_steps: int | None = 500  # Steps between evaluations; None: at the end.
  clip_norm: float | None = 1.0  # Largest global norm of the gradient.
  dataset: str = 'pydoc'  # pydoc (embedded), tiny_shakespeare, or a text of your own.
  cell: str = 'lstm'  # rnn, lstm, gru, reset, relu, peephole or mgu.
  features: tuple[int, ...] = (128, 128)  # Units of each layer.
  embedding: int = 64  # Width of the vectors of characters.
  window: int = 50  # Characters of a step, and of the gradient's way back.
  dropout: float = 0.0  # Share of the outputs of each layer dropped in training.
  # Parts of the validation text; the state is carried through each, from zeros.
  eval_rows: int = 4
  lr: float = 1e-2  # Peak of the one-cycle learning rate of Adam.
  sample_length: int = 400  # Characters of each sample in the report.
  temperature: float = 0.8  # Temperature of samples; 0: always the likeliest character.
  top_k: int | None = None  # Samples draw from this many characters; None: all.
  memory: bool = False  # Whether what is kept for the way back is reported.

  def __post_init__(self):
    super().__post_init__()
    self.choice('cell', of=CELLS)
    self.bounds('features', least=1, some=True)
    self.bounds('embedding', 'window', 'eval_rows', 'sample_length', least=1)
    self.bounds('dropout', least=0, below=1)
    self.bounds('lr', above=0)
    self.bounds('temperature', least=0)
    self.bounds('top_k', least=1)
    self.choice('compute_dtype', of=experiment.UNSCALED_DTYPES)
    self.unused('stream', 'micro_batches', why='rows on the devices carry a state')
    self.unused('validation', why='a text has its own')


# The least run that still has every part.
SMALL = Config.small(
  features=(8, 8), embedding=8, window=8, eval_rows=400, sample_length=20
)


def build(config: Config) -> experiment.Experiment:
  return of_data(config, characters.characters(config.dataset))


def of_data(config: Config, data: characters.CharacterData) -> experiment.Experiment:
  """The experiment on any text; reads nothing."""
  size, targets = len(data.vocabulary), (data.validation.size or 2) - 1
  model = RecurrentLanguageModel(
    size,
    config.embedding,
    CELLS[config.cell],
    config.features,
    config.dropout,
    **config.dtypes,
  )
  tx = optim.clip(
    optim.adam(optim.one_cycle(config.lr, config.num_steps)), **config.clipping
  )

  def init(key):
    token_BT = jnp.zeros((1, 1), jnp.int32)
    params = model.init(jax.random.fold_in(key, 0), token_BT)['params']
    return create(
      params,
      tx.init(params),
      jax.random.fold_in(key, 1),
      model_state={'carry': model.empty(config.batch_size)},
      ema=steps.initial_average(params, config.ema_decay),
    )

  def sums(logits_BTV, batch, weight_B):
    losses_B = task.next_token_loss(logits_BTV, batch)
    loss = Mean((losses_B * weight_B).sum(), weight_B.sum())
    return {'loss': loss, **task.next_token_accuracy(logits_BTV, batch, weight_B)}

  def loss_fn(params, carry, batch, rng):
    logits_BTV, carry = model.apply(
      {'params': params}, batch['input'], carry, train=True, rngs={'dropout': rng}
    )
    found = sums(logits_BTV, batch, jnp.ones(config.batch_size, logits_BTV.dtype))
    return found['loss'], (carry, found)

  def kept(state, carry, batch):
    """Bytes for the way back, by the trace of the step."""
    of = lambda params: loss_fn(params, carry, batch, state.rng)[0].total
    row = kept_bytes(of, state.params) / config.batch_size
    return {'kept': Mean(jnp.float32(row), jnp.ones(()))}

  def train_step(state, batch):
    fresh = lambda x: jnp.where(batch['reset'][:, None], 0, x)
    # The carry is an argument that is not differentiated: gradients end here.
    carry = jax.tree.map(fresh, state.model_state['carry'])
    rng = jax.random.fold_in(state.rng, state.step)
    batch = task.split_window(batch)
    memory = kept(state, carry, batch) if config.memory else {}
    grads, carry, found = steps.gradients(loss_fn, state.params, carry, batch, rng)
    changes = {'model_state': {'carry': carry}, 'ema_decay': config.ema_decay}
    new = steps.apply(tx, state, grads, **changes)
    return new, {**found, **memory, **curves.of(config, tx, state, new, grads)}

  def extend(state, token_BT, states):
    return model.apply({'params': state.averaged}, token_BT, states)

  def logits(state, batch):
    return extend(state, task.split_window(batch)['input'], None)[0]

  def eval_step(state, batch):
    return sums(logits(state, batch), task.split_window(batch), batch['weight'])

  functions = task.text_functions(
    data,
    logits=logits,
    extend=extend,
    empty=model.empty,
    sample_length=config.sample_length,
    temperature=config.temperature,
    top_k=config.top_k,
  )
  length = -(-targets // config.eval_rows)
  rows = min(config.eval_batch_size, config.eval_rows)
  shown = AllWindows(data.validation, task.NUM_SAMPLES, min(targets, config.window))
  return experiment.Experiment(
    init=init,
    train_step=train_step,
    train_data=ContinuingWindows(data.train, config.batch_size, config.window),
    evals={
      'validation': experiment.Eval(
        eval_step,
        AllWindows(data.validation, rows, length),
        summarize=task.summary_of(data),
      )
    },
    placement=(('model_state/carry/', ROWS),),
    figures={
      'sample': task.sample_figure(
        functions['generate'], data, shown, config.temperature
      )
    },
    functions=functions,
    metrics={**task.declarations(data), **({'kept': KEPT} if config.memory else {})},
    headline=task.headline(data),
  )
