"""What every classifier of the nodes of one graph reports, by masks of nodes.

A batch is the whole graph, as `dlx.data.sets.graphs.graph(name, sparse=True)` gives it.
The experiment has the model and the train step; here are loss and figures of a mask,
the two evaluations, the function `predict`, and a list of the nodes that are wrong.
"""

import math
from typing import Any, Callable, Mapping

import jax
import jax.numpy as jnp

from dlx import losses, metrics
from dlx.data.batches.resident import Whole
from dlx.data.formats.planetoid import GraphData
from dlx.experiment import Eval, Field, Figure, Function
from dlx.state import Array, Batch, Mean, Metric, Metrics, PyTree

METRICS = {
  'loss': Metric(
    'Loss',
    'lower',
    'Mean cross-entropy over the nodes of the split, plus the penalty of weights.',
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
READ = ('indices', 'values', 'edges', 'label')  # Fields that models read.


def empty(whole: Whole) -> Batch:
  """A graph of the declared shapes, all 0: what a model is initialised with."""
  return {name: jnp.zeros(x.shape, x.dtype) for name, x in whole.shapes[0].items()}


def sums(
  logits_NK: Array, graph: Batch, mask_N: Array, penalty: Array | float
) -> Metrics:
  """`loss` with the penalty, and `accuracy`, over the nodes of a mask with a label."""
  weight_N = (mask_N & (graph['label'] >= 0)).astype(jnp.float32)
  label_N = jnp.maximum(graph['label'], 0)  # -1: without a label, so of weight 0.
  losses_N = losses.softmax_cross_entropy(logits_NK, label_N)
  count = weight_N.sum()
  return {
    'loss': Mean((losses_N * weight_N).sum() + penalty * count, count),
    'accuracy': metrics.accuracy(logits_NK, label_N, weight_N),
  }


def reports(
  data: GraphData,
  whole: Whole,
  logits: Callable[[PyTree, Batch], Array],
  penalty: Callable[[PyTree], Array | float],
  *,
  more: Callable[[PyTree, Batch], Metrics] | None = None,
  declared: Mapping[str, Metric] | None = None,
) -> dict[str, Any]:
  """Fields of an `Experiment`: evaluations, function, metrics, headline and figure.

  Args:
    data: what is known of the graph.
    whole: of its source.
    logits: (params, graph) -> [N, K], as evaluation sees it; reads the fields READ.
    penalty: of the parameters, what training adds to the loss.
    more: (params, graph) -> further sums of an evaluation.
    declared: declarations of these.
  """

  def evaluation(mask):
    def step(state, graph):
      found = logits(state.params, graph)
      own = sums(found, graph, graph[mask], penalty(state.params))
      return {**own, **(more(state.params, graph) if more else {})}

    return Eval(step, whole)

  def predict(state, inputs):
    """Of every node; of `label` the length alone is read."""
    return {'probabilities': jax.nn.softmax(logits(state.params, inputs))}

  def nodes(state, key, graph):
    del key
    probs_NK = predict(state, {k: graph[k] for k in READ})['probabilities']
    return {**{k: graph[k] for k in ('label', 'edges', 'test')}, 'probs': probs_NK}

  probabilities = Field('probabilities', ('nodes', data.num_classes), 'float32')
  return {
    'train_data': whole,
    'evals': {name: evaluation(name) for name in ('validation', 'test')},
    'functions': {
      'predict': Function(predict, graph_fields(), {'probabilities': probabilities})
    },
    'metrics': {
      # The penalty is small beside it.
      'loss': METRICS['loss']._replace(chance=math.log(data.num_classes)),
      'accuracy': METRICS['accuracy']._replace(chance=1 / data.num_classes),
      **(declared or {}),
    },
    'headline': ('test/accuracy', 'validation/accuracy'),
    'figures': {'wrong_nodes': Figure(wrong_nodes, nodes, whole)},
  }


def graph_fields() -> dict[str, Field]:
  """Inputs of a function of a graph: what models read."""
  field = lambda shape, dtype: Field('graph', shape, dtype)
  return {
    'indices': field(('entries', 2), 'int32'),
    'values': field(('entries',), 'float32'),
    'edges': field(('edges', 2), 'int32'),
    'label': field(('nodes',), 'int32'),
  }


def wrong_nodes(tree: Mapping[str, Any], limit: int = 40) -> str:
  """The test nodes that are classified wrongly, surest first, and their neighbours.

  Args:
    tree: NumPy arrays `label` [N], `edges` [E, 2], `test` bool [N], `probs` [N, K].
    limit: nodes that are listed.
  """
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
