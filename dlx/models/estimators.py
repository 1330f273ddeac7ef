"""Fitted estimators of scikit-learn as arrays, whose answers are scikit-learn's own.

layers      LogisticRegression, MLPClassifier: kernels and biases
forest      DecisionTreeClassifier, RandomForestClassifier: trees with shares of classes
boosting    HistGradientBoostingClassifier: trees with parts of logits
of_numbers  RandomForestRegressor, HistGradientBoostingRegressor: trees with numbers

Classes are numbers in [0, K); estimators know those that they have seen. NumPy and
float64; scikit-learn itself is not imported.
"""

from typing import Any, NamedTuple

import numpy as np

from dlx.models.trees import Nodes

NEVER = -1e9  # Logit of a class that was not seen: its probability is 0.


class Grown(NamedTuple):
  """Trees and what stands at their nodes.

  Attributes:
    nodes: of each tree.
    values: [N, V] of each tree.
    base_K: what is added to the logits.
  """

  nodes: list[Nodes]
  values: list[np.ndarray]
  base_K: np.ndarray


def spread(x: Any, classes: Any, num_classes: int, fill: float) -> np.ndarray:
  """Columns of the classes that were seen, [..., k], among those of all, [..., K].

  A single column is the logit of the second of two classes; the first has logit 0.
  """
  x = np.asarray(x)
  if x.shape[-1] == 1 and len(classes) == 2:
    x = np.concatenate([np.zeros_like(x), x], -1)
  found = np.full((*x.shape[:-1], num_classes), fill)
  found[..., np.asarray(classes, int)] = x
  return found


def layers(estimator: Any, num_classes: int) -> list[dict[str, np.ndarray]]:
  """`kernel` [I, O] and `bias` [O] of each layer; ReLU stands between two.

  Args:
    estimator: a LogisticRegression, or an MLPClassifier of `activation='relu'`.
    num_classes: K, the width of the last layer, of whose logits the softmax is taken.
  """
  if hasattr(estimator, 'coefs_'):
    kernels, biases = list(estimator.coefs_), list(estimator.intercepts_)
  else:
    kernels, biases = [estimator.coef_.T], [estimator.intercept_]
  seen = estimator.classes_
  kernels[-1] = spread(kernels[-1], seen, num_classes, 0.0)
  biases[-1] = spread(biases[-1], seen, num_classes, NEVER)
  return [{'kernel': a, 'bias': b} for a, b in zip(kernels, biases, strict=True)]


def forest(estimator: Any, num_classes: int) -> Grown:
  """Of one tree or of a forest: V = K shares of the classes at each node.

  The mean of the shares at the leaves that an example reaches are its probabilities.
  """
  found, nodes = _of_members(estimator)
  shares = [t.value[:, 0] / t.value[:, 0].sum(1, keepdims=True) for t in found]
  values = [spread(x, estimator.classes_, num_classes, 0.0) for x in shares]
  return Grown(nodes, values, np.zeros(num_classes))


def boosting(estimator: Any, num_classes: int) -> Grown:
  """Trees by rounds and then by classes, V = 1: parts of the logit of that class.

  `base_K` and the parts of all rounds add up to the logits. A class that was not seen,
  and the first of two, have trees of a single leaf of value 0.
  """
  seen = estimator.classes_
  # No public way leads to the nodes; a test compares every probability.
  base_K = spread(estimator._baseline_prediction[0], seen, num_classes, NEVER)
  columns = [int(k) for k in (seen[1:] if len(seen) == 2 else seen)]
  root = np.zeros(1, int)
  absent = Nodes(root, root, root, root, np.ones(1, bool)), np.zeros((1, 1))
  nodes, values = [], []
  for predictors in estimator._predictors:
    grown = dict(zip(columns, (one.nodes for one in predictors), strict=True))
    for k in range(num_classes):
      tree, value = _of_predictor(grown[k]) if k in grown else absent
      nodes.append(tree)
      values.append(value)
  return Grown(nodes, values, base_K)


def of_numbers(estimator: Any) -> Grown:
  """Of a regressor: V = 1, a number at each node, and `base_K` [1].

  Of a forest, whose base is 0, the mean of the numbers at the leaves is the answer; of
  boosting their sum and the base.
  """
  if hasattr(estimator, '_predictors'):
    grown = [_of_predictor(one.nodes) for (one,) in estimator._predictors]
    base = np.asarray(estimator._baseline_prediction, np.float64).reshape(1)
    return Grown([tree for tree, _ in grown], [value for _, value in grown], base)
  found, nodes = _of_members(estimator)
  return Grown(nodes, [t.value[:, 0] for t in found], np.zeros(1))


def _of_members(estimator: Any) -> tuple[list[Any], list[Nodes]]:
  """The trees of a forest, or the one of a tree, and their nodes."""
  members = getattr(estimator, 'estimators_', [estimator])
  found = [member.tree_ for member in members]
  return found, [
    Nodes(
      t.feature, t.threshold, t.children_left, t.children_right, t.children_left < 0
    )
    for t in found
  ]


def _of_predictor(n: Any) -> tuple[Nodes, np.ndarray]:
  ways = n['left'], n['right'], n['is_leaf'].astype(bool)
  return Nodes(n['feature_idx'], n['num_threshold'], *ways), n['value'][:, None]
