"""Node classification from drawn neighbours: GraphSAGE (arXiv 1706.02216).

  python -m launch.train --exp=sage
  python -m launch.train --exp=sage --config.dataset=cora --data_dir=DATA

A step sees `batch_size` training nodes, `fan_out[0]` neighbours of each, `fan_out[1]`
neighbours of those, and so on, drawn with replacement by seed and step: its cost does
not grow with the graph. Evaluations see the whole graph. karate_club (embedded, the
default), cora, citeseer, pubmed, or a graph of your own.

Measured: Cora 79.10 % (1 seed).
"""

import dataclasses

import jax
import jax.numpy as jnp

from dlx import experiment, losses, metrics, optim
from dlx.data.batches import neighbours
from dlx.data.batches.resident import Whole
from dlx.data.sets import graphs
from dlx.data.sets.sampled_graphs import sampled_graph
from dlx.layers import graph as graph_layers
from dlx.models.sage import GraphSage
from dlx.state import create, streams
from dlx.tasks import nodes
from dlx.train import curves, steps


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 200  # Optimiser steps of the whole run.
  batch_size: int = 64  # Training nodes of one step, drawn with replacement.
  log_every_steps: int = 20  # Steps between lines of training metrics.
  eval_every_steps: int | None = 50  # Steps between evaluations; None: at the end.
  # karate_club, cora, citeseer, pubmed, or a set of your own.
  dataset: str = 'karate_club'
  fan_out: tuple[int, ...] = (10, 5)  # Neighbours that are drawn, for each layer.
  aggregation: str = 'mean'  # Over neighbours: mean or max.
  features: int = 32  # Width of the hidden layers.
  dropout: float = 0.5  # Share of features and of hidden units that are dropped.
  lr: float = 1e-2  # Learning rate of Adam, constant.
  weight_decay: float = 5e-4  # Weight of the squares of the kernels, times a half.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('fan_out', least=1, some=True)
    self.choice('aggregation', of=('mean', 'max'))
    self.bounds('features', least=1)
    self.bounds('dropout', least=0, below=1)
    self.bounds('lr', above=0)
    self.bounds('weight_decay', least=0)
    self.choice('compute_dtype', of=experiment.UNSCALED_DTYPES)
    self.unused('micro_batches', 'stream', why='nodes are drawn on the devices')
    self.unused('ema_decay', why='not used here')


# Fields that are used by arithmetic alone: runs that differ in them share a program.
SWEPT = ('lr', 'weight_decay')
# The least run that still has every part.
SMALL = Config.small(fan_out=(2, 2), features=8)


def build(config: Config) -> experiment.Experiment:
  data = sampled_graph(graphs.graph(config.dataset, sparse=True))
  whole = Whole(data.source)
  model = GraphSage(
    config.features,
    data.num_classes,
    depth=len(config.fan_out),
    aggregation=config.aggregation,
    dropout=config.dropout,
    **config.dtypes,
  )
  tx = optim.clip(optim.adam(config.lr), **config.clipping)

  def whole_logits_NK(params, graph):
    x = graph_layers.normalised_rows(graph, data.num_features)
    links = graph_layers.links_of(graph['edges'], x.shape[0], self_loops=False)
    return jnp.asarray(model.apply({'params': params}, x, links, train=False))

  def penalty(params):
    named = [(k, x) for layer in params.values() for k, x in layer.items()]
    kernels = [x for name, x in named if name.startswith('kernel')]
    return config.weight_decay / 2 * sum((x**2).sum() for x in kernels)

  def init(key):
    none = jnp.zeros(1, jnp.int32)
    links = graph_layers.Links(none, none, jnp.ones(1))
    x = jnp.zeros((1, data.num_features))
    params = model.init(jax.random.fold_in(key, 0), x, links, train=False)['params']
    return create(params, tx.init(params), jax.random.fold_in(key, 1))

  def drawn(rng, graph):
    """Training nodes [B], features of what stands at each place, and links."""
    which, around = streams(rng, 'nodes', 'neighbours')
    usable_N = graph['train'] & (graph['label'] >= 0)
    place_N = jnp.cumsum(usable_N)
    number_B = jax.random.randint(which, (config.batch_size,), 1, place_N[-1] + 1)
    nodes_B = jnp.searchsorted(place_N, number_B).astype(jnp.int32)
    rows = neighbours.Neighbourhoods(graph['start'], graph['neighbour'])
    tree = neighbours.sample(around, rows, nodes_B, config.fan_out)
    nodes_M, links = neighbours.as_links(tree)
    x_MF = jnp.asarray(graph['features'])[nodes_M]
    total_M1 = x_MF.sum(1, keepdims=True)
    x_MF /= jnp.where(total_M1 == 0, 1, total_M1)
    return nodes_B, x_MF, graph_layers.Links(*links)

  def train_step(state, graph):
    rng = jax.random.fold_in(state.rng, state.step)
    (dropout,) = streams(rng, 'dropout')
    nodes_B, x_MF, links = drawn(rng, graph)
    label_B = jnp.asarray(graph['label'])[nodes_B]

    def loss_fn(params):
      logits_MK = model.apply(
        {'params': params}, x_MF, links, train=True, rngs={'dropout': dropout}
      )
      logits_BK = jnp.asarray(logits_MK)[: config.batch_size]
      losses_B = losses.softmax_cross_entropy(logits_BK, label_B)
      loss_B = losses_B + penalty(params)
      return loss_B.mean(), {
        'loss': metrics.mean(loss_B),
        'accuracy': metrics.accuracy(logits_BK, label_B, jnp.ones_like(loss_B)),
      }

    grads, found = jax.grad(loss_fn, has_aux=True)(state.params)
    grads = steps.watch(grads, 'gradients')
    new = steps.apply(tx, state, grads)
    return new, {**found, **curves.of(config, tx, state, new, grads)}

  return experiment.Experiment(
    init=init,
    train_step=train_step,
    **nodes.reports(data, whole, whole_logits_NK, penalty),
  )
