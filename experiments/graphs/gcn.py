"""Semi-supervised node classification by graph convolution (arXiv 1609.02907).

  python -m launch.train --exp=gcn
  python -m launch.train --exp=gcn --config.dataset=cora --config.members=100 \
      --config.chunk=20 --data_dir=DATA

karate_club (embedded, the default), any Planetoid graph: cora, citeseer, pubmed, or a
graph of your own. One step is the whole graph; loss and accuracy are of the nodes of a
mask. `members` seeds train in one program, `chunk` of them at once. Published on Cora:
81.5 % (the paper's mean of 100 seeds).

Measured: Cora 81.52 % (sd 0.72, 100 seeds), 166 s on two cores.
"""

import dataclasses

import jax
import jax.numpy as jnp

from dlx import experiment, metrics, optim
from dlx.data.batches.resident import Whole
from dlx.data.sets import graphs
from dlx.models.gcn import GCN
from dlx.state import Mean, Metric, create
from dlx.tasks import nodes
from dlx.train import curves, steps
from dlx.train.members import vectorize

DISTANCE = Metric(
  'Distance of nodes',
  None,
  'Mean of 1 - cosine over pairs of nodes, of what the last hidden layer gives; near 0 '
  'where layers have made all nodes alike.',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 200  # Optimiser steps of the whole run: epochs.
  log_every_steps: int = 20  # Steps between lines of training metrics.
  eval_every_steps: int | None = 20  # Steps between evaluations; None: at the end.
  # karate_club, cora, citeseer, pubmed, or a set of your own.
  dataset: str = 'karate_club'
  members: int = 1  # Seeds that are trained in one program.
  chunk: int | None = None  # Members that are computed at once; None: all.
  features: int = 16  # Width of the hidden layers.
  depth: int = 2  # Layers of convolution.
  residual: bool = False  # Whether input is added to the output of hidden layers.
  dropout: float = 0.5  # Share of features and of hidden units that are dropped.
  lr: float = 1e-2  # Learning rate of Adam, constant.
  weight_decay: float = 5e-4  # Weight of the squares of the first kernel, times a half.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('members', 'chunk', 'features', least=1)
    self.bounds('depth', least=2)
    self.bounds('dropout', least=0, below=1)
    self.bounds('lr', above=0)
    self.bounds('weight_decay', least=0)
    self.choice('compute_dtype', of=experiment.UNSCALED_DTYPES)
    self.unused('micro_batches', 'stream', why='a graph is one batch on the devices')
    self.unused('ema_decay', why='not used here')


# Fields that are used by arithmetic alone: runs that differ in them share a program.
SWEPT = ('lr', 'weight_decay')
# The least run that still has every part.
SMALL = Config(num_steps=6, log_every_steps=2, eval_every_steps=3)


def build(config: Config) -> experiment.Experiment:
  data = graphs.graph(config.dataset, sparse=True)
  whole = Whole(data.source)
  model = GCN(
    hidden=config.features,
    num_outputs=data.num_classes,
    dropout=config.dropout,
    depth=config.depth,
    residual=config.residual,
    **config.dtypes,
  )
  tx = optim.clip(optim.adam(config.lr), **config.clipping)

  def logits_NK(params, graph, train=False, rng=None):
    rngs = None if rng is None else {'dropout': rng}
    found = model.apply(
      {'params': params}, graph, data.num_features, train=train, rngs=rngs
    )
    return jnp.asarray(found)

  def penalty(params):
    return config.weight_decay / 2 * (params['kernel_0'] ** 2).sum()

  def init(key):
    params = model.init(
      jax.random.fold_in(key, 0), nodes.empty(whole), data.num_features, train=False
    )['params']
    return create(params, tx.init(params), jax.random.fold_in(key, 1))

  def train_step(state, graph):
    rng = jax.random.fold_in(state.rng, state.step)

    def loss_fn(params):
      logits = logits_NK(params, graph, True, rng)
      found = nodes.sums(logits, graph, graph['train'], penalty(params))
      return found['loss'].total / found['loss'].count, found

    grads, found = jax.grad(loss_fn, has_aux=True)(state.params)
    grads = steps.watch(grads, 'gradients')
    new = steps.apply(tx, state, grads)
    return new, {**found, **curves.of(config, tx, state, new, grads)}

  def distance(params, graph):
    """Of all nodes, whatever the split."""
    h_NH, _ = model.apply(
      {'params': params}, graph, data.num_features, train=False, method='features'
    )
    return {'distance': Mean(metrics.cosine_distance(h_NH), jnp.ones(()))}

  built = experiment.Experiment(
    init=init,
    train_step=train_step,
    **nodes.reports(
      data, whole, logits_NK, penalty, more=distance, declared={'distance': DISTANCE}
    ),
  )
  if config.members > 1:
    built = vectorize(built, config.members, chunk=config.chunk)
  return built
