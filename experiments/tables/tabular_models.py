"""Trees or nets on tables? Forest, boosting, linear model, perceptrons, FT-Transformer.

  python -m launch.train --exp=tabular_models
  python -m launch.train --exp=tabular_models --config.datasets=california_housing \
      --config.num_steps=6000 --config.features=256,256 --config.dropout=0.1 \
      --config.lr=3e-3 --config.weight_decay=0.01 --config.transformer_lr=1e-3 \
      --data_dir=DATA

The same rows for all, of which least squares is the baseline. Nothing is tuned by set
or learner: trees are as scikit-learn has them, nets are those of `tabular`. Boosting
draws nothing, so that its runs are alike. Numbers are the RMSE in the unit of the
target, or the accuracy where it is a class.

Expected (arXiv:2207.08815): on thousands of rows trees are better than nets; on some
hundred of nearly linear ones neither is better than least squares.

Measured: diabetes, RMSE: mlp 58.0 (sd 1.4, 3 seeds), forest 62.07, boosting 65.56.
"""

import dataclasses
import math

from dlx.data.sets import columns
from dlx.figures import studies
from dlx.study.declaration import Run, Study, StudyConfig, Verdict, over_seeds
from dlx.study.results import mean_and_sd
from dlx.study.statistics import mean_interval

TREES = ('forest', 'boosting')
NETS = ('mlp', 'periodic', 'ft_transformer')
LEARNERS = ('linear', *NETS, *TREES)
NEEDED = ('mlp', 'forest')  # Of which claims tell.
SQUARES = 'least squares'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  # Tables: diabetes, wine, breast_cancer, california_housing, or sets of your own.
  datasets: tuple[str, ...] = ('diabetes', 'wine', 'breast_cancer')
  learners: tuple[str, ...] = LEARNERS  # Learners that are compared.
  num_steps: int = 300  # Optimiser steps of a net.
  features: tuple[int, ...] = (64,)  # Widths of the hidden layers of the perceptrons.
  dropout: float = 0.5  # Share of hidden units dropped in training.
  lr: float = 1e-3  # Peak of the learning rate of the perceptrons.
  linear_lr: float = 1e-2  # Peak of the linear model's, which has no weight decay.
  transformer_lr: float = 3e-4  # Peak of the FT-Transformer's.
  weight_decay: float = 1.0  # Decoupled decay of kernels and embeddings.
  trees: int = 100  # Trees of the forest; rounds of boosting.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('num_steps', 'trees', least=1)
    self.bounds('features', least=1, some=True)
    self.bounds('lr', 'linear_lr', 'transformer_lr', above=0)
    self.bounds('dropout', least=0, below=1)
    self.bounds('weight_decay', least=0)
    once = len(set(self.datasets)) == len(self.datasets) > 0
    self.require('datasets', once, 'one or more tables, each once')
    known = set(NEEDED) <= set(self.learners) <= set(LEARNERS)
    self.require(
      'learners',
      known and len(set(self.learners)) == len(self.learners),
      f'each once, of {", ".join(LEARNERS)}; {" and ".join(NEEDED)} among them',
    )


# The least study that still has every part.
SMALL = Config(
  seeds=2,
  datasets=('diabetes', 'wine'),
  learners=NEEDED,
  num_steps=4,
  features=(4,),
  trees=2,
)


def study(config: Config) -> Study:
  of_classes = {x: bool(columns.table(x).class_names) for x in config.datasets}
  fields = {'log_every_steps': config.num_steps, 'save_every_steps': None}
  net = {
    **fields,
    'num_steps': config.num_steps,
    'eval_every_steps': None,
    'features': config.features,
    'dropout': config.dropout,
    'lr': config.lr,
    'weight_decay': config.weight_decay,
  }
  grown = {'trees': config.trees, 'save_every_steps': None}
  runs = {
    'linear': Run(
      'tabular', {**net, 'model': 'linear', 'lr': config.linear_lr, 'weight_decay': 0.0}
    ),
    'mlp': Run('tabular', net),
    'periodic': Run('tabular', {**net, 'numbers': 'periodic'}),
    'ft_transformer': Run(
      'tabular', {**net, 'model': 'ft_transformer', 'lr': config.transformer_lr}
    ),
    'forest': Run('table_trees', {**grown, 'model': 'forest'}),
    'boosting': Run('table_trees', {**grown, 'model': 'boosting'}),
  }
  named = lambda learner, dataset: f'{learner}-{dataset}'
  settings = {
    named(learner, dataset): run._replace(fields={**run.fields, 'dataset': dataset})
    for dataset in config.datasets
    for learner, run in runs.items()
    if learner in config.learners
  }
  metric = lambda dataset: 'accuracy' if of_classes[dataset] else 'rmse'
  better = lambda dataset: 'higher' if of_classes[dataset] else 'lower'

  def values(results, learner, dataset):
    """Of each run, accuracies in percent."""
    split, scale = f'test/{metric(dataset)}', 100 if of_classes[dataset] else 1
    if learner == SQUARES:
      split, learner = f'test/linear_{metric(dataset)}', NEEDED[0]
      return scale * results.values(split, named(learner, dataset))[:1]
    return scale * results.values(split, named(learner, dataset))

  def best(results, learners, dataset):
    """The learner of the best mean."""
    known = {named(x, dataset): x for x in learners if x in config.learners}
    split = f'test/{metric(dataset)}'
    return known[results.best(split, known, better=better(dataset))]

  def trees_win(dataset):
    def check(results):
      tree, other = (best(results, x, dataset) for x in (TREES, NETS))
      a, b = (values(results, x, dataset).mean() for x in (tree, other))
      told = f'{a:.4g} of {tree}, {b:.4g} of {other}'
      squares = values(results, SQUARES, dataset).mean()
      return Verdict(
        bool(a > b) if of_classes[dataset] else bool(a < b),
        f'Mean test/{metric(dataset)}: {told}; {squares:.4g} of least squares.',
      )

    return check

  def numbers(results, learner, dataset):
    """What the model consists of."""
    group = named(learner, dataset)
    if learner in TREES:
      return results.mean('test/fitted', group)
    return results.cost('parameters', group)

  def rows(results):
    found = []
    for dataset in config.datasets:
      most = 100 if of_classes[dataset] else math.inf
      for learner in config.learners:
        x, group = values(results, learner, dataset), named(learner, dataset)
        sd = x.std(ddof=1) if len(x) > 1 else math.nan
        squares = values(results, SQUARES, dataset)
        found.append({
          'table': dataset,
          'learner': learner,
          'runs': len(results.of(group)),
          'figure': 'accuracy, %' if of_classes[dataset] else 'RMSE',
          'mean': mean_and_sd(x.mean() if len(x) else math.nan, sd),
          '95 %': interval(x, most),
          'least squares': f'{squares.mean():.4g}' if len(squares) else '–',
          'seconds of training': f'{results.cost("train_seconds", group):.2f}',
          'seconds of a run': f'{results.cost("seconds", group):.2f}',
          'numbers of the model': f'{numbers(results, learner, dataset):.4g}',
        })  # fmt: skip
    return found

  def figure(dataset):
    title = 'Accuracy (%)' if of_classes[dataset] else 'RMSE, in the unit of the target'
    return lambda results: studies.over_groups(
      {name: values(results, name, dataset) for name in (*config.learners, SQUARES)},
      xlabel=f'Test: {title}',
      title=f'{dataset}, {config.seeds} seeds',
    )

  return Study(
    runs=over_seeds(config, settings),
    metrics=('test/loss',),
    rows=rows,
    claims={
      f'On {x} the better of the trees is better than the best of the nets.': (
        trees_win(x)
      )
      for x in config.datasets
    },
    figures={x: figure(x) for x in config.datasets},
  )


def interval(values, most: float) -> str:
  """Where the mean of more runs would lie, by the t interval; – of fewer than two."""
  if len(values) < 2:
    return '–'
  found = mean_interval(values)
  return f'{found.low:.4g} to {min(found.high, most):.4g}'
