"""Where images lie for a model: its features in the plane."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dlx.errors import ConfigError
from dlx.inspect.maps.model import Model
from dlx.inspect.maps.naming import Layer

LEAST = 3  # Images of a map.


class Plane(NamedTuple):
  """Attributes:
  points_N2: float64.
  shares: of the variance, along each axis.
  """

  points_N2: np.ndarray
  shares: tuple[float, float]


def features(
  model: Model,
  state: Any,
  image_BHWC: np.ndarray,
  layer: Layer | None = None,
  *,
  rows: int = 128,
) -> np.ndarray:
  """What a layer gives, flat: float32 [N, F].

  Args:
    model: of images.
    state: its state.
    image_BHWC: in [0, 1], on the host.
    layer: None: what the last product with weights reads, as a head does.
    rows: images that are computed at once.

  Raises:
    ConfigError: no product with weights.
  """
  if layer is not None:
    call = lambda state, x: model.value(layer, state, x)
  else:
    last = next((r for r in reversed(model.records) if r.is_product), None)
    if last is None or last.turns:
      raise ConfigError('The model has no last layer with weights: name a --layer.')
    call = lambda state, x: model.operand(last, last.reads[0], state, x)
  flat = jax.jit(lambda s, x: call(s, x).reshape(len(x), -1).astype(jnp.float32))
  parts = []
  for start in range(0, len(image_BHWC), rows):
    part = image_BHWC[start : start + rows]
    parts.append(np.asarray(flat(state, jnp.asarray(part))))
  return np.concatenate(parts)


def principal(features_NF: np.ndarray) -> Plane:
  """The first two principal components.

  Signs are such that the largest loading of each is above 0.

  Raises:
    ConfigError: fewer than three images, or features that are all alike.
  """
  if len(features_NF) < LEAST:
    raise ConfigError(
      f'{len(features_NF)} images are not allowed: a map of features needs {LEAST} or '
      'more: leave --num out.'
    )
  centred = np.asarray(features_NF, np.float64)
  centred = centred - centred.mean(0)
  _, size, axes = np.linalg.svd(centred, full_matrices=False)
  total = (size**2).sum()
  if not total:
    raise ConfigError('The features of all images are equal: there is no map of them.')
  axes = np.concatenate([axes, np.zeros((2, axes.shape[1]))])[:2]
  signs = np.sign(axes[np.arange(2), np.abs(axes).argmax(1)])
  shares = np.append(size**2, [0, 0])[:2] / total
  return Plane(
    centred @ (axes * signs[:, None]).T, (float(shares[0]), float(shares[1]))
  )


def neighbours(features_NF: np.ndarray, seed: int = 0) -> np.ndarray:
  """t-SNE (van der Maaten and Hinton 2008) by scikit-learn, [N, 2].

  The perplexity is 30, of fewer than 91 images a third of them.
  """
  from sklearn.manifold import TSNE

  perplexity = min(30, (len(features_NF) - 1) / 3)
  maker = TSNE(2, perplexity=perplexity, init='pca', random_state=seed)
  return np.asarray(maker.fit_transform(features_NF), np.float64)
