"""Numbers and categories of any table, your own above all, to a number or a class.

  python -m launch.train --exp=tabular
  python -m launch.data table houses.csv --target=price --data_dir=DATA
  python -m launch.train --exp=tabular --config.dataset=houses --data_dir=DATA
  python -m launch.call --workdir=W predict new.csv --out=table.csv

Categories get embeddings (arXiv:1604.06737), numbers are standardised by the training
split; a missing number takes the median and is marked, a missing or unknown category is
a value of its own. The target decides: classes are trained by cross-entropy, numbers by
the squared error, reported in the unit of the target. Least squares on the same split
stands beside, and `--config.model=linear` trains a linear model of one-hot categories.
`--config.model=ft_transformer` makes each column a token (arXiv:2106.11959), and
`--config.numbers=periodic` gives numbers learned sines and cosines (arXiv:2203.05556).

`predict` takes columns as they were measured, by name: predict(age=48, sex='1', ...),
dates as text: predict(sold='2026-11-30', ...).
The default is for some hundred rows, and strongly regularised; of thousands take
`--config.num_steps=6000 --config.features=256,256 --config.dropout=0.1 --config.lr=3e-3
--config.weight_decay=0.01`.

Measured: housing.csv, RMSE 48469 dollars (sd 43, 3 seeds), 29 s.
"""

import dataclasses

from dlx import experiment, optim
from dlx.data.batches.choose import splits
from dlx.data.sets import columns
from dlx.models.table_nets import Tokens
from dlx.tasks import tables
from dlx.train.supervised import make_predict, supervised


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 600  # Optimiser steps of the whole run.
  batch_size: int = 128  # Examples of one global batch.
  eval_every_steps: int | None = 150  # Steps between evaluations; None: at the end.
  # diabetes, wine, breast_cancer (embedded), california_housing, or a set of your own.
  dataset: str = 'diabetes'
  # mlp; ft_transformer; linear: no hidden layer, one-hot categories.
  model: str = 'mlp'
  numbers: str = 'plain'  # How nets read numbers: plain, or periodic (by sines).
  # What a missing number becomes: indicator (the median, and a mark), median, refuse.
  missing: str = 'indicator'
  features: tuple[int, ...] = (64,)  # Widths of the hidden layers of the mlp.
  # Numbers that stand for a category; None: 1.6 n^0.56 of n values; 0: one-hot.
  embedding: int | None = None
  dropout: float = 0.5  # Share of hidden units dropped in training.
  tokens: Tokens = Tokens()
  lr: float = 1e-3  # Peak of the one-cycle learning rate.
  weight_decay: float = 1.0  # Decoupled decay of kernels and embeddings.

  def __post_init__(self):
    super().__post_init__()
    tables.check(self)
    self.choice('missing', of=columns.MISSING)
    self.bounds('lr', above=0)
    self.bounds('weight_decay', least=0)


# Fields that are used by arithmetic alone: runs that differ in them share a program.
SWEPT = ('lr', 'weight_decay')
# The least run that still has every part.
SMALL = Config.small(features=(8,))


def build(config: Config) -> experiment.Experiment:
  data = columns.table(config.dataset, config.missing)
  model = tables.net(config, data, len(data.class_names) or 1)
  by_class = 'label' if data.class_names else None
  train_data, passes = splits(data.train, data.test, config, by_class=by_class)
  prepare = lambda batch: {**batch, 'row': batch}
  outputs = make_predict(config, model, inputs='row', prepare=prepare)
  parts, summary_of_test = tables.reported(data, outputs)
  built = supervised(
    config,
    model=model,
    inputs='row',
    prepare=prepare,
    tx=optim.adamw(
      optim.one_cycle(config.lr, config.num_steps),
      weight_decay=config.weight_decay,
      mask=tables.decayed,
    ),
    train_data=train_data,
    eval_data=passes,
    overfit=experiment.Overfit(steps=1000),  # Dropout.
    placement=tables.PLACEMENT,
    **parts,
  )
  # Least squares is known of the test split alone.
  test = built.evals['test']._replace(summarize=summary_of_test)
  return built._replace(evals={**built.evals, 'test': test})
