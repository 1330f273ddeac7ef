"""Trees on any table: a random forest or gradient boosting, what nets must beat.

  python -m launch.train --exp=table_trees
  python -m launch.train --exp=table_trees --config.model=forest
  python -m launch.train --exp=table_trees --config.dataset=california_housing \
      --data_dir=DATA

  forest    a random forest (Breiman 2001)
  boosting  gradient boosting by histograms (Friedman 2001; LightGBM's form)

scikit-learn fits on the host, once, before step 0, on the rows that `validation`
leaves. The fitted trees then are arrays of the state, and evaluation and `predict` are
pure JAX: the answers are scikit-learn's own, whose thresholds are halves between the
numbers of training. Steps change nothing; they report the loss on the training stream.
Tables, missing numbers, reported figures and `predict` are those of `tabular`; a
category is one-hot, a number as measured.

Measured: California housing, boosting, RMSE 47303 dollars (least squares 69669).
"""

import dataclasses
import importlib.metadata
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import threadpoolctl

from dlx import experiment, metrics
from dlx.data.batches.choose import in_order, parts, training
from dlx.data.sets import columns
from dlx.data.sources import remembered
from dlx.errors import DataError
from dlx.models import estimators, trees
from dlx.state import Mean, Metric, create
from dlx.tasks import tables

FEW = 1 << 20  # Numbers of all rows, up to which one thread fits.
EPSILON = float(np.finfo(np.float32).eps)  # Least probability, as scikit-learn's loss.
FITTED = Metric(
  'Fitted numbers',
  None,
  'Numbers that the trees consist of: features, thresholds and values of the nodes.',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(experiment.Config):
  num_steps: int = 12  # Batches on which the fitted trees are scored in training.
  batch_size: int = 128  # Examples of one global batch.
  log_every_steps: int = 12  # Steps between lines of training metrics.
  # diabetes, wine, breast_cancer (embedded), california_housing, or a set of your own.
  dataset: str = 'diabetes'
  model: str = 'boosting'  # forest or boosting.
  # What a missing number becomes: indicator (the median, and a mark), median, refuse.
  missing: str = 'indicator'
  trees: int = 100  # Trees of the forest; rounds of boosting, of a tree for each class.
  # Most leaves of a tree; None: 8192, of boosting 31.
  max_leaves: int | None = None
  least_rows: int | None = None  # Least rows of a leaf; None: 1, of boosting 20.
  shrinkage: float = 0.1  # Share of each tree's answer that boosting adds.

  def __post_init__(self):
    super().__post_init__()
    self.choice('model', of=('forest', 'boosting'))
    self.choice('missing', of=columns.MISSING)
    self.bounds('shrinkage', above=0)
    self.bounds('trees', 'least_rows', least=1)
    self.bounds('max_leaves', least=2)
    fitting = 'micro_batches', 'clip_norm', 'clip_value', 'ema_decay', 'curves'
    self.unused(*fitting, why='scikit-learn fits, not the train step')
    self.unused('stream', why='scikit-learn fits all examples at once')

  def resolved(self) -> 'Config':
    """`max_leaves` and `least_rows` by the model."""
    boosting = self.model == 'boosting'
    return dataclasses.replace(
      self,
      max_leaves=self.max_leaves or (31 if boosting else 8192),
      least_rows=self.least_rows or (20 if boosting else 1),
    )


# The least run that still has every part.
SMALL = Config.small(trees=8, max_leaves=8)


def build(config: Config) -> experiment.Experiment:
  config = config.resolved()
  data = columns.table(config.dataset, config.missing)
  by_class = 'label' if data.class_names else None
  source, held = parts(data.train, config, by_class=by_class)
  source, recall = remembered(source)
  boosting, num_classes = config.model == 'boosting', len(data.class_names)
  size, most = source.size, config.max_leaves or 0
  nodes = 2 * (most if size is None else min(size, most)) - 1
  number = config.trees * (num_classes if boosting and num_classes else 1)
  width = 1 if boosting else num_classes or 1
  factor_F, shift_F = units(data)

  def measured(row):
    """Columns in their units, [B, F]."""
    return tables.inputs(data, row) * factor_F[None] + shift_F[None]

  def init(key):
    model = {
      'trees': trees.blank(number, nodes),
      'value': jnp.zeros((number, nodes, width)),
      'base': jnp.zeros(num_classes or 1),
    }
    params = {'model': model, 'size': jnp.zeros((), jnp.int32)}
    return create(params, (), key)

  def outputs(state, batch):
    """Logits [B, K], or the standardised target [B, 1]; nan of a wrong code."""
    params, x_BF = state.params['model'], measured(batch)
    found = trees.values(params['value'], trees.leaves(params['trees'], x_BF))
    if boosting:
      by_round = found.reshape(found.shape[0], config.trees, -1)
      found = by_round.sum(1) + params['base'][None]
    elif num_classes:
      found = jnp.log(jnp.maximum(found.mean(1), EPSILON))
    else:
      found = found.mean(1)
    return jnp.where(jnp.isnan(x_BF).any(1, keepdims=True), jnp.nan, found)

  def fit(state):
    """The state with the fitted trees, and what fitted them."""
    rows, start = recall(), time.perf_counter()
    x_NF = np.asarray(measured(rows))
    target = np.asarray(rows['label' if num_classes else 'target'])
    if num_classes and len(np.unique(target)) < 2:
      raise DataError(
        f'{source.name}/{source.split}: label: all rows are of one class, which leaves '
        'nothing to learn: hold out less, or take another set.'
      )
    model = learner(config, bool(num_classes))
    # On little data threads cost more than they give, on a busy machine a hundredfold.
    with threadpoolctl.threadpool_limits(1 if x_NF.size < FEW else None):
      model.fit(x_NF, target)
    if not num_classes:
      grown = estimators.of_numbers(model)
    else:
      of = estimators.boosting if boosting else estimators.forest
      grown = of(model, num_classes)
    value = np.zeros((number, nodes, width))
    for i, x in enumerate(grown.values):
      value[i, : len(x)] = x
    leaves = sum(int(tree.leaf_N.sum()) for tree in grown.nodes)
    splits = sum(len(tree.leaf_N) for tree in grown.nodes) - leaves
    wide = [widened(tree, factor_F, shift_F) for tree in grown.nodes]
    packed = trees.pack(wide, number, nodes)
    params = {
      'model': {'trees': packed, 'value': value, 'base': grown.base_K},
      'size': np.int32(2 * splits + width * leaves),
    }
    as_declared = lambda old, new: jnp.asarray(new, old.dtype)
    return state._replace(params=jax.tree.map(as_declared, state.params, params)), {
      'library': f'scikit-learn {importlib.metadata.version("scikit-learn")}',
      'estimator': type(model).__name__,
      'examples': len(target),
      'seconds': round(time.perf_counter() - start, 3),
    }

  told, summary_of_test = tables.reported(data, outputs)

  def train_step(state, batch):
    found = outputs(state, batch)
    ones = jnp.ones(found.shape[0])
    sums = told['train_metrics'](found, batch, ones)
    loss = metrics.mean(told['loss'](found, batch))
    return state._replace(step=state.step + 1), {'loss': loss, **sums}

  def test(state, batch):
    found, weight = outputs(state, batch), batch['weight']
    size = Mean(state.params['size'].astype(jnp.float32), jnp.ones(()))
    return {
      'loss': metrics.mean(told['loss'](found, batch), weight),
      **told['metrics'](found, batch, weight),
      'fitted': size,
    }

  passes = {
    split: experiment.Eval(test, in_order(x, config.eval_batch_size), None, summarize)
    for split, x, summarize in (
      ('validation', held, told['summarize']),
      ('test', data.test, summary_of_test),
    )
    if x is not None
  }
  return experiment.Experiment(
    init,
    train_step,
    training(source, config),
    passes,
    fit,
    functions=told['functions'],
    metrics={**told['declared'], 'fitted': FITTED},
    headline=told['headline'],
    figures=told['figures'],
    overfit='nothing is learnt in steps: scikit-learn fits before them',
  )


def units(data: columns.ColumnData) -> tuple[np.ndarray, np.ndarray]:
  """What brings `tables.inputs` to the unit of the columns: factor, shift, both [F]."""
  others = tables.num_inputs(data) - len(data.numbers)
  factor = [c.std for c in data.numbers] + [1.0] * others
  shift = [c.mean - (c.since or 0) for c in data.numbers] + [0.0] * others
  return np.array(factor, np.float32), np.array(shift, np.float32)


def widened(tree: trees.Nodes, factor_F: Any, shift_F: Any) -> trees.Nodes:
  """A tree in which a number that is equal to a threshold goes left in any rounding.

  Thresholds lie half-way between two numbers of training, where others may lie, too: of
  2 and 4 it is 3. A number that was standardised and brought back shall find the leaf
  that it finds as measured.
  """
  at_N = np.asarray(tree.threshold_N, np.float64)
  feature_N = np.where(tree.leaf_N, 0, tree.feature_N)
  size_N = (factor_F + np.abs(shift_F))[feature_N] + np.abs(at_N)
  return tree._replace(threshold_N=at_N + 4 * np.finfo(np.float32).eps * size_N)


def learner(config: Config, of_classes: bool) -> Any:
  """scikit-learn's estimator."""
  from sklearn import ensemble

  options: Any = {
    'random_state': config.seed,
    'max_leaf_nodes': config.max_leaves,
    'min_samples_leaf': config.least_rows,
  }
  if config.model == 'boosting':
    options |= {
      'learning_rate': config.shrinkage,
      'max_iter': config.trees,
      'early_stopping': False,
    }
    kinds = (
      ensemble.HistGradientBoostingRegressor,
      ensemble.HistGradientBoostingClassifier,
    )
  else:
    options |= {'n_estimators': config.trees, 'n_jobs': -1}
    kinds = ensemble.RandomForestRegressor, ensemble.RandomForestClassifier
  return kinds[of_classes](**options)
