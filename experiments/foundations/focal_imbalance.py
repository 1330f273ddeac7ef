"""One example in a hundred is of the rare class: which loss finds it?

  python -m launch.train --exp=focal_imbalance
  python -m launch.train --exp=focal_imbalance --config.loss=cross_entropy
  python -m launch.train --exp=focal_imbalance --config.dataset=mnist \
      --config.num_steps=2000 --data_dir=DATA

One class of a set of images against all others, of which training has `ratio` times as
many. Losses: cross_entropy; weighted, in which the rare class weighs `rare_weight`;
focal (arXiv:1708.02002), that times (1 - p)^gamma, p the probability of the true class,
so that the many easy examples count next to nothing.

The test split keeps the balance of the set, one in ten for digits and MNIST: a
precision there is higher than among as many others as in training. `rare_recall` and
`rare_precision` are those of the answer by the larger logit; the function `score` gives
the probability of the rare class.

Measured: MNIST, recall 90.31 % (sd 0.53, 3 seeds) at a precision of 97.17 %;
cross-entropy 82.48 % at 99.79 %. The gain is that of the weight, 91.44 % without gamma.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from dlx import experiment, losses, metrics, optim
from dlx.data.dataset import Loaded, Source
from dlx.data.lazy import pick
from dlx.data.sets import images
from dlx.models.mlp import MLP, PLACEMENT
from dlx.state import Metric
from dlx.tasks.classification import image_classifier

LOSSES = ('cross_entropy', 'weighted', 'focal')
RARE = {
  'rare_recall': Metric(
    'Recall of the rare class',
    'higher',
    'Share of the examples of the rare class that are called so.',
    '%',
    'share',
  ),
  'rare_precision': Metric(
    'Precision of the rare class',
    'higher',
    'Share of what is called rare that is; 0 where nothing is.',
    '%',
    'share',
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 600  # Optimiser steps of the whole run.
  batch_size: int = 128  # Examples of one global batch.
  dataset: str = 'digits'  # digits, mnist, fashion_mnist, cifar10, or a folder's name.
  rare: int = 8  # Number of the class that is rare; all others are one.
  ratio: int = 100  # Training examples of the others for each of the rare class.
  subset_seed: int = 0  # Seed by which the examples of the rare class are chosen.
  loss: str = 'focal'  # cross_entropy, weighted or focal.
  gamma: float = 2.0  # How much less easy examples count; with focal.
  rare_weight: float = 10.0  # Weight of the rare class; with weighted and focal.
  features: tuple[int, ...] = (128, 128)  # Widths of the hidden layers.
  dropout: float = 0.2  # Share of hidden units dropped in training.
  lr: float = 2e-3  # Peak of the one-cycle learning rate.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('rare', 'subset_seed', least=0)
    self.bounds('ratio', least=1)
    self.choice('loss', of=LOSSES)
    self.bounds('gamma', least=0)
    self.bounds('rare_weight', 'lr', above=0)
    self.bounds('features', least=1)
    self.bounds('dropout', least=0, below=1)


# Fields that are used by arithmetic alone: runs that differ in them share a program.
SWEPT = ('gamma', 'rare_weight', 'lr')
# The least run that still has every part.
SMALL = Config.small(features=(16,))


def one_against_all(
  source: Source, rare: int, ratio: int | None = None, seed: int = 0
) -> Source:
  """Labels 1 for the class `rare`, else 0; with a ratio, few of 1 are left.

  Args:
    ratio: the others over what is left of the rare class, of which at least one example
      and at most all are; None: all.
    seed: by which they are chosen; those of a larger ratio are some of a smaller one.
  """

  def read_some(data_dir):
    loaded = source.read(data_dir)
    label_N = (np.asarray(loaded.data['label']) == rare).astype(np.int32)
    (ones,), zeros = label_N.nonzero(), int((label_N == 0).sum())
    left = len(ones) if ratio is None else max(1, round(zeros / ratio))
    chosen = np.random.default_rng(seed).permutation(ones)[:left]
    rows = np.sort(np.concatenate([(label_N == 0).nonzero()[0], chosen]))
    data = {name: pick(x, rows) for name, x in loaded.data.items()}
    origin = {
      **loaded.origin,
      'size': len(rows),
      'rare': rare,
      'rare_size': len(chosen),
    }
    return Loaded({**data, 'label': label_N[rows]}, origin)

  return dataclasses.replace(source, size=None, read=read_some)


def build(config: Config) -> experiment.Experiment:
  data = images.images(config.dataset)
  fits = config.rare < data.num_classes
  config.require('rare', fits, f'below {data.num_classes}, a class of {data.name}')
  two = dataclasses.replace(
    data,
    train=one_against_all(data.train, config.rare, config.ratio, config.subset_seed),
    test=one_against_all(data.test, config.rare),
    num_classes=2,
    class_names=('others', data.class_names[config.rare]),
  )
  model = MLP(
    widths=config.features,
    num_outputs=2,
    dropout=config.dropout,
    batch_norm=True,
    **config.dtypes,
  )

  def loss(logits_BK, batch):
    if config.loss == 'cross_entropy':
      return losses.softmax_cross_entropy(logits_BK, batch['label'])
    weight_K = jnp.stack([jnp.ones(()), jnp.asarray(config.rare_weight, jnp.float32)])
    if config.loss == 'weighted':
      pair = logits_BK, batch['label']
      return losses.softmax_cross_entropy(*pair, class_weight_K=weight_K)
    return losses.softmax_focal(logits_BK, batch['label'], config.gamma, weight_K)

  made = image_classifier(
    config,
    two,
    model=model,
    loss=loss,
    tx=optim.adamw(optim.one_cycle(config.lr, config.num_steps)),
    declared=RARE,
    placement=PLACEMENT,
  )

  def summarize(found):
    by_class = metrics.precision_recall_f1(found['confusion'], average=None)
    rare = {f'rare_{name}': by_class[name][1] for name in ('recall', 'precision')}
    return {**metrics.classification_summary(found), **rare}

  evals = {k: e._replace(summarize=summarize) for k, e in made.evals.items()}
  predict = made.functions['predict']

  def score(state, inputs):
    return {'rare': predict.call(state, inputs)['probabilities'][:, 1]}

  rare = {'rare': experiment.Field('number', (), 'float32')}
  return made._replace(
    evals=evals,
    headline=tuple(f'{k}/{name}' for k in evals for name in RARE),
    functions={'score': experiment.Function(score, predict.inputs, rare)},
  )
