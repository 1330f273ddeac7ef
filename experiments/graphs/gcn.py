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
import math

import jax
import jax.numpy as jnp

from dlx import experiment, losses, metrics, optim
from dlx.data.batches.resident import Whole
from dlx.data.sets import graphs
from dlx.models.gcn import GCN
from dlx.state import Mean, Metric, create
from dlx.train import curves, steps
from dlx.train.members import vectorize

METRICS = {
  'loss': Metric(
    'Loss',
    'lower',
    'Mean cross-entropy over the nodes of the split, plus the squares of the first '
    'kernel.',
    'nats',
    'loss',
  ),
  'accuracy': Metric(
    'Accuracy',
    'higher',
    'Share of the nodes of the split whose likeliest class is the true one.',
    '%',
    'share',
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 200  # Optimiser steps of the whole run: epochs.
  log_every_steps: int = 20  # Steps between lines of training metrics.
  eval_every_steps: int | None = 20  # Steps between evaluations; None: at the end.
  # karate_club, cora, citeseer, pubmed, or a set of your own.
  dataset: str = 'karate_club'
  members: int = 1  # Seeds that are trained in one program.
  chunk: int | None = None  # Members that are computed at once; None: all.
  features: int = 16  # Width of the hidden layer.
  dropout: float = 0.5  # Share of features and of hidden units that are dropped.
  lr: float = 1e-2  # Learning rate of Adam, constant.
  weight_decay: float = 5e-4  # Weight of the squares of the first kernel, times a half.

  def __post_init__(self):
    super().__post_init__()
    self.bounds('members', 'chunk', 'features', least=1)
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
    **config.dtypes,
  )
  tx = optim.clip(optim.adam(config.lr), **config.clipping)

  def logits_NK(params, graph, train=False, rng=None):
    rngs = None if rng is None else {'dropout': rng}
    found = model.apply(
      {'params': params}, graph, data.num_features, train=train, rngs=rngs
    )
    return jnp.asarray(found)

  def sums(logits_NK, params, graph, mask_N):
    """Loss with the L2 term, as published, and accuracy, over the nodes of a mask."""
    weight_N = (mask_N & (graph['label'] >= 0)).astype(jnp.float32)
    label_N = jnp.maximum(graph['label'], 0)  # -1: without a label, so of weight 0.
    losses_N = losses.softmax_cross_entropy(logits_NK, label_N)
    l2 = config.weight_decay / 2 * (params['kernel_0'] ** 2).sum()
    count = weight_N.sum()
    return {
      'loss': Mean((losses_N * weight_N).sum() + l2 * count, count),
      'accuracy': metrics.accuracy(logits_NK, label_N, weight_N),
    }

  def init(key):
    shapes = whole.shapes[0].items()
    graph = {name: jnp.zeros(x.shape, x.dtype) for name, x in shapes}
    params = model.init(
      jax.random.fold_in(key, 0), graph, data.num_features, train=False
    )['params']
    return create(params, tx.init(params), jax.random.fold_in(key, 1))

  def train_step(state, graph):
    rng = jax.random.fold_in(state.rng, state.step)

    def loss_fn(params):
      found = sums(logits_NK(params, graph, True, rng), params, graph, graph['train'])
      return found['loss'].total / found['loss'].count, found

    grads, found = jax.grad(loss_fn, has_aux=True)(state.params)
    grads = steps.watch(grads, 'gradients')
    new = steps.apply(tx, state, grads)
    return new, {**found, **curves.of(config, tx, state, new, grads)}

  def evaluation(mask):
    def step(state, graph):
      logits = logits_NK(state.params, graph)
      return sums(logits, state.params, graph, graph[mask])

    return experiment.Eval(step, whole)

  read = ('indices', 'values', 'edges', 'label')

  def predict(state, inputs):
    """Of every node; of `label` the length alone is read."""
    return {'probabilities': jax.nn.softmax(logits_NK(state.params, inputs))}

  def nodes(state, key, graph):
    del key
    probs_NK = predict(state, {k: graph[k] for k in read})['probabilities']
    return {**{k: graph[k] for k in ('label', 'edges', 'test')}, 'probs': probs_NK}

  field = lambda shape, dtype: experiment.Field('graph', shape, dtype)
  function = experiment.Function(
    predict,
    {
      'indices': field(('entries', 2), 'int32'),
      'values': field(('entries',), 'float32'),
      'edges': field(('edges', 2), 'int32'),
      'label': field(('nodes',), 'int32'),
    },
    {
      'probabilities': experiment.Field(
        'probabilities', ('nodes', data.num_classes), 'float32'
      )
    },
  )

  built = experiment.Experiment(
    init=init,
    train_step=train_step,
    train_data=whole,
    evals={name: evaluation(name) for name in ('validation', 'test')},
    functions={'predict': function},
    metrics={
      # The squares of the kernel are small beside it.
      'loss': METRICS['loss']._replace(chance=math.log(data.num_classes)),
      'accuracy': METRICS['accuracy']._replace(chance=1 / data.num_classes),
    },
    headline=('test/accuracy', 'validation/accuracy'),
    figures={'wrong_nodes': experiment.Figure(wrong_nodes, nodes, whole)},
  )
  if config.members > 1:
    built = vectorize(built, config.members, chunk=config.chunk)
  return built


def wrong_nodes(tree, limit: int = 40) -> str:
  """The test nodes that are classified wrongly, surest first, and their neighbours."""
  predicted_N, sure_N = tree['probs'].argmax(1), tree['probs'].max(1)
  label_N, edges_E2 = tree['label'], tree['edges']
  wrong = [n for n in tree['test'].nonzero()[0] if predicted_N[n] != label_N[n]]
  wrong.sort(key=lambda n: -sure_N[n])
  lines = [f'{len(wrong)} of {int(tree["test"].sum())} test nodes are wrong.']
  for n in wrong[:limit]:
    near = [*edges_E2[edges_E2[:, 0] == n, 1], *edges_E2[edges_E2[:, 1] == n, 0]]
    told = ' '.join(f'{m}:{label_N[m]}' for m in near[:12])
    more = f' and {len(near) - 12} more' if len(near) > 12 else ''
    lines.append(
      f'node {n}: class {label_N[n]}, predicted {predicted_N[n]} '
      f'({sure_N[n]:.2f}); neighbours (node:class) {told or "none"}{more}'
    )
  return '\n'.join(lines) + '\n'
