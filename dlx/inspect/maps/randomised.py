"""Does a map depend on what was learnt? The check of arXiv:1810.03292.

From the last layer to the first the weights are shuffled, each tensor within itself, so
that its distribution stays; a map that hardly changes shows the image, not the model.
"""

from typing import Any, Callable, Iterator, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlx.inspect.maps.model import Model


class Changed(NamedTuple):
  """Attributes:
  layer: name of the layer that was shuffled last, with all after it.
  correlation_B: Spearman's, of each map with that of the trained model; 0 where one of
    them is constant.
  map_BHW: the maps.
  """

  layer: str
  correlation_B: np.ndarray
  map_BHW: np.ndarray


def cascade(model: Model, state: Any, key: Any) -> Iterator[tuple[str, Any]]:
  """(layer, state) from the last layer to the first, shuffled up to there.

  Weights are the parameters, or their average where the model reads that; running
  statistics stay.
  """
  leaves, structure = jax.tree.flatten(state)
  by_layer: dict[str, list[int]] = {}
  seen: set[int] = set()
  for record in model.records:
    new = [i for i in sorted(record.weights) if i not in seen and _learnt(model, i)]
    seen.update(new)
    if new:
      by_layer.setdefault(model.name_of(record.path), []).extend(new)
  for layer, numbers in reversed(by_layer.items()):
    for i in numbers:
      flat = jnp.ravel(leaves[i])
      order = jax.random.permutation(jax.random.fold_in(key, i), flat.size)
      leaves[i] = flat[order].reshape(leaves[i].shape)
    yield layer, jax.tree.unflatten(structure, leaves)


def _learnt(model: Model, number: int) -> bool:
  return model.leaves[number].startswith(('params/', 'ema/'))


def randomised(
  model: Model, state: Any, explain: Callable[[Any], Any], key: Any
) -> Iterator[Changed]:
  """The maps of a model whose weights are shuffled, layer by layer.

  Args:
    model: of images.
    state: as trained.
    explain: state -> maps [B, H, W]; signs do not count.
    key: of the shuffles.
  """
  first = np.abs(np.asarray(explain(state)))
  for layer, changed in cascade(model, state, key):
    now = np.asarray(explain(changed))
    yield Changed(layer, rank_correlation(first, np.abs(now)), now)


def rank_correlation(a_BHW: Any, b_BHW: Any) -> np.ndarray:
  """Spearman's correlation of two maps, [B]; of ties the mean rank, 0 of a constant."""
  a, b = (_ranks(np.asarray(x).reshape(len(x), -1)) for x in (a_BHW, b_BHW))
  a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
  below = np.sqrt((a**2).sum(1) * (b**2).sum(1))
  return np.where(below > 0, (a * b).sum(1) / np.where(below > 0, below, 1), 0)


def _ranks(x_BN: np.ndarray) -> np.ndarray:
  """From 0; equal values have the mean of their ranks."""
  found = []
  for row in x_BN:
    _, inverse, count = np.unique(row, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    found.append(((last - count + last - 1) / 2)[inverse.reshape(-1)])
  return np.stack(found)
