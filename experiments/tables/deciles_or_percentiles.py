"""Deciles or percentiles? A number as one of 2 to 100 classes, by five models.

  python -m launch.train --exp=deciles_or_percentiles
  python -m launch.train --exp=deciles_or_percentiles \
      --config.dataset=california_housing --config.num_steps=3000 \
      --config.features=256,256 --config.dropout=0.1 --config.lr=3e-3 \
      --config.weight_decay=0.01 --config.transformer_lr=1e-3 --data_dir=DATA

The target of a regression becomes n classes of equally many training rows, see
`label_deciles`, for n of 2 to 100. A linear classifier, a perceptron, the same with
periodic numbers, the same with one score and thresholds (`ordered`), and an
FT-Transformer are trained on each, beside least squares, whose prediction lies in some
bin, too. Accuracy cannot be compared over n, since guessing finds 1 of n; the distance
as a share of all bins can, and the error in the unit of the target.

Expected: accuracy falls as 1 / n does or faster, and the error in the unit falls until
the bins are finer than what can be predicted; then more bins only leave fewer rows to
learn each from, which the ordered model does not mind.

Measured: diabetes, mlp, deciles: accuracy 16.9 %, RMSE 57.90 (sd 0.88, 2 seeds).
"""

import dataclasses
import math

from dlx.data.sets import columns
from dlx.figures import studies
from dlx.study.declaration import Run, Study, StudyConfig, Verdict, over_seeds
from dlx.study.results import mean_and_sd
from dlx.study.statistics import mean_interval

ACCURACY, TOP_K, DISTANCE = 'test/accuracy', 'test/top_k', 'test/distance'
RMSE, LOSS = 'test/rmse', 'test/loss'
MODELS = ('linear', 'mlp', 'periodic', 'ordered', 'ft_transformer')
NEEDED = ('linear', 'mlp')  # Of which claims tell.
SQUARES = 'least squares'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  dataset: str = 'diabetes'  # diabetes, california_housing, or a set of your own.
  bins: tuple[int, ...] = (2, 5, 10, 20, 100)  # Numbers of classes, rising.
  models: tuple[str, ...] = MODELS  # Models that are compared.
  top: int = 3  # Likeliest classes among which top_k looks, fewer where bins are.
  num_steps: int = 300  # Optimiser steps of each run.
  features: tuple[int, ...] = (64,)  # Widths of the hidden layers of the perceptrons.
  dropout: float = 0.5  # Share of hidden units dropped in training.
  lr: float = 1e-3  # Peak of the learning rate of the perceptrons.
  linear_lr: float = 1e-2  # Peak of the linear model's, which has no weight decay.
  transformer_lr: float = 3e-4  # Peak of the FT-Transformer's.
  weight_decay: float = 1.0  # Decoupled decay of kernels and embeddings.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('num_steps', 'top', least=1)
    self.bounds('features', least=1, some=True)
    self.bounds('bins', least=2, some=True)
    self.require('bins', self.bins == tuple(sorted(set(self.bins))), 'rising')
    self.bounds('lr', 'linear_lr', 'transformer_lr', above=0)
    self.bounds('dropout', least=0, below=1)
    self.bounds('weight_decay', least=0)
    known = set(NEEDED) <= set(self.models) <= set(MODELS)
    self.require(
      'models',
      known and len(set(self.models)) == len(self.models),
      f'each once, of {", ".join(MODELS)}; {" and ".join(NEEDED)} among them',
    )


# The least study that still has every part.
SMALL = Config(seeds=2, bins=(2, 4), models=NEEDED, num_steps=4, features=(4,))


def study(config: Config) -> Study:
  data = columns.table(config.dataset)
  config.require('dataset', not data.class_names, 'a table with numbers to predict')
  size = data.train.size
  few = size is None or config.bins[-1] <= size
  config.require('bins', few, f'at most the {size} training rows')
  fields = {
    'dataset': config.dataset,
    'num_steps': config.num_steps,
    'features': config.features,
    'dropout': config.dropout,
    'lr': config.lr,
    'weight_decay': config.weight_decay,
    'log_every_steps': config.num_steps,
    'eval_every_steps': None,
    'save_every_steps': None,
  }
  own = {
    'linear': {'model': 'linear', 'lr': config.linear_lr, 'weight_decay': 0.0},
    'mlp': {},
    'periodic': {'numbers': 'periodic'},
    'ordered': {'ordered': True},
    'ft_transformer': {'model': 'ft_transformer', 'lr': config.transformer_lr},
  }
  named = lambda model, n: f'{model}-{n}'
  settings = {
    named(model, n): Run(
      'label_deciles',
      {**fields, **own[model], 'bins': n, 'top': min(config.top, n - 1)},
    )
    for n in config.bins
    for model in config.models
  }
  least, most = config.bins[0], config.bins[-1]
  middle = min(config.bins, key=lambda n: abs(math.log(n / 10)))  # Nearest to deciles.

  def of_squares(results, name, n):
    """What least squares reaches with n bins: the same in all runs."""
    return results.values(f'test/linear_{name}', named('mlp', n))[:1]

  def beats_squares(results):
    group = results.best(
      ACCURACY, [named(m, middle) for m in config.models], better='higher'
    )
    mean = 100 * results.mean(ACCURACY, group)
    squares = 100 * of_squares(results, 'accuracy', middle).mean()
    return Verdict(
      mean > squares,
      f'Mean {ACCURACY}: {mean:.2f} % of {group}, {squares:.2f} % of least squares.',
    )

  def share(results, name, n):
    """Distance over the number of bins, in percent, of each run."""
    if name == SQUARES:
      return 100 * of_squares(results, 'distance', n) / n
    return 100 * results.values(DISTANCE, named(name, n)) / n

  def values(results, metric, name, n):
    if name == SQUARES:
      return of_squares(results, metric.removeprefix('test/'), n)
    return results.values(metric, named(name, n))

  def rows(results):
    found = []
    for n in config.bins:
      for name in config.models:
        group = named(name, n)
        accuracy = 100 * results.values(ACCURACY, group)
        found.append({
          'bins': n,
          'model': name,
          'runs': len(results.of(group)),
          'accuracy, %': spread(accuracy),
          '95 %': interval(accuracy),
          'of least squares': spread(100 * of_squares(results, 'accuracy', n)),
          'top-k, %': spread(100 * results.values(TOP_K, group)),
          'distance, bins': spread(results.values(DISTANCE, group)),
          'of least squares, bins': spread(of_squares(results, 'distance', n)),
          'distance, % of all': spread(share(results, name, n)),
          'RMSE': spread(results.values(RMSE, group)),
          'nats below guessing': spread(math.log(n) - results.values(LOSS, group)),
        })  # fmt: skip
    return found

  def drawn(of, ylabel, log_y=False):
    lines = (*config.models, SQUARES)
    return lambda results: studies.over_values(
      config.bins,
      {name: [of(results, name, n) for n in config.bins] for name in lines},
      xlabel='Bins',
      ylabel=ylabel,
      title=f'{config.dataset}, bins of equally many training rows',
      log_x=True,
      log_y=log_y,
    )

  finer = f'{most} bins have a lower RMSE of mlp than {least}.'
  as_deciles = f'{most} bins have a lower RMSE of mlp than {middle}.'
  lower = lambda n: lambda r: r.lower(RMSE, named('mlp', most), than=named('mlp', n))
  return Study(
    runs=over_seeds(config, settings),
    metrics=(ACCURACY, TOP_K, DISTANCE, RMSE, LOSS),
    rows=rows,
    claims={
      f'With {middle} bins a model has a higher accuracy than least squares.': (
        beats_squares
      ),
      finer: lower(least),
      **({as_deciles: lower(middle)} if middle != least else {}),
    },
    figures={
      'accuracy': drawn(
        lambda r, name, n: 100 * values(r, ACCURACY, name, n), 'Accuracy (%)', True
      ),
      'top_k': lambda results: studies.over_values(
        config.bins,
        {
          name: [100 * results.values(TOP_K, named(name, n)) for n in config.bins]
          for name in config.models
        },
        xlabel='Bins',
        ylabel=f'Among the {config.top} likeliest (%)',
        title=f'{config.dataset}, bins of equally many training rows',
        log_x=True,
      ),
      'distance': drawn(share, 'Distance (% of all bins)'),
      'error': drawn(
        lambda r, name, n: values(r, RMSE, name, n), 'RMSE, in the unit of the target'
      ),
    },
  )


def spread(values) -> str:
  """MEAN ± SD of runs."""
  sd = values.std(ddof=1) if len(values) > 1 else math.nan
  return mean_and_sd(values.mean() if len(values) else math.nan, sd)


def interval(values) -> str:
  """Where the mean of more runs would lie, in [0, 100], by t; – of fewer than two."""
  if len(values) < 2:
    return '–'
  found = mean_interval(values)
  return f'{max(found.low, 0):.1f} to {min(found.high, 100):.1f}'
