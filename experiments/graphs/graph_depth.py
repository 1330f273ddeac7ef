"""How deep may a graph net be? Over-smoothing by depth, with residuals and without.

  python -m launch.train --exp=graph_depth
  python -m launch.train --exp=graph_depth --config.dataset=cora --data_dir=DATA

Each layer of a GCN takes the mean of a node and its neighbours, which makes neighbours
alike (arXiv 1801.07606): the mean of 1 - cosine over pairs of nodes, of what the last
hidden layer gives, falls with the depth, and so does accuracy. Residuals keep what went
in (arXiv 1609.02907, appendix B). Expected: the deepest plain net is worse than the
shallowest, and worse than one with residuals, whose nodes are less alike.

Measured: 16 layers 50.00 % plain, 98.81 with residuals; distance 0.043 and 0.348.
"""

import dataclasses

from dlx.figures import studies
from dlx.study.declaration import Run, Study, StudyConfig, over_seeds

ACCURACY, DISTANCE, TRAINED = 'test/accuracy', 'test/distance', 'train/accuracy'
KINDS = {'plain': False, 'residual': True}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(StudyConfig):
  # karate_club, cora, citeseer, pubmed, or a set of your own.
  dataset: str = 'karate_club'
  num_steps: int = 200  # Optimiser steps of each run.
  depths: tuple[int, ...] = (2, 4, 8, 16)  # Layers, two values or more, rising.
  features: int = 16  # Width of the hidden layers.
  dropout: float = 0.5  # Share of features and of hidden units that are dropped.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('num_steps', 'features', least=1)
    self.bounds('depths', least=2)
    rising = len(self.depths) > 1 and self.depths == tuple(sorted(set(self.depths)))
    self.require('depths', rising, 'two depths or more, each at least 2, rising')
    self.bounds('dropout', least=0, below=1)


# The least study that still has every part.
SMALL = Config(seeds=2, num_steps=6, depths=(2, 3), features=4)


def study(config: Config) -> Study:
  fields = {
    'dataset': config.dataset,
    'num_steps': config.num_steps,
    'features': config.features,
    'dropout': config.dropout,
    'log_every_steps': max(1, config.num_steps // 5),
    'eval_every_steps': None,
    'save_every_steps': None,
  }
  name_of = lambda kind, depth: f'{kind}-{depth}'
  settings = {
    name_of(kind, depth): Run('gcn', {**fields, 'depth': depth, 'residual': residual})
    for kind, residual in KINDS.items()
    for depth in config.depths
  }
  shallow, deep = config.depths[0], config.depths[-1]
  plain, residual = (name_of(kind, deep) for kind in KINDS)

  def figure(metric, ylabel, title):
    return lambda results: studies.over_values(
      config.depths,
      {
        kind: [results.values(metric, name_of(kind, depth)) for depth in config.depths]
        for kind in KINDS
      },
      xlabel='Layers',
      ylabel=ylabel,
      title=title,
      log_x=True,
    )

  return Study(
    runs=over_seeds(config, settings),
    metrics=(ACCURACY, DISTANCE, TRAINED),
    claims={
      'The deepest plain net has a lower test accuracy than the shallowest.': (
        lambda r: r.lower(ACCURACY, plain, than=name_of('plain', shallow))
      ),
      'Nodes of the deepest plain net are more alike than with residuals.': (
        lambda r: r.lower(DISTANCE, plain, than=residual)
      ),
      'The deepest net has a higher test accuracy with residuals.': (
        lambda r: r.higher(ACCURACY, residual, than=plain)
      ),
    },
    figures={
      'accuracy': figure(ACCURACY, 'Test accuracy', 'Accuracy by depth'),
      'distance': figure(DISTANCE, 'Mean of 1 - cosine', 'How far nodes are apart'),
    },
  )
