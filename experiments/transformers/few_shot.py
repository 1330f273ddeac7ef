"""In-context learning: a transformer that fits a line it has never seen.

  python -m launch.train --exp=few_shot
  python -m launch.train --exp=few_shot --config.dimensions=20 --config.examples=41 \
      --config.width=256 --config.num_layers=12 --config.num_heads=8 \
      --config.num_steps=500000 --config.lr=1e-4 --config.noise=0.01

Each row is a task of its own: weights w are drawn, and `examples` pairs of x and
y = w x with noise. The net predicts every y from its x and the pairs before it. No
weight of the net changes between tasks: what it knows of w it has read
(arXiv:2208.01066; GPT-3's few-shot learning, arXiv:2005.14165, in a form whose best
answer is known).

The best that anybody can do is the mean of the posterior of w, which is Bayesian linear
regression: `bayes_last` beside `error_last`, the squared errors of the last y, after
`examples` - 1 pairs; `error_first` is without any, where the best answer is 0. The
figure `shots` has the error by the number of pairs. Of the last x of a row, with the y
of those before it:

  python -m launch.call --workdir=runs/few_shot predict 'x=[[1,0,0],[0,1,0],[1,1,0]]' \
      'y=[0.5,-1]'

The second command is the size of the paper's main figure, with its half million steps:
an accelerator's.

Measured: squared error 0.0338 after 11 pairs; Bayesian regression 0.0141 (1 seed).
"""

import dataclasses
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp

from dlx import experiment, metrics, optim
from dlx.data.batches.generated import generated
from dlx.errors import ConfigError
from dlx.experiment import Field
from dlx.figures.forecasts import error_by_step
from dlx.layers.block_config import BlockConfig
from dlx.layers.transformer import PLACEMENT
from dlx.models.in_context import InContextRegressor
from dlx.state import Metric
from dlx.train.supervised import make_predict, supervised

TEST_SIZE, TEST_SEED = 2000, 2**32 - 1  # A seed that no run has.
TITLES = {
  'error_first': 'Squared error without examples',
  'error_half': 'Squared error after half of the examples',
  'error_last': 'Squared error after all other examples',
  'bayes_last': 'Squared error of Bayesian regression after all other examples',
}
METRICS = {
  'loss': Metric(
    'Squared error',
    'lower',
    'Mean squared error of all predictions of a row; 1 and the noise for the answer 0.',
    '',
    'loss',
  ),
  **{
    name: Metric(title, 'lower', f'{title}, mean over the tasks.', '', 'error')
    for name, title in TITLES.items()
  },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 3000  # Optimiser steps of the whole run.
  batch_size: int = 64  # Tasks of one global batch.
  log_every_steps: int = 100  # Steps between lines of training metrics.
  eval_every_steps: int | None = 500  # Steps between evaluations; None: at the end.
  clip_norm: float | None = 1.0  # Largest global norm of the gradient.
  dimensions: int = 3  # Entries of x.
  examples: int = 12  # Pairs of a task.
  noise: float = 0.1  # Standard deviation of the noise of y, whose own is 1.
  num_layers: int = 3  # Blocks.
  num_heads: int = 4  # Attention heads, a divisor of width.
  width: int = 64  # Width of the stream.
  lr: float = 2e-3  # Peak of the one-cycle learning rate of Adam.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('dimensions', 'num_layers', 'num_heads', least=1)
    self.bounds('examples', least=2)
    self.bounds('noise', 'lr', above=0)
    fits = self.width % self.num_heads == 0
    self.require('width', fits, f'a multiple of num_heads={self.num_heads}')
    self.unused('validation', 'stream', why='tasks are drawn anew at every step')


# The least run that still has every part.
SMALL = Config.small(examples=6, num_layers=1, num_heads=2, width=8)


def draw_task(
  key: jax.Array, examples: int, dimensions: int, noise: float
) -> dict[str, jax.Array]:
  """`x` float32 [K, D] and `y` [K] of one line, w ~ N(0, I / D), x ~ N(0, I)."""
  of_w, of_x, of_noise = jax.random.split(key, 3)
  w_D = jax.random.normal(of_w, (dimensions,)) / dimensions**0.5
  x_KD = jax.random.normal(of_x, (examples, dimensions))
  y_K = (x_KD * w_D[None]).sum(-1)
  return {'x': x_KD, 'y': y_K + noise * jax.random.normal(of_noise, (examples,))}


def bayes(x_KD: jax.Array, y_K: jax.Array, noise: float) -> jax.Array:
  """The mean of y_k given x_k and the pairs before it [K]: the best prediction.

  The posterior of w is normal; one pair after the other changes its mean and its
  covariance (recursive least squares, from the prior N(0, I / D)).
  """
  dimensions = x_KD.shape[1]

  def read(posterior, pair):
    (mean_D, covariance_DD), (x_D, y) = posterior, pair
    along_D = (covariance_DD * x_D[None]).sum(-1)
    gain_D = along_D / (noise**2 + (x_D * along_D).sum())
    predicted = (x_D * mean_D).sum()
    mean_D += gain_D * (y - predicted)
    return (mean_D, covariance_DD - gain_D[:, None] * along_D[None]), predicted

  prior = jnp.zeros(dimensions), jnp.eye(dimensions) / dimensions
  return lax.scan(read, prior, (x_KD, y_K))[1]


def build(config: Config) -> experiment.Experiment:
  model = InContextRegressor(
    config.num_layers,
    BlockConfig(
      width=config.width, num_heads=config.num_heads, unroll=2, **config.dtypes
    ),
  )

  def tasks(batch_size, seed, **fields) -> Any:
    draw = lambda key: draw_task(key, config.examples, config.dimensions, config.noise)
    return generated(draw, batch_size, seed, name='lines', **fields)

  test = tasks(config.eval_batch_size, TEST_SEED, size=TEST_SIZE)
  as_pair = lambda batch: {**batch, 'pairs': (batch['x'], batch['y'])}
  best = jax.vmap(lambda x_KD, y_K: bayes(x_KD, y_K, config.noise))
  squares = lambda found_BK, batch: jnp.square(found_BK - batch['y'])

  def errors(outputs_BK, batch, weight_B):
    error_BK, half = squares(outputs_BK, batch), (config.examples - 1) // 2
    bayes_BK = squares(best(batch['x'], batch['y']), batch)
    found = {
      'error_first': error_BK[:, 0],
      'error_half': error_BK[:, half],
      'error_last': error_BK[:, -1],
      'bayes_last': bayes_BK[:, -1],
    }
    return {name: metrics.mean(x_B, weight_B) for name, x_B in found.items()}

  outputs = make_predict(config, model, inputs='pairs', prepare=as_pair)

  def predict(state, inputs):
    """Of the last x of each row, whose y is not seen, nor what fills up behind it."""
    x_BKD, count = inputs['x'], inputs['x'].shape[1]
    if count > config.examples:
      raise ConfigError(
        f'{count} pairs are not allowed: must be at most {config.examples}, as many as '
        'the net was trained with.'
      )
    missing = config.examples - count
    x_BKD = jnp.pad(x_BKD, ((0, 0), (0, missing), (0, 0)))
    y_BK = jnp.pad(inputs['y'], ((0, 0), (0, missing)))
    return {'y': outputs(state, {'x': x_BKD, 'y': y_BK})[:, count - 1]}

  def shots(state, key, batch):
    del key
    found = outputs(state, batch), best(batch['x'], batch['y']), jnp.zeros((1, 1))
    return [squares(x, batch).mean(0) for x in found]

  def draw_shots(found):
    names = ('the net', 'Bayesian regression', 'the answer 0')
    return error_by_step(
      dict(zip(names, found)),
      xlabel='Examples before',
      ylabel='Squared error',
      title='The error by the number of examples',
      first=0,
    )

  return supervised(
    config,
    model=model,
    inputs='pairs',
    prepare=as_pair,
    loss=lambda outputs_BK, batch: squares(outputs_BK, batch).mean(-1),
    tx=optim.adam(optim.one_cycle(config.lr, config.num_steps)),
    train_data=tasks(config.batch_size, config.seed),
    eval_data={'test': test},
    metrics=errors,
    declared=METRICS,
    headline=('test/error_last', 'test/bayes_last', 'test/loss'),
    functions={
      'predict': experiment.Function(
        predict,
        {
          'x': Field('row', ('pairs', config.dimensions), 'float32'),
          'y': Field('row', ('pairs',), 'float32'),
        },
        {'y': Field('number', (), 'float32')},
      )
    },
    figures={'shots': experiment.Figure(draw_shots, shots, test)},
    placement=PLACEMENT,
  )
